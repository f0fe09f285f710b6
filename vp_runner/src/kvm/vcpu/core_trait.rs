//! The vCPU operations of the VP core, made by ioctls.

use super::KvmVcpu;
use super::Programmed;
use super::RegistersIn;
use crate::arch::x86_64::convert::general;
use crate::arch::x86_64::debug_registers::GuestRegisters;
use crate::arch::x86_64::dr7::DebugPayload;
use crate::arch::x86_64::emulate::Outcome;
use crate::arch::x86_64::page_walk::PagingLimits;
use crate::arch::x86_64::registers::CpuRegisters;
use crate::arch::x86_64::step_effects::TrapFlag;
use crate::arch::x86_64::stop_cause::SingleStepping;
use crate::arch::x86_64::vp::debug_state::DebugState;
use crate::arch::x86_64::vp::debug_state::Interrupts;
use crate::arch::x86_64::vp::debug_state::Undelivered;
use crate::arch::x86_64::vp::vcpu::Vcpu;
use crate::kvm::hypervisor_error;
use crate::kvm::immediate_exit;
use crate::kvm::pending_interrupt;
use kvm_bindings::*;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::HypervisorCall;
use vmm_core_defs::debug_rpc::VpActivity;
use vmm_core_defs::regs::X86VpState;
use vmm_core_defs::regs::x86_64::bits::rflags;

impl Vcpu for KvmVcpu {
    /// The VP's thread has cleared a flag of this crate before. A flag of the VMM stays, and makes the next `KVM_RUN` return to the VMM.
    fn set_immediate_exit(&mut self, on: bool) {
        if on {
            immediate_exit::set();
        }
    }

    fn want_registers(&mut self, on: bool) {
        let fields = match on && self.features.sync_regs {
            true => KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS,
            false => 0,
        };
        self.fd.get_kvm_run().kvm_valid_regs = fields.into();
    }

    /// While KVM steps, it is told the state anew before every entry, whether or not the state changed, but for [`kept_trap_flag`](Vcpu::kept_trap_flag): some KVMs lose
    /// the trap flag when the guest's own `popf` or `iret` clears it, or when they carry an instruction out themselves.
    fn program(&mut self, wanted: DebugState) -> Result<(), DebugError> {
        let holds = match self.programmed {
            Programmed::Fresh(state) => state == wanted,
            Programmed::Used(state) => state == wanted && wanted.stepping == SingleStepping::Off,
            Programmed::Unknown => false,
        };
        if !holds {
            self.program_with(wanted, 0)?;
        }
        match (wanted.interrupts, self.features.block_irq) {
            (Interrupts::Held, false) => self.cast_shadow(),
            _ => Ok(()),
        }
    }

    fn kept_trap_flag(&mut self) {
        if let Programmed::Used(state) = self.programmed {
            self.programmed = Programmed::Fresh(state);
        }
    }

    fn set_own_trap_flag(&mut self, own: TrapFlag) {
        if self.own != own {
            // RFLAGS was read with the old trap flag.
            self.registers_in = RegistersIn::Kvm;
        }
        self.own = own;
    }

    fn guest_debug_registers(&mut self) -> Result<GuestRegisters, DebugError> {
        let registers = self.fd.get_debug_regs();
        let registers =
            registers.map_err(|err| hypervisor_error(HypervisorCall::ReadDebugRegisters, err))?;
        Ok(GuestRegisters {
            db: registers.db,
            dr7: registers.dr7,
        })
    }

    fn holds_interrupts(&self) -> bool {
        self.features.block_irq
    }

    fn undelivered(&mut self) -> Result<Option<Undelivered>, DebugError> {
        let fd = &mut self.fd;
        let events = fd
            .get_vcpu_events()
            .map_err(|err| hypervisor_error(HypervisorCall::ReadEvents, err))?;
        Ok(
            if events.exception.injected | events.exception.pending != 0 {
                Some(Undelivered::Exception(events.exception.nr))
            } else if events.interrupt.injected != 0 {
                Some(Undelivered::Interrupt(events.interrupt.nr))
            } else {
                None
            },
        )
    }

    fn deliverable(&mut self) -> Result<Option<u8>, DebugError> {
        let CpuRegisters { general, system } = self.registers()?;
        let (flags, apic_base) = (general.rflags, system.apic_base);
        if flags & rflags::IF == 0 || self.has_interrupt_shadow()? {
            return Ok(None);
        }
        let Some((master, slave)) = pending_interrupt::pics(&self.vm) else {
            return Ok(None);
        };
        let lapic = self.fd.get_lapic();
        let lapic = lapic.map_err(|err| hypervisor_error(HypervisorCall::ReadLocalApic, err))?;
        Ok(pending_interrupt::next(&lapic, apic_base, &master, &slave))
    }

    fn inject_debug(&mut self, state: DebugState, payload: DebugPayload) -> Result<(), DebugError> {
        let fd = &mut self.fd;
        let set = |err| hypervisor_error(HypervisorCall::WriteDebugRegisters, err);
        let mut registers = fd.get_debug_regs().map_err(set)?;
        registers.dr6 = payload.deliver(registers.dr6);
        fd.set_debug_regs(&registers).map_err(set)?;
        self.program_with(state, KVM_GUESTDBG_INJECT_DB)
    }

    /// Interrupts are blocked during the delivery only if `KVM_GUESTDBG_BLOCKIRQ` works. An interrupt shadow is set together with all other events, and the `#BP` would be
    /// dropped.
    fn inject_breakpoint(&mut self, state: DebugState) -> Result<(), DebugError> {
        self.program_with(state, KVM_GUESTDBG_INJECT_BP)
    }

    /// KVM queues a `#UD` when it fails to emulate an instruction.
    fn drop_exception(&mut self) -> Result<(), DebugError> {
        let fd = &mut self.fd;
        let drop = |err| hypervisor_error(HypervisorCall::DropException, err);
        let mut events = fd.get_vcpu_events().map_err(drop)?;
        events.exception.injected = 0;
        events.exception.pending = 0;
        fd.set_vcpu_events(&events).map_err(drop)
    }

    /// `KVM_GET_VCPU_EVENTS` does not return a pending `#BP` or `#OF`, so setting the returned events drops it (api.rst, `KVM_GET_VCPU_EVENTS`;
    /// `kvm_vcpu_ioctl_x86_get_vcpu_events`).
    fn drop_soft_exception(&mut self) -> Result<(), DebugError> {
        let fd = &mut self.fd;
        let drop = |err| hypervisor_error(HypervisorCall::DropException, err);
        let events = fd.get_vcpu_events().map_err(drop)?;
        fd.set_vcpu_events(&events).map_err(drop)
    }

    fn has_interrupt_shadow(&mut self) -> Result<bool, DebugError> {
        let fd = &mut self.fd;
        let events = fd
            .get_vcpu_events()
            .map_err(|err| hypervisor_error(HypervisorCall::ReadEvents, err))?;
        Ok(events.interrupt.shadow != 0)
    }

    fn raise_nmi(&mut self) -> Result<(), DebugError> {
        let fd = &mut self.fd;
        fd.nmi()
            .map_err(|err| hypervisor_error(HypervisorCall::RaiseNmi, err))
    }

    /// Makes no ioctl if the registers came with the last exit.
    fn registers(&mut self) -> Result<&CpuRegisters, DebugError> {
        let fd = &mut self.fd;
        match self.registers_in {
            RegistersIn::LastRead => {}
            RegistersIn::KvmRun => {
                let sync = fd.sync_regs_mut();
                self.last_read.general = sync.regs;
                self.last_read.system = sync.sregs;
            }
            RegistersIn::Kvm => {
                let read = |err| hypervisor_error(HypervisorCall::ReadRegisters, err);
                self.last_read.general = fd.get_regs().map_err(read)?;
                self.last_read.system = fd.get_sregs().map_err(read)?;
            }
        }
        self.registers_in = RegistersIn::LastRead;
        if self.hides == SingleStepping::On && self.own == TrapFlag::Set {
            self.last_read.general.rflags |= rflags::TF;
        }
        Ok(&self.last_read)
    }

    /// KVM drops pending events when general registers are written, so the events are written again afterwards.
    fn write_general(&mut self, regs: &kvm_regs) -> Result<(), DebugError> {
        self.registers_change();
        let fd = &mut self.fd;
        let write = |err| hypervisor_error(HypervisorCall::WriteRegisters, err);
        let events = fd.get_vcpu_events().map_err(write)?;
        fd.set_regs(regs).map_err(write)?;
        match (events.exception.injected, events.exception.pending) {
            (0, 0) => Ok(()),
            _ => fd.set_vcpu_events(&events).map_err(write),
        }
    }

    fn skip_to(&mut self, rip: u64) -> Result<(), DebugError> {
        let mut regs = self.registers()?.general;
        regs.rip = rip;
        self.registers_change();
        let skip = |err| hypervisor_error(HypervisorCall::SkipInstruction, err);
        let fd = &mut self.fd;
        fd.set_regs(&regs).map_err(skip)?;
        let mut events = fd.get_vcpu_events().map_err(skip)?;
        events.interrupt.shadow = 0;
        events.flags |= KVM_VCPUEVENT_VALID_SHADOW;
        fd.set_vcpu_events(&events).map_err(skip)
    }

    fn write_outcome(&mut self, outcome: &Outcome) -> Result<(), DebugError> {
        let registers = general(outcome.gp, outcome.rip, outcome.rflags);
        self.registers_change();
        let set = self.fd.set_regs(&registers);
        set.map_err(|err| hypervisor_error(HypervisorCall::WriteRegisters, err))
    }

    fn paging_limits(&self) -> Result<PagingLimits, DebugError> {
        Ok(self.register_file()?.paging_limits())
    }

    fn read_state(&mut self) -> Result<X86VpState, DebugError> {
        let file = self.register_file()?;
        self.registers()?;
        file.read_with(&self.fd, &self.last_read)
    }

    fn write_state(&mut self, old: &X86VpState, new: &X86VpState) -> Result<(), DebugError> {
        let file = self.register_file()?;
        file.write(self.raw(), old, new)
    }

    /// A KVM without in-kernel interrupt controller does not know the run state. The result is then `Stopped`.
    fn activity(&mut self) -> Result<VpActivity, DebugError> {
        let state = self.fd.get_mp_state();
        let state = state.map_err(|err| hypervisor_error(HypervisorCall::ReadRunState, err))?;
        Ok(match state.mp_state {
            KVM_MP_STATE_HALTED => VpActivity::Halted,
            KVM_MP_STATE_UNINITIALIZED | KVM_MP_STATE_INIT_RECEIVED => VpActivity::WaitingForStart,
            _ => VpActivity::Stopped,
        })
    }

    /// See api.rst, `KVM_SET_MP_STATE`.
    fn halt_at(&mut self, next_rip: u64) -> Result<bool, DebugError> {
        let halted = kvm_mp_state {
            mp_state: KVM_MP_STATE_HALTED,
        };
        if self.fd.set_mp_state(halted).is_err() {
            return Ok(false);
        }
        self.skip_to(next_rip)?;
        Ok(true)
    }
}
