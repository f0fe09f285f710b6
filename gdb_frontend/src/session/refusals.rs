//! The reasons why breakpoints and writes of registers were refused, for the user of the client.
//!
//! Clients drop the text of an error reply to `Z`, and old ones that of an error reply to `P` and `G`. The protocol allows console output only while the client waits for a
//! stop or for the answer to `qRcmd` (GDB manual, node "Stop Reply Packets", `O`; node "General Query Packets",
//! `qRcmd`). So the reasons wait for the next resume. If the client gives up its resume because of the errors, they
//! wait for the next `monitor` command that no script sends.

use crate::target::Breakpoint;
use crate::target::BreakpointKind;
use std::fmt;
use std::fmt::Write as _;

/// A request that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    Breakpoint(Breakpoint),
    /// A write of registers.
    Registers,
}

/// The maximum number of reasons that are kept for a client that inserts refused breakpoints again and again.
const MOST: usize = 8;

/// The reasons that the user has not seen yet.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    waiting: Vec<(Refused, String)>,
    /// The number of further refused requests.
    more: u32,
}

impl Refusals {
    pub(super) fn add(&mut self, refused: Refused, why: String) {
        self.withdraw(refused);
        if self.waiting.len() < MOST {
            self.waiting.push((refused, why));
        } else {
            self.more = self.more.saturating_add(1);
        }
    }

    /// Removes a request that was accepted after all.
    pub(super) fn withdraw(&mut self, accepted: Refused) {
        self.waiting.retain(|(refused, _)| *refused != accepted);
    }

    /// Takes all reasons as text. The user sees them once.
    pub(super) fn take(&mut self) -> Option<String> {
        let mut text = String::new();
        let mut last = None;
        for (refused, why) in self.waiting.drain(..) {
            let _ = match last.as_ref() == Some(&why) {
                true => writeln!(text, "{refused} was refused for the same reason."),
                false => writeln!(text, "{refused} was refused: {why}"),
            };
            last = Some(why);
        }
        match std::mem::take(&mut self.more) {
            0 => {}
            more => {
                let _ = writeln!(
                    text,
                    "{more} further breakpoints were refused; `monitor breakpoints` lists the last ones."
                );
            }
        }
        (!text.is_empty()).then_some(text)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Breakpoint(Breakpoint { kind, address, .. }) = self else {
            return f.write_str("The last write of registers");
        };
        let kind = match kind {
            BreakpointKind::Software => "breakpoint",
            BreakpointKind::Hardware => "hardware breakpoint",
            BreakpointKind::Write | BreakpointKind::Read | BreakpointKind::Access => "watchpoint",
        };
        write!(f, "The {kind} at {address:#x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: u64) -> Refused {
        Refused::Breakpoint(Breakpoint {
            kind: BreakpointKind::Write,
            address,
            len: 8,
        })
    }

    #[test]
    fn each_reason_is_told_once_and_not_for_what_was_accepted_after_all() {
        let mut refusals = Refusals::default();
        assert_eq!(refusals.take(), None);
        refusals.add(at(1), "no".to_owned());
        refusals.add(at(2), "no room".to_owned());
        refusals.add(at(1), "not now".to_owned());
        refusals.withdraw(at(2));
        let told = "The watchpoint at 0x1 was refused: not now\n".to_owned();
        assert_eq!(refusals.take(), Some(told));
        assert_eq!(refusals.take(), None);
    }

    #[test]
    fn a_reason_of_several_in_a_row_is_written_once() {
        let mut refusals = Refusals::default();
        for (address, why) in [(1, "no"), (2, "no"), (3, "no room"), (4, "no")] {
            refusals.add(at(address), why.to_owned());
        }
        let text = "The watchpoint at 0x1 was refused: no\n\
                    The watchpoint at 0x2 was refused for the same reason.\n\
                    The watchpoint at 0x3 was refused: no room\n\
                    The watchpoint at 0x4 was refused: no\n";
        assert_eq!(refusals.take().as_deref(), Some(text));
    }

    #[test]
    fn a_client_that_goes_on_for_ever_fills_no_memory() {
        let mut refusals = Refusals::default();
        for address in 0..1000 {
            refusals.add(at(address), "no".to_owned());
        }
        let text = refusals.take().unwrap();
        assert_eq!(text.lines().count(), MOST + 1);
        assert!(text.contains("992 further breakpoints"), "{text}");
    }
}
