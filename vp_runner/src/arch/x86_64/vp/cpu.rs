//! A vCPU together with the facts that were read from it and still hold.

use super::debug_state::DebugState;
use super::guest_memory::GuestMemory;
use super::vcpu::Vcpu;
use crate::arch::x86_64::code_location::CodeLocation;
use crate::arch::x86_64::debug_registers::DebugRegisters;
use crate::arch::x86_64::debug_registers::GuestRegisters;
use crate::arch::x86_64::debug_registers::Hits;
use crate::arch::x86_64::dr7::DebugPayload;
use iced_x86::Instruction;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::regs::x86_64::bits::rflags;

/// A vCPU, and what was read from it.
pub(super) struct Cpu<V> {
    pub(super) vcpu: V,
    pub(super) events: Events,
    /// The guest's own debug registers. Present if they were read and the guest cannot have written them since: while the VP is parked, and over most steps.
    guests: Option<GuestRegisters>,
}

/// Whether KVM delivers an event before the next instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Events {
    /// No event is pending.
    None,
    /// The pending events were not read since they may have changed.
    Unknown,
}

impl<V: Vcpu> Cpu<V> {
    pub(super) fn new(vcpu: V) -> Self {
        Self {
            vcpu,
            events: Events::Unknown,
            guests: None,
        }
    }

    /// The VP was reset, or its registers were written by the client.
    pub(super) fn forget(&mut self) {
        self.forget_events();
        self.guests = None;
    }

    /// Another event may be pending, so the events have to be read again.
    pub(super) fn forget_events(&mut self) {
        self.events = Events::Unknown;
    }

    /// The guest may have written its debug registers, so they have to be read again.
    pub(super) fn forget_guest_registers(&mut self) {
        self.guests = None;
    }

    /// The guest's own debug registers, if they are known without asking.
    pub(super) fn known_guest_registers(&self) -> Option<GuestRegisters> {
        self.guests
    }

    /// The guest's own debug registers.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(super) fn guest_registers(&mut self) -> Result<GuestRegisters, DebugError> {
        if let Some(guests) = self.guests {
            return Ok(guests);
        }
        let guests = self.vcpu.guest_debug_registers()?;
        self.guests = Some(guests);
        Ok(guests)
    }

    /// The guest's own execution breakpoints that its next instruction meets.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(super) fn guests_breakpoints_here(&mut self) -> Result<Hits, DebugError> {
        let guests = self.guest_registers()?;
        // This is asked before every step, and most guests have enabled none.
        if !guests.is_any_enabled() {
            return Ok(0);
        }
        let registers = self.vcpu.registers()?;
        let rip = registers.linear_rip();
        Ok(match registers.resume_flag() {
            false => DebugRegisters::of_guest(&guests).guests_at(rip.value()),
            true => 0,
        })
    }

    /// Gives the guest a `#DB` of its own with the next entry.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(super) fn inject(
        &mut self,
        payload: DebugPayload,
        state: DebugState,
    ) -> Result<(), DebugError> {
        self.forget_events();
        // The delivery clears DR7.GD.
        self.guests = None;
        self.vcpu.inject_debug(state, payload)
    }

    /// Sets RFLAGS.RF: the next instruction meets no execution breakpoint of the guest's own.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(super) fn set_resume_flag(&mut self) -> Result<(), DebugError> {
        let mut general = self.vcpu.registers()?.general;
        general.rflags |= rflags::RF;
        self.vcpu.write_general(&general)
    }

    /// The `INT3` of our byte has executed, so the guest's own breakpoints at that address are past. VT-x clears RFLAGS.RF for an `INT3` (SDM volume 3, "Saving RIP,
    /// RSP, RFLAGS, and SSP"), and without RF the guest's breakpoints are met again before the instruction under our byte. So RF is set.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(super) fn pass_guests_breakpoints(&mut self) -> Result<(), DebugError> {
        match self.guests_breakpoints_here()? {
            0 => Ok(()),
            _ => self.set_resume_flag(),
        }
    }

    /// The address of the next instruction, and the tables that translate it.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(super) fn location(&mut self) -> Result<CodeLocation, DebugError> {
        let limits = self.vcpu.paging_limits()?;
        Ok(self.vcpu.registers()?.location(limits))
    }

    /// The next instruction. `None`: it cannot be decoded.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(super) fn next_instruction(
        &mut self,
        memory: &GuestMemory,
    ) -> Result<Option<Instruction>, DebugError> {
        let limits = self.vcpu.paging_limits()?;
        let registers = self.vcpu.registers()?;
        let location = registers.location(limits);
        Ok(registers.decode(memory.code_at(&location).bytes()))
    }

    /// The linear address of RIP.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(super) fn linear_rip(&mut self) -> Result<Gva, DebugError> {
        Ok(self.vcpu.registers()?.linear_rip())
    }
}
