//! How run control enters a VP, and what the VP reports when it parks.

use crate::arch::CodeLocation;
use crate::arch::Slots;
use crate::control::at_breakpoint::AtBreakpoint;
use crate::control::run_state::Cause;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::StepInterrupts;
use vmm_core_defs::debug_rpc::VpAction;
use vmm_core_defs::stop::Epoch;

/// How to run the guest on one VP.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Enter {
    /// Run or step. [`VpAction::Stay`] is not legal here.
    pub(crate) action: VpAction,
    /// The resume that this entry belongs to. The VP returns the epoch in [`VpParked`].
    pub(crate) epoch: Epoch,
    /// Whether the VP passes a breakpoint at its first instruction, and how.
    pub(crate) at: AtBreakpoint,
    /// Whether a debugger is attached.
    pub(crate) debugger: Debugger,
    /// Whether the VP reads its register file as soon as it parks.
    pub(crate) snapshot: Snapshot,
    /// What stops the VP from now on.
    pub(crate) stops: StopSet,
}

/// Whether a debugger is attached, which will read registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Debugger {
    Present,
    Absent,
}

/// When the register file is read after a stop: before a client asks for it, or when a client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Snapshot {
    Ahead,
    OnDemand,
}

/// What makes a VP stop. Every VP that is entered has the same set (I5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct StopSet {
    /// The debugger's breakpoints and watchpoints on debug registers.
    pub(crate) slots: Slots,
    /// Whether `INT3` leaves the guest.
    pub(crate) int3_exits: Int3Exits,
    /// Whether a step takes the interrupts that are pending.
    pub(crate) step_interrupts: StepInterrupts,
}

/// Whether an `INT3` in the guest is an exit (`KVM_GUESTDBG_USE_SW_BP`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Int3Exits {
    /// Yes. The debugger's breakpoint bytes may be in guest memory.
    On,
    /// No. Every `INT3` is the guest's own.
    #[default]
    Off,
}

/// A VP is in user space again, and its last exit is completed (I2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct VpParked {
    pub(crate) vp: VpIndex,
    pub(crate) epoch: Epoch,
    /// Why the VP parked. `None` if the VP was kicked.
    pub(crate) cause: Option<Cause>,
    /// The address of the next instruction. `None` if no debugger is attached.
    pub(crate) location: Option<CodeLocation>,
    /// How many debug registers the guest has enabled on this VP. `None` if the VP has not read them.
    pub(crate) guest_registers: Option<usize>,
    /// The value that the VP was entered with, as the entry left it.
    pub(crate) at: AtBreakpoint,
    /// The number of instructions that the VP has stepped since its entry.
    pub(crate) steps: u64,
}
