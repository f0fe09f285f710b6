//! What the machine is told and what it answers.

use crate::exit::GuestEvent;
use thiserror::Error;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::VpAction;
use vmm_core_defs::stop::DebugStopReason;
use vmm_core_defs::stop::Epoch;
use vmm_core_defs::stop::GuestEnd;

/// Why a VP parked without being kicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A breakpoint, watchpoint or finished step.
    Debug(DebugStopReason),
    /// Something of the guest's own.
    Guest(GuestEvent),
    /// Nothing that the client is told: it has to step over a byte that is no breakpoint of its address, or has stepped over one.
    Unseen,
}

impl Cause {
    pub(super) fn reason(self) -> DebugStopReason {
        match self {
            Self::Debug(reason) => reason,
            Self::Guest(event) => event.reason(),
            // Never kept.
            Self::Unseen => DebugStopReason::Break,
        }
    }

    pub(super) fn is_step(&self) -> bool {
        matches!(self, Self::Debug(DebugStopReason::SingleStep { .. }))
    }
}

/// Whether a VP that has parked may have executed something since it was entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// The VP may have executed an instruction.
    Yes,
    /// The VP has executed nothing. If it was to pass a breakpoint, it has not passed this breakpoint yet.
    No,
}

/// What the shell has to do, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Bring the VP out of the guest, or keep it out.
    Kick(VpIndex),
    /// Bring the debug registers of every VP up to date, then say `programmed`. Always the last of its list.
    Program,
    /// Let the VP execute the one instruction that it stands on, with the bytes under it lifted. It answers with one `parked`, having put them
    /// back. Always the last of its list.
    StepOver {
        /// Which.
        vp: VpIndex,
        /// What it does, of which this is the first instruction.
        action: VpAction,
        /// The epoch it is to give back.
        epoch: Epoch,
    },
    /// Let the VP go. It answers with one `parked`.
    Enter {
        /// Which.
        vp: VpIndex,
        /// What it does: never `Stay`.
        action: VpAction,
        /// The epoch it is to give back.
        epoch: Epoch,
        /// What a breakpoint on its first instruction means.
        start: Start,
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

/// What a breakpoint on the first instruction after an entry means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Start {
    /// A stop of the VP at this instruction was reported: the VP passes the breakpoint (I8).
    Past,
    /// No stop was reported at this instruction: the VP meets the breakpoint.
    Retry,
    /// As `Past`, and the VP stands on a breakpoint byte. No other VP is to move: it lifts the byte, executes this instruction, puts it back and
    /// goes on.
    Lift,
    /// As `Lift`, but others move: it carries this instruction out with the byte in place, or parks with [`Cause::Unseen`].
    CarryOut,
}

/// A VP that stands on a breakpoint byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Which.
    pub vp: VpIndex,
    /// Which breakpoint the byte belongs to.
    pub byte: ByteOf,
    /// How it gets past while others run.
    pub over: Over,
}

/// Which breakpoint a byte belongs to. One byte of memory may be mapped at several linear addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ByteOf {
    /// A breakpoint at the linear address of the VP's RIP. The VP passes this byte only where its stop was reported.
    ThisAddress,
    /// A breakpoint at another linear address. The VP always passes this byte, and the client is not told.
    OtherAddress,
}

/// How a VP can get past the breakpoint byte that it stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// Most likely by [`Start::CarryOut`].
    CarriedOut,
    /// Only by executing the instruction with the byte lifted.
    Executed,
}

/// The shell broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{input} is not legal in phase {phase}; this is a bug in the controller")]
pub struct IllegalInput {
    /// What came.
    pub input: &'static str,
    /// When.
    pub phase: &'static str,
}

/// Why an input was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refused {
    /// The client is told; nothing has changed.
    #[error(transparent)]
    Client(#[from] DebugError),
    /// The shell broke the protocol; nothing has changed.
    #[error(transparent)]
    Shell(#[from] IllegalInput),
}
