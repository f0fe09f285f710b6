//! What the controller and a VP thread say to each other.

use super::Call;
use crate::breakpoints::Slots;
use crate::exit::GuestEvent;
use crate::kvm::vcpu::Bytes;
use crate::place::Place;
use crate::run_state::Moved;
use crate::run_state::Start;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::Gva;
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
    /// What a breakpoint on the first instruction means.
    pub(crate) start: Start,
    /// Whether a debugger is there.
    pub(crate) debugger: Debugger,
    /// Whether the register file will be asked for after the stop.
    pub(crate) snapshot: Snapshot,
    /// How much of the action this entry is for.
    pub(crate) extent: Extent,
    /// What stops the VP from now on.
    pub(crate) arms: Arms,
}

/// How much of its action a VP is entered for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All of it.
    Whole,
    /// One instruction, with the other VPs parked and the breakpoint bytes under it out of memory.
    StepOver,
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
    pub(crate) cause: Option<VpCause>,
    /// Where it stands, if a debugger is there to ask.
    pub(crate) place: Option<Place>,
    /// How many debug registers its guest uses, if that was looked at.
    pub(crate) guest_registers: Option<usize>,
    /// Whether it may have executed something.
    pub(crate) moved: Moved,
}

/// Why a VP parked by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VpCause {
    /// A debug register of ours matched.
    Slot(usize),
    /// It met a breakpoint byte of ours, and stands on it.
    Byte {
        /// The linear address.
        address: Gva,
        /// The byte.
        gpa: Gpa,
    },
    /// The step is done.
    Stepped,
    /// It stands on a byte of ours that nobody is to be told of (any more), and cannot pass it by itself.
    Alias,
    /// The one instruction of [`Extent::StepOver`] is done, but not the action.
    SteppedOver,
    /// The guest took a debug register that was ours.
    Crowded,
    /// It was kicked before it had left the breakpoint byte that it was to go over.
    StillThere,
    /// Something of the guest's own.
    Guest(GuestEvent),
}

/// What makes a VP stop: the same for every VP that is entered (I5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Arms {
    pub(crate) slots: Slots,
    pub(crate) bytes: Bytes,
    pub(crate) step_interrupts: StepInterrupts,
}
