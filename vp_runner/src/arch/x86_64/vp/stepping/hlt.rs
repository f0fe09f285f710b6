//! Stepping over `hlt`.
//!
//! A KVM that emulates guest code ends the step, and applies the halt one instruction later: the VP then halts in the handler of the next interrupt,
//! with interrupts off, and nothing wakes the VP. So the runner halts the VP itself. The VP is then as any KVM leaves a VP that has stepped over `hlt`:
//! halted, with RIP behind the instruction.

use super::super::cpu::Cpu;
use super::super::vcpu::Vcpu;
use super::AtTrap;
use super::Stepping;
use crate::arch::x86_64::registers::CpuRegisters;
use crate::arch::x86_64::step_effects::class::Class;
use crate::arch::x86_64::stop_cause::SingleStepping;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::regs::x86_64::bits::rflags;

impl Stepping {
    /// The instruction under the planned step, if it is a `hlt` that the VP may execute, with no event before the instruction.
    pub(in super::super) fn over_hlt(&self) -> Option<Gva> {
        let planned = self.planned.as_ref()?;
        let CpuRegisters { general, system } = &planned.before;
        let supervisor = system.ss.dpl == 0 && general.rflags & rflags::VM == 0;
        let eventless = planned.at_trap == AtTrap::StepDone && planned.step.is_none();
        let halts = planned.class == Class::Halt
            && planned.by_trap_flag == SingleStepping::On
            && eventless
            && supervisor;
        halts.then_some(planned.location.rip)
    }

    /// Halts the VP behind the `hlt`. Returns the linear address of RIP, or `None` with nothing done: the VP has to execute the `hlt` itself.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(in super::super) fn halt<V: Vcpu>(
        &mut self,
        cpu: &mut Cpu<V>,
    ) -> Result<Option<Gva>, DebugError> {
        let hlt = self
            .planned
            .as_ref()
            .and_then(|planned| planned.instruction);
        let Some(hlt) = hlt else {
            return Ok(None);
        };
        if !cpu.vcpu.halt_at(hlt.next_ip())? {
            return Ok(None);
        }
        self.planned = None;
        cpu.linear_rip().map(Some)
    }
}
