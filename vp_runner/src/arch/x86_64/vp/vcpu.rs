//! What the core needs of a vCPU. KVM implements it, and so does a scripted vCPU of the unit tests.
//!
//! Every method is called on the vCPU's thread, between two stays in the guest. An error means that the hypervisor refused the call and that the call changed nothing.

use super::debug_state::DebugState;
use super::debug_state::Undelivered;
use crate::arch::x86_64::debug_registers::GuestRegisters;
use crate::arch::x86_64::dr7::DebugPayload;
use crate::arch::x86_64::emulate::Outcome;
use crate::arch::x86_64::page_walk::PagingLimits;
use crate::arch::x86_64::registers::CpuRegisters;
use crate::arch::x86_64::step_effects::TrapFlag;
use kvm_bindings::kvm_lapic_state;
use kvm_bindings::kvm_regs;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::VpActivity;
use vmm_core_defs::regs::X86VpState;

/// A vCPU.
pub(crate) trait Vcpu: VcpuClocks {
    // Entering the guest.

    /// Sets `immediate_exit`: the next `KVM_RUN` completes the pending exit and returns without entering the guest.
    fn set_immediate_exit(&mut self, on: bool);

    /// Whether general and system registers are to come with each exit, where the hypervisor can do that.
    fn want_registers(&mut self, on: bool);

    // Debug state.

    /// Makes the hypervisor's debug state this one for the next entry.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    fn program(&mut self, state: DebugState) -> Result<(), DebugError>;

    /// The step that has just ended executed an instruction over which no hypervisor loses the trap flag. The same debug state holds for the next step without
    /// being programmed anew.
    fn kept_trap_flag(&mut self);

    /// Sets the guest's own trap flag, where the hypervisor hides it because it steps. Has no effect where it does not step.
    fn set_own_trap_flag(&mut self, own: TrapFlag);

    /// The guest's own DR0-3 and DR7.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    fn guest_debug_registers(&mut self) -> Result<GuestRegisters, DebugError>;

    /// Whether interrupts can be held back for longer than one instruction.
    fn holds_interrupts(&self) -> bool;

    // Events.

    /// The event that the hypervisor delivers before the next instruction, whatever holds interrupts back.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    fn undelivered(&mut self) -> Result<Option<Undelivered>, DebugError>;

    /// The vector of the interrupt that the VP would take now if nothing held interrupts back. `None` also where the interrupt controllers are not the
    /// hypervisor's.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    fn deliverable(&mut self) -> Result<Option<u8>, DebugError>;

    /// Programs `state`, and gives the guest its own `#DB` with the next entry. DR6 is as the guest would have found it. DR7.GD is cleared when the exception
    /// is delivered.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    fn inject_debug(&mut self, state: DebugState, payload: DebugPayload) -> Result<(), DebugError>;

    /// Programs `state`, and gives the guest its own `#BP` with the next entry.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    fn inject_breakpoint(&mut self, state: DebugState) -> Result<(), DebugError>;

    /// Drops the exception that is pending. The instruction that raised it is tried again.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    fn drop_exception(&mut self) -> Result<(), DebugError>;

    /// Drops a `#BP` or `#OF` that was injected and is not delivered yet.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    fn drop_soft_exception(&mut self) -> Result<(), DebugError>;

    /// Whether the last instruction holds interrupts back for the next.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    fn has_interrupt_shadow(&mut self) -> Result<bool, DebugError>;

    /// Raises a non-maskable interrupt.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    fn raise_nmi(&mut self) -> Result<(), DebugError>;

    // Registers.

    /// General and system registers.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    fn registers(&mut self) -> Result<&CpuRegisters, DebugError>;

    /// Writes general registers. Events that are not delivered yet stay.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    fn write_general(&mut self, general: &kvm_regs) -> Result<(), DebugError>;

    /// Moves RIP behind an instruction that has executed, and ends the interrupt shadow.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    fn skip_to(&mut self, rip: u64) -> Result<(), DebugError>;

    /// Writes the registers that an instruction leaves which was carried out in place of the VP.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    fn write_outcome(&mut self, outcome: &Outcome) -> Result<(), DebugError>;

    /// What CPUID tells the guest about its paging.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`] before the register file of the VM is known.
    fn paging_limits(&self) -> Result<PagingLimits, DebugError>;

    /// Every register.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    fn read_state(&mut self) -> Result<X86VpState, DebugError>;

    /// Writes what differs between `old` and `new`. After an error some of it may be written.
    ///
    /// # Errors
    /// [`DebugError::BadRegister`]; [`DebugError::Hypervisor`].
    fn write_state(&mut self, old: &X86VpState, new: &X86VpState) -> Result<(), DebugError>;

    /// Whether the parked VP has instructions to execute.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    fn activity(&mut self) -> Result<VpActivity, DebugError>;

    /// Halts the VP, with RIP behind the `hlt`. `false`, with nothing changed: the hypervisor has no interrupt controllers that would wake the VP.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    fn halt_at(&mut self, next_rip: u64) -> Result<bool, DebugError>;
}

/// The clocks and the local timer of a vCPU.
pub(crate) trait VcpuClocks {
    /// Reads an MSR.
    ///
    /// # Errors
    /// [`DebugError::BadRegister`] where the VP has no such MSR.
    fn read_msr(&mut self, msr: u32) -> Result<u64, DebugError>;

    /// Writes an MSR that is a clock. No other register changes with it.
    ///
    /// # Errors
    /// As [`read_msr`](Self::read_msr).
    fn write_clock_msr(&mut self, msr: u32, value: u64) -> Result<(), DebugError>;

    /// Writes any MSR.
    ///
    /// # Errors
    /// As [`read_msr`](Self::read_msr).
    fn write_msr(&mut self, msr: u32, value: u64) -> Result<(), DebugError>;

    /// What the hypervisor adds to the host's time-stamp counter for this VP, where it says so.
    fn tsc_offset(&mut self) -> Option<u64>;

    /// Puts the time-stamp counter back by so many ticks.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    fn put_back_tsc(&mut self, ticks: u64) -> Result<(), DebugError>;

    /// The registers of the local APIC. `None` where the hypervisor has none.
    fn local_apic(&mut self) -> Option<kvm_lapic_state>;

    /// Reads the registers of the local APIC and writes them changed. An interrupt that arrives in between is lost.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    fn change_local_apic(
        &mut self,
        change: impl FnOnce(&mut kvm_lapic_state),
    ) -> Result<(), DebugError>;

    /// Tells the guest that it was paused, so that its soft-lockup watchdog does not fire (api.rst, `KVM_KVMCLOCK_CTRL`). `false`: the guest has no clock
    /// that can be told.
    fn tell_of_pause(&mut self) -> bool;
}
