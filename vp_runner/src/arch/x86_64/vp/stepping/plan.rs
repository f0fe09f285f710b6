//! How the next instruction is stepped: with our trap flag or without, and where the step's traps wait.

use super::super::cpu::Cpu;
use super::super::cpu::Events;
use super::super::debug_state::Interrupts;
use super::super::debug_state::Undelivered;
use super::super::debugging::Debugging;
use super::super::guest_memory::GuestMemory;
use super::super::vcpu::Vcpu;
use super::AtTrap;
use super::FaultHandlers;
use super::Interrupted;
use super::PlannedStep;
use super::Stepping;
use super::is_within_page;
use super::range_step::NextStep;
use super::resume_flag::HiddenFlag;
use super::syscall_msrs;
use crate::arch::x86_64::code_location::CodeLocation;
use crate::arch::x86_64::debug_registers::DebugRegisters;
use crate::arch::x86_64::debug_registers::Hits;
use crate::arch::x86_64::dr7::DebugPayload;
use crate::arch::x86_64::registers::CpuRegisters;
use crate::arch::x86_64::step_effects::LIKELY_FAULTS;
use crate::arch::x86_64::step_effects::Landing;
use crate::arch::x86_64::step_effects::Step;
use crate::arch::x86_64::step_effects::TrapFlag;
use crate::arch::x86_64::step_effects::class;
use crate::arch::x86_64::step_effects::class::Class;
use crate::arch::x86_64::step_effects::handler;
use crate::arch::x86_64::stop_cause::DB_VECTOR;
use crate::arch::x86_64::stop_cause::SingleStepping;
use crate::control::entry::Entry;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::debug_rpc::DebugError;

const BP_VECTOR: u8 = 3;

/// The places where an instruction may lead, the likeliest first.
type Landings = [Option<Landing>; 3];

impl Stepping {
    /// Plans the step over the next instruction.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(in super::super) fn plan<V: Vcpu>(
        &mut self,
        entry: &Entry,
        cpu: &mut Cpu<V>,
        memory: &GuestMemory,
        debugging: &Debugging,
    ) -> Result<(), DebugError> {
        let undelivered = undelivered(entry, cpu, debugging)?;
        let interrupted = self.interrupted.take();
        let limits = cpu.vcpu.paging_limits()?;
        let before = *cpu.vcpu.registers()?;
        let location = before.location(limits);
        let code = memory.code_at(&location);
        let instruction = before.decode(code.bytes());
        let class = class::of(instruction.as_ref());
        let own = before.trap_flag();
        let usual = matches!(
            class,
            Class::Plain | Class::Faultless | Class::DebugRegister | Class::Halt
        );
        let eventless = undelivered.is_none() && interrupted.is_none();
        let plain = usual && eventless && own == TrapFlag::Clear;
        let faultless = plain && class == Class::Faultless && is_within_page(location.rip);
        let mut planned = PlannedStep {
            by_trap_flag: SingleStepping::On,
            interrupts: Interrupts::Held,
            registers: match faultless {
                true => debugging.registers(entry),
                false => registers_alone(entry, &before, cpu, debugging)?,
            },
            at_trap: AtTrap::StepDone,
            before,
            location,
            instruction,
            class,
            step: None,
            next: match faultless {
                true => NextStep::after_faultless(entry, cpu, debugging),
                false => NextStep::Plan,
            },
            blocking: Vec::new(),
        };
        // TF must not be on when an interrupt is taken: the handler would run unseen, and find TF in its frame.
        if let Some(Undelivered::Deliverable(_)) = undelivered {
            planned.interrupts = Interrupts::Free;
        }
        let mut wanted = [None; 3];
        if let Some(Interrupted { rip, saved }) = interrupted {
            planned.at_trap = AtTrap::HandlerReturned;
            wanted[0] = Some(Landing {
                first: rip,
                resume_flag: saved,
            });
        } else if !plain {
            wanted = planned.look_closely(entry, undelivered, cpu, memory, debugging);
        }
        let faults = match planned.at_trap {
            AtTrap::StepDone if !faultless => self.fault_handlers(&planned, memory),
            // An exception in the interrupt's handler is not part of the step.
            AtTrap::StepDone | AtTrap::HandlerBegins | AtTrap::HandlerReturned => {
                [None; LIKELY_FAULTS.len()]
            }
        };
        let landing = wanted[0].map(|landing| landing.first);
        if let Some(landing) = landing.filter(|_| debugging.gives_breakpoint()) {
            planned.registers = planned.registers.with_forced_trap(location.rip, landing);
        }
        // A trap at RIP would be met before the instruction.
        let here = |at: &Gva| planned.at_trap == AtTrap::StepDone && *at == location.rip;
        let all = wanted.into_iter().chain(faults).flatten();
        let firsts = all.clone().map(|landing| landing.first);
        let registers = planned
            .registers
            .with_traps(location.rip, firsts.filter(|at| !here(at)));
        planned.registers = registers;
        let stores = match &planned.step {
            Some(step) => step.stores_flags(),
            None => !eventless,
        };
        let trapped = landing.is_some_and(|at| registers.executes_at(at));
        let noticed = own == TrapFlag::Set || (stores && trapped);
        planned.by_trap_flag = match noticed {
            true => SingleStepping::Off,
            // Off for a guest that runs and only gets its `#BP`.
            false => entry.stepping(),
        };
        if !noticed {
            planned.at_trap = AtTrap::StepDone;
            planned.interrupts = Interrupts::Held;
        }
        let blocking = all.filter(|landing| registers.is_trap_at(landing.first));
        planned.blocking = blocking
            .filter_map(|landing| HiddenFlag::new(&landing, location.paging))
            .collect();
        if !plain || class == Class::DebugRegister {
            // The instruction may write the guest's debug registers, or a handler may that runs unseen.
            cpu.forget_guest_registers();
        }
        self.planned = Some(planned);
        Ok(())
    }

    fn fault_handlers(
        &mut self,
        planned: &PlannedStep,
        memory: &GuestMemory,
    ) -> [Option<Landing>; LIKELY_FAULTS.len()] {
        let idt = &planned.before.system.idt;
        let table = (idt.base, idt.limit, planned.before.is_64_bit_code());
        if let Some(known) = self.handlers.filter(|known| known.table == table) {
            return known.handlers;
        }
        let state = planned.before.state();
        let memory = memory.by(planned.location.paging);
        let tables = memory.prefetch(Gva::new(idt.base));
        let handlers = LIKELY_FAULTS.map(|vector| handler(&state, vector, &tables));
        self.handlers = Some(FaultHandlers { table, handlers });
        handlers
    }
}

impl PlannedStep {
    /// Finds out where the instruction leads, or the event that comes before it.
    fn look_closely<V: Vcpu>(
        &mut self,
        entry: &Entry,
        undelivered: Option<Undelivered>,
        cpu: &mut Cpu<V>,
        memory: &GuestMemory,
        debugging: &Debugging,
    ) -> Landings {
        let state = self.before.state();
        let CodeLocation { rip, paging, .. } = self.location;
        let handler = |vector| handler(&state, vector, &memory.by(paging));
        match undelivered {
            Some(Undelivered::Exception(vector) | Undelivered::Deliverable(vector)) => {
                return [handler(vector), None, None];
            }
            Some(Undelivered::Interrupt(vector)) if debugging.takes_interrupts(entry) => {
                return [handler(vector), None, None];
            }
            Some(Undelivered::Interrupt(vector)) => {
                let begin = handler(vector);
                self.at_trap = match begin {
                    Some(_) => AtTrap::HandlerBegins,
                    None => AtTrap::HandlerReturned,
                };
                return [begin.or(Some(Landing::at(rip))), None, None];
            }
            None => {}
        }
        let mut view = memory.by(paging);
        if self.class == Class::SystemCall {
            view.syscall = syscall_msrs(&self.before, &mut cpu.vcpu);
        }
        let own = self.before.trap_flag();
        let step = Step::new(&state, own, self.instruction.as_ref(), &view);
        // An interrupt shadow ends with the instruction: an interrupt would be taken before a breakpoint behind the instruction is met, but not before the trap of TF.
        let landing = match step.goes_on() && !cpu.vcpu.holds_interrupts() {
            true => None,
            false => step.landing(&state, &view),
        };
        self.step = Some(Box::new(step));
        match own {
            // Where KVM carries an instruction out itself, it queues the trap without an exit.
            TrapFlag::Set => [landing, handler(DB_VECTOR), None],
            TrapFlag::Clear => [landing, None, None],
        }
    }
}

/// The event that comes before the instruction. If a breakpoint of the guest's own waits at the instruction, the guest gets its `#DB` here.
fn undelivered<V: Vcpu>(
    entry: &Entry,
    cpu: &mut Cpu<V>,
    debugging: &Debugging,
) -> Result<Option<Undelivered>, DebugError> {
    if debugging.gives_breakpoint() {
        return Ok(Some(Undelivered::Exception(BP_VECTOR)));
    }
    if cpu.events == Events::Unknown {
        if let Some(found) = cpu.vcpu.undelivered()? {
            return Ok(Some(found));
        }
        // A guest that steps itself may find a trap queued after each instruction.
        if cpu.vcpu.registers()?.trap_flag() == TrapFlag::Clear {
            cpu.events = Events::None;
        }
    }
    if debugging.takes_interrupts(entry)
        && let Some(vector) = cpu.vcpu.deliverable()?
    {
        return Ok(Some(Undelivered::Deliverable(vector)));
    }
    // Where KVM carries the instruction out itself, it delivers this `#DB` without an exit.
    let hits: Hits = cpu.guests_breakpoints_here()?;
    if hits == 0 {
        return Ok(None);
    }
    cpu.inject(DebugPayload(hits), debugging.state(entry))?;
    Ok(Some(Undelivered::Exception(DB_VECTOR)))
}

/// The debug registers without the step's own.
fn registers_alone<V: Vcpu>(
    entry: &Entry,
    before: &CpuRegisters,
    cpu: &mut Cpu<V>,
    debugging: &Debugging,
) -> Result<DebugRegisters, DebugError> {
    let shared = debugging.registers(entry);
    if !shared.is_guests() {
        return Ok(shared);
    }
    // The step's traps take KVM's set, so the guest's own registers are put into it.
    let guests = shared.with_guest(&cpu.guest_registers()?);
    Ok(match before.resume_flag() {
        false => guests,
        // Some KVMs ignore RF, and would meet the guest's own breakpoint at each attempt.
        true => guests.without_execution_at(before.linear_rip()),
    })
}
