//! `KVM_SET_GUEST_DEBUG`, and the guest's trap flag that KVM hides while it steps.

use super::KvmVcpu;
use super::Programmed;
use super::SHADOW_STI;
use crate::arch::x86_64::debug_registers::RegisterAccess;
use crate::arch::x86_64::dr7::GENERAL_DETECT;
use crate::arch::x86_64::step_effects::TrapFlag;
use crate::arch::x86_64::stop_cause::SingleStepping;
use crate::arch::x86_64::vp::debug_state::DebugState;
use crate::arch::x86_64::vp::debug_state::Interrupts;
use crate::arch::x86_64::vp::vcpu::Vcpu as _;
use crate::control::enter::Int3Exits;
use crate::kvm::hypervisor_error;
use kvm_bindings::KVM_GUESTDBG_BLOCKIRQ;
use kvm_bindings::KVM_GUESTDBG_ENABLE;
use kvm_bindings::KVM_GUESTDBG_SINGLESTEP;
use kvm_bindings::KVM_GUESTDBG_USE_HW_BP;
use kvm_bindings::KVM_GUESTDBG_USE_SW_BP;
use kvm_bindings::KVM_VCPUEVENT_VALID_SHADOW;
use kvm_bindings::kvm_guest_debug;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::HypervisorCall;
use vmm_core_defs::regs::x86_64::bits::rflags;

impl KvmVcpu {
    /// Sets the debug state in KVM, with `inject` added to its flags.
    pub(super) fn program_with(
        &mut self,
        wanted: DebugState,
        inject: u32,
    ) -> Result<(), DebugError> {
        match (self.hides, wanted.stepping) {
            (SingleStepping::Off, SingleStepping::On) => self.own = self.registers()?.trap_flag(),
            (SingleStepping::On, SingleStepping::Off) if self.own == TrapFlag::Set => {
                self.set_guest_debug(wanted, 0)?;
                let mut general = self.registers()?.general;
                general.rflags |= rflags::TF;
                self.write_general(&general)?;
            }
            _ => {}
        }
        self.set_guest_debug(wanted, inject)
    }

    /// `KVM_SET_GUEST_DEBUG`.
    ///
    /// Guest debugging stays enabled even when nothing is armed. With it off, KVM hands DR0-DR7 to the guest when the guest accesses one of them, and reads them back after the
    /// next entry. If debugging is turned on before that entry, KVM saves our values as the guest's (seen with kvm-amd of Linux 6.12, where the kernel logs a warning).
    fn set_guest_debug(&mut self, wanted: DebugState, inject: u32) -> Result<(), DebugError> {
        let mut debug = kvm_guest_debug {
            control: KVM_GUESTDBG_ENABLE | inject,
            ..Default::default()
        };
        if let Some((db, dr7)) = wanted.registers.programmed() {
            debug.control |= KVM_GUESTDBG_USE_HW_BP;
            debug.arch.debugreg[..db.len()].copy_from_slice(&db);
            let guard = match (self.features.register_access, wanted.registers.access()) {
                (true, RegisterAccess::Reported) => GENERAL_DETECT,
                (true, RegisterAccess::Emulated) | (false, _) => 0,
            };
            debug.arch.debugreg[7] = dr7 | guard;
        }
        if wanted.int3_exits == Int3Exits::On {
            debug.control |= KVM_GUESTDBG_USE_SW_BP;
        }
        if wanted.stepping == SingleStepping::On {
            debug.control |= KVM_GUESTDBG_SINGLESTEP;
        }
        if wanted.interrupts == Interrupts::Held && self.features.block_irq {
            debug.control |= KVM_GUESTDBG_BLOCKIRQ;
        }
        self.programmed = Programmed::Unknown;
        self.fd
            .set_guest_debug(&debug)
            .map_err(|err| hypervisor_error(HypervisorCall::SetDebugState, err))?;
        self.hides = wanted.stepping;
        self.programmed = match inject {
            0 => Programmed::Fresh(wanted),
            _ => Programmed::Unknown,
        };
        Ok(())
    }

    /// Blocks interrupts for one instruction, as `sti` does. Does nothing if the guest has interrupts disabled, because VT-x refuses this state.
    pub(super) fn cast_shadow(&mut self) -> Result<(), DebugError> {
        let regs = self.registers()?.general;
        if regs.rflags & rflags::IF == 0 {
            return Ok(());
        }
        let fd = &mut self.fd;
        let cast = |err| hypervisor_error(HypervisorCall::HoldInterrupts, err);
        let mut events = fd.get_vcpu_events().map_err(cast)?;
        events.interrupt.shadow |= SHADOW_STI;
        events.flags |= KVM_VCPUEVENT_VALID_SHADOW;
        fd.set_vcpu_events(&events).map_err(cast)
    }
}
