//! What a debugger can ask to be stopped at.

use crate::addr::Gpa;
use crate::addr::Gva;
use serde::Deserialize;
use serde::Serialize;

/// A place, and what has to happen there.
///
/// It holds for every VP of the guest. Two breakpoints are the same when all fields are: inserting one twice is one
/// breakpoint (GDB manual, node "Packets", `z`: insertion is idempotent).
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
        /// For a software breakpoint: why it is not in memory.
        why: Option<String>,
    },
    /// Nothing yet: the guest runs past it.
    Pending {
        /// What it waits for.
        why: String,
    },
}
