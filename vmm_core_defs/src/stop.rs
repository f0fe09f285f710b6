//! Why a guest stopped.

use crate::addr::Gva;
use crate::addr::VpIndex;
use crate::breakpoint::Breakpoint;
use serde::Deserialize;
use serde::Serialize;
use std::fmt;

/// Counts the resumes of a guest under a debugger: the first `Attach` is epoch 0, each `Resume` the next.
///
/// It ties a stop to the `Resume` that led to it (invariant I1): a stop of an older epoch is stale and dropped.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Epoch(u64);

impl Epoch {
    /// The epoch after this one.
    pub const fn next(self) -> Self {
        // At one resume a nanosecond, 64 bits last for 584 years.
        Self(self.0.wrapping_add(1))
    }

    /// The plain number.
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// The reply to [`DebugRequest::Resume`](crate::debug_rpc::DebugRequest::Resume).
///
/// When it arrives, every VP that was to stop is parked in user space, and its pending I/O or MMIO exit is completed
/// (invariant I2): registers read from now on are the ones at the stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopEvent {
    /// The resume it answers.
    pub epoch: Epoch,
    /// What happened.
    pub reason: DebugStopReason,
}

/// What stopped the guest.
///
/// It is decoded from the exit itself (exception vector, DR6, RIP), never guessed from addresses afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DebugStopReason {
    /// A [`Break`](crate::debug_rpc::DebugRequest::Break), or the stop that `Attach` itself makes.
    Break,
    /// A step (or a step through a range) ended.
    SingleStep {
        /// The VP that stepped.
        vp: VpIndex,
    },
    /// An instruction breakpoint was met. RIP is on the breakpoint and its instruction has not executed.
    Breakpoint {
        /// The VP that met it.
        vp: VpIndex,
        /// Which one, as the client inserted it.
        breakpoint: Breakpoint,
    },
    /// A watched access was made. On x86 the access is complete and RIP is after the instruction.
    Watchpoint {
        /// The VP that made the access.
        vp: VpIndex,
        /// Which one, as the client inserted it.
        breakpoint: Breakpoint,
        /// The first watched byte, which is all that x86 tells.
        address: Gva,
    },
    /// The VP met a fault it could not deliver. Acted upon at the next resume.
    TripleFault {
        /// The VP that failed.
        vp: VpIndex,
        /// What can be read of it. Memory and the other VPs are as they were in any case.
        registers: FaultRegisters,
    },
    /// The guest asked for a reset. It is carried out at the next resume.
    Reset {
        /// The VP that asked; `None` where a debugger's write to a device did.
        vp: Option<VpIndex>,
    },
    /// The guest asked to be switched off. It is carried out at the next resume.
    PowerOff {
        /// The VP that asked; `None` where a debugger's write to a device did.
        vp: Option<VpIndex>,
    },
    /// A VP cannot go on: the hypervisor gave up on it. The guest stays inspectable.
    Crashed {
        /// The VP that cannot run.
        vp: VpIndex,
        /// What the hypervisor said.
        cause: CrashCause,
    },
    /// The guest's kernel says that it cannot go on (pvpanic, or a hypervisor's crash register). It may run on after the next resume.
    Panic {
        /// The VP that said so.
        vp: VpIndex,
    },
}

impl DebugStopReason {
    /// The VP it happened on; `None` where it concerns the whole guest.
    pub const fn vp(&self) -> Option<VpIndex> {
        match *self {
            Self::SingleStep { vp }
            | Self::Breakpoint { vp, .. }
            | Self::Watchpoint { vp, .. }
            | Self::TripleFault { vp, .. }
            | Self::Crashed { vp, .. }
            | Self::Panic { vp } => Some(vp),
            Self::Reset { vp } | Self::PowerOff { vp } => vp,
            Self::Break => None,
        }
    }
}

/// Something of the guest's own doing that is a stop for the debugger if [`StopOn`] names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GuestEventKind {
    /// [`DebugStopReason::Reset`].
    Reset,
    /// [`DebugStopReason::PowerOff`].
    PowerOff,
    /// [`DebugStopReason::TripleFault`].
    TripleFault,
    /// [`DebugStopReason::Panic`].
    Panic,
}

/// Which events stop the guest. One that does not is acted upon at once, as without a debugger. (A VP that cannot go on is always a stop.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StopOn {
    /// A bit for each kind, in the order of the enum.
    kinds: u8,
}

impl StopOn {
    /// Whether events of this kind do.
    pub const fn contains(self, kind: GuestEventKind) -> bool {
        self.kinds & kind.bit() != 0
    }
}

impl GuestEventKind {
    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl FromIterator<GuestEventKind> for StopOn {
    fn from_iter<I: IntoIterator<Item = GuestEventKind>>(kinds: I) -> Self {
        let kinds = kinds.into_iter().fold(0, |bits, kind| bits | kind.bit());
        Self { kinds }
    }
}

impl Default for StopOn {
    /// All but a panic: kernels have their own ways with it, such as a dump and a reboot.
    fn default() -> Self {
        use GuestEventKind::*;
        Self::from_iter([Reset, PowerOff, TripleFault])
    }
}

/// What a triple fault has left of a VP's registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FaultRegisters {
    /// They are as they were when the fault could not be delivered.
    Kept,
    /// They are those of a VP after INIT. AMD's processors leave the guest state undefined at a shutdown (APM volume 2, "Shutdown Intercept"), so
    /// hypervisors reset the VP before anybody else sees it; x87 and vector registers are left alone.
    ResetByHypervisor,
}

/// How a guest ended for good: no VP will run again, and no debugger can attach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GuestEnd {
    /// The guest switched itself off.
    PowerOff,
    /// The guest asked for a reset, and the VMM's policy is not to start it again.
    Reset,
    /// The guest asked for a reset, or met a triple fault, and could not be started again. The VMM's log says why.
    ResetFailed,
    /// A VP met a triple fault, and the VMM's policy is not to start the guest again.
    TripleFault {
        /// Which.
        vp: VpIndex,
        /// Whether a debugger was stopped there first.
        shown: bool,
    },
    /// A VP cannot go on, and no debugger is attached or it has continued.
    Crashed {
        /// Which.
        vp: VpIndex,
        /// Why.
        cause: CrashCause,
        /// Whether a debugger was stopped there first.
        shown: bool,
    },
    /// The debugger ended it with [`DetachAction::Kill`](crate::debug_rpc::DetachAction::Kill).
    Killed,
    /// The VMM was told to end.
    Stopped,
}

impl fmt::Display for GuestEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PowerOff => f.write_str("it switched itself off"),
            Self::Reset => f.write_str("it asked for a reset, and is not to start again"),
            Self::ResetFailed => {
                f.write_str("it could not be started again after a reset; see the VMM's log")
            }
            Self::TripleFault { vp, .. } => {
                write!(
                    f,
                    "VP {vp} met a triple fault, and it is not to start again"
                )
            }
            Self::Crashed { vp, .. } => write!(f, "the hypervisor cannot go on with VP {vp}"),
            Self::Killed => f.write_str("its debugger ended it"),
            Self::Stopped => f.write_str("the VMM was told to end"),
        }
    }
}

/// Why a VP cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CrashCause {
    /// The hypervisor failed inside.
    Internal {
        /// What failed: 1 emulation of an instruction, 2 nested exceptions, 3 delivery of an event, 4 an unexpected exit reason.
        suberror: u32,
    },
    /// The hardware refused to enter the guest.
    FailEntry {
        /// The hardware's own code.
        hardware_reason: u64,
    },
    /// The system call that runs the VP failed.
    Run {
        /// The `errno`.
        errno: i32,
    },
    /// An exit that this version does not know.
    UnknownExit {
        /// The hypervisor's number for it.
        reason: u32,
    },
    /// The runner cannot run the VP. The hypervisor has said nothing of the guest.
    Runner(RunnerFault),
}

/// What failed in the runner. Its log has the details.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RunnerFault {
    /// The hypervisor refused to read or set the debug state of the VP.
    DebugState,
    /// A panic ended the thread of the VP.
    ThreadPanicked,
    /// The thread of the VP takes no commands any more.
    ThreadGone,
}
