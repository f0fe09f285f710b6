//! The parts of a run of the guest: prepare, check the gate, handle the exit.

use super::KvmGaveUp;
use super::Progress;
use super::Vp;
use super::clocks::Extent;
use super::debug_state::DebugState;
use super::debugging::NotShared;
use super::guest_run::AfterCompletion;
use super::guest_run::GuestRun;
use super::guest_run::Next;
use super::guest_run::Pending;
use super::guest_run::pending;
use super::stepping::FastPath;
use super::stepping::ResumeFlag;
use super::vcpu::Vcpu;
use crate::arch::x86_64::guest_time::ClockAccess;
use crate::arch::x86_64::guest_time::clock_code::may_look_at_a_clock;
use crate::arch::x86_64::stop_cause::SingleStepping;
use crate::control::at_breakpoint::FirstInstruction;
use crate::control::enter::Debugger;
use crate::control::enter::Enter;
use crate::control::enter::StopSet;
use crate::control::enter::VpParked;
use crate::control::entry::Entry;
use crate::control::exit::Exit;
use crate::control::exit::Meaning;
use crate::control::guest_event::GuestEvent;
use crate::control::run_state::Cause;
use std::num::NonZeroU64;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::StepInterrupts;
use vmm_core_defs::debug_rpc::VpAction;
use vmm_core_defs::stop::DebugStopReason;

impl<V: Vcpu> Vp<V> {
    /// The guest's clocks go on.
    pub(super) fn let_time_pass(&mut self, enter: &Enter) {
        self.forget_snapshot();
        let access = self.clock_access(enter);
        let extent = match is_one_instruction(enter) {
            true => Extent::OneInstruction,
            false => Extent::Open,
        };
        self.clocks.go_on(access, extent, &mut self.cpu.vcpu);
    }

    /// Whether the guest may read a clock in this entry.
    fn clock_access(&mut self, enter: &Enter) -> ClockAccess {
        if !is_one_instruction(enter) || !self.clocks.may_wait() {
            return ClockAccess::Possible;
        }
        // The handler of an interrupt may read any clock.
        let takes_interrupts = !self.cpu.vcpu.holds_interrupts()
            || enter.stops.step_interrupts == StepInterrupts::Taken;
        if takes_interrupts {
            return ClockAccess::Possible;
        }
        let instruction = self.cpu.next_instruction(&self.memory);
        match may_look_at_a_clock(instruction.ok().flatten().as_ref()) {
            true => ClockAccess::Possible,
            false => ClockAccess::Impossible,
        }
    }

    /// What comes before the first entry of a run. `None`: nothing but the entry.
    pub(super) fn first(&mut self, run: &mut GuestRun) -> Option<Next> {
        let enter = run.enter;
        self.kvm_gave_up = KvmGaveUp::No;
        if let Err(err) = self.debugging.set_stops(enter.stops, &mut self.cpu) {
            return Some(Next::Park(Some(self.crashed(&err))));
        }
        self.cpu.vcpu.want_registers(self.will_stop(&enter));
        self.stepping.begin();
        self.debugging.begin();
        match self.plan_entry(&enter) {
            Ok(entry) => run.entry = entry,
            Err(err) => return Some(Next::Park(Some(self.crashed(&err)))),
        }
        self.before_guest(&mut run.entry).break_value()
    }

    /// Whether exits are likely to be stops. If so, registers come with every exit, which would slow a guest down that only runs, at each of its I/O
    /// instructions.
    fn will_stop(&self, enter: &Enter) -> bool {
        let steps =
            enter.action != VpAction::Run || enter.at.first() == FirstInstruction::OthersStopped;
        enter.debugger == Debugger::Present
            && (steps || *self.debugging.stops() != StopSet::default())
    }

    /// Everything that comes before an entry. `None`: the VP enters, and the gate counts it as in the guest.
    pub(super) fn prepare_entry(
        &mut self,
        pending: Pending,
        path: FastPath,
        run: &mut GuestRun,
    ) -> Option<Next> {
        if path == FastPath::Done
            && let Some(next) = self.get_ready(pending, run)
        {
            return Some(next);
        }
        run.from = match run.entry.stepping() {
            SingleStepping::On => self.stepping.from(),
            SingleStepping::Off => None,
        };
        self.cpu.vcpu.set_immediate_exit(false);
        if self.gate.enter().is_err() {
            return Some(self.kept_out(pending, run));
        }
        run.entry.enters_guest();
        None
    }

    /// Everything that comes before an entry, but the gate. `None`: the VP is ready.
    fn get_ready(&mut self, pending: Pending, run: &mut GuestRun) -> Option<Next> {
        if !run.entry.is_byte_lifted() {
            self.lower();
        }
        if let Err(refused) = self.debugging.refresh(&run.entry, &mut self.cpu) {
            let cause = match refused {
                NotShared::NoRoom => Cause::NotReported,
                NotShared::NotRead(err) => self.crashed(&err),
            };
            return Some(self.park_after_completion(pending, Some(cause), run));
        }
        if let Err(err) = self.prepare(&run.entry) {
            return Some(Next::Park(Some(self.crashed(&err))));
        }
        if pending == Pending::Access {
            return None;
        }
        match self.step_over_hlt(&run.entry) {
            Ok(None) => None,
            Ok(Some(rip)) => Some(match run.entry.executed(rip.value()) {
                Some(cause) => Next::Park(Some(cause)),
                None => Next::enter(Pending::Nothing),
            }),
            Err(err) => Some(Next::Park(Some(self.crashed(&err)))),
        }
    }

    fn park_after_completion(
        &mut self,
        pending: Pending,
        cause: Option<Cause>,
        run: &mut GuestRun,
    ) -> Next {
        let after = AfterCompletion::Park(cause);
        let found = None;
        match pending {
            Pending::Access => Next::Complete { found, after },
            Pending::Nothing => self.completed(found, after, run),
        }
    }

    /// Programs the debug state and the injected exception of the next entry.
    fn prepare(&mut self, entry: &Entry) -> Result<(), DebugError> {
        let Self {
            cpu,
            memory,
            debugging,
            stepping,
            ..
        } = self;
        stepping.drop_plan();
        stepping.expect_pending_trap(cpu)?;
        if entry.stepping() == SingleStepping::On || debugging.gives_breakpoint() {
            stepping.plan(entry, cpu, memory, debugging)?;
        } else {
            cpu.forget_guest_registers();
        }
        let state = self.debug_state(entry);
        match self.debugging.gives_breakpoint() {
            true => self.cpu.vcpu.inject_breakpoint(state)?,
            false => self.cpu.vcpu.program(state)?,
        }
        self.stepping.hide_resume_flags(&self.memory);
        Ok(())
    }

    /// The debug state for the next `KVM_RUN` of this entry.
    pub(super) fn debug_state(&self, entry: &Entry) -> DebugState {
        let mut state = self.debugging.state(entry);
        self.stepping.apply(&mut state);
        state
    }

    /// Carries the planned step out where its instruction is `hlt`. Returns the linear address of RIP behind the `hlt`, or `None` with nothing done.
    fn step_over_hlt(&mut self, entry: &Entry) -> Result<Option<Gva>, DebugError> {
        let Some(from) = self.stepping.over_hlt() else {
            return Ok(None);
        };
        // A breakpoint of ours on the `hlt` comes first.
        if self.debugging.waits_at(from, entry) || self.gate.is_kicked() {
            return Ok(None);
        }
        let halted = self.stepping.halt(&mut self.cpu)?;
        if halted.is_some() {
            self.progress = Progress::Started;
        }
        Ok(halted)
    }

    /// The gate kept the VP out of the guest (I4).
    pub(super) fn kept_out(&mut self, pending: Pending, run: &mut GuestRun) -> Next {
        let restored = self.take_back();
        self.park_after_completion(pending, restored.err(), run)
    }

    /// The entry is over, or did not take place. Undoes the preparations that hold for one entry only.
    fn take_back(&mut self) -> Result<ResumeFlag, Cause> {
        let taken_back = self.debugging.take_back_breakpoint(&mut self.cpu);
        let shown = self.stepping.show_resume_flags(&mut self.cpu, &self.memory);
        taken_back.and(shown).map_err(|err| self.crashed(&err))
    }

    fn fast_path(&mut self, exit: Exit, entry: &mut Entry) -> FastPath {
        let Exit::Debug(exit) = exit else {
            return FastPath::Done;
        };
        self.stepping
            .fast_path(&exit, entry, &mut self.cpu, &self.memory)
    }

    /// The VP has left the guest.
    pub(super) fn left_guest(&mut self, exit: Exit, run: &mut GuestRun) -> Next {
        let path = self.fast_path(exit, &mut run.entry);
        if path == FastPath::Continue {
            let pending = Pending::Nothing;
            return Next::Enter { pending, path };
        }
        let resume_flag = match self.take_back() {
            Ok(resume_flag) => resume_flag,
            Err(cause) => return Next::Park(Some(cause)),
        };
        let mut cause = self.cause_of(exit, &mut run.entry);
        match (pending(exit), run.from) {
            (Pending::Access, from @ Some(_)) => {
                let after = AfterCompletion::Step { from, resume_flag };
                Next::Complete {
                    found: cause,
                    after,
                }
            }
            (pending, from) => {
                if cause.is_none() && from.is_some() {
                    cause = self.landed(&mut run.entry);
                }
                if cause.is_none() && exit == Exit::Halted {
                    return Next::WaitForKick;
                }
                self.conclude(cause, pending, resume_flag, run)
            }
        }
    }

    /// The exit has been handled.
    pub(super) fn conclude(
        &mut self,
        mut cause: Option<Cause>,
        pending: Pending,
        resume_flag: ResumeFlag,
        run: &mut GuestRun,
    ) -> Next {
        // RF is set after the exit was handled, because an exit in spite of RF shows a KVM that ignores RF.
        if resume_flag == ResumeFlag::Missing
            && let Err(err) = self.cpu.set_resume_flag()
        {
            cause = Some(self.crashed(&err));
        }
        match cause {
            Some(cause) => Next::Park(Some(self.ended_by(cause, run))),
            None => Next::enter(pending),
        }
    }

    /// The run ends with this cause.
    pub(super) fn ended_by(&mut self, cause: Cause, run: &mut GuestRun) -> Cause {
        if let Cause::Guest(_) = cause {
            run.entry.guest_event();
        }
        if let Cause::Guest(GuestEvent::Crashed { .. }) = cause {
            self.cpu.forget_events();
            self.kvm_gave_up = KvmGaveUp::Yes;
        }
        cause
    }

    /// The VP is in user space, with its last exit completed (I2).
    pub(super) fn park(&mut self, cause: Option<Cause>, run: &GuestRun) -> VpParked {
        self.lower();
        if let Some(Cause::Debug(DebugStopReason::SingleStep { .. })) = cause {
            self.execute_commands_at_step_end();
        }
        self.clocks.stand();
        VpParked {
            vp: self.index,
            epoch: run.enter.epoch,
            cause,
            location: match run.enter.debugger {
                Debugger::Present => self.cpu.location().ok(),
                Debugger::Absent => None,
            },
            guest_registers: self.debugging.guest_registers_at_stop(&mut self.cpu),
            at: run.entry.at(),
            steps: run.entry.steps(),
        }
    }

    /// The device access of an instruction that was stepped is completed. Returns a cause if the run ends.
    pub(super) fn end_of_access_step(
        &mut self,
        from: Option<Gva>,
        entry: &mut Entry,
    ) -> Option<Cause> {
        if !self.stepping.is_planned() {
            // The completion has brought the debug exit of the step.
            return None;
        }
        let rip = self.cpu.linear_rip().ok()?;
        match Some(rip) == from {
            true => None,
            false => entry.executed(rip.value()),
        }
    }

    fn landed(&mut self, entry: &mut Entry) -> Option<Cause> {
        let exit = self.stepping.landed(&mut self.cpu)?;
        self.trapped(&exit, entry)
    }

    /// What the exit means. Returns a cause if the run ends.
    pub(super) fn cause_of(&mut self, exit: Exit, entry: &mut Entry) -> Option<Cause> {
        match exit.meaning(self.index) {
            Meaning::Nothing => None,
            Meaning::Halted => self.halt(entry),
            Meaning::Debug(exit) => self.after_debug_exit(&exit, entry),
            Meaning::Event(event) => self.after_failure(event, entry),
        }
    }

    /// The guest halted, and no interrupt will come. A step over `hlt` is done. Otherwise only a kick ends the halt.
    fn halt(&mut self, entry: &mut Entry) -> Option<Cause> {
        self.progress = Progress::Halted;
        let cause = entry.halted();
        self.lower();
        cause
    }
}

fn is_one_instruction(enter: &Enter) -> bool {
    let one = match enter.action {
        VpAction::Step => true,
        VpAction::StepN { count } => count == NonZeroU64::MIN,
        _ => false,
    };
    one || enter.at.first() == FirstInstruction::OthersStopped
}
