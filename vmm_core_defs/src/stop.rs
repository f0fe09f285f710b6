//! Why a guest stopped.

use crate::addr::Gva;
use crate::addr::VpIndex;
use crate::breakpoint::Breakpoint;
use serde::Deserialize;
use serde::Serialize;

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
    /// The VP met a fault it could not deliver. All its state is as it was; acted upon at the next resume.
    TripleFault {
        /// The VP that failed.
        vp: VpIndex,
    },
    /// The guest asked for a reset. It is carried out at the next resume.
    Reset,
    /// The guest asked to be switched off. It is carried out at the next resume.
    PowerOff,
    /// A VP cannot go on: the hypervisor gave up on it. The guest stays inspectable.
    Crashed {
        /// The VP that cannot run.
        vp: VpIndex,
        /// What the hypervisor said.
        cause: CrashCause,
    },
    /// A watchdog of the VMM fired.
    Watchdog,
}

impl DebugStopReason {
    /// The VP it happened on; `None` where it concerns the whole guest.
    pub const fn vp(&self) -> Option<VpIndex> {
        match *self {
            Self::SingleStep { vp }
            | Self::Breakpoint { vp, .. }
            | Self::Watchpoint { vp, .. }
            | Self::TripleFault { vp }
            | Self::Crashed { vp, .. } => Some(vp),
            Self::Break | Self::Reset | Self::PowerOff | Self::Watchdog => None,
        }
    }
}

/// What the hypervisor said when it could not go on with a VP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CrashCause {
    /// `KVM_EXIT_INTERNAL_ERROR` with this suberror (KVM api.rst, section 5, `kvm_run`).
    Internal {
        /// The suberror: 1 emulation failed, 2 exceptions nested, 3 event delivery failed, 4 unexpected exit reason.
        suberror: u32,
    },
    /// `KVM_EXIT_FAIL_ENTRY` with the hardware's reason.
    FailEntry {
        /// The hardware's own code.
        hardware_reason: u64,
    },
    /// `KVM_RUN` itself failed with this `errno`.
    Run {
        /// The `errno`.
        errno: i32,
    },
    /// An exit this version does not know, with its `exit_reason`.
    UnknownExit {
        /// `kvm_run.exit_reason`.
        reason: u32,
    },
}
