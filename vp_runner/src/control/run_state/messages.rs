//! What the machine is told and what it answers.

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
    /// Something of the guest's own.
    Guest(GuestEvent),
    /// Nothing that the client is told of. The VP has to pass a byte that is no breakpoint of its address, or has passed its byte with the others
    /// stopped, or misses debug registers that the guest has taken.
    NotReported,
}

impl Cause {
    /// The stop that is kept until the client is told, if the client is to be told.
    pub(super) fn hit(self) -> Option<Hit> {
        match self {
            Self::Debug(reason) => Some(Hit::Debug(reason)),
            Self::Guest(event) => Some(Hit::Guest(event)),
            Self::NotReported => None,
        }
    }
}

/// A stop that the client has not been told of yet (I7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Hit {
    /// A breakpoint, watchpoint or finished step.
    Debug(DebugStopReason),
    /// Something of the guest's own.
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
    /// Bring the VP out of the guest, or keep it out.
    Kick(VpIndex),
    /// Bring the debug registers of every VP up to date, then say `programmed`. Always the last of its list.
    Program,
    /// Let the VP go. It answers with one `parked`. Always the last of its list where every other VP stays stopped for one instruction
    /// ([`FirstInstruction::OthersStopped`](crate::control::at_breakpoint::FirstInstruction::OthersStopped)).
    Enter {
        /// Which.
        vp: VpIndex,
        /// What it does: never `Stay`.
        action: VpAction,
        /// The epoch it is to give back.
        epoch: Epoch,
        /// Whether it passes a breakpoint at its first instruction, and how. The VP gives it back as it parks.
        at: AtBreakpoint,
    },
    /// Answer the open `Resume`.
    Report {
        /// The resume it answers.
        epoch: Epoch,
        /// Why.
        reason: DebugStopReason,
    },
    /// Answer the open `Attach`.
    Attached {
        /// The epoch.
        epoch: Epoch,
        /// Why the guest stands still.
        reason: DebugStopReason,
    },
    /// Answer the open `Break`s.
    Broken,
    /// Answer the open `Resume` or `Attach` with `Detached`: no stop will come for it.
    Abandon,
    /// Empty the breakpoint table and take all debug state off every VP (I6).
    Release,
    /// Answer the open `Detach`.
    Detached,
    /// Make the waiting changes of the breakpoint table, then say `changed`. Always the last of its list.
    Change,
    /// Carry the event out, then say `acted`. Always the last of its list.
    Act(GuestEvent),
    /// The guest cannot go on, nobody debugs it, and it is kept: it stays parked. The VMM is told.
    Kept(GuestEvent),
    /// Answer the open `Reset`.
    ResetDone,
    /// End the runner in this way: every VP is parked.
    Exit(GuestEnd),
}

/// A VP that stands on a breakpoint byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OnByte {
    /// The VP.
    pub vp: VpIndex,
    /// The byte at the RIP of the VP.
    pub byte: ByteAtRip,
}

/// The shell broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{input} is not legal in phase {phase}; this is a bug in the controller")]
pub(crate) struct IllegalInput {
    /// What came.
    pub input: &'static str,
    /// When.
    pub phase: &'static str,
}

/// Why an input was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum Refused {
    /// The client is told; nothing has changed.
    #[error(transparent)]
    Client(#[from] DebugError),
    /// The shell broke the protocol; nothing has changed.
    #[error(transparent)]
    Shell(#[from] IllegalInput),
}
