//! The actor that answers [`DebugRequest`](vmm_core_defs::debug_rpc::DebugRequest) and runs the guest. It carries out the decisions of `run_state`.
//!
//! Outside its one `select!` the actor waits for three things only: for VP threads that are parked, which answer at once; for a reset, until the reset is
//! overdue; and, between slices of long work, for the other tasks of its executor. The actor never waits for a VP that runs.

pub(crate) mod assembly;
mod breakpoint_control;
mod device_calls;
mod devices;
mod held_events;
mod kept_hits;
mod latest_session;
mod owner;
mod requests;
mod ticker;
mod tracing_control;
mod unanswered;
mod vps;
mod waiting;

use crate::arch::PagingLimits;
use crate::arch::Timekeeper;
use crate::control::at_breakpoint::AtBreakpoint;
use crate::control::enter::Debugger;
use crate::control::enter::Enter;
use crate::control::enter::StopSet;
use crate::control::enter::VpParked;
use crate::control::guest_event::GuestEvent;
use crate::control::run_gate::RunGate;
use crate::control::run_state::Cause;
use crate::control::run_state::Output;
use crate::control::run_state::Refused;
use crate::control::run_state::RunState;
use crate::hook::NewVp;
use crate::hook::VpEvent;
use crate::machine::for_debugger::ForDebugger;
use crate::memory::DebugMemory;
use crate::runner::OnCrash;
use crate::runner::ResetPolicy;
use crate::runner::RunnerExit;
use crate::runner::StartMode;
use breakpoint_control::BreakpointControl;
use device_calls::DeviceCalls;
use device_calls::Returned;
use futures::FutureExt as _;
use futures::StreamExt;
use futures::select_biased;
use kept_hits::still_hit;
use latest_session::LatestSession;
use owner::Owner;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;
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
use vmm_core_defs::stop::StopEvent;
use vps::VpThread;
use vps::Vps;
use waiting::Waiting;

pub(crate) use held_events::Causer;
pub(crate) use held_events::HeldEvents;
pub(crate) use vps::AddedVp;
pub(crate) use vps::KvmVps;

/// A request of the VMM to the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Control {
    /// End the runner.
    Stop,
    /// The VMM has changed memory slots. Breakpoints may be armed in memory that is new or back.
    MemoryChanged,
}

/// The actor. Run it as a task on any executor. The thread of the debug worker is best, because the two tasks then need not wake each other's thread.
///
/// Dropping the controller ends the VP threads.
pub struct Controller {
    state: RunState,
    vps: Vps,
    events: mesh::Receiver<VpEvent>,
    debug: mesh::Receiver<DebugMessage>,
    session: LatestSession,
    control: mesh::Receiver<Control>,
    waiting: Waiting,
    breakpoint_control: BreakpointControl,
    /// The stop set with which every VP is entered.
    stops: StopSet,
    /// Applies from the next entry on.
    step_interrupts: StepInterrupts,
    ticker: Ticker,
    ticks: mesh::Receiver<Tick>,
    memory: DebugMemory,
    machine: Arc<dyn ForDebugger>,
    device_calls: DeviceCalls,
    /// The guest runs when its reset has returned, because no debugger is attached.
    run_after_reset: bool,
    xfeatures: XFeatures,
    paging_limits: PagingLimits,
    capabilities: Capabilities,
    start: StartMode,
    on_reset: ResetPolicy,
    on_crash: OnCrash,
    /// Who carries guest events out.
    owner: Owner,
    /// When the debugger ends at the latest, once the VMM has asked for the end.
    ends_at: Option<Instant>,
    exit: Option<RunnerExit>,
    /// The reasons of the present stop that were reported to the debugger.
    reported: Vec<DebugStopReason>,
    time: Arc<Timekeeper>,
}

/// When the VMM ends the debugger, a VP in the guest has this time to park. A VP whose thread the VMM has does not park, and cannot enter the guest as it was.
const LAST_PARK: Duration = Duration::from_millis(200);

/// The outputs of the state machine that are yet to be carried out.
type Outputs = VecDeque<Output>;

impl Controller {
    /// Runs the guest and answers the debugger until the guest or the VMM ends the runner. Not cancel safe: dropping the future ends the VP threads
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
        self.wait_for_first_vp().await;
        if self.start == StartMode::Run {
            let started = self.state.start();
            self.execute_result(started).await;
        }
        loop {
            if let Some(exit) = self.exit {
                self.waiting.ended(self.owner.end_for_debugger(exit));
                return exit;
            }
            self.publish_stops();
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
                Event::Control(Control::MemoryChanged) | Event::Tick => self.tick().await,
                Event::NoDebugger => self.no_debugger().await,
            }
        }
    }

    /// A debugger cannot do anything with a VM that has no vCPU yet, so its requests wait.
    async fn wait_for_first_vp(&mut self) {
        while self.vps.count() == 0 && self.exit.is_none() {
            // merge
            select_biased! {
                control = self.control.select_next_some() => match control {
                    Control::Stop => self.exit = Some(RunnerExit::Stopped),
                    Control::MemoryChanged => {}
                },
                vp = self.events.select_next_some() => self.vp_event(vp).await,
            }
        }
    }

    /// Tells the VMM which of its events are stops.
    fn publish_stops(&self) {
        if let Owner::Vmm(events) = &self.owner {
            events.set_stops(self.state.stops_of_debugger());
        }
    }

    /// Handles the events of VPs that are there.
    async fn take_vp_events(&mut self) {
        while let Some(Some(event)) = self.events.next().now_or_never() {
            self.vp_event(event).await;
        }
    }

    async fn vp_event(&mut self, event: VpEvent) {
        match event {
            VpEvent::Parked(stop) => {
                self.vps.answered(stop.vp);
                self.parked(stop).await;
            }
            VpEvent::Died(vp) => self.died(vp),
            VpEvent::Joined(vp, new) => self.joined(vp, new).await,
            VpEvent::Left(vp) => self.left(vp).await,
            VpEvent::MovedByVmm(vp) => {
                self.breakpoint_control.forget(vp);
                self.state.rip_written(vp);
            }
            VpEvent::Device(event, gate) => self.device_event(event, gate.as_deref()).await,
        }
    }

    /// A vCPU of the VMM has registered.
    async fn joined(&mut self, vp: VpIndex, new: NewVp) {
        let NewVp {
            gate,
            link,
            snapshot,
            xfeatures,
            paging_limits,
        } = new;
        self.xfeatures = xfeatures;
        self.paging_limits = paging_limits;
        self.vps.join(vp, VpThread::new(gate, link, snapshot));
        self.breakpoint_control.join(vp);
        let outputs = self.state.join(vp);
        self.execute_result(outputs).await;
    }

    /// A vCPU of the VMM has gone.
    async fn left(&mut self, vp: VpIndex) {
        self.vps.leave(vp);
        self.breakpoint_control.leave(vp);
        let outputs = self.state.leave(vp);
        self.execute_result(outputs).await;
    }

    async fn stop(&mut self) {
        let outputs = self.state.shutdown();
        self.execute_result(outputs).await;
        if let (Owner::Vmm(_), None) = (&self.owner, self.exit) {
            self.ends_at = Some(Instant::now() + LAST_PARK);
            self.ticker.start();
        }
    }

    /// Whether the VMM has ended the debugger and still has the thread of a VP, for which nobody waits (I11).
    fn is_late_end(&self) -> bool {
        self.ends_at.is_some_and(|end| Instant::now() >= end)
    }

    /// A device of the VMM has caused an event, and the VMM waits for the debugger. `gate` is held by the VMM.
    async fn device_event(&mut self, event: GuestEvent, gate: Option<&RunGate>) {
        if let (Owner::Vmm(events), Some(gate)) = (&self.owner, gate) {
            events.take_hold(gate);
        }
        let outputs = self.state.device_event(event);
        self.execute_result(outputs).await;
    }

    /// Every sender of requests was dropped, so no debugger can attach any more.
    async fn no_debugger(&mut self) {
        if self.device_calls.resetting().is_some() {
            // `late_reset` checks this again.
            return;
        }
        let outputs = self.state.lost();
        self.execute_result(outputs).await;
    }

    /// A panic in the VMM's code has ended a VP thread, so the guest cannot continue.
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
            steps,
        } = stop;
        self.breakpoint_control
            .parked(vp, location, guest_registers);
        let outputs = self.state.parked(vp, epoch, cause, at, steps);
        self.execute_result(outputs).await;
    }

    /// Maintains the breakpoints while the guest runs. Reads only memory, and stops the guest only if a breakpoint needs a change. VPs that share debug registers
    /// with the guest leave the guest for a moment, to read the guest's debug registers.
    async fn tick(&mut self) {
        if self.is_late_end() {
            tracing::info!("the debugger ends while the VMM has the thread of a VP");
            self.exit = Some(RunnerExit::Stopped);
            return;
        }
        let awaited = self.vps.repeat_overdue_kicks() | self.device_calls.check_overdue();
        let running = self.state.is_running();
        // At rest the ticker stops. `program` starts it again before the guest runs. A step-over does not count as rest.
        let awaited = awaited || self.ends_at.is_some();
        if !awaited && (self.state.is_at_rest() || !self.breakpoint_control.needs_ticks()) {
            self.ticker.stop();
        } else if running && self.breakpoint_control.needs_pause() {
            let outputs = self.state.pause();
            self.execute_result(outputs).await;
        } else if running && self.breakpoint_control.needs_guest_registers_read() {
            for vp in self.vps.set().iter() {
                self.vps.read_guest_registers(vp);
            }
        }
    }

    /// Carries out the outputs for an input for which no client waits.
    async fn execute_result(&mut self, outputs: Result<Vec<Output>, Refused>) {
        match outputs {
            Ok(outputs) => self.execute(outputs).await,
            Err(err) => tracing::error!(error = %err, "run control"),
        }
    }

    /// Carries out the outputs in order, and the further outputs that follow from them.
    async fn execute(&mut self, outputs: Vec<Output>) {
        let mut pending = Outputs::from(outputs);
        while let Some(output) = pending.pop_front() {
            tracing::trace!(?output, "run control");
            match output {
                Output::Kick(vp) => self.kick(vp),
                Output::Program => self.program(&mut pending).await,
                Output::Enter {
                    vp,
                    action,
                    epoch,
                    at,
                } => self.enter(vp, action, epoch, at, &mut pending),
                Output::Report { epoch, reason } => self.report(epoch, reason),
                Output::Attached { epoch, reason } => self.attached(epoch, reason),
                Output::Broken => self.waiting.broken(),
                Output::Abandon => self.waiting.abandon(),
                Output::Release => self.release().await,
                Output::Detached => self.waiting.detached(),
                Output::Change => self.change(&mut pending).await,
                Output::Act(event) => self.act(event, &mut pending).await,
                Output::KeptStopped(event) => self.kept_stopped(event),
                Output::ResetDone => self.waiting.reset_done(Ok(())),
                Output::Exit(how) => self.exit = Some(how),
            }
        }
    }

    /// Notifies the VMM that the guest stays stopped for a debugger.
    fn kept_stopped(&self, event: GuestEvent) {
        if let OnCrash::Stop { kept } = &self.on_crash {
            kept.send(event.reason());
        }
    }

    /// Kicks the VP, and checks by ticks that the VP parks.
    fn kick(&mut self, vp: VpIndex) {
        self.vps.kick(vp);
        self.ticker.start();
    }

    fn then(&mut self, outputs: Result<Vec<Output>, Refused>, pending: &mut Outputs) {
        match outputs {
            Ok(outputs) => pending.extend(outputs),
            Err(err) => tracing::error!(error = %err, "run control"),
        }
    }

    fn report(&mut self, epoch: Epoch, reason: DebugStopReason) {
        if let Some(vp) = reason.vp() {
            self.breakpoint_control.select(vp);
        }
        self.reported.push(reason);
        let mut event = StopEvent::new(epoch, reason, self.vps.set());
        event.steps = self.state.steps();
        event.condition_failure = self.breakpoint_control.stopped(&reason);
        // Before the stop, whose reader may ask for the rest.
        self.breakpoint_control.output().stopped();
        self.waiting.report(event);
    }

    /// Updates the breakpoint bytes, and the debug registers with which every VP is entered (I5).
    async fn program(&mut self, pending: &mut Outputs) {
        self.reported.clear();
        self.breakpoint_control.drop_idle_tracepoints().await;
        if self.breakpoint_control.uses_registers() {
            self.leave_to_guest().await;
        }
        if self.breakpoint_control.breakpoints().table.has_software() {
            self.find_locations().await;
            self.breakpoint_control.reconcile().await;
        }
        self.stops = self.breakpoint_control.stop_set(self.step_interrupts);
        let counted = match self.time.has_counters() {
            true => self.vps.call_all(|vp| vp.restart_counter()).await,
            false => Ok(()),
        };
        let outputs = match counted {
            Ok(()) => {
                if self.breakpoint_control.needs_ticks() {
                    self.ticker.start();
                }
                self.state
                    .programmed(&self.breakpoint_control.vps_at_bytes())
            }
            Err(err) if self.waiting.resume_is_open() => {
                self.waiting.resume_failed(err);
                self.state.program_failed()
            }
            Err(err) => {
                // No debugger is attached, so the guest runs all the same.
                tracing::error!(error = %err, "a VP's timer after a stop");
                self.state.programmed(&[])
            }
        };
        self.then(outputs, pending);
    }

    /// Gets the location of each parked VP whose location is not known.
    async fn find_locations(&mut self) {
        for vp in self.breakpoint_control.without_location() {
            match self.vps.call(vp, |vp| vp.location()).await {
                Ok(location) => self.breakpoint_control.set_location(vp, location),
                Err(err) => vps::log_unknown(vp, &err, "the location of a VP is unknown"),
            }
        }
    }

    /// Finds out how many debug registers the guest uses, and leaves these registers to the guest.
    async fn leave_to_guest(&mut self) {
        for vp in self.breakpoint_control.uncounted() {
            match self.vps.call(vp, |vp| vp.count_guest_registers()).await {
                Ok(count) => self.breakpoint_control.set_guest_registers(vp, count),
                Err(err) => vps::log_unknown(vp, &err, "the guest's debug registers are unknown"),
            }
        }
        self.breakpoint_control.leave_to_guest();
    }

    fn enter(
        &mut self,
        vp: VpIndex,
        action: VpAction,
        epoch: Epoch,
        at: AtBreakpoint,
        pending: &mut Outputs,
    ) {
        self.breakpoint_control.entered(vp);
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
            if let (Owner::Vmm(_), DebugError::VpThreadEnded { .. }) = (&self.owner, &err) {
                // The vCPU has just gone, and its last event follows.
                return;
            }
            tracing::error!(%vp, error = %err, "a VP cannot be entered");
            let cause = CrashCause::Runner(RunnerFault::ThreadGone);
            let crash = Cause::Guest(GuestEvent::Crashed { vp, cause });
            let outputs = self.state.parked(vp, epoch, Some(crash), at, 0);
            self.then(outputs, pending);
        }
    }

    /// Removes every trace of the debugger from the guest (I6).
    async fn release(&mut self) {
        self.breakpoint_control.release();
        self.stops = StopSet::default();
        self.step_interrupts = StepInterrupts::default();
        self.waiting.refuse_changes();
        let stops = self.stops;
        let released = self.vps.call_all(move |vp| vp.set_stops(stops));
        match released.await {
            // The VP has lost its debug registers as the VMM got its thread.
            Ok(()) | Err(DebugError::HeldByVmm { .. }) => {}
            Err(err) => {
                tracing::error!(error = %err, "debug registers could not be taken off every VP");
            }
        }
    }

    async fn change(&mut self, pending: &mut Outputs) {
        self.find_locations().await;
        for request in self.waiting.take_changes() {
            let (changes, reply) = request.split();
            if self.breakpoint_control.needs_register(&changes) {
                self.leave_to_guest().await;
            }
            reply.complete(self.breakpoint_control.apply(&changes).await);
        }
        let outputs = {
            let breakpoints = self.breakpoint_control.breakpoints();
            self.state.changed(|reason| still_hit(&breakpoints, reason))
        };
        self.then(outputs, pending);
    }

    /// Carries out a guest event. Every VP is parked.
    async fn act(&mut self, event: GuestEvent, pending: &mut Outputs) {
        if let Owner::Vmm(vmm) = &self.owner
            && !self.waiting.reset_is_open()
        {
            // The VMM has the event: as the exit that its run loop keeps, or from its own device.
            vmm.continued(event);
            let outputs = self.state.acted();
            return self.then(outputs, pending);
        }
        let shown = self.reported.contains(&event.reason());
        let exit = match (event, self.on_reset) {
            (GuestEvent::Panicked { .. }, _) => {
                let outputs = self.state.acted();
                return self.then(outputs, pending);
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
        self.then(outputs, pending);
    }
}

impl Drop for Controller {
    /// The run loops of a VMM go on without the debugger as soon as `vps` is dropped, so the breakpoint bytes are out of memory before (I6).
    fn drop(&mut self) {
        if let Owner::Vmm(events) = &self.owner {
            self.breakpoint_control.release();
            events.end();
        }
    }
}

#[cfg(test)]
mod tests;
