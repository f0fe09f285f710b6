//! Breakpoints and watchpoints that a debugger can set.

use crate::addr::Gpa;
use crate::addr::Gva;
use crate::memory::WalkFaultReason;
use serde::Deserialize;
use serde::Serialize;
use thiserror::Error;

/// A breakpoint or watchpoint: an address, and the event that stops a VP there.
///
/// It applies to every VP of the guest. Two breakpoints are equal if all fields are equal. Inserting an equal
/// breakpoint again has no effect, so a client may repeat an insertion whose reply it has lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Breakpoint {
    /// The event that stops a VP.
    pub kind: BreakpointKind,
    /// The first byte that is watched: a linear address on x86.
    pub address: Gva,
    /// The number of bytes that are watched. For [`BreakpointKind::Software`] and [`BreakpointKind::Execute`] it is the
    /// length of the breakpoint instruction as the client gives it (1 on x86), and is not otherwise used.
    ///
    /// x86 debug registers watch 1, 2, 4 or 8 bytes at an address that is a multiple of the length (SDM volume 3,
    /// "Debug Address Registers"). Any other length or address is refused with
    /// [`DebugError::BadBreakpoint`](crate::debug_rpc::DebugError::BadBreakpoint).
    pub len: u64,
}

/// The events that a breakpoint can stop at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum BreakpointKind {
    /// The VP is about to execute the instruction at the address. The client asked for a software breakpoint.
    ///
    /// The runner chooses between a breakpoint instruction and a debug register. Neither the client nor the guest sees
    /// the choice.
    Software,
    /// The VP is about to execute the instruction at the address. A debug register holds the breakpoint.
    Execute,
    /// The VP wrote a watched byte.
    Write,
    /// The VP read a watched byte. x86 has no read-only watchpoint, so on x86 the VP also stops at a write.
    Read,
    /// The VP read or wrote a watched byte.
    ReadWrite,
    /// A tracepoint: the VP is about to execute the instruction at the address, and records. It is armed as [`Software`](Self::Software).
    /// [`DebugRequest::StartTrace`](crate::debug_rpc::DebugRequest::StartTrace) inserts it; a client cannot.
    Trace,
}

impl BreakpointKind {
    /// Whether the event is a data access and not the execution of an instruction.
    pub const fn is_watchpoint(self) -> bool {
        matches!(self, Self::Write | Self::Read | Self::ReadWrite)
    }

    /// Whether the runner chooses between a breakpoint instruction and a debug register.
    pub const fn is_software(self) -> bool {
        matches!(self, Self::Software | Self::Trace)
    }
}

/// One change of the breakpoint table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum BreakpointChange {
    /// Adds a breakpoint. Adding an equal breakpoint again is not an error.
    Insert(Breakpoint),
    /// Removes a breakpoint. Removing a breakpoint that is not set is
    /// [`DebugError::NoSuchBreakpoint`](crate::debug_rpc::DebugError::NoSuchBreakpoint).
    Remove(Breakpoint),
}

/// A breakpoint and how it is armed. The text is for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BreakpointStatus {
    /// The breakpoint, as the client inserted it.
    pub breakpoint: Breakpoint,
    /// How the breakpoint is armed now.
    pub arming: Arming,
}

impl BreakpointStatus {
    /// A breakpoint and how it is armed.
    pub const fn new(breakpoint: Breakpoint, arming: Arming) -> Self {
        Self { breakpoint, arming }
    }
}

/// The most breakpoints of a session whose hits are counted.
pub const MOST_COUNTED: usize = 65_536;

/// How often VPs have hit a breakpoint in this session. The counts of a breakpoint that was removed are kept, and go on when the breakpoint is inserted again: some
/// clients remove their breakpoints at each stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakpointHits {
    /// The breakpoint, as the client inserted it.
    pub breakpoint: Breakpoint,
    /// The stops that were reported with this breakpoint, and [`passes`](Self::passes).
    pub hits: u64,
    /// How many conditions were evaluated.
    pub evaluations: u64,
    /// The hits at which no condition held.
    pub passes: u64,
}

/// How a breakpoint is armed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Arming {
    /// By a breakpoint instruction in guest memory.
    Memory {
        /// The physical address of the breakpoint instruction.
        gpa: Gpa,
    },
    /// By a debug register.
    DebugRegister {
        /// The number of the debug register: 0 to 3 on x86.
        number: usize,
        /// For a software breakpoint: the reason why it is not in memory. `None` if the host needs a debug register for
        /// every software breakpoint.
        why: Option<Pending>,
    },
    /// Not armed: VPs execute past the address without a stop.
    Pending {
        /// The reason. `None` if the breakpoint has not been armed yet, or if only a free debug register is missing.
        why: Option<Pending>,
    },
}

/// The reason why a software breakpoint is not in memory. A debug register holds such a breakpoint while one is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Pending {
    /// No page maps the address.
    #[error("no page maps it yet: {0}")]
    Unmapped(WalkFaultReason),
    /// The address is valid only in long mode, and the guest has not entered long mode.
    #[error("it is not an address before long mode")]
    TooHigh,
    /// The address leads to a device, to read-only memory, or to a physical address without RAM.
    #[error("no writable RAM is there")]
    NoRam,
    /// The breakpoint instruction does not stop a VP in the present processor mode on this host.
    #[error("INT3 does not trap in this processor mode on this host")]
    NotTrapped,
    /// The page is not executable: the instruction fetch faults before a breakpoint instruction could trap. The return
    /// address of a function call that a client makes on the guest's stack is on such a page.
    #[error("its page is not executable, so an INT3 there would never be met")]
    NotExecutable,
    /// The page is executable for user mode only, and the VP is in supervisor mode (SMEP).
    #[error("its page is executable in user mode only, and the VP is not in user mode")]
    UserOnly,
    /// The breakpoint has conditions, and its instruction cannot be carried out in place of a VP. Where no condition holds, a VP passes a debug register while the other VPs run;
    /// for a breakpoint instruction the other VPs would stop. Without a free debug register the breakpoint is in memory.
    #[error("it has conditions, and no other VP stops for a debug register")]
    Conditional,
    /// The guest was reset. The breakpoint is armed before the guest runs.
    #[error("the guest was reset")]
    Reset,
    /// The guest overwrote the breakpoint instruction while another process was running.
    #[error("its byte was overwritten while its process was not running")]
    Overwritten,
    /// The guest uses the debug register that the breakpoint had. The breakpoint is armed again when a debug register
    /// is free.
    #[error("the guest uses the debug registers for breakpoints of its own")]
    GuestHasRegisters,
}
