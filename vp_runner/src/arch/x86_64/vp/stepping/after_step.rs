//! The end of a step: whether the step is done, and the trap flag that it stored in the guest.

use super::super::cpu::Cpu;
use super::super::guest_memory::GuestMemory;
use super::super::vcpu::Vcpu;
use super::AtTrap;
use super::Interrupted;
use super::PlannedStep;
use super::Stepping;
use super::syscall_msrs;
use crate::arch::x86_64::code_location::CodeLocation;
use crate::arch::x86_64::dr7::DebugPayload;
use crate::arch::x86_64::dr7::Dr6;
use crate::arch::x86_64::page_walk::PagingState;
use crate::arch::x86_64::registers::CpuRegisters;
use crate::arch::x86_64::step_effects::Correction;
use crate::arch::x86_64::step_effects::FlagsLocation;
use crate::arch::x86_64::step_effects::GuestTrap;
use crate::arch::x86_64::step_effects::Step;
use crate::arch::x86_64::step_effects::StepEffects;
use crate::arch::x86_64::step_effects::TrapFlag;
use crate::arch::x86_64::step_effects::class::Class;
use crate::arch::x86_64::stop_cause::DB_VECTOR;
use crate::arch::x86_64::stop_cause::DebugExit;
use crate::arch::x86_64::stop_cause::SingleStepping;
use crate::control::entry::Entry;
use crate::control::run_state::Cause;
use iced_x86::Instruction;
use iced_x86::Mnemonic;
use iced_x86::OpKind;
use thiserror::Error;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::regs::x86_64::bits::rflags;

/// The result of meeting one of the step's traps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Trapped {
    /// The `#DB` that the guest gets for the step.
    pub(in super::super) guest: Option<DebugPayload>,
    /// The cause that ends the entry, if the step does.
    pub(in super::super) done: Option<Cause>,
}

/// Why a trap flag that a step stored could not be corrected. The reason goes to the log only.
#[derive(Debug, Error)]
enum NotCorrected {
    /// The step stored the flags at an address whose RAM is gone.
    #[error("no RAM is at {0}, where the step stored the flags")]
    NoRam(Gva),
    #[error(transparent)]
    Vcpu(#[from] DebugError),
}

impl Stepping {
    /// One of the step's traps was met.
    pub(in super::super) fn trapped<V: Vcpu>(
        &mut self,
        exit: &DebugExit,
        entry: &mut Entry,
        cpu: &mut Cpu<V>,
        memory: &GuestMemory,
    ) -> Trapped {
        let at_trap = self.planned.as_ref().map(|planned| planned.at_trap);
        if at_trap == Some(AtTrap::HandlerBegins) {
            self.interrupted = self
                .planned
                .as_ref()
                .and_then(|planned| planned.find_saved_resume_flag(cpu, memory));
        }
        let guest = self.settle(exit, cpu, memory);
        let done = match at_trap {
            Some(AtTrap::StepDone) => entry.executed(exit.pc),
            Some(AtTrap::HandlerBegins | AtTrap::HandlerReturned) | None => {
                cpu.forget_events();
                None
            }
        };
        Trapped { guest, done }
    }

    /// A signal may arrive when an instruction has led to a trap of the step, before the trap is met. The step is done all the same. Returns the debug exit that the VP would
    /// have made.
    pub(in super::super) fn landed<V: Vcpu>(&self, cpu: &mut Cpu<V>) -> Option<DebugExit> {
        // Present: nothing has ended the step.
        let planned = self.planned.as_ref()?;
        let rip = cpu.linear_rip().ok()?;
        if rip == planned.location.rip || !planned.registers.is_trap_at(rip) {
            return None;
        }
        Some(DebugExit {
            vector: DB_VECTOR.into(),
            pc: rip.value(),
            dr6: Dr6(0),
        })
    }

    /// Whether the instruction has to be stepped again. KVM's emulator makes a locked write with a compare-and-exchange, and if another VP has changed the memory in between, the
    /// emulator reports the step with nothing executed (`emulator_cmpxchg_emulated` in Linux).
    pub(in super::super) fn lost_race(&self, exit: &DebugExit) -> bool {
        let Some(planned) = &self.planned else {
            return false;
        };
        planned.by_trap_flag == SingleStepping::On
            && exit.is_step_alone()
            && planned.location.rip.value() == exit.pc
            && planned.instruction.as_ref().is_some_and(is_locked)
    }

    /// The step ended with a debug exit. Corrects the trap flag that the step stored in the guest. Returns the `#DB` that the guest gets for the step.
    pub(in super::super) fn settle<V: Vcpu>(
        &mut self,
        exit: &DebugExit,
        cpu: &mut Cpu<V>,
        memory: &GuestMemory,
    ) -> Option<DebugPayload> {
        let planned = self.planned.take()?;
        if planned.class == Class::Faultless && exit.dr6.single_step() {
            cpu.vcpu.kept_trap_flag();
        }
        let rip = Gva::new(exit.pc);
        let moved = exit.dr6.single_step() || planned.location.rip != rip;
        // A breakpoint of the client at a handler ends the step as a trap of the step does.
        let in_handler = planned.registers.executes_at(rip);
        let may_show = planned.step.is_some() || in_handler;
        if planned.by_trap_flag == SingleStepping::Off || !moved || !may_show {
            return None;
        }
        let registers = cpu.vcpu.registers().copied().map_err(NotCorrected::from);
        let corrected = registers.and_then(|after| {
            let (effects, paging) = planned.effects(&after, cpu, memory);
            correct(&effects, paging, &after, cpu, memory)?;
            Ok(effects.trap)
        });
        match corrected {
            Ok(GuestTrap::SingleStepTrap) => Some(DebugPayload::SINGLE_STEP),
            Ok(GuestTrap::Nothing) => None,
            Err(err) => {
                tracing::warn!(error = %err, "the trap flag of a step may show in the guest");
                None
            }
        }
    }
}

impl PlannedStep {
    /// The interrupt was delivered, and its handler is about to run.
    fn find_saved_resume_flag<V: Vcpu>(
        &self,
        cpu: &mut Cpu<V>,
        memory: &GuestMemory,
    ) -> Option<Interrupted> {
        let CodeLocation { rip, paging, .. } = self.location;
        let after = cpu.vcpu.registers().ok()?.state();
        // The frame is read by the tables that the delivery used. The guest has executed nothing since, so it has no others.
        let view = memory.by(paging);
        let step = Step::new(
            &self.before.state(),
            TrapFlag::Clear,
            self.instruction.as_ref(),
            &view,
        );
        let saved = step.saved_resume_flag(&after, &view);
        Some(Interrupted { rip, saved })
    }

    fn effects<V: Vcpu>(
        &self,
        after: &CpuRegisters,
        cpu: &mut Cpu<V>,
        memory: &GuestMemory,
    ) -> (StepEffects, PagingState) {
        let paging = after.location(self.location.paging.limits).paging;
        let mut view = memory.by(paging);
        view.syscall = syscall_msrs(&self.before, &mut cpu.vcpu);
        let after = after.state();
        let effects = match &self.step {
            Some(step) => step.after(&after, &view),
            None => {
                let instruction = self.instruction.as_ref();
                let step = Step::new(&self.before.state(), TrapFlag::Clear, instruction, &view);
                step.after(&after, &view)
            }
        };
        (effects, paging)
    }
}

fn correct<V: Vcpu>(
    effects: &StepEffects,
    paging: PagingState,
    after: &CpuRegisters,
    cpu: &mut Cpu<V>,
    memory: &GuestMemory,
) -> Result<(), NotCorrected> {
    cpu.vcpu.set_own_trap_flag(effects.own);
    let Some(Correction { location, flag }) = effects.correction else {
        return Ok(());
    };
    let fix = |image: u64| match flag {
        TrapFlag::Set => image | rflags::TF,
        TrapFlag::Clear => image & !rflags::TF,
    };
    match location {
        FlagsLocation::Memory(gva) => {
            let fix = |byte: u8| {
                let [_, byte, ..] = fix(u64::from(byte) << 8).to_le_bytes();
                byte
            };
            let changed = memory.by(paging).change_byte(gva, fix);
            changed.ok_or(NotCorrected::NoRam(gva))
        }
        FlagsLocation::Register(_) => {
            let mut general = after.general;
            general.r11 = fix(general.r11);
            Ok(cpu.vcpu.write_general(&general)?)
        }
    }
}

/// Whether the instruction writes to memory with the bus locked (SDM volume 2, "LOCK", "XCHG").
fn is_locked(instruction: &Instruction) -> bool {
    let exchange = instruction.mnemonic() == Mnemonic::Xchg;
    let memory =
        (0..instruction.op_count()).any(|operand| instruction.op_kind(operand) == OpKind::Memory);
    instruction.has_lock_prefix() || (exchange && memory)
}
