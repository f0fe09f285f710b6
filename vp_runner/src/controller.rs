//! The actor that answers [`DebugRequest`] and runs the guest: an executor of what `run_state` decides.
//!
//! Outside its one `select!` the actor waits for three things only: for VP threads that are parked, which answer at once; for a reset, until the reset is
//! overdue; and, between slices of long work, for the other tasks of its executor. It never waits for a VP that runs.

mod assembly;
mod breakpoint_control;
mod device_calls;
mod devices;
mod latest_session;
mod requests;
mod ticker;
mod unanswered;
mod vps;
mod waiting;

use crate::arch::PagingLimits;
use crate::arch::Timekeeper;
use crate::breakpoints::BreakpointTable;
use crate::control::at_breakpoint::AtBreakpoint;
use crate::control::enter::Debugger;
use crate::control::enter::Enter;
use crate::control::enter::StopSet;
use crate::control::enter::VpParked;
use crate::control::guest_event::GuestEvent;
use crate::control::run_state::Cause;
use crate::control::run_state::Output;
use crate::control::run_state::Refused;
use crate::control::run_state::RunState;
use crate::machine::Machine;
use crate::memory::DebugMemory;
use crate::runner::OnCrash;
use crate::runner::ResetPolicy;
use crate::runner::RunnerExit;
use crate::runner::StartMode;
use crate::vp_thread::VpEvent;
use breakpoint_control::BreakpointControl;
use device_calls::DeviceCalls;
use device_calls::Returned;
use futures::StreamExt;
use futures::select_biased;
use latest_session::LatestSession;
use std::collections::VecDeque;
use std::sync::Arc;
use ticker::Tick;
use ticker::Ticker;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::capability::Capabilities;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::DebugMessage;
use vmm_core_defs::debug_rpc::StepInterrupts;
use vmm_core_defs::debug_rpc::VpAction;
use vmm_core_defs::regs::XFeatures;
use vmm_core_defs::stop::CrashCause;
use vmm_core_defs::stop::DebugStopReason;
use vmm_core_defs::stop::Epoch;
use vmm_core_defs::stop::RunnerFault;
use vps::Vps;
use waiting::Waiting;

/// What the VMM asks of the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Control {
    /// End it.
    Stop,
}

/// The actor. Run it as a task on any executor, best on the debug worker's own thread: the two then talk without waking each other.
///
/// Dropping it ends the VP threads.
pub struct Controller {
    state: RunState,
    vps: Vps,
    events: mesh::Receiver<VpEvent>,
    debug: mesh::Receiver<DebugMessage>,
    session: LatestSession,
    control: mesh::Receiver<Control>,
    waiting: Waiting,
    code: BreakpointControl,
    /// What every VP is entered with.
    stops: StopSet,
    /// In force from the next entry on.
    step_interrupts: StepInterrupts,
    ticker: Ticker,
    ticks: mesh::Receiver<Tick>,
    memory: DebugMemory,
    machine: Arc<dyn Machine>,
    device_calls: DeviceCalls,
    /// Nobody debugs, and the guest is to run once its reset has come to its end.
    run_after_reset: bool,
    xfeatures: XFeatures,
    paging_limits: PagingLimits,
    capabilities: Capabilities,
    start: StartMode,
    on_reset: ResetPolicy,
    on_crash: OnCrash,
    exit: Option<RunnerExit>,
    /// What the debugger was told of the present stop: the guest may end of it.
    told: Vec<DebugStopReason>,
    time: Arc<Timekeeper>,
}

/// The outputs of the state machine that are yet to be carried out.
type Todo = VecDeque<Output>;

impl Controller {
    /// Runs the guest and answers the debugger until the guest or the VMM ends it. Not cancel safe: dropping the future ends the VP threads
    /// and leaves open requests unanswered.
    pub async fn run(mut self) -> RunnerExit {
        enum Event {
            Control(Control),
            Vp(VpEvent),
            Debugger(DebugMessage),
            NoDebugger,
            Device(Returned),
            Tick,
        }
        if self.start == StartMode::Run {
            let started = self.state.start();
            self.feed(started).await;
        }
        loop {
            if let Some(exit) = self.exit {
                self.waiting.ended(exit);
                return exit;
            }
            let event = select_biased! { // merge
                control = self.control.select_next_some() => Event::Control(control),
                vp = self.events.select_next_some() => Event::Vp(vp),
                returned = self.device_calls.returned() => Event::Device(returned),
                Tick = self.ticks.select_next_some() => Event::Tick,
                message = self.debug.next() => message.map_or(Event::NoDebugger, Event::Debugger),
            };
            match event {
                Event::Control(Control::Stop) => self.stop().await,
                Event::Vp(event) => self.vp_event(event).await,
                Event::Device(returned) => self.device_returned(returned).await,
                Event::Debugger(message) => self.message(message).await,
                Event::Tick => self.tick().await,
                Event::NoDebugger => self.no_debugger().await,
            }
        }
    }

    async fn vp_event(&mut self, event: VpEvent) {
        match event {
            VpEvent::Parked(stop) => {
                self.vps.answered(stop.vp);
                self.parked(stop).await;
            }
            VpEvent::Died(vp) => self.died(vp),
        }
    }

    async fn stop(&mut self) {
        let outputs = self.state.shutdown();
        self.feed(outputs).await;
    }

    /// Every sender of requests is gone, for good.
    async fn no_debugger(&mut self) {
        if self.device_calls.resetting().is_some() {
            // `late_reset` asks again whether there is a debugger.
            return;
        }
        let outputs = self.state.lost();
        self.feed(outputs).await;
    }

    /// A panic in the VMM's code ended a VP's thread. Nothing can be said of the guest any more.
    fn died(&mut self, vp: VpIndex) {
        tracing::error!(%vp, "a VP thread panicked");
        let cause = CrashCause::Runner(RunnerFault::ThreadPanicked);
        let shown = false;
        self.exit = Some(RunnerExit::Crashed { vp, cause, shown });
    }

    async fn parked(&mut self, stop: VpParked) {
        let VpParked {
            vp,
            epoch,
            cause,
            location,
            guest_registers,
            at,
        } = stop;
        self.code.parked(vp, location, guest_registers);
        let outputs = self.state.parked(vp, epoch, cause, at);
        self.feed(outputs).await;
    }

    /// Looks after breakpoints while the guest runs: only memory is read until something is to be done, but VPs whose debug registers are shared with
    /// the guest have a look at what it did to its own.
    async fn tick(&mut self) {
        let awaited = self.vps.look_after_kicks() | self.device_calls.look_after();
        let running = self.state.is_running();
        // Started again when breakpoints are programmed, which follows every rest and nothing else: a step over is none.
        if !awaited && (self.state.is_at_rest() || !self.code.needs_ticks()) {
            self.ticker.stop();
        } else if running && self.code.needs_pause() {
            let outputs = self.state.pause();
            self.feed(outputs).await;
        } else if running && self.code.needs_glances() {
            for vp in self.vps.indexes() {
                self.vps.glance(vp);
            }
        }
    }

    /// Carries out what the state machine answered to an input that no client waits for.
    async fn feed(&mut self, outputs: Result<Vec<Output>, Refused>) {
        match outputs {
            Ok(outputs) => self.execute(outputs).await,
            Err(err) => tracing::error!(error = %err, "run control"),
        }
    }

    /// Carries the outputs out in order, and what follows from them.
    async fn execute(&mut self, outputs: Vec<Output>) {
        let mut todo = Todo::from(outputs);
        while let Some(output) = todo.pop_front() {
            tracing::trace!(?output, "run control");
            match output {
                Output::Kick(vp) => self.kick(vp),
                Output::Program => self.program(&mut todo).await,
                Output::Enter {
                    vp,
                    action,
                    epoch,
                    at,
                } => self.enter(vp, action, epoch, at, &mut todo),
                Output::Report { epoch, reason } => self.report(epoch, reason),
                Output::Attached { epoch, reason } => self.attached(epoch, reason),
                Output::Broken => self.waiting.broken(),
                Output::Abandon => self.waiting.abandon(),
                Output::Release => self.release().await,
                Output::Detached => self.waiting.detached(),
                Output::Change => self.change(&mut todo).await,
                Output::Act(event) => self.act(event, &mut todo).await,
                Output::KeptStopped(event) => self.kept(event),
                Output::ResetDone => self.waiting.reset_done(Ok(())),
                Output::Exit(how) => self.exit = Some(how),
            }
        }
    }

    fn kept(&self, event: GuestEvent) {
        if let OnCrash::Stop { kept } = &self.on_crash {
            kept.send(event.reason());
        }
    }

    /// Brings the VP out of the guest, and has an eye on it until it parks.
    fn kick(&mut self, vp: VpIndex) {
        self.vps.kick(vp);
        self.ticker.start();
    }

    fn then(&mut self, outputs: Result<Vec<Output>, Refused>, todo: &mut Todo) {
        match outputs {
            Ok(outputs) => todo.extend(outputs),
            Err(err) => tracing::error!(error = %err, "run control"),
        }
    }

    fn report(&mut self, epoch: Epoch, reason: DebugStopReason) {
        if let Some(vp) = reason.vp() {
            self.code.select(vp);
        }
        self.told.push(reason);
        self.waiting.report(epoch, reason);
    }

    /// Brings breakpoint bytes up to date, and the debug registers that every VP gets as it is entered (I5).
    async fn program(&mut self, todo: &mut Todo) {
        self.told.clear();
        if self.code.uses_registers() {
            self.leave_to_guest().await;
        }
        if self.code.breakpoints().table.has_software() {
            self.find_places().await;
            self.code.reconcile().await;
        }
        self.stops = self.code.stop_set(self.step_interrupts);
        let counted = match self.time.has_counters() {
            true => self.vps.call_all(|vp| vp.restart_counter()).await,
            false => Ok(()),
        };
        let outputs = match counted {
            Ok(()) => {
                if self.code.needs_ticks() {
                    self.ticker.start();
                }
                self.state.programmed(&self.code.vps_at_bytes())
            }
            Err(err) if self.waiting.resume_is_open() => {
                self.waiting.resume_failed(err);
                self.state.program_failed()
            }
            Err(err) => {
                // Nobody debugs, and the guest goes first.
                tracing::error!(error = %err, "a VP's timer after a stop");
                self.state.programmed(&[])
            }
        };
        self.then(outputs, todo);
    }

    /// Asks the parked VPs where they stand that have not said so themselves.
    async fn find_places(&mut self) {
        for vp in self.code.unplaced() {
            match self.vps.call(vp, |vp| vp.location()).await {
                Ok(place) => self.code.set_place(vp, place),
                Err(err) => tracing::error!(%vp, error = %err, "where a VP stands"),
            }
        }
    }

    /// Finds out how many debug registers the guest uses, and leaves them to it.
    async fn leave_to_guest(&mut self) {
        for vp in self.code.uncounted() {
            match self.vps.call(vp, |vp| vp.count_guest_registers()).await {
                Ok(count) => self.code.set_guest_registers(vp, count),
                Err(err) => tracing::error!(%vp, error = %err, "the guest's debug registers"),
            }
        }
        self.code.leave_to_guest();
    }

    fn enter(
        &mut self,
        vp: VpIndex,
        action: VpAction,
        epoch: Epoch,
        at: AtBreakpoint,
        todo: &mut Todo,
    ) {
        self.code.entered(vp);
        let debugger = match self.state.check_attached() {
            Ok(()) => Debugger::Present,
            Err(_) => Debugger::Absent,
        };
        let stops = self.stops;
        let entered = self.vps.enter(vp, |snapshot| Enter {
            action,
            epoch,
            at,
            debugger,
            snapshot,
            stops,
        });
        if let Err(err) = entered {
            tracing::error!(%vp, error = %err, "a VP cannot be entered");
            let cause = CrashCause::Runner(RunnerFault::ThreadGone);
            let crash = Cause::Guest(GuestEvent::Crashed { vp, cause });
            let outputs = self.state.parked(vp, epoch, Some(crash), at);
            self.then(outputs, todo);
        }
    }

    /// Takes every trace of the debugger off the guest (I6).
    async fn release(&mut self) {
        self.code.release();
        self.stops = StopSet::default();
        self.step_interrupts = StepInterrupts::default();
        self.waiting.refuse_changes();
        let stops = self.stops;
        let released = self.vps.call_all(move |vp| vp.set_stops(stops));
        if let Err(err) = released.await {
            tracing::error!(error = %err, "debug registers could not be taken off every VP");
        }
    }

    async fn change(&mut self, todo: &mut Todo) {
        self.find_places().await;
        for request in self.waiting.take_changes() {
            let (changes, reply) = request.split();
            if self.code.needs_register(&changes) {
                self.leave_to_guest().await;
            }
            reply.complete(self.code.apply(&changes).await);
        }
        let outputs = {
            let table = &self.code.breakpoints().table;
            self.state.changed(|reason| still_hit(table, reason))
        };
        self.then(outputs, todo);
    }

    /// Carries out what the guest asked for, every VP being parked.
    async fn act(&mut self, event: GuestEvent, todo: &mut Todo) {
        let shown = self.told.contains(&event.reason());
        let exit = match (event, self.on_reset) {
            (GuestEvent::Panicked { .. }, _) => {
                let outputs = self.state.acted();
                return self.then(outputs, todo);
            }
            (GuestEvent::PowerOff { .. }, _) => Some(RunnerExit::PowerOff),
            (GuestEvent::Crashed { vp, cause }, _) => {
                Some(RunnerExit::Crashed { vp, cause, shown })
            }
            (GuestEvent::Reset { .. }, ResetPolicy::Exit) if !self.waiting.reset_is_open() => {
                Some(RunnerExit::Reset)
            }
            (GuestEvent::TripleFault { vp, .. }, ResetPolicy::Exit) => {
                Some(RunnerExit::TripleFault { vp, shown })
            }
            (GuestEvent::Reset { .. } | GuestEvent::TripleFault { .. }, _) => None,
        };
        if exit.is_some() {
            self.exit = exit;
            return;
        }
        let outputs = match self.reset().await {
            Ok(()) => self.state.acted(),
            Err(err) if self.waiting.reset_is_open() => {
                self.waiting.reset_done(Err(err));
                self.state.act_failed()
            }
            Err(err @ DebugError::Overdue { .. }) => {
                self.run_after_reset = self.state.check_attached().is_err();
                self.waiting.resume_failed(err);
                self.state.act_failed()
            }
            Err(err) => {
                tracing::error!(error = %err, "the guest could not be reset");
                self.exit = Some(RunnerExit::ResetFailed);
                return;
            }
        };
        self.then(outputs, todo);
    }
}

/// What a kept stop stands for now (I7).
fn still_hit(table: &BreakpointTable, reason: DebugStopReason) -> Option<DebugStopReason> {
    match reason {
        DebugStopReason::Breakpoint { vp, breakpoint } => table
            .still_hit(&breakpoint)
            .map(|breakpoint| DebugStopReason::Breakpoint { vp, breakpoint }),
        DebugStopReason::Watchpoint {
            vp,
            breakpoint,
            address,
        } => table
            .still_hit(&breakpoint)
            .map(|breakpoint| DebugStopReason::Watchpoint {
                vp,
                breakpoint,
                address,
            }),
        other => Some(other),
    }
}

#[cfg(test)]
mod tests;
