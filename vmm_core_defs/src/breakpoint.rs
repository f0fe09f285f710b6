//! What a debugger can ask to be stopped at.

use crate::addr::Gpa;
use crate::addr::Gva;
use crate::memory::WalkFaultReason;
use serde::Deserialize;
use serde::Serialize;
use thiserror::Error;

/// A place, and what has to happen there.
///
/// It holds for every VP of the guest. Two breakpoints are the same when all fields are: inserting one twice is one
/// breakpoint: a client may insert again what it is not sure of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Breakpoint {
    /// What has to happen.
    pub kind: BreakpointKind,
    /// The first byte watched, a linear address on x86.
    pub address: Gva,
    /// How many bytes are watched. For [`BreakpointKind::Software`] and [`BreakpointKind::Execute`] it is the length of the
    /// breakpoint instruction as the client gives it (1 on x86) and not otherwise used.
    ///
    /// x86 debug registers watch 1, 2, 4 or 8 bytes at an address that is a multiple of that (SDM volume 3, "Debug Address
    /// Registers"); anything else is refused with [`DebugError::BadBreakpoint`](crate::debug_rpc::DebugError::BadBreakpoint).
    pub len: u64,
}

/// The events a breakpoint can wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BreakpointKind {
    /// The instruction at the address is about to execute; the client asked for a software breakpoint.
    ///
    /// How it is armed is the runner's choice and never visible to client or guest.
    Software,
    /// The instruction at the address is about to execute; held in a debug register.
    Execute,
    /// A watched byte was written.
    Write,
    /// A watched byte was read. x86 has no read-only watchpoint: there it also stops on writes.
    Read,
    /// A watched byte was read or written.
    ReadWrite,
}

impl BreakpointKind {
    /// Whether it waits for a data access rather than for an instruction.
    pub const fn is_watchpoint(self) -> bool {
        matches!(self, Self::Write | Self::Read | Self::ReadWrite)
    }
}

/// One change of the breakpoint table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BreakpointChange {
    /// Adds it. Adding what is there already is no error.
    Insert(Breakpoint),
    /// Takes it away. Taking away what is not there is
    /// [`DebugError::NoSuchBreakpoint`](crate::debug_rpc::DebugError::NoSuchBreakpoint).
    Remove(Breakpoint),
}

/// A breakpoint and how the guest is made to stop at it, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakpointStatus {
    /// As the client inserted it.
    pub breakpoint: Breakpoint,
    /// What stands for it now.
    pub arming: Arming,
}

/// What stands for a breakpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Arming {
    /// A breakpoint instruction in guest memory.
    Memory {
        /// Its byte.
        gpa: Gpa,
    },
    /// A debug register.
    DebugRegister {
        /// 0 to 3 on x86.
        number: usize,
        /// For a software breakpoint: why it is not in memory. `None` where every software breakpoint is on a debug register.
        why: Option<Pending>,
    },
    /// Nothing yet: the guest runs past it.
    Pending {
        /// What it waits for, if not for a debug register only. `None` where it has not been armed yet.
        why: Option<Pending>,
    },
}

/// Why a software breakpoint is not in memory. A debug register holds it where one is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Pending {
    /// No page maps its address.
    #[error("no page maps it yet: {0}")]
    Unmapped(WalkFaultReason),
    /// Its address needs long mode, which the guest has not entered.
    #[error("it is not an address before long mode")]
    TooHigh,
    /// Its address leads to a device, to read-only memory or to nothing.
    #[error("no writable RAM is there")]
    NoRam,
    /// The breakpoint instruction does not stop a VP in the mode that the VP is in.
    #[error("INT3 does not trap in this processor mode on this host")]
    NotTrapped,
    /// An `INT3` there is never met: the fetch faults. What a client calls on a guest's stack returns to such a page.
    #[error("its page is not executable, so an INT3 there would never be met")]
    NotExecutable,
    /// Its page is executable for the process that the page belongs to, and the VP is in the kernel.
    #[error("its page is executable in user mode only, and the VP is not in user mode")]
    UserOnly,
    /// The guest was reset. It is armed when the guest goes on.
    #[error("the guest was reset")]
    Reset,
    /// Its byte was overwritten while another process was running.
    #[error("its byte was overwritten while its process was not running")]
    Overwritten,
    /// The guest took the debug registers. It is armed again when one is free.
    #[error("the guest uses the debug registers for breakpoints of its own")]
    GuestHasRegisters,
}
