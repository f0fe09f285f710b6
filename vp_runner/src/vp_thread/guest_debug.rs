//! The guest's own debugging beside ours: whose a debug exception is, giving the guest's back, and sharing the debug registers.
//!
//! While the debugger has a debug register, some KVMs say nothing of the guest's writes to its own (DR7.GD in the set given to KVM was seen to stop no
//! write), so they are looked at before every entry, and the controller sees to it that there is one from time to time. Where DR7.GD does stop them, it is in the
//! set, and each access is let through for one step.

use super::before_guest::BeforeGuest;
use super::*;
use crate::arch::x86_64::debug_registers::GuestRegisters;
use crate::arch::x86_64::debug_registers::Hits;
use crate::arch::x86_64::dr7::DebugPayload;
use crate::arch::x86_64::dr7::Dr6;
use crate::arch::x86_64::instruction::decode;
use crate::arch::x86_64::stop_cause::DebugCause;
use crate::arch::x86_64::stop_cause::DebugExit;
use crate::arch::x86_64::stop_cause::stop_cause;
use iced_x86::Code;
use step::general;
use vmm_core_defs::regs::x86_64::bits::rflags;
use vmm_core_defs::stop::DebugStopReason;

/// An `INT3` of the guest's own that the VP stands on.
///
/// Its `#BP` is given back for one entry only, with interrupts held, and a trap at the handler brings the VP back at once to let them go again. For where
/// a VP leaves KVM's hands between injection and delivery, kvm-amd clears its note of the exception as it injects it anew, and puts an interrupt that has
/// become pending in its place, with RIP behind the `INT3` (Linux 6.12, on a CPU without NRIPS and after an exit that gives no next RIP).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OwnInt3 {
    /// The linear address.
    at: u64,
}

/// The trap of our single step over an instruction that blocks debug exceptions for the next one, as `mov ss` does.
///
/// Where that next instruction is an `INT3` of ours, VT-x exits for the `INT3` and keeps the trap pending (SDM volume 3, "Pending Debug Exceptions"). The trap
/// comes as soon as the VP enters again, before the VP executes anything. A processor may keep no such trap, so a trap that comes later is not this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StepTrap {
    /// No such trap is pending.
    Taken,
    /// Such a trap may be pending, and the VP has not entered since.
    MayBePending,
    /// Such a trap may be pending, and the VP has entered at this linear address.
    Expected(u64),
}

impl Vp {
    pub(super) fn after_debug_exit(
        &mut self,
        exit: &DebugExit,
        entry: &mut Entry,
    ) -> Option<Cause> {
        self.life = Life::Started;
        let step_trap = std::mem::replace(&mut self.step_trap, StepTrap::Taken);
        if step_trap == StepTrap::Expected(exit.pc) && exit.is_step_alone() {
            return None;
        }
        if exit.is_db() && exit.dr6.breakpoints() {
            match self.heed_resume_flag(exit, entry) {
                Ok(true) => return None,
                Ok(false) => {}
                Err(err) => return Some(self.crashed(&err)),
            }
        }
        if exit.is_db() && exit.dr6.debug_register_access() {
            match self.guard_is_ours() {
                Ok(true) => {
                    entry.disarm(Dr6::ACCESS);
                    return None;
                }
                Ok(false) => {}
                Err(err) => return Some(self.crashed(&err)),
            }
        }
        let state = self.debug_state(entry);
        let registers = match self.in_force(exit, &state) {
            Ok(registers) => registers,
            Err(err) => return Some(self.crashed(&err)),
        };
        // With the guest's own single-step trap, that counts.
        let guests_step = exit.dr6.single_step() && state.stepping == Stepping::Off;
        if exit.is_db() && registers.trapped(exit.dr6) && !guests_step {
            return self.trapped(exit, entry);
        }
        let registers = match self.met_by_another_process(exit, &registers) {
            // Some CPUs tell of it together with the step that led there.
            Some(passed) if exit.dr6.single_step() => registers.without(passed),
            Some(passed) => {
                entry.disarm(passed);
                return None;
            }
            None => registers,
        };
        match stop_cause(exit, &registers, state.stepping) {
            DebugCause::Slot { slot, guest } => {
                let guest = self.settle(exit).or(guest);
                self.after_ours(guest, self.slot_cause(slot), &state)
            }
            DebugCause::Step { guest } => {
                let guest = self.settle(exit).or(guest);
                let done = entry.executed(exit.pc);
                let state = self.debug_state(entry);
                match guest {
                    Some(payload) => self.give_back(payload, &state).err().or(done),
                    None => done,
                }
            }
            // The guest steps itself: the debugger's step is done as well.
            DebugCause::GuestDebug(payload)
                if self.underway.is_some() && exit.dr6.single_step() =>
            {
                self.underway = None;
                let done = entry.executed(exit.pc);
                let state = self.debug_state(entry);
                self.give_back(payload, &state).err().or(done)
            }
            DebugCause::GuestDebug(payload)
                if payload.is_empty() && state.registers.guests(exit.dr6) != 0 =>
            {
                // The guest had let it go, which nobody had looked at.
                self.guests = None;
                None
            }
            DebugCause::GuestDebug(payload) => {
                if exit.dr6.is_empty()
                    && let Err(err) = self.skip_icebp()
                {
                    return Some(self.crashed(&err));
                }
                entry.diverted();
                let state = self.debug_state(entry);
                self.give_back(payload, &state).err()
            }
            DebugCause::Int3 => match self.byte_here() {
                Some(byte) => match self.met_after_step(exit) {
                    Ok(()) => self.met(byte, entry),
                    Err(err) => Some(self.crashed(&err)),
                },
                None => {
                    // The VP is not past a debug register there before the exception is delivered. The guest may have run far since these were read.
                    self.guests = None;
                    self.faults = None;
                    self.own_int3 = Some(OwnInt3 { at: exit.pc });
                    None
                }
            },
        }
    }

    /// The VP is about to enter. A VP that is not where the last entry left it has executed something, so the trap is not pending any more.
    fn expect_step_trap(&mut self) -> Result<(), DebugError> {
        self.step_trap = match self.step_trap {
            StepTrap::Taken => return Ok(()),
            StepTrap::MayBePending => StepTrap::Expected(self.vcpu.linear_rip()?),
            StepTrap::Expected(at) => match self.vcpu.linear_rip()? {
                rip if rip == at => StepTrap::Expected(at),
                _ => StepTrap::Taken,
            },
        };
        Ok(())
    }

    /// A byte of ours was met, perhaps behind the instruction that was stepped.
    fn met_after_step(&mut self, exit: &DebugExit) -> Result<(), DebugError> {
        let stepped = self
            .underway
            .as_ref()
            .is_some_and(|step| step.is_by_trap_flag() && step.from().value() != exit.pc);
        if stepped {
            self.step_trap = StepTrap::MayBePending;
        }
        self.pass_guests_breakpoints()
    }

    /// Tells KVM how the VP is to enter.
    pub(super) fn prepare(&mut self, entry: &Entry) -> Result<(), DebugError> {
        self.underway = None;
        self.expect_step_trap()?;
        if entry.stepping() == Stepping::On || self.own_int3.is_some() {
            self.plan(entry)?;
        } else {
            self.guests = None;
        }
        let state = self.debug_state(entry);
        match self.own_int3 {
            Some(_) => self.vcpu.inject_breakpoint(state)?,
            None => self.vcpu.program(state)?,
        }
        self.hide_resume_flags();
        Ok(())
    }

    /// An entry is over that gave the guest a `#BP`, or did not take place. What was not delivered is not left with KVM, where registers or memory may
    /// change under it: the VP still stands on its `INT3`, and meets it again.
    ///
    /// # Errors
    /// [`GuestEvent::Crashed`].
    pub(super) fn take_back_int3(&mut self) -> Result<(), Cause> {
        let Some(int3) = self.own_int3.take() else {
            return Ok(());
        };
        self.events = Events::Unknown;
        let taken_back = match self.vcpu.linear_rip() {
            Ok(rip) if rip == int3.at => self.vcpu.drop_soft_exception(),
            Ok(_) => Ok(()),
            Err(err) => Err(err),
        };
        taken_back.map_err(|err| self.crashed(&err))
    }

    /// The breakpoint or watchpoint that is on this debug register.
    fn slot_cause(&self, slot: usize) -> Cause {
        let vp = self.around.index;
        let Some(breakpoint) = self.breakpoints().table.on(slot) else {
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

    /// What was the guest's of an exception that is ours waits in KVM until the VP enters again.
    fn after_ours(
        &mut self,
        guest: Option<DebugPayload>,
        cause: Cause,
        state: &DebugState,
    ) -> Option<Cause> {
        match guest {
            Some(payload) => Some(self.give_back(payload, state).err().unwrap_or(cause)),
            None => Some(cause),
        }
    }

    pub(super) fn give_back(
        &mut self,
        payload: DebugPayload,
        state: &DebugState,
    ) -> Result<(), Cause> {
        let injected = self.inject(payload, state);
        injected.map_err(|err| self.crashed(&err))
    }

    pub(super) fn inject(
        &mut self,
        payload: DebugPayload,
        state: &DebugState,
    ) -> Result<(), DebugError> {
        self.events = Events::Unknown;
        // DR7.GD goes with it.
        self.guests = None;
        self.vcpu.inject_debug(*state, payload)
    }

    /// The registers that DR6 speaks of.
    fn in_force(
        &mut self,
        exit: &DebugExit,
        state: &DebugState,
    ) -> Result<DebugRegisters, DebugError> {
        let registers = state.registers;
        let left_to_guest = registers.is_guests() && exit.dr6.breakpoints();
        if !left_to_guest && registers.guests(exit.dr6) == 0 {
            return Ok(registers);
        }
        let guest = self.guest_registers()?;
        Ok(match left_to_guest {
            true => DebugRegisters::of_guest(&guest),
            false => registers.as_of(&guest),
        })
    }

    /// The guest touches its debug registers, and its own DR7.GD is clear: only ours has stopped it.
    fn guard_is_ours(&mut self) -> Result<bool, DebugError> {
        self.guests = None;
        Ok(!self.guest_registers()?.detects_access())
    }

    /// On VT-x, an `ICEBP` that exits leaves RIP on the instruction, although its `#DB` is a trap. KVM skips the instruction only where no debugger steps or has a
    /// debug register (`handle_exception_nmi` in Linux), so RIP is moved here before the guest gets the `#DB`.
    fn skip_icebp(&mut self) -> Result<(), DebugError> {
        let place = self.place()?;
        let state = general(&self.vcpu.registers()?);
        let bytes = self.view(place.paging).code_at(place.rip);
        match decode(&state, &bytes) {
            Some(icebp) if icebp.code() == Code::Int1 => self.vcpu.skip_to(icebp.next_ip()),
            Some(_) | None => Ok(()),
        }
    }

    /// The `INT3` of our byte has executed, so the guest's own breakpoints at that address are past. VT-x clears RFLAGS.RF for an `INT3` (SDM volume 3, "Saving RIP,
    /// RSP, RFLAGS, and SSP"), and without RF the guest's breakpoints are met again before the instruction under our byte: RF is set.
    pub(super) fn pass_guests_breakpoints(&mut self) -> Result<(), DebugError> {
        if self.guests_breakpoint_here()? == 0 {
            return Ok(());
        }
        self.set_resume_flag()
    }

    /// RFLAGS.RF, which the guest's handler sets to get past its own breakpoint, lets the instruction through. Some KVMs ignore it.
    fn heed_resume_flag(
        &mut self,
        exit: &DebugExit,
        entry: &mut Entry,
    ) -> Result<bool, DebugError> {
        let registers = self.debug_state(entry).registers;
        let Some(passed) = registers.unheeded_rf(exit.dr6) else {
            return Ok(false);
        };
        let (regs, _) = self.vcpu.registers()?;
        if regs.rflags & rflags::RF == 0 {
            return Ok(false);
        }
        entry.disarm(passed);
        Ok(true)
    }

    /// The register that a pending software breakpoint is on, where it stopped a process that the breakpoint is not for.
    fn met_by_another_process(
        &mut self,
        exit: &DebugExit,
        registers: &DebugRegisters,
    ) -> Option<Hits> {
        if !exit.is_db() {
            return None;
        }
        let slot = registers.ours(exit.dr6)?;
        let place = self.place().ok()?;
        let table = &self.breakpoints().table;
        table
            .is_anothers(slot, &self.around.ram, &place)
            .then_some(1 << slot)
    }

    /// The VP is to pass a breakpoint of ours on an instruction that one of the guest's own waits for as well: that is told first, and after its
    /// handler, with RFLAGS.RF set, both are past.
    pub(super) fn guests_turn(&mut self, entry: &mut Entry) -> BeforeGuest {
        if entry.disarmed() == 0 {
            return ControlFlow::Continue(());
        }
        let given = match self.guests_breakpoint_here() {
            Ok(0) => Ok(()),
            Ok(hits) => {
                entry.diverted();
                let state = self.debug_state(entry);
                self.give_back(DebugPayload(hits), &state)
            }
            Err(err) => Err(self.crashed(&err)),
        };
        match given {
            Ok(()) => ControlFlow::Continue(()),
            Err(cause) => ControlFlow::Break(Some(cause)),
        }
    }

    /// The guest's own execution breakpoints that its next instruction meets.
    pub(super) fn guests_breakpoint_here(&mut self) -> Result<Hits, DebugError> {
        let guests = self.guest_registers()?;
        // Asked before every step.
        if !guests.is_any_enabled() {
            return Ok(0);
        }
        let rip = self.vcpu.linear_rip()?;
        let (regs, _) = self.vcpu.registers()?;
        Ok(match regs.rflags & rflags::RF {
            0 => DebugRegisters::of_guest(&guests).guests_at(rip),
            _ => 0,
        })
    }

    /// Looks what the guest has put into its debug registers, and makes one set of them and ours.
    ///
    /// # Errors
    /// [`Cause::NotReported`]; [`GuestEvent::Crashed`].
    pub(super) fn share_registers(&mut self, entry: &Entry) -> Result<(), Cause> {
        match self.shared() {
            Ok(Some(registers)) => self.debug_registers = registers,
            // Ours are missing for this one instruction, then the VP says so.
            Ok(None) if entry.is_byte_lifted() => self.debug_registers = DebugRegisters::default(),
            Ok(None) => return Err(Cause::NotReported),
            Err(err) => return Err(self.crashed(&err)),
        }
        Ok(())
    }

    /// `None`: they do not all fit.
    pub(super) fn shared(&mut self) -> Result<Option<DebugRegisters>, DebugError> {
        let ours = self.arms.slots;
        if ours.iter().all(Option::is_none) {
            return Ok(Some(DebugRegisters::default()));
        }
        let guest = self.guest_registers()?;
        Ok(DebugRegisters::share(&ours, &guest).ok())
    }

    /// How many debug registers the guest uses, if it shares them or that is known anyhow.
    pub(super) fn guest_registers_at_stop(&mut self) -> Option<usize> {
        match self.arms.slots.iter().all(Option::is_none) {
            true => self.guests.map(|guest| guest.count()),
            false => self.count_guest_registers().ok(),
        }
    }

    /// The guest's own debug registers, asked for once as long as it cannot write them.
    pub(super) fn guest_registers(&mut self) -> Result<GuestRegisters, DebugError> {
        if let Some(guests) = self.guests {
            return Ok(guests);
        }
        let guests = self.vcpu.guest_registers()?;
        self.guests = Some(guests);
        Ok(guests)
    }
}
