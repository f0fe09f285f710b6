//! The reasons why a guest stopped or ended.

use crate::addr::Gva;
use crate::addr::VpIndex;
use crate::breakpoint::Breakpoint;
use crate::vp_set::VpSet;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use std::fmt;

/// The number of a resume of the guest under a debugger. The first `Attach` is epoch 0, and each `Resume` increments
/// the epoch.
///
/// The epoch ties a stop to the `Resume` that led to it (invariant I1). The receiver drops a stop of an older epoch.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Epoch(u64);

impl Epoch {
    /// The epoch of the next resume.
    pub const fn next(self) -> Self {
        // At one resume per nanosecond, 64 bits last for 584 years.
        Self(self.0.wrapping_add(1))
    }

    /// The epoch as a plain number.
    pub const fn number(self) -> u64 {
        self.0
    }

    #[cfg(feature = "wire")]
    pub(crate) const fn from_number(number: u64) -> Self {
        Self(number)
    }
}

/// The reply to [`DebugRequest::Resume`](crate::debug_rpc::DebugRequest::Resume).
///
/// When the reply arrives, every VP that had to stop is parked in user space, and its pending I/O or MMIO exit is
/// completed (invariant I2). Registers that are read from now on are the registers at the stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StopEvent {
    /// The epoch of the `Resume` that this event answers.
    pub epoch: Epoch,
    /// The reason of the stop.
    pub reason: DebugStopReason,
    /// The VPs that the VM has at the stop. VPs may have come and gone since the last stop.
    pub vps: VpSet,
    /// The number of instructions that VPs have executed by [`VpAction::StepN`](crate::debug_rpc::VpAction::StepN), all VPs together. `None` if the `Resume` had no
    /// such action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Why a condition of the breakpoint cannot be evaluated, in words, if the stop is one for this reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition_failure: Option<String>,
}

impl StopEvent {
    /// A stop that answers the `Resume` with this epoch.
    pub const fn new(epoch: Epoch, reason: DebugStopReason, vps: VpSet) -> Self {
        Self {
            epoch,
            reason,
            vps,
            steps: None,
            condition_failure: None,
        }
    }
}

/// The reason why the guest stopped.
///
/// The runner decodes the reason from the exit itself (exception vector, DR6, RIP), never from addresses alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DebugStopReason {
    /// A [`Break`](crate::debug_rpc::DebugRequest::Break), or the stop by `Attach` itself.
    Break,
    /// A step or a step through a range has ended.
    SingleStep {
        /// The VP that stepped.
        vp: VpIndex,
    },
    /// A VP reached an instruction breakpoint. RIP is at the breakpoint, and the instruction has not executed.
    Breakpoint {
        /// The VP that reached the breakpoint.
        vp: VpIndex,
        /// The breakpoint, as the client inserted it.
        breakpoint: Breakpoint,
    },
    /// A VP made a watched access. On x86 the access is complete, and RIP is behind the instruction.
    Watchpoint {
        /// The VP that made the access.
        vp: VpIndex,
        /// The watchpoint, as the client inserted it.
        breakpoint: Breakpoint,
        /// The first watched byte. x86 does not report which of the watched bytes was accessed.
        address: Gva,
    },
    /// A VP had a triple fault. The next resume acts upon it.
    TripleFault {
        /// The VP with the triple fault.
        vp: VpIndex,
        /// What the VP's registers contain. Memory and the other VPs are unchanged in either case.
        registers: FaultRegisters,
    },
    /// The guest asked for a reset. It is carried out at the next resume.
    Reset {
        /// The VP that asked for the reset. `None` if a debugger's write to a device asked for it.
        vp: Option<VpIndex>,
    },
    /// The guest asked to be powered off. The next resume carries this out.
    PowerOff {
        /// The VP that asked for the power-off. `None` if a debugger's write to a device asked for it.
        vp: Option<VpIndex>,
    },
    /// The hypervisor cannot run a VP any more. Registers and memory of the guest can still be read.
    Crashed {
        /// The VP that cannot run.
        vp: VpIndex,
        /// The hypervisor's or the runner's reason.
        cause: CrashCause,
    },
    /// The guest's kernel reported a panic, through a pvpanic device or a crash register of the hypervisor. The guest
    /// may run on after the next resume.
    Panic {
        /// The VP that reported the panic.
        vp: VpIndex,
    },
}

impl DebugStopReason {
    /// The VP with the event. `None` if the event concerns the whole guest.
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

/// A guest event that is a stop if [`StopOn`] contains it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum GuestEventKind {
    /// The guest asked for a reset ([`DebugStopReason::Reset`]).
    Reset,
    /// The guest asked to be powered off ([`DebugStopReason::PowerOff`]).
    PowerOff,
    /// A VP had a triple fault ([`DebugStopReason::TripleFault`]).
    TripleFault,
    /// The guest's kernel reported a panic ([`DebugStopReason::Panic`]).
    Panic,
}

/// The set of guest events that are stops. The runner acts upon any other event at once, as without a debugger. (A VP
/// that cannot run any more is always a stop.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StopOn {
    /// One bit for each kind, in the order of the enum. The other bits are 0.
    #[serde(deserialize_with = "known_kinds")]
    kinds: u8,
}

fn known_kinds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    u8::deserialize(deserializer).map(|kinds| StopOn::from_bits(kinds).kinds)
}

impl StopOn {
    /// Whether events of this kind are stops.
    pub const fn contains(self, kind: GuestEventKind) -> bool {
        self.kinds & kind.bit() != 0
    }

    /// One bit for each kind, in the order of [`GuestEventKind`].
    pub const fn bits(self) -> u8 {
        self.kinds
    }

    /// All kinds.
    pub const fn all() -> Self {
        Self::from_bits(u8::MAX)
    }

    /// The kinds that are in both sets.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self {
            kinds: self.kinds & other.kinds,
        }
    }

    /// The set with these [bits](Self::bits). A bit of no kind is ignored.
    pub const fn from_bits(kinds: u8) -> Self {
        let last = GuestEventKind::Panic.bit();
        let kinds = kinds & (last | (last - 1));
        Self { kinds }
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
    /// All events but a panic: kernels handle a panic themselves, for example by a dump and a reboot.
    fn default() -> Self {
        use GuestEventKind::*;
        Self::from_iter([Reset, PowerOff, TripleFault])
    }
}

/// What the registers of a VP contain after a triple fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FaultRegisters {
    /// The registers at the fault.
    Kept,
    /// The registers of a VP after INIT. AMD's processors leave the guest state undefined at a shutdown (APM volume 2,
    /// "Shutdown Intercept"), so the hypervisor resets the VP before the runner can read the registers. The x87 and
    /// vector registers are unchanged.
    ResetByHypervisor,
}

/// How a guest ended for good. No VP runs again, and no debugger can attach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum GuestEnd {
    /// The guest powered itself off.
    PowerOff,
    /// The guest asked for a reset, and the VMM's policy is not to start the guest again.
    Reset,
    /// The guest asked for a reset or had a triple fault, and starting it again failed. The VMM's log has the reason.
    ResetFailed,
    /// A VP had a triple fault, and the VMM's policy is not to start the guest again.
    TripleFault {
        /// The VP with the triple fault.
        vp: VpIndex,
        /// Whether the triple fault was reported to a debugger as a stop before.
        shown: bool,
    },
    /// A VP cannot run any more, and no debugger is attached or the debugger has continued.
    Crashed {
        /// The VP that cannot run.
        vp: VpIndex,
        /// The hypervisor's or the runner's reason.
        cause: CrashCause,
        /// Whether the crash was reported to a debugger as a stop before.
        shown: bool,
    },
    /// The debugger ended the guest with [`DetachAction::Kill`](crate::debug_rpc::DetachAction::Kill).
    Killed,
    /// The VMM was told to end.
    Stopped,
    /// A VMM that runs its vCPUs itself has ended the debugger: the VMM or its VM has ended, or goes on without a debugger.
    Released,
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
            Self::Released => {
                f.write_str("the VMM has ended the guest, or has closed the debug server")
            }
        }
    }
}

/// The reason why a VP cannot run any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CrashCause {
    /// The hypervisor reported an internal error.
    Internal {
        /// The hypervisor's number for the error: 1 emulation of an instruction, 2 nested exceptions, 3 delivery of an
        /// event, 4 an unexpected exit reason.
        suberror: u32,
    },
    /// The hardware refused to enter the guest.
    FailEntry {
        /// The hardware's code for the reason.
        hardware_reason: u64,
    },
    /// The system call that runs the VP failed.
    Run {
        /// The `errno` of the system call.
        errno: i32,
    },
    /// The hypervisor returned with an exit that this version does not know.
    UnknownExit {
        /// The hypervisor's number for the exit.
        reason: u32,
    },
    /// The runner cannot run the VP. The hypervisor has reported no error of the guest.
    Runner(RunnerFault),
}

/// What failed in the runner. The runner's log has the details.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RunnerFault {
    /// The hypervisor refused to read or set the debug state of the VP.
    DebugState,
    /// A panic ended the thread of the VP.
    ThreadPanicked,
    /// The thread of the VP no longer accepts commands.
    ThreadGone,
}
