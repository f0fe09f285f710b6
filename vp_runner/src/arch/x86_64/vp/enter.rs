//! The stay of a VP in the guest: prepare, check the gate, run, handle the exit, until something stops the VP.

use super::KvmGaveUp;
use super::Progress;
use super::Vp;
use super::clocks::Extent;
use super::cpu::Events;
use super::debug_state::DebugState;
use super::debugging::NotShared;
use super::stepping::FastPath;
use super::stepping::ResumeFlag;
use super::vcpu::Vcpu;
use crate::arch::x86_64::guest_time::ClockAccess;
use crate::arch::x86_64::guest_time::clock_code::may_look_at_a_clock;
use crate::arch::x86_64::stop_cause::SingleStepping;
use crate::control::at_breakpoint::AtBreakpoint;
use crate::control::at_breakpoint::FirstInstruction;
use crate::control::enter::Debugger;
use crate::control::enter::Enter;
use crate::control::enter::StopSet;
use crate::control::enter::VpParked;
use crate::control::entry::Entry;
use crate::control::exit::Next;
use crate::control::exit::handle;
use crate::control::guest_event::GuestEvent;
use crate::control::run_state::Cause;
use std::ops::ControlFlow;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::StepInterrupts;
use vmm_core_defs::debug_rpc::VpAction;

/// Whether KVM is still to complete the instruction behind an I/O exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PendingIo {
    Yes,
    No,
}

/// What a stay in the guest leads to.
enum AfterRun {
    /// The VP enters again.
    Enter(PendingIo),
    /// The VP parks. `None`: it was kicked.
    Park(Option<Cause>),
}

impl<V: Vcpu> Vp<V> {
    /// Runs the guest until the VP is kicked or something stops it.
    pub(crate) fn enter(&mut self, enter: &Enter) -> VpParked {
        self.forget_snapshot();
        let access = self.clock_access(enter);
        let extent = match is_one_instruction(enter) {
            true => Extent::OneInstruction,
            false => Extent::Open,
        };
        self.clocks.go_on(access, extent, &mut self.cpu.vcpu);
        let (cause, at) = self.go(enter);
        self.clocks.stand();
        VpParked {
            vp: self.index,
            epoch: enter.epoch,
            cause,
            location: match enter.debugger {
                Debugger::Present => self.cpu.location().ok(),
                Debugger::Absent => None,
            },
            guest_registers: self.debugging.guest_registers_at_stop(&mut self.cpu),
            at,
        }
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

    fn go(&mut self, enter: &Enter) -> (Option<Cause>, AtBreakpoint) {
        self.kvm_gave_up = KvmGaveUp::No;
        if let Err(err) = self.debugging.set_stops(enter.stops, &mut self.cpu) {
            return (Some(self.crashed(&err)), enter.at);
        }
        self.cpu.vcpu.want_registers(self.will_stop(enter));
        self.stepping.begin();
        self.debugging.begin();
        let mut entry = match self.plan_entry(enter) {
            Ok(entry) => entry,
            Err(err) => return (Some(self.crashed(&err)), enter.at),
        };
        let cause = match self.before_guest(&mut entry) {
            ControlFlow::Break(cause) => cause,
            ControlFlow::Continue(()) => {
                let cause = self.run_until_stop(&mut entry);
                self.lower();
                cause
            }
        };
        (cause, entry.at())
    }

    /// Whether exits are likely to be stops. If so, registers come with every exit, which would slow a guest down that only runs, at each of its I/O
    /// instructions.
    fn will_stop(&self, enter: &Enter) -> bool {
        let steps =
            enter.action != VpAction::Run || enter.at.first() == FirstInstruction::OthersStopped;
        enter.debugger == Debugger::Present
            && (steps || *self.debugging.stops() != StopSet::default())
    }

    fn run_until_stop(&mut self, entry: &mut Entry) -> Option<Cause> {
        let mut pending = PendingIo::No;
        let mut path = FastPath::Done;
        loop {
            if path == FastPath::Done {
                match self.get_ready(pending, entry) {
                    ControlFlow::Continue(()) => {}
                    ControlFlow::Break(AfterRun::Enter(_)) => continue,
                    ControlFlow::Break(AfterRun::Park(cause)) => return cause,
                }
            }
            let from = match entry.stepping() {
                SingleStepping::On => self.stepping.from(),
                SingleStepping::Off => None,
            };
            self.cpu.vcpu.set_immediate_exit(false);
            if self.gate.enter().is_err() {
                return self.kept_out(pending, entry);
            }
            entry.enters_guest();
            let exit = self.cpu.vcpu.run();
            self.gate.leave();
            pending = PendingIo::of(exit.is_pending());
            let next = handle(exit, self.index, &*self.machine);
            path = self.fast_path(&next, entry);
            if path == FastPath::Continue {
                continue;
            }
            match self.after_run(next, pending, from, entry) {
                AfterRun::Enter(still) => pending = still,
                AfterRun::Park(cause) => return cause,
            }
        }
    }

    /// Everything that comes before an entry, but the gate. Breaks with [`AfterRun::Enter`] where the instruction was carried out and the VP goes on with the next.
    fn get_ready(&mut self, pending: PendingIo, entry: &mut Entry) -> ControlFlow<AfterRun> {
        if !entry.is_byte_lifted() {
            self.lower();
        }
        if let Err(refused) = self.debugging.refresh(entry, &mut self.cpu) {
            let cause = match refused {
                NotShared::NoRoom => Cause::NotReported,
                NotShared::NotRead(err) => self.crashed(&err),
            };
            let later = self.complete(pending, entry);
            return ControlFlow::Break(AfterRun::Park(later.or(Some(cause))));
        }
        if let Err(err) = self.prepare(entry) {
            return ControlFlow::Break(AfterRun::Park(Some(self.crashed(&err))));
        }
        if pending == PendingIo::Yes {
            return ControlFlow::Continue(());
        }
        match self.step_over_hlt(entry) {
            Ok(None) => ControlFlow::Continue(()),
            Ok(Some(rip)) => ControlFlow::Break(match entry.executed(rip.value()) {
                Some(cause) => AfterRun::Park(Some(cause)),
                None => AfterRun::Enter(PendingIo::No),
            }),
            Err(err) => ControlFlow::Break(AfterRun::Park(Some(self.crashed(&err)))),
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
    fn kept_out(&mut self, pending: PendingIo, entry: &mut Entry) -> Option<Cause> {
        let restored = self.take_back();
        let cause = self.complete(pending, entry);
        self.cpu.events = Events::Unknown;
        cause.or(restored.err())
    }

    /// The entry is over, or did not take place. Undoes the preparations that hold for one entry only.
    fn take_back(&mut self) -> Result<ResumeFlag, Cause> {
        let taken_back = self.debugging.take_back_breakpoint(&mut self.cpu);
        let shown = self.stepping.show_resume_flags(&mut self.cpu, &self.memory);
        taken_back.and(shown).map_err(|err| self.crashed(&err))
    }

    fn fast_path(&mut self, next: &Next, entry: &Entry) -> FastPath {
        let Next::Debug(exit) = next else {
            return FastPath::Done;
        };
        let path = self
            .stepping
            .fast_path(exit, entry, &mut self.cpu, &self.memory);
        if path == FastPath::Continue {
            self.progress = Progress::Started;
        }
        path
    }

    /// The VP has left the guest. `from` is the instruction that was to be stepped, if one was.
    fn after_run(
        &mut self,
        next: Next,
        mut pending: PendingIo,
        from: Option<Gva>,
        entry: &mut Entry,
    ) -> AfterRun {
        let resume_flag = match self.take_back() {
            Ok(resume_flag) => resume_flag,
            Err(cause) => return AfterRun::Park(Some(cause)),
        };
        let mut cause = self.after_exit(next, entry);
        if cause.is_none() && from.is_some() {
            cause = match pending {
                PendingIo::Yes => self.end_io_step(from, entry),
                PendingIo::No => self.landed(entry),
            };
            pending = PendingIo::No;
        }
        // RF is set after the exit was handled, because an exit in spite of RF shows a KVM that ignores RF.
        if resume_flag == ResumeFlag::Missing
            && let Err(err) = self.cpu.set_resume_flag()
        {
            cause = Some(self.crashed(&err));
        }
        let Some(cause) = cause else {
            return AfterRun::Enter(pending);
        };
        let later = self.complete(pending, entry);
        let cause = weightier(cause, later);
        if let Cause::Guest(_) = cause {
            entry.guest_event();
        }
        if let Cause::Guest(GuestEvent::Crashed { .. }) = cause {
            self.cpu.events = Events::Unknown;
            self.kvm_gave_up = KvmGaveUp::Yes;
        }
        AfterRun::Park(Some(cause))
    }

    /// Lets KVM finish the instruction behind an I/O exit, without running any other (I2).
    fn complete(&mut self, mut pending: PendingIo, entry: &mut Entry) -> Option<Cause> {
        let mut cause = None;
        while pending == PendingIo::Yes {
            self.cpu.vcpu.set_immediate_exit(true);
            let exit = self.cpu.vcpu.run();
            pending = PendingIo::of(exit.is_pending());
            let next = handle(exit, self.index, &*self.machine);
            cause = cause.or(self.after_exit(next, entry));
        }
        cause
    }

    /// A step met an I/O exit. Some KVMs forget the step on that path and would execute the next instruction too. So the runner completes the exit here, and
    /// RIP tells whether the instruction is over: a repeated string instruction may not be.
    fn end_io_step(&mut self, from: Option<Gva>, entry: &mut Entry) -> Option<Cause> {
        self.complete(PendingIo::Yes, entry).or_else(|| {
            let rip = self.cpu.linear_rip().ok()?;
            match Some(rip) == from {
                true => None,
                false => entry.executed(rip.value()),
            }
        })
    }

    fn landed(&mut self, entry: &mut Entry) -> Option<Cause> {
        let exit = self.stepping.landed(&mut self.cpu)?;
        self.trapped(&exit, entry)
    }

    fn after_exit(&mut self, next: Next, entry: &mut Entry) -> Option<Cause> {
        match next {
            Next::Enter => None,
            Next::Halt => self.halt(entry),
            Next::Debug(exit) => self.after_debug_exit(&exit, entry),
            Next::Stop(event) => self.after_failure(event, entry),
        }
    }

    /// The guest halted, and no interrupt will come. Only a kick ends that. A step over `hlt` is done, though.
    fn halt(&mut self, entry: &mut Entry) -> Option<Cause> {
        self.progress = Progress::Halted;
        let cause = entry.halted();
        self.lower();
        if cause.is_none() {
            self.gate.wait_for_kick();
        }
        cause
    }
}

impl PendingIo {
    fn of(pending: bool) -> Self {
        match pending {
            true => Self::Yes,
            false => Self::No,
        }
    }
}

fn is_one_instruction(enter: &Enter) -> bool {
    enter.action == VpAction::Step || enter.at.first() == FirstInstruction::OthersStopped
}

/// The cause that is reported when completing the exit brought another. A breakpoint or step that was met first comes first, but a guest event weighs more.
fn weightier(cause: Cause, later: Option<Cause>) -> Cause {
    match (cause, later) {
        (Cause::Guest(_), _) | (_, None) => cause,
        (_, Some(later @ Cause::Guest(_))) => later,
        (_, Some(_)) => cause,
    }
}
