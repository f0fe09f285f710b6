//! What the controller and a VP thread say to each other.

use super::Call;
use crate::arch::x86_64::place::Place;
use crate::breakpoints::Slots;
use crate::control::at_breakpoint::AtBreakpoint;
use crate::control::run_state::Cause;
use crate::kvm::vcpu::Bytes;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::StepInterrupts;
use vmm_core_defs::debug_rpc::VpAction;
use vmm_core_defs::stop::Epoch;

/// What the controller asks of a VP thread.
pub(crate) enum Command {
    /// Run the guest; answered by one [`VpParked`].
    Enter(Enter),
    /// Do something with the parked VP.
    Call(Call),
    /// End the thread.
    Exit,
}

/// How to run the guest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Enter {
    /// Run, step or step a range.
    pub(crate) action: VpAction,
    /// Given back with the stop.
    pub(crate) epoch: Epoch,
    /// Whether the VP passes a breakpoint at its first instruction, and how.
    pub(crate) at: AtBreakpoint,
    /// Whether a debugger is there.
    pub(crate) debugger: Debugger,
    /// Whether the register file will be asked for after the stop.
    pub(crate) snapshot: Snapshot,
    /// What stops the VP from now on.
    pub(crate) arms: Arms,
}

/// Whether a debugger is there to look at registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Debugger {
    Present,
    Absent,
}

/// Whether to read the register file after the stop, before anyone asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Snapshot {
    Ahead,
    OnDemand,
}

/// What a VP thread tells the controller unasked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VpEvent {
    /// The answer to [`Command::Enter`].
    Parked(VpParked),
    /// The thread ends by a panic in the VMM's code.
    Died(VpIndex),
}

/// A VP is in user space again, its exit completed (I2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct VpParked {
    pub(crate) vp: VpIndex,
    pub(crate) epoch: Epoch,
    /// `None`: it was kicked.
    pub(crate) cause: Option<Cause>,
    /// Where it stands, if a debugger is there to ask.
    pub(crate) place: Option<Place>,
    /// How many debug registers its guest uses, if that was looked at.
    pub(crate) guest_registers: Option<usize>,
    /// What it was entered with, as it is now.
    pub(crate) at: AtBreakpoint,
}

/// What makes a VP stop: the same for every VP that is entered (I5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Arms {
    pub(crate) slots: Slots,
    pub(crate) bytes: Bytes,
    pub(crate) step_interrupts: StepInterrupts,
}
