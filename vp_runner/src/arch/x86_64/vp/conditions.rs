//! Conditions of breakpoints: whether a hit of this VP is a stop.

use super::Vp;
use super::guest_memory::LinearMemory;
use super::vcpu::Vcpu;
use crate::arch::CodeLocation;
use crate::arch::SLOTS;
use crate::arch::x86_64::debug_registers::DebugRegisters;
use crate::arch::x86_64::debug_registers::Hits;
use crate::arch::x86_64::page_walk::PagingLimits;
use crate::arch::x86_64::registers::CpuRegisters;
use crate::arch::x86_64::stop_cause::DebugExit;
use crate::breakpoints::Checked;
use crate::breakpoints::Verdict;
use crate::control::entry::Entry;
use crate::control::run_state::Cause;
use agent_expr::Context;
use agent_expr::Refused;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::condition::ConditionRegister;
use vmm_core_defs::regs::x86_64::bits::msr;

/// What an expression sees of the VP.
struct AtHit<'a, V> {
    /// The registers that come with an exit.
    registers: &'a CpuRegisters,
    vcpu: &'a mut V,
    memory: LinearMemory<'a>,
}

impl<V: Vcpu> Context for AtHit<'_, V> {
    fn register(&mut self, number: u16) -> Result<u64, Refused> {
        match ConditionRegister::with_number(number).ok_or(Refused)? {
            ConditionRegister::KernelGsBase => {
                let base = self.vcpu.read_msr(msr::KERNEL_GS_BASE);
                base.map_err(|_| Refused)
            }
            register => self.registers.condition_value(register).ok_or(Refused),
        }
    }

    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), Refused> {
        let read = self.memory.read_some(Gva::new(address), into);
        (read == into.len()).then_some(()).ok_or(Refused)
    }
}

/// The debug registers of ours that have fired.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FiredSlots {
    /// Those that are no stop, because no condition of their breakpoints holds.
    pub(super) passed: Hits,
    /// The breakpoint of each of the others, if any breakpoint has conditions.
    stops: [Option<Breakpoint>; SLOTS],
}

/// Whether the instruction at a breakpoint was carried out in place of the VP.
enum Passed {
    /// Yes. The cause, if the entry ends with the instruction.
    InPlace(Option<Cause>),
    /// No, and nothing has changed.
    Not,
}

impl FiredSlots {
    /// The breakpoint that is the reason of the stop, if the register has fired.
    pub(super) fn stop(&self, slot: usize) -> Option<Breakpoint> {
        self.stops.get(slot).copied().flatten()
    }
}

impl<V: Vcpu> Vp<V> {
    /// The first of these breakpoints, which the VP has hit at once, whose hit is a stop. The commands of the others are executed nevertheless. A hit is a stop as well if the VP's
    /// registers cannot be read.
    fn first_stop(&mut self, hit: &[Breakpoint]) -> Option<Breakpoint> {
        let mut registers = None;
        let mut stop = None;
        for breakpoint in hit {
            // An evaluation reads memory, and so takes the lock of the breakpoints again.
            let conditions = self.memory.breakpoints().conditions.of(breakpoint);
            let verdict = match conditions {
                None => Verdict::Stops,
                Some(conditions) if stop.is_some() && !conditions.has_commands() => continue,
                Some(conditions) => self.evaluate(&conditions, &mut registers),
            };
            if verdict == Verdict::Stops {
                stop = stop.or(Some(*breakpoint));
            }
        }
        stop
    }

    /// Evaluates the conditions of a breakpoint with these registers, which are read first if they are not there.
    fn evaluate(
        &mut self,
        conditions: &Checked,
        registers: &mut Option<(CpuRegisters, PagingLimits)>,
    ) -> Verdict {
        let Self {
            index, cpu, memory, ..
        } = self;
        if registers.is_none() {
            let limits = cpu.vcpu.paging_limits().ok();
            *registers = cpu.vcpu.registers().ok().copied().zip(limits);
        }
        let Some((registers, limits)) = registers else {
            return Verdict::Stops;
        };
        let context = &mut AtHit {
            registers,
            vcpu: &mut cpu.vcpu,
            memory: memory.by(registers.location(*limits).paging),
        };
        conditions.evaluate(*index, context)
    }

    /// The breakpoint of this VP's stop at its RIP, where the VP has met the byte of `found`. `None`: no condition of any breakpoint there holds.
    pub(super) fn stop_at_rip(&mut self, found: Breakpoint) -> Option<Breakpoint> {
        if self.memory.breakpoints().conditions.is_empty() {
            return Some(found);
        }
        match self.cpu.location() {
            Ok(location) => {
                let hit = self.hit_together(&location);
                self.first_stop(&hit)
            }
            Err(_) => Some(found),
        }
    }

    /// A step has ended at RIP. The stop stands for a hit of the breakpoints there, which the VP passes next, so their commands are executed.
    pub(super) fn execute_commands_at_step_end(&mut self) {
        if self.memory.breakpoints().conditions.is_empty() {
            return;
        }
        let Ok(location) = self.cpu.location() else {
            return;
        };
        let armed = {
            let table = &self.memory.breakpoints().table;
            table.armed_at(&self.memory.ram, &location)
        };
        let mut registers = None;
        for breakpoint in armed {
            let conditions = self.memory.breakpoints().conditions.of(&breakpoint);
            if let Some(conditions) = conditions.filter(|conditions| conditions.has_commands()) {
                // The VP has stopped, whatever the verdict is.
                let _ = self.evaluate(&conditions, &mut registers);
            }
        }
    }

    fn hit_together(&self, location: &CodeLocation) -> Vec<Breakpoint> {
        let ram = &self.memory.ram;
        self.memory.breakpoints().table.hit_together(ram, location)
    }

    /// The debug registers of ours that have fired, with the breakpoints that are stops.
    pub(super) fn fired_slots(
        &mut self,
        exit: &DebugExit,
        registers: &DebugRegisters,
    ) -> FiredSlots {
        let mut fired = FiredSlots::default();
        if self.memory.breakpoints().conditions.is_empty() {
            return fired;
        }
        let mut rest = *registers;
        while let Some(slot) = rest.ours(exit.dr6) {
            rest = rest.without_hits(1 << slot);
            let sharing = self.memory.breakpoints().table.sharing_register(slot);
            let at_rip = registers.executing(1 << slot) != 0;
            let hit = match self.cpu.location() {
                // Also the breakpoints whose byte is there: the VP passes them too.
                Ok(location) if at_rip => self.hit_together(&location),
                Ok(_) | Err(_) => sharing,
            };
            let stop = self.first_stop(&hit);
            if stop.is_none() && !hit.is_empty() {
                fired.passed |= 1 << slot;
            }
            fired.stops[slot] = stop;
        }
        fired
    }

    /// No condition of the breakpoint byte at RIP holds. The VP passes the byte as it passes one whose stop was reported.
    pub(super) fn pass_false_byte(&mut self, rip: Gva, entry: &mut Entry) -> Option<Cause> {
        // After `mov ss` and its like, the byte is met before the trap of the step.
        if self.stepping.is_executed(rip, false) {
            self.stepping.drop_plan();
            if let Some(done) = entry.executed(rip.value()) {
                return Some(done);
            }
        }
        match self.pass_in_place(entry) {
            Passed::InPlace(done) => done,
            Passed::Not => Some(entry.emulation_failed()),
        }
    }

    /// No condition of the breakpoint at RIP holds, and these debug registers have fired for it. The VP passes the breakpoint.
    pub(super) fn pass_false_slots(
        &mut self,
        here: Hits,
        rip: Gva,
        entry: &mut Entry,
    ) -> Option<Cause> {
        entry.condition_is_false(rip);
        let executes = self.memory.breakpoints().table.is_passed_by_executing(rip);
        if !executes && let Passed::InPlace(done) = self.pass_in_place(entry) {
            return done;
        }
        entry.disarm(here);
        None
    }

    /// Carries out the instruction at RIP, if possible: that takes one entry into the guest less than to execute it.
    fn pass_in_place(&mut self, entry: &mut Entry) -> Passed {
        let location = match self.cpu.location() {
            Ok(location) => location,
            Err(err) => return Passed::InPlace(Some(self.crashed(&err))),
        };
        entry.condition_is_false(location.rip);
        match self.carry_out(&location) {
            Some(rip) => {
                self.stepping.drop_plan();
                Passed::InPlace(entry.executed(rip.value()))
            }
            None => Passed::Not,
        }
    }
}
