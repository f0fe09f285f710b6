//! All-stop run control as a pure state machine, without locks, async or KVM.
//!
//! The controller is the shell of this machine. It calls a method of [`RunState`] for each input (a request of the client, a VP that has parked) and
//! carries out the returned [`Output`]s in order.
//!
//! # Invariants
//! - **I1** Each `Resume` gets one stop report. The report has the epoch of this `Resume` and names a VP that this `Resume` runs, or no VP.
//! - **I2** A stop is reported only when every VP that was asked to stop is parked in user space and its pending I/O or MMIO exit is completed.
//! - **I3** Registers and breakpoints change only while the VP they belong to is parked. Memory may be read at any time.
//! - **I4** A VP that was asked to stop before it enters the guest does not enter. No kick is lost.
//! - **I5** The debug state of every VP is decided before any VP enters the guest, and each VP enters with its debug state.
//! - **I6** After `Detach`, a lost client, a dead worker or a dropped channel: no breakpoint byte, step flag or debug register of ours
//!   remains in the guest, and the guest runs (or stays stopped if the policy says so). A guest that is held before its first
//!   instruction stays held until a client resumes the guest or detaches.
//! - **I7** If two VPs hit at the same time, both hits are reported, one after the other. Each is reported at the first `Resume` that runs its VP. If the
//!   breakpoint is gone by then, the hit is dropped and the VP retries the instruction.
//! - **I8** A step or a continue executes at least one guest instruction of the VP that it names, whatever interrupts are pending. A VP passes a
//!   breakpoint at its RIP only if its stop at that RIP was reported and nobody has changed RIP since.
//! - **I9** The guest cannot detect the debugger.
//! - **I10** Bad client input gets an error reply. Only a lost connection ends a session. No client can hang or crash the VMM.
//!
//! This machine ensures I1, I3, I5, I7, the second sentence of I8, and the order that I2, I4 and I6 require. The module `tests` walks every reachable state
//! for 1 to 3 VPs. The VP core ensures that a VP has completed its exit when the VP reports `parked` (I2), and that a step executes an instruction (I8).
//! `run_gate` ensures that no kick is lost (I4).
//!
//! # Phases
//! ```text
//!                 resume, detach(Resume), lost                 programmed
//!      Parked ---------------------------------> Programming --------------> Running
//!       ^  ^ \                                     ^    ^  \                  ^|
//!       |  |  \                                    |    |   +-> SteppingOver --+|
//!       |  |   \                                   |    |       one VP each     |
//!       |  |  \ resume, a guest event is pending   |    | changed             | a VP parks with a cause,
//!       |  |   +-------------------> Acting -------+    | (nothing hit)       | attach, break, detach, change, shutdown:
//!       |  |     acted (reset())       |                |                     | kick every VP in the guest
//!       |  +---------------------------+             Changing                 v
//!       |                                               ^                 Stopping
//!       |  decide: report the stop                      +--- decide ----------+
//!       +---------------------------------------------------------------------+ every VP has parked
//! ```
//!
//! A VP with a breakpoint byte at its RIP has to execute the instruction under the byte (I8), and no other VP may miss the byte meanwhile. [`AtBreakpoint`]
//! chooses one of three ways:
//! - If no other VP runs, the VP enters the guest, and the byte is lifted for its first instruction ([`FirstInstruction::Lifted`]).
//! - If the instruction can be emulated, all VPs enter, and the byte stays in memory ([`FirstInstruction::Emulated`]).
//! - Otherwise the VP executes this one instruction in `SteppingOver`, with the byte lifted and every other VP parked
//!   ([`FirstInstruction::OthersStopped`]). The next such VP follows, unless there is a stop to report. Then all VPs enter.
//!
//! | input | Parked | Programming | SteppingOver, Running | Stopping | Changing | Acting |
//! |---|---|---|---|---|---|---|
//! | `attach`, `detach`, `lost`, `break_`, `change`, `shutdown` | at once | - | kick | joins | - | - |
//! | `resume`, `reset` | yes | - | `NotStopped` | `NotStopped` | - | - |
//! | `stop_on` | at once | - | at once | at once | - | - |
//! | `pause` | nothing | - | Running: kick | nothing | - | - |
//! | `parked` | - | - | yes | yes | - | - |
//! | `programmed` / `changed` / `acted` | - | yes / - / - | - | - | - / yes / - | - / - / yes |
//!
//! `-` is [`IllegalInput`], a bug in the shell: the shell finishes Programming, Changing and Acting before it takes the next input. `joins` means that one
//! more [`StopGoal`] is added, and that the VPs are on their way to a stop already.

mod all_parked;
mod entering;
mod keep_stopped;
mod members;
mod messages;
mod reported;
mod steps;

pub(crate) use keep_stopped::KeepStopped;
pub(crate) use messages::Cause;
pub(crate) use messages::IllegalInput;
pub(crate) use messages::Output;
pub(crate) use messages::Refused;
pub(crate) use messages::VpAtByte;

use crate::control::at_breakpoint::AtBreakpoint;
#[cfg(doc)]
use crate::control::at_breakpoint::FirstInstruction;
use crate::control::guest_event::GuestEvent;
use members::Presence;
use messages::Hit;
use std::collections::BTreeSet;
use std::collections::VecDeque;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::DetachAction;
use vmm_core_defs::debug_rpc::VpAction;
use vmm_core_defs::stop::DebugStopReason;
use vmm_core_defs::stop::Epoch;
use vmm_core_defs::stop::StopOn;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum VpState {
    /// The VP is in user space and waits for [`Output::Enter`].
    Parked(AtBreakpoint),
    /// The VP was entered.
    Entered,
    /// The VP was entered, then kicked.
    Kicked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Vp {
    state: VpState,
    /// What the VP does when it is entered. The steps that it has made are taken from it.
    plan: VpAction,
    /// The VP has made the last step of its plan.
    done: bool,
    /// The stop of this VP that was reported to the client since the last resume.
    reported: Option<DebugStopReason>,
    presence: Presence,
}

impl Vp {
    /// The session has ended or the guest was reset, so the stops of this VP, and their reports, count no longer.
    fn forget(&mut self) {
        if let VpState::Parked(at) = &mut self.state {
            at.forget();
        }
        self.reported = None;
        self.done = false;
    }
}

/// See the picture in the module documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    Parked,
    Programming,
    SteppingOver,
    Running,
    Stopping,
    Changing,
    Acting(AfterAct),
    Ended,
}

impl Phase {
    const fn name(self) -> &'static str {
        match self {
            Self::Parked => "Parked",
            Self::Programming => "Programming",
            Self::SteppingOver => "SteppingOver",
            Self::Running => "Running",
            Self::Stopping => "Stopping",
            Self::Changing => "Changing",
            Self::Acting(_) => "Acting",
            Self::Ended => "Ended",
        }
    }
}

/// What happens when a guest event has been carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum AfterAct {
    /// The guest runs.
    Run,
    /// The guest stays parked.
    Stay,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Session {
    Detached,
    Attached(Resume),
}

/// Whether a `Resume` waits for its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Resume {
    Open,
    Answered,
}

/// Why the VPs are brought to a stop: what happens once every VP is parked. The order is the order of precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum StopGoal {
    Shutdown,
    DetachAndKill,
    DetachAndRun,
    DetachAndStay,
    Change,
    /// The shell programs the breakpoints again, and the guest continues.
    Pause,
    Attach,
    Break,
}

/// The machine. Every method with [`Outputs`] is an input. An input that is refused changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct RunState {
    vps: Vec<Vp>,
    phase: Phase,
    session: Session,
    epoch: Epoch,
    /// The number of instructions that VPs have executed by [`VpAction::StepN`] since the last resume, if it has this action.
    steps: Option<u64>,
    goals: BTreeSet<StopGoal>,
    /// The stops that are not reported yet, oldest first (I7).
    hits: VecDeque<Hit>,
    /// The guest event that the next resume carries out before any VP runs, such as a reset.
    pending_event: Option<GuestEvent>,
    /// Which events keep the guest stopped while no debugger is attached.
    keep_stopped: KeepStopped,
    /// The pending event, if it was reported to a debugger.
    reported_event: Option<GuestEvent>,
    /// The pending event, if a debugger to which it was reported then detached with [`DetachAction::Resume`]. This event does not keep the guest stopped.
    accepted_event: Option<GuestEvent>,
    /// Which guest events are stops.
    stop_on: StopOn,
    /// No VP has been entered yet: the guest is before its first instruction (I6).
    held: bool,
}

type Outputs = Result<Vec<Output>, Refused>;

impl RunState {
    /// A guest with `vps` VPs, all parked, without a debugger.
    pub(crate) fn new(vps: u32, keep_stopped: KeepStopped) -> Self {
        Self {
            vps: vec![Vp::NEW; vps as usize],
            phase: Phase::Parked,
            session: Session::Detached,
            epoch: Epoch::default(),
            steps: None,
            goals: BTreeSet::new(),
            hits: VecDeque::new(),
            pending_event: None,
            keep_stopped,
            reported_event: None,
            accepted_event: None,
            stop_on: StopOn::default(),
            held: true,
        }
    }

    /// The VMM starts the guest without a debugger. Legal only before any other input.
    pub(crate) fn start(&mut self) -> Outputs {
        self.only_in(Phase::Parked, "start")?;
        Ok(self.run_guest())
    }

    /// A debugger attaches.
    ///
    /// # Errors
    /// [`DebugError::AlreadyAttached`].
    pub(crate) fn attach(&mut self) -> Outputs {
        self.expect_idle_shell("attach")?;
        if let Session::Attached(_) = self.session {
            return Err(DebugError::AlreadyAttached.into());
        }
        self.session = Session::Attached(Resume::Answered);
        self.accepted_event = None;
        Ok(self.stop_for(StopGoal::Attach))
    }

    /// The debugger detaches, or its session ends in another way. `action` says what the guest does then.
    ///
    /// # Errors
    /// [`DebugError::NotAttached`].
    pub(crate) fn detach(&mut self, action: DetachAction) -> Outputs {
        self.expect_idle_shell("detach")?;
        let open = self.attached()?;
        let mut outputs = Vec::new();
        if open == Resume::Open || self.goals.remove(&StopGoal::Attach) {
            outputs.push(Output::Abandon);
        }
        self.session = Session::Detached;
        self.accepted_event = match action {
            DetachAction::Resume if self.reported_event == self.pending_event => self.pending_event,
            _ => None,
        };
        let wanted = match action {
            DetachAction::ResumeUnlessHeld | DetachAction::KillUnlessHeld if self.held => {
                StopGoal::DetachAndStay
            }
            DetachAction::Resume
            | DetachAction::ResumeUnlessHeld
            | DetachAction::ResumeUnlessCrashed => StopGoal::DetachAndRun,
            DetachAction::Stay => StopGoal::DetachAndStay,
            DetachAction::Kill | DetachAction::KillUnlessHeld => StopGoal::DetachAndKill,
        };
        // The action of the last debugger replaces an earlier one, except that a kill stays.
        self.goals.remove(&StopGoal::DetachAndRun);
        self.goals.remove(&StopGoal::DetachAndStay);
        outputs.extend(self.stop_for(wanted));
        Ok(outputs)
    }

    /// No debugger can attach any more. The session ends as by [`Self::detach`]. A guest that a debugger left stopped runs, and no crash keeps the guest
    /// stopped from now on. A guest that is held stays held (I6).
    pub(crate) fn lost(&mut self) -> Outputs {
        self.expect_idle_shell("lost")?;
        self.keep_stopped = KeepStopped::Nothing;
        match self.session {
            Session::Attached(_) => self.detach(DetachAction::ResumeUnlessHeld),
            Session::Detached => {
                // The guest was to stay stopped for the next debugger, and its VPs have not parked yet.
                if self.goals.remove(&StopGoal::DetachAndStay) {
                    return Ok(self.stop_for(StopGoal::DetachAndRun));
                }
                Ok(match self.phase {
                    Phase::Parked if !self.held => self.run_guest(),
                    _ => Vec::new(),
                })
            }
        }
    }

    /// The client resumes the guest. `plan` has one action for each VP. `still_hit` returns the present stop reason of a hit that is not reported yet, and
    /// `None` if its breakpoint is gone (I7).
    ///
    /// # Errors
    /// [`DebugError::NotAttached`], [`DebugError::NotStopped`], [`DebugError::NothingToRun`].
    pub(crate) fn resume(
        &mut self,
        plan: &[VpAction],
        still_hit: impl Fn(DebugStopReason) -> Option<DebugStopReason>,
    ) -> Outputs {
        self.expect_idle_shell("resume")?;
        self.attached()?;
        self.stopped()?;
        if plan.len() != self.vps.len() {
            return Err(self.illegal("resume of another number of VPs").into());
        }
        if plan.iter().all(|action| *action == VpAction::Stay) {
            return Err(DebugError::NothingToRun.into());
        }
        self.epoch = self.epoch.next();
        self.session = Session::Attached(Resume::Open);
        self.begin_steps(plan);
        for (vp, action) in self.vps.iter_mut().zip(plan) {
            vp.plan = *action;
            vp.done = false;
            vp.reported = None;
        }
        self.drop_obsolete_hits(still_hit);
        Ok(match self.answering_hit() {
            Some(_) => self.report(),
            None => self.run_guest(),
        })
    }

    /// The client stops the guest.
    ///
    /// # Errors
    /// [`DebugError::NotAttached`].
    pub(crate) fn break_(&mut self) -> Outputs {
        self.expect_idle_shell("break")?;
        self.attached()?;
        Ok(self.stop_for(StopGoal::Break))
    }

    /// The client changes the breakpoint table. The shell keeps the changes until [`Output::Change`].
    ///
    /// # Errors
    /// [`DebugError::NotAttached`].
    pub(crate) fn change(&mut self) -> Outputs {
        self.expect_idle_shell("change")?;
        self.attached()?;
        Ok(self.stop_for(StopGoal::Change))
    }

    /// Stops a guest that runs for [`Output::Program`], so that the shell can check the breakpoints, and continues the guest. Does nothing if the guest is
    /// parked or about to park.
    ///
    /// # Errors
    /// [`IllegalInput`].
    pub(crate) fn pause(&mut self) -> Outputs {
        self.expect_idle_shell("pause")?;
        Ok(match (self.phase, self.session) {
            (Phase::Running, Session::Attached(_)) => self.stop_for(StopGoal::Pause),
            _ => Vec::new(),
        })
    }

    /// The client resets the guest. The guest stays stopped.
    ///
    /// # Errors
    /// [`DebugError::NotAttached`], [`DebugError::NotStopped`].
    pub(crate) fn reset(&mut self) -> Outputs {
        self.expect_idle_shell("reset")?;
        self.attached()?;
        self.stopped()?;
        self.phase = Phase::Acting(AfterAct::Stay);
        Ok(vec![Output::Act(GuestEvent::Reset { vp: None })])
    }

    /// The VMM ends the runner.
    ///
    /// # Errors
    /// [`IllegalInput`] after the end.
    pub(crate) fn shutdown(&mut self) -> Outputs {
        self.expect_idle_shell("shutdown")?;
        Ok(self.stop_for(StopGoal::Shutdown))
    }

    /// The shell has carried out the event of [`Output::Act`].
    ///
    /// # Errors
    /// [`IllegalInput`].
    pub(crate) fn acted(&mut self) -> Outputs {
        let Phase::Acting(after) = self.phase else {
            return Err(self.illegal("acted").into());
        };
        self.forget_before_reset();
        Ok(match after {
            AfterAct::Run => self.program(),
            AfterAct::Stay => {
                self.phase = Phase::Parked;
                vec![Output::ResetDone]
            }
        })
    }

    /// The guest was reset, so every stop and event belongs to the guest before the reset.
    fn forget_before_reset(&mut self) {
        self.hits.clear();
        self.pending_event = None;
        for vp in &mut self.vps {
            vp.forget();
        }
    }

    /// A reset has returned that was overdue, so that the shell had called [`Self::act_failed`]. The shell has kept the guest parked since.
    pub(crate) fn late_reset_done(&mut self) {
        self.forget_before_reset();
    }

    /// The shell could not carry out the event, or not yet. The guest stays parked. The shell has answered an open resume.
    ///
    /// # Errors
    /// [`IllegalInput`].
    pub(crate) fn act_failed(&mut self) -> Outputs {
        let Phase::Acting(_) = self.phase else {
            return Err(self.illegal("act_failed").into());
        };
        self.phase = Phase::Parked;
        if let Session::Attached(open) = &mut self.session {
            *open = Resume::Answered;
        }
        Ok(Vec::new())
    }

    /// The client wrote registers of a VP that had crashed. The crash is pending no longer, and the next resume runs the VP.
    pub(crate) fn repaired(&mut self, index: VpIndex) {
        if matches!(self.pending_event, Some(GuestEvent::Crashed { vp, .. }) if vp == index) {
            self.pending_event = None;
        }
    }

    /// The next resume carries out this event, unless another event is pending already. Does nothing for an event that needs no action.
    pub(crate) fn set_pending_event(&mut self, event: GuestEvent) {
        if event.needs_action() {
            self.pending_event = self.pending_event.or(Some(event));
        }
    }

    /// Sets which guest events are stops, if `set` is `Some`, and returns which are.
    ///
    /// # Errors
    /// [`DebugError::NotAttached`].
    pub(crate) fn stop_on(&mut self, set: Option<StopOn>) -> Result<StopOn, DebugError> {
        self.attached()?;
        if let Some(set) = set {
            self.stop_on = set;
            for hit in std::mem::take(&mut self.hits) {
                self.keep_hit(hit);
            }
        }
        Ok(self.stop_on)
    }

    /// Keeps a hit until it is reported. A guest event that is not a stop becomes the pending event instead.
    fn keep_hit(&mut self, hit: Hit) {
        match hit {
            Hit::Guest(event) if !event.is_stop(self.stop_on) => self.set_pending_event(event),
            hit => self.hits.push_back(hit),
        }
    }

    fn state_of(&mut self, vp: VpIndex) -> Option<&mut VpState> {
        let vp = self.vps.get_mut(vp.index() as usize)?;
        Some(&mut vp.state)
    }

    /// Whether the VP was entered and has not parked since.
    pub(crate) fn is_entered(&self, vp: VpIndex) -> bool {
        let vp = self.vps.get(vp.index() as usize);
        vp.is_some_and(|vp| !matches!(vp.state, VpState::Parked(_)))
    }

    /// Whether no VP has been entered yet (I6).
    pub(crate) fn is_held(&self) -> bool {
        self.held
    }

    /// Whether a debugger is attached and VPs are in the guest or about to enter.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.session, Session::Attached(_)) && self.phase == Phase::Running
    }

    /// Whether no debugger is attached, or no VP runs until the debugger resumes the guest.
    pub(crate) fn is_at_rest(&self) -> bool {
        !matches!(self.session, Session::Attached(_))
            || matches!(self.phase, Phase::Parked | Phase::Ended)
    }

    /// Succeeds if requests that need a stopped guest can be served.
    ///
    /// # Errors
    /// [`DebugError::NotAttached`], [`DebugError::NotStopped`].
    pub(crate) fn check_stopped(&self) -> Result<(), DebugError> {
        self.attached()?;
        self.stopped()
    }

    /// Succeeds if a debugger is attached.
    ///
    /// # Errors
    /// [`DebugError::NotAttached`].
    pub(crate) fn check_attached(&self) -> Result<(), DebugError> {
        self.attached().map(drop)
    }

    fn attached(&self) -> Result<Resume, DebugError> {
        match self.session {
            Session::Attached(resume) => Ok(resume),
            Session::Detached => Err(DebugError::NotAttached),
        }
    }

    fn stopped(&self) -> Result<(), DebugError> {
        match self.phase {
            Phase::Parked => Ok(()),
            _ => Err(DebugError::NotStopped),
        }
    }

    fn illegal(&self, input: &'static str) -> IllegalInput {
        let phase = self.phase.name();
        IllegalInput { input, phase }
    }

    fn only_in(&self, phase: Phase, input: &'static str) -> Result<(), IllegalInput> {
        match self.phase == phase {
            true => Ok(()),
            false => Err(self.illegal(input)),
        }
    }

    /// Succeeds unless the shell has yet to call `programmed`, `changed` or `acted`.
    fn expect_idle_shell(&self, input: &'static str) -> Result<(), IllegalInput> {
        match self.phase {
            Phase::Parked | Phase::SteppingOver | Phase::Running | Phase::Stopping => Ok(()),
            Phase::Programming | Phase::Changing | Phase::Acting(_) | Phase::Ended => {
                Err(self.illegal(input))
            }
        }
    }
}

fn vp_index(index: usize) -> VpIndex {
    VpIndex::new(u32::try_from(index).expect("RunState::new took the VP count as a u32"))
}

#[cfg(test)]
mod tests;
