//! Breakpoints as values of the program.

use crate::error::Error;
use crate::link::Link;
use std::fmt;
use std::sync::Arc;
use std::sync::Weak;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::breakpoint;
use vmm_core_defs::breakpoint::BreakpointChange;
use vmm_core_defs::breakpoint::BreakpointKind;
use vmm_core_defs::debug_rpc::DebugRequest;
use vmm_core_defs::stop::DebugStopReason;

/// A breakpoint or watchpoint that is set. Dropping it removes it, unless another value stands for the same breakpoint.
///
/// It does not keep the session: when the debugger is gone, so is the breakpoint.
#[derive(Debug)]
#[must_use = "the breakpoint is removed when this is dropped"]
pub struct Breakpoint {
    /// As it is in the VMM's table.
    set: breakpoint::Breakpoint,
    link: Weak<Link>,
}

impl Breakpoint {
    pub(crate) async fn set(
        link: &Arc<Link>,
        kind: BreakpointKind,
        address: Gva,
        len: u64,
    ) -> Result<Self, Error> {
        let set = breakpoint::Breakpoint { kind, address, len };
        // Counted before it is sent: a future that is dropped from here on removes the breakpoint.
        *link.breakpoints().entry(set).or_default() += 1;
        let this = Self {
            set,
            link: Arc::downgrade(link),
        };
        let change = vec![BreakpointChange::Insert(set)];
        let request = match kind.is_watchpoint() {
            true => "set a watchpoint",
            false => "set a breakpoint",
        };
        link.call(request, DebugRequest::SetDebugState, change)
            .await?;
        Ok(this)
    }

    /// The address, in bytes.
    pub fn address(&self) -> u64 {
        self.set.address.value()
    }

    /// The breakpoint as it is in the VMM's table.
    pub(crate) const fn in_table(&self) -> breakpoint::Breakpoint {
        self.set
    }

    /// Whether this breakpoint is the reason of a stop.
    pub fn is_reason(&self, reason: &DebugStopReason) -> bool {
        match reason {
            DebugStopReason::Breakpoint { breakpoint, .. }
            | DebugStopReason::Watchpoint { breakpoint, .. } => *breakpoint == self.set,
            _ => false,
        }
    }

    /// Removes the breakpoint, as dropping the value does. The VMM carries out later requests of the program without the breakpoint.
    pub fn remove(self) {
        drop(self);
    }

    /// What the program waits for, as text.
    pub(crate) fn wanted(&self) -> String {
        let what = match self.set.kind.is_watchpoint() {
            true => "an access to the watched bytes",
            false => "the breakpoint",
        };
        format!("{what} at {}", self.set.address)
    }
}

/// For people: `breakpoint at 0x1000`.
impl fmt::Display for Breakpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let breakpoint::Breakpoint { kind, address, len } = self.set;
        match kind {
            BreakpointKind::Execute => write!(f, "hardware breakpoint at {address}"),
            kind if kind.is_watchpoint() => write!(f, "watchpoint on {len} bytes at {address}"),
            _ => write!(f, "breakpoint at {address}"),
        }
    }
}

impl Drop for Breakpoint {
    fn drop(&mut self) {
        let Some(link) = self.link.upgrade() else {
            return;
        };
        let mut breakpoints = link.breakpoints();
        let Some(count) = breakpoints.get_mut(&self.set) else {
            return;
        };
        *count -= 1;
        if *count > 0 {
            return;
        }
        breakpoints.remove(&self.set);
        // Under the lock, so that a new breakpoint at this address is set after this one is removed. An answer is not waited for: the end of the session removes
        // whatever is left.
        drop(link.send(
            DebugRequest::SetDebugState,
            vec![BreakpointChange::Remove(self.set)],
        ));
    }
}
