//! Debug exits: whose exception it was, which part of it the guest gets, and whether the VP parks.

use super::Progress;
use super::Vp;
use super::breakpoint_byte::ByteHere;
use super::conditions::FiredSlots;
use super::debug_state::DebugState;
use super::debugging::Debugging;
use super::vcpu::Vcpu;
use crate::arch::x86_64::debug_registers::DebugRegisters;
use crate::arch::x86_64::debug_registers::Hits;
use crate::arch::x86_64::dr7::DebugPayload;
use crate::arch::x86_64::stop_cause::DebugCause;
use crate::arch::x86_64::stop_cause::DebugExit;
use crate::arch::x86_64::stop_cause::SingleStepping;
use crate::arch::x86_64::stop_cause::stop_cause;
use crate::control::entry::Entry;
use crate::control::guest_event::GuestEvent;
use crate::control::run_state::Cause;
use iced_x86::Code;
use kvm_bindings::KVM_INTERNAL_ERROR_EMULATION;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::stop::CrashCause;
use vmm_core_defs::stop::DebugStopReason;

/// KVM could not emulate an instruction.
const EMULATION_FAILED: CrashCause = CrashCause::Internal {
    suberror: KVM_INTERNAL_ERROR_EMULATION,
};

impl<V: Vcpu> Vp<V> {
    /// `None`: the VP goes on.
    pub(super) fn after_debug_exit(
        &mut self,
        exit: &DebugExit,
        entry: &mut Entry,
    ) -> Option<Cause> {
        self.progress = Progress::Started;
        if self.stepping.takes_pending_trap(exit) {
            return None;
        }
        match self.passes_in_silence(exit, entry) {
            Ok(true) => return None,
            Ok(false) => {}
            Err(err) => return Some(self.crashed(&err)),
        }
        let state = self.debug_state(entry);
        let registers = match Debugging::in_force(exit, &state, &mut self.cpu) {
            Ok(registers) => registers,
            Err(err) => return Some(self.crashed(&err)),
        };
        // If the guest's own single-step trap came as well, that one counts.
        let guests_step = exit.dr6.single_step() && state.stepping == SingleStepping::Off;
        if exit.is_db() && registers.trapped(exit.dr6) && !guests_step {
            return self.trapped(exit, entry);
        }
        let registers = match self.met_by_another_process(exit, &registers) {
            // Some CPUs report the breakpoint together with the step that led to it.
            Some(passed) if exit.dr6.single_step() => registers.without(passed),
            Some(passed) => {
                entry.disarm(passed);
                return None;
            }
            None => registers,
        };
        let fired = match exit.is_db() {
            true => self.fired_slots(exit, &registers),
            false => FiredSlots::default(),
        };
        if fired.passed == 0 {
            return self.after_cause(exit, &registers, &state, &fired, entry);
        }
        self.after_false_slots(exit, &registers, &fired, entry)
    }

    /// These debug registers of ours have fired, and are no stop.
    fn after_false_slots(
        &mut self,
        exit: &DebugExit,
        registers: &DebugRegisters,
        fired: &FiredSlots,
        entry: &mut Entry,
    ) -> Option<Cause> {
        let rest = registers.without_hits(fired.passed);
        let here = registers.executing(fired.passed);
        let state = self.debug_state(entry);
        let others = rest.ours(exit.dr6).is_some() || rest.guests(exit.dr6) != 0;
        if others || exit.dr6.single_step() {
            return self.after_cause(exit, &rest, &state, fired, entry);
        }
        if here != 0 {
            return self.pass_false_slots(here, Gva::new(exit.pc), entry);
        }
        // A watchpoint comes with the end of its instruction.
        match self.stepping.is_executed(Gva::new(exit.pc), false) {
            true => {
                self.settle(exit);
                entry.executed(exit.pc)
            }
            false => None,
        }
    }

    /// Whether the guest goes on and nothing is reported: because RFLAGS.RF lets the instruction pass the breakpoint, or because the guest accesses its debug registers.
    fn passes_in_silence(
        &mut self,
        exit: &DebugExit,
        entry: &mut Entry,
    ) -> Result<bool, DebugError> {
        if !exit.is_db() {
            return Ok(false);
        }
        if exit.dr6.breakpoints() {
            let registers = self.debug_state(entry).registers;
            if Debugging::heeds_resume_flag(&registers, exit, entry, &mut self.cpu)? {
                return Ok(true);
            }
        }
        match exit.dr6.debug_register_access() {
            true => Debugging::lets_access_through(entry, &mut self.cpu),
            false => Ok(false),
        }
    }

    fn after_cause(
        &mut self,
        exit: &DebugExit,
        registers: &DebugRegisters,
        state: &DebugState,
        fired: &FiredSlots,
        entry: &mut Entry,
    ) -> Option<Cause> {
        match stop_cause(exit, registers, state.stepping) {
            DebugCause::Slot { slot, guest } => {
                // A watchpoint comes with the end of its instruction. Some CPUs report a breakpoint together with the step that led to it.
                let step = exit.dr6.single_step();
                if self.stepping.is_executed(Gva::new(exit.pc), step) {
                    entry.count_step();
                }
                let guest = self.settle(exit).or(guest);
                let cause = self.slot_cause(slot, fired);
                // The guest's part of the exception waits in KVM until the VP enters again.
                let failed = guest.and_then(|payload| self.give_back(payload, *state));
                Some(failed.unwrap_or(cause))
            }
            DebugCause::Step { .. } if self.stepping.lost_race(exit) => {
                self.stepping.drop_plan();
                None
            }
            DebugCause::Step { guest } => {
                let guest = self.settle(exit).or(guest);
                let done = entry.executed(exit.pc);
                let state = self.debug_state(entry);
                let failed = guest.and_then(|payload| self.give_back(payload, state));
                failed.or(done)
            }
            // The guest steps itself: the debugger's step is done as well.
            DebugCause::GuestDebug(payload)
                if self.stepping.is_planned() && exit.dr6.single_step() =>
            {
                self.stepping.drop_plan();
                let done = entry.executed(exit.pc);
                let state = self.debug_state(entry);
                self.give_back(payload, state).or(done)
            }
            DebugCause::GuestDebug(payload)
                if payload.is_empty() && state.registers.guests(exit.dr6) != 0 =>
            {
                // The guest had disabled the breakpoint since its registers were read.
                self.cpu.forget_guest_registers();
                None
            }
            DebugCause::GuestDebug(payload) => {
                if exit.dr6.is_empty()
                    && let Err(err) = self.skip_icebp()
                {
                    return Some(self.crashed(&err));
                }
                entry.guest_exception_first();
                let state = self.debug_state(entry);
                self.give_back(payload, state)
            }
            DebugCause::Int3 => self.after_int3(exit, entry),
        }
    }

    fn after_int3(&mut self, exit: &DebugExit, entry: &mut Entry) -> Option<Cause> {
        let Some(byte) = self.byte_here() else {
            // The VP is not past a debug register there before the exception is delivered.
            self.cpu.forget_guest_registers();
            self.stepping.forget_handlers();
            self.debugging.met_own_int3(Gva::new(exit.pc));
            return None;
        };
        self.stepping.met_byte(exit);
        match self.cpu.pass_guests_breakpoints() {
            Ok(()) => self.met(byte, entry),
            Err(err) => Some(self.crashed(&err)),
        }
    }

    /// The VP met a byte of ours. `None`: it goes on.
    fn met(&mut self, byte: ByteHere, entry: &mut Entry) -> Option<Cause> {
        match byte {
            // A debug register has fired here before, and no condition held.
            ByteHere::Breakpoint(found) if entry.passes_at(found.address) => {
                self.pass_false_byte(found.address, entry)
            }
            ByteHere::Breakpoint(found) => {
                let Some(breakpoint) = self.stop_at_rip(found) else {
                    return self.pass_false_byte(found.address, entry);
                };
                // After `mov ss` and its like, the byte is met before the trap of the step.
                if self.stepping.is_executed(breakpoint.address, false) {
                    entry.count_step();
                }
                let vp = self.index;
                Some(Cause::Debug(DebugStopReason::Breakpoint { vp, breakpoint }))
            }
            ByteHere::OtherAddress(location) => match self.carry_out(&location) {
                Some(rip) => {
                    self.stepping.drop_plan();
                    entry.executed(rip.value())
                }
                None => Some(entry.emulation_failed()),
            },
        }
    }

    /// KVM cannot run the VP, or the guest asks for a reset or power-off. A KVM that emulates guest code fails at an `INT3`, with nothing executed. If a breakpoint byte is there,
    /// the exit is a breakpoint hit.
    pub(super) fn after_failure(&mut self, event: GuestEvent, entry: &mut Entry) -> Option<Cause> {
        let byte = match event {
            GuestEvent::Crashed { cause, .. } if cause == EMULATION_FAILED => self.byte_here(),
            _ => None,
        };
        let Some(byte) = byte else {
            return Some(Cause::Guest(event));
        };
        match self.cpu.vcpu.drop_exception() {
            Ok(()) => self.met(byte, entry),
            Err(err) => Some(self.crashed(&err)),
        }
    }

    /// A trap of the step under way was met.
    pub(super) fn trapped(&mut self, exit: &DebugExit, entry: &mut Entry) -> Option<Cause> {
        let Self {
            stepping,
            cpu,
            memory,
            ..
        } = self;
        let trapped = stepping.trapped(exit, entry, cpu, memory);
        let state = self.debug_state(entry);
        let failed = trapped
            .guest
            .and_then(|payload| self.give_back(payload, state));
        failed.or(trapped.done)
    }

    fn settle(&mut self, exit: &DebugExit) -> Option<DebugPayload> {
        self.stepping.settle(exit, &mut self.cpu, &self.memory)
    }

    /// Gives the guest its own `#DB` with the next entry. Returns the cause where that fails.
    fn give_back(&mut self, payload: DebugPayload, state: DebugState) -> Option<Cause> {
        let failed = self.cpu.inject(payload, state).err();
        failed.map(|err| self.crashed(&err))
    }

    /// The breakpoint or watchpoint on this debug register.
    fn slot_cause(&self, slot: usize, fired: &FiredSlots) -> Cause {
        let vp = self.index;
        let on_register = || self.memory.breakpoints().table.on_register(slot);
        let Some(breakpoint) = fired.stop(slot).or_else(on_register) else {
            // The table changes only while every VP is parked, and VPs get it before they enter (I3, I5).
            tracing::error!(%vp, slot, "a debug register fired that holds no breakpoint");
            return Cause::NotReported;
        };
        let address = breakpoint.address;
        Cause::Debug(match breakpoint.kind.is_watchpoint() {
            true => DebugStopReason::Watchpoint {
                vp,
                breakpoint,
                address,
            },
            false => DebugStopReason::Breakpoint { vp, breakpoint },
        })
    }

    /// On VT-x, an `ICEBP` that exits leaves RIP at the instruction, although its `#DB` is a trap. KVM skips the instruction only where no debugger steps or has a
    /// debug register (`handle_exception_nmi` in Linux), so RIP is moved here before the guest gets the `#DB`.
    fn skip_icebp(&mut self) -> Result<(), DebugError> {
        match self.cpu.next_instruction(&self.memory)? {
            Some(icebp) if icebp.code() == Code::Int1 => self.cpu.vcpu.skip_to(icebp.next_ip()),
            Some(_) | None => Ok(()),
        }
    }

    /// The debug register of a pending software breakpoint, if it stopped a process that the breakpoint is not for.
    fn met_by_another_process(
        &mut self,
        exit: &DebugExit,
        registers: &DebugRegisters,
    ) -> Option<Hits> {
        if !exit.is_db() {
            return None;
        }
        let slot = registers.ours(exit.dr6)?;
        let location = self.cpu.location().ok()?;
        let table = &self.memory.breakpoints().table;
        table
            .belongs_to_other_process(slot, &self.memory.ram, &location)
            .then_some(1 << slot)
    }
}
