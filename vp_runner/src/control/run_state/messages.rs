//! The inputs and outputs of [`RunState`](super::RunState).

use crate::control::at_breakpoint::AtBreakpoint;
use crate::control::at_breakpoint::ByteAtRip;
use crate::control::guest_event::GuestEvent;
use thiserror::Error;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::VpAction;
use vmm_core_defs::stop::DebugStopReason;
use vmm_core_defs::stop::Epoch;
use vmm_core_defs::stop::GuestEnd;

/// Why a VP parked without being kicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Cause {
    /// A breakpoint, watchpoint or finished step.
    Debug(DebugStopReason),
    /// An event that the guest caused, such as a reset.
    Guest(GuestEvent),
    /// A cause that is not reported to the client. One of these: the VP has to pass a byte that belongs to a breakpoint at another address, the VP has passed
    /// its byte with the others stopped, or the guest has taken debug registers that the breakpoints need.
    NotReported,
}

impl Cause {
    /// The hit that is kept until it is reported. `None` if there is nothing to report.
    pub(super) fn hit(self) -> Option<Hit> {
        match self {
            Self::Debug(reason) => Some(Hit::Debug(reason)),
            Self::Guest(event) => Some(Hit::Guest(event)),
            Self::NotReported => None,
        }
    }
}

/// A stop that has not been reported to the client yet (I7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Hit {
    /// A breakpoint, watchpoint or finished step.
    Debug(DebugStopReason),
    /// An event that the guest caused, such as a reset.
    Guest(GuestEvent),
}

impl Hit {
    pub(super) fn reason(self) -> DebugStopReason {
        match self {
            Self::Debug(reason) => reason,
            Self::Guest(event) => event.reason(),
        }
    }

    pub(super) fn is_step(&self) -> bool {
        matches!(self, Self::Debug(DebugStopReason::SingleStep { .. }))
    }
}

/// What the shell has to do, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// Bring the VP out of the guest, or keep the VP from entering.
    Kick(VpIndex),
    /// Update the debug registers of every VP, then call [`programmed`](super::RunState::programmed). Always the last of its list.
    Program,
    /// Run the VP. The VP parks once, and the shell then calls [`parked`](super::RunState::parked). This output is the last of its list if every other VP stays
    /// stopped for one instruction ([`FirstInstruction::OthersStopped`](crate::control::at_breakpoint::FirstInstruction::OthersStopped)).
    Enter {
        /// The VP that runs.
        vp: VpIndex,
        /// What the VP does. Never `Stay`.
        action: VpAction,
        /// The epoch that the VP returns as it parks.
        epoch: Epoch,
        /// Whether the VP passes a breakpoint at its first instruction, and how. The VP returns the value as it parks.
        at: AtBreakpoint,
    },
    /// Answer the open `Resume`.
    Report {
        /// The epoch of the `Resume`.
        epoch: Epoch,
        /// Why the guest stopped.
        reason: DebugStopReason,
    },
    /// Answer the open `Attach`.
    Attached {
        /// The epoch of the last resume.
        epoch: Epoch,
        /// Why the guest is stopped.
        reason: DebugStopReason,
    },
    /// Answer the open `Break`s.
    Broken,
    /// Answer the open `Resume` or `Attach` with `Detached`, since no stop will follow.
    Abandon,
    /// Empty the breakpoint table and remove all debug state from every VP (I6).
    Release,
    /// Answer the open `Detach`.
    Detached,
    /// Make the waiting changes of the breakpoint table, then call [`changed`](super::RunState::changed). Always the last of its list.
    Change,
    /// Carry out the event, then call [`acted`](super::RunState::acted). Always the last of its list.
    Act(GuestEvent),
    /// Notify the VMM: the guest cannot continue, no debugger is attached, and the guest stays parked for a debugger to attach.
    KeptStopped(GuestEvent),
    /// Answer the open `Reset`.
    ResetDone,
    /// End the runner. Every VP is parked.
    Exit(GuestEnd),
}

/// A VP with a breakpoint byte at its RIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct VpAtByte {
    /// The parked VP.
    pub vp: VpIndex,
    /// The byte at the RIP of the VP.
    pub byte: ByteAtRip,
}

/// The shell broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{input} is not legal in phase {phase}; this is a bug in the controller")]
pub(crate) struct IllegalInput {
    /// The input.
    pub input: &'static str,
    /// The phase in which the input came.
    pub phase: &'static str,
}

/// Why an input was refused. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum Refused {
    /// The client gets this error.
    #[error(transparent)]
    Client(#[from] DebugError),
    /// The shell broke the protocol.
    #[error(transparent)]
    Shell(#[from] IllegalInput),
}
