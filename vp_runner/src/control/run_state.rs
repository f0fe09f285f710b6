//! All-stop run control as a pure machine: no locks, no async, no KVM. The controller feeds it [inputs](RunState) and carries out
//! its [`Output`]s in order.
//!
//! # Invariants
//! - **I1** One stop report for each `Resume`; its epoch matches, and it names a VP that this `Resume` let go (or none).
//! - **I2** A stop is reported only when every VP that was to stop is parked in user space and its pending I/O or MMIO exit is completed.
//! - **I3** Registers and breakpoints change only while the VP they belong to is parked. Memory may be read at any time.
//! - **I4** A stop requested before a VP enters the guest keeps it out: no lost kick, no window.
//! - **I5** Debug state is settled for every VP before any VP enters the guest, and each enters with it.
//! - **I6** After `Detach`, a lost client, a dead worker or a dropped channel: no breakpoint byte, step flag or debug register of ours
//!   remains in the guest, and the guest runs (or stays stopped, where the policy says so). A guest that was held before its first
//!   instruction stays held until somebody resumes it or detaches.
//! - **I7** Two VPs that hit at once both get reported, one after the other, each at the first `Resume` that includes it; a hit whose breakpoint
//!   is gone by then is dropped and its VP retries the instruction.
//! - **I8** A step or a continue executes at least one guest instruction of the VP it names, whatever interrupts are pending. A VP passes a
//!   breakpoint at its RIP only if its stop at that RIP was reported and nobody has changed RIP since.
//! - **I9** The guest never sees us.
//! - **I10** Bad client input gets an error reply; only a lost connection ends a session; no client can hang or crash the VMM.
//!
//! This machine answers for I1, I3, I5, I7, the second sentence of I8 and the ordering part of I2, I4 and I6; `tests` walks every reachable state for
//! 1 to 3 VPs. That a VP has completed its exit when it says `parked` (I2), that a kick is not lost (I4) and that a step advances (I8) is `vp_thread`'s
//! and `run_gate`'s.
//!
//! # Phases
//! ```text
//!                 resume, detach(Resume), lost                 programmed
//!      Parked ---------------------------------> Programming --------------> Running
//!       ^  ^ \                                     ^    ^  \                  ^|
//!       |  |  \                                    |    |   +-> SteppingOver --+|
//!       |  |   \                                   |    |       each in turn    |
//!       |  |  \ resume, with a reset owed          |    | changed             | a VP parks with a cause,
//!       |  |   +-------------------> Acting -------+    | (nothing hit)       | attach, break, detach, change, shutdown:
//!       |  |     acted (reset())       |                |                     | kick every VP in the guest
//!       |  +---------------------------+             Changing                 v
//!       |                                               ^                 Stopping
//!       |  settle: report the stop                      +--- settle ----------+
//!       +---------------------------------------------------------------------+ every VP parked
//! ```
//!
//! A VP that stands on a breakpoint byte and is to move has to get past it (I8), and no other may run through the gap:
//! - where no other VP is to move, it enters as usual and lifts the byte for its first instruction ([`FirstInstruction::Lifted`]);
//! - where the instruction can be carried out without executing it, all enter, and the byte stays ([`FirstInstruction::CarriedOut`]);
//! - else it executes that one instruction in `SteppingOver`, with the byte lifted and every other VP parked ([`FirstInstruction::OthersStopped`]);
//!   when nothing came of it that is to be told, the next one does, and then all enter.
//!
//! [`AtBreakpoint`] decides between them.
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
//! `-` is [`IllegalInput`]: the shell broke the protocol (it carries out Programming, Changing and Acting before it takes the next input).

mod entering;
mod kept;
mod messages;
mod reported;
mod settle;

pub(crate) use kept::Keeps;
pub(crate) use messages::Cause;
pub(crate) use messages::IllegalInput;
pub(crate) use messages::OnByte;
pub(crate) use messages::Output;
pub(crate) use messages::Refused;

use crate::control::at_breakpoint::AtBreakpoint;
#[cfg(doc)]
use crate::control::at_breakpoint::FirstInstruction;
use crate::control::guest_event::GuestEvent;
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
    /// In user space, waiting for `Enter`.
    Parked(AtBreakpoint),
    /// Told to enter.
    Entered,
    /// Told to enter, then kicked.
    Kicked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Vp {
    state: VpState,
    plan: VpAction,
    /// The reason that the client was given for this VP's stop since its last resume.
    told: Option<DebugStopReason>,
}

impl Vp {
    /// The session or the guest's run is over, so neither the VP's stops nor the reports of them count any more.
    fn forget(&mut self) {
        if let VpState::Parked(at) = &mut self.state {
            at.forget();
        }
        self.told = None;
    }
}

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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum AfterAct {
    Run,
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

/// What is to happen once every VP is parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Want {
    Shutdown,
    DetachAndKill,
    DetachAndRun,
    DetachAndStay,
    Change,
    /// The shell wants to program anew.
    Pause,
    Attach,
    Break,
}

/// The machine. Every method is an input; a refused one changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct RunState {
    vps: Vec<Vp>,
    phase: Phase,
    session: Session,
    epoch: Epoch,
    wants: BTreeSet<Want>,
    /// Stops not yet reported, in the order they came (I7).
    hits: VecDeque<Hit>,
    /// A guest event that was reported and is to be acted upon at the next resume.
    owed: Option<GuestEvent>,
    /// Which of what is owed keeps a guest stopped that nobody debugs.
    keeps: Keeps,
    /// What is owed, once a debugger was told of it.
    shown: Option<GuestEvent>,
    /// What was owed when a debugger, which had been told, let the guest go.
    let_go: Option<GuestEvent>,
    /// Which of the guest's own doings are stops.
    stop_on: StopOn,
    /// No VP has been let go yet: the guest stands before its first instruction (I6).
    held: bool,
}

type Outputs = Result<Vec<Output>, Refused>;

impl RunState {
    /// A guest of `vps` VPs, all parked, with no debugger.
    pub(crate) fn new(vps: u32, keeps: Keeps) -> Self {
        let vp = Vp {
            state: VpState::Parked(AtBreakpoint::NEW),
            plan: VpAction::Run,
            told: None,
        };
        Self {
            vps: vec![vp; vps as usize],
            phase: Phase::Parked,
            session: Session::Detached,
            epoch: Epoch::default(),
            wants: BTreeSet::new(),
            hits: VecDeque::new(),
            owed: None,
            keeps,
            shown: None,
            let_go: None,
            stop_on: StopOn::default(),
            held: true,
        }
    }

    /// The VMM starts the guest without a debugger. Legal at the beginning only.
    pub(crate) fn start(&mut self) -> Outputs {
        self.only_in(Phase::Parked, "start")?;
        Ok(self.go_on())
    }

    /// A debugger comes.
    ///
    /// # Errors
    /// [`DebugError::AlreadyAttached`].
    pub(crate) fn attach(&mut self) -> Outputs {
        self.expect_idle_shell("attach")?;
        if let Session::Attached(_) = self.session {
            return Err(DebugError::AlreadyAttached.into());
        }
        self.session = Session::Attached(Resume::Answered);
        self.let_go = None;
        Ok(self.want(Want::Attach))
    }

    /// The debugger leaves.
    ///
    /// # Errors
    /// [`DebugError::NotAttached`].
    pub(crate) fn detach(&mut self, action: DetachAction) -> Outputs {
        self.expect_idle_shell("detach")?;
        let open = self.attached()?;
        let mut outputs = Vec::new();
        if open == Resume::Open || self.wants.remove(&Want::Attach) {
            outputs.push(Output::Abandon);
        }
        self.session = Session::Detached;
        self.let_go = match action {
            DetachAction::Resume if self.shown == self.owed => self.owed,
            _ => None,
        };
        let wanted = match action {
            DetachAction::ResumeUnlessHeld | DetachAction::KillUnlessHeld if self.held => {
                Want::DetachAndStay
            }
            DetachAction::Resume
            | DetachAction::ResumeUnlessHeld
            | DetachAction::ResumeUnlessCrashed => Want::DetachAndRun,
            DetachAction::Stay => Want::DetachAndStay,
            DetachAction::Kill | DetachAction::KillUnlessHeld => Want::DetachAndKill,
        };
        // The last debugger's word counts, but what was to be killed has no later.
        self.wants.remove(&Want::DetachAndRun);
        self.wants.remove(&Want::DetachAndStay);
        outputs.extend(self.want(wanted));
        Ok(outputs)
    }

    /// No debugger will ever come again: as [`Self::detach`], a guest that a debugger left stopped runs, and none is kept for a debugger any more. One
    /// that is held stays held (I6).
    pub(crate) fn lost(&mut self) -> Outputs {
        self.expect_idle_shell("lost")?;
        self.keeps = Keeps::Nothing;
        match self.session {
            Session::Attached(_) => self.detach(DetachAction::ResumeUnlessHeld),
            Session::Detached => {
                // It was to stay for a next debugger, and is still on its way there.
                if self.wants.remove(&Want::DetachAndStay) {
                    return Ok(self.want(Want::DetachAndRun));
                }
                Ok(match self.phase {
                    Phase::Parked if !self.held => self.go_on(),
                    _ => Vec::new(),
                })
            }
        }
    }

    /// `plan` has one action for each VP. `still_hit` says what a kept stop stands for now, if anything (I7).
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
        for (vp, action) in self.vps.iter_mut().zip(plan) {
            vp.plan = *action;
            vp.told = None;
        }
        self.drop_dead_hits(still_hit);
        Ok(match self.answer() {
            Some(_) => self.report(),
            None => self.go_on(),
        })
    }

    /// Stop the guest.
    ///
    /// # Errors
    /// [`DebugError::NotAttached`].
    pub(crate) fn break_(&mut self) -> Outputs {
        self.expect_idle_shell("break")?;
        self.attached()?;
        Ok(self.want(Want::Break))
    }

    /// The breakpoint table is to change; the shell keeps the changes until [`Output::Change`].
    ///
    /// # Errors
    /// [`DebugError::NotAttached`].
    pub(crate) fn change(&mut self) -> Outputs {
        self.expect_idle_shell("change")?;
        self.attached()?;
        Ok(self.want(Want::Change))
    }

    /// Brings a guest that runs to [`Output::Program`] and lets it go on, for breakpoints to be looked at again. Nothing happens to one that
    /// is parked or about to be.
    ///
    /// # Errors
    /// [`IllegalInput`].
    pub(crate) fn pause(&mut self) -> Outputs {
        self.expect_idle_shell("pause")?;
        Ok(match (self.phase, self.session) {
            (Phase::Running, Session::Attached(_)) => self.want(Want::Pause),
            _ => Vec::new(),
        })
    }

    /// The debugger presses the reset button.
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
        Ok(self.want(Want::Shutdown))
    }

    /// A VP that was entered is in user space again, its exit completed (I2), and gives back what it was entered with. `None`: because it was kicked.
    ///
    /// # Errors
    /// [`IllegalInput`] where the VP was not entered in this epoch: the stop is stale.
    pub(crate) fn parked(
        &mut self,
        vp: VpIndex,
        epoch: Epoch,
        cause: Option<Cause>,
        mut at: AtBreakpoint,
    ) -> Outputs {
        self.expect_idle_shell("parked")?;
        let stale = IllegalInput {
            input: "a stale stop",
            phase: self.phase.name(),
        };
        let parking = match self.vps.get_mut(vp.index() as usize) {
            Some(vp) if !matches!(vp.state, VpState::Parked(_)) && epoch == self.epoch => vp,
            _ => return Err(stale.into()),
        };
        if parking.state == VpState::Entered && cause.is_none() {
            return Err(self.illegal("a park without kick or cause").into());
        }
        at.undecided();
        parking.state = VpState::Parked(at);
        if self.phase == Phase::SteppingOver {
            return Ok(self.stepped_over(cause));
        }
        if let Some(hit) = cause.and_then(Cause::hit) {
            self.note(hit);
        }
        let mut outputs = self.kick_all();
        self.phase = Phase::Stopping;
        outputs.extend(self.settle_if_parked());
        Ok(outputs)
    }

    /// The event is carried out.
    ///
    /// # Errors
    /// [`IllegalInput`].
    pub(crate) fn acted(&mut self) -> Outputs {
        let Phase::Acting(after) = self.phase else {
            return Err(self.illegal("acted").into());
        };
        self.begin_anew();
        Ok(match after {
            AfterAct::Run => self.program(),
            AfterAct::Stay => {
                self.phase = Phase::Parked;
                vec![Output::ResetDone]
            }
        })
    }

    /// What the VPs had met was met by the guest before its reset.
    fn begin_anew(&mut self) {
        self.hits.clear();
        self.owed = None;
        for vp in &mut self.vps {
            vp.forget();
        }
    }

    /// A reset has returned after `act_failed` said that it was overdue. The shell has kept the guest parked since.
    pub(crate) fn reset_late(&mut self) {
        self.begin_anew();
    }

    /// The event could not be carried out, or not yet: the guest stays parked, and an open resume has been answered by the shell.
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

    /// The client repaired a VP that had crashed (it wrote its registers): the crash is not acted upon, the VP tries again.
    pub(crate) fn repaired(&mut self, index: VpIndex) {
        if matches!(self.owed, Some(GuestEvent::Crashed { vp, .. }) if vp == index) {
            self.owed = None;
        }
    }

    /// A debugger's own write to a device asked for this: it is carried out at the next resume.
    pub(crate) fn owe(&mut self, event: GuestEvent) {
        if event.is_acted_upon() {
            self.owed = self.owed.or(Some(event));
        }
    }

    /// Says which of the guest's own doings are stops, after setting it where there is something to set.
    ///
    /// # Errors
    /// [`DebugError::NotAttached`].
    pub(crate) fn stop_on(&mut self, set: Option<StopOn>) -> Result<StopOn, DebugError> {
        self.attached()?;
        if let Some(set) = set {
            self.stop_on = set;
            for hit in std::mem::take(&mut self.hits) {
                self.note(hit);
            }
        }
        Ok(self.stop_on)
    }

    /// Keeps what is to be reported. What is not is to be acted upon.
    fn note(&mut self, hit: Hit) {
        match hit {
            Hit::Guest(event) if !event.is_stop(self.stop_on) => self.owe(event),
            hit => self.hits.push_back(hit),
        }
    }

    fn state_of(&mut self, vp: VpIndex) -> Option<&mut VpState> {
        let vp = self.vps.get_mut(vp.index() as usize)?;
        Some(&mut vp.state)
    }

    /// Whether the VP has been let go and has not said that it parked.
    pub(crate) fn is_entered(&self, vp: VpIndex) -> bool {
        let vp = self.vps.get(vp.index() as usize);
        vp.is_some_and(|vp| !matches!(vp.state, VpState::Parked(_)))
    }

    /// Whether no VP has been let go yet (I6).
    pub(crate) fn is_held(&self) -> bool {
        self.held
    }

    /// Whether VPs are in the guest, or about to be, under a debugger.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.session, Session::Attached(_)) && self.phase == Phase::Running
    }

    /// Whether nothing moves until the debugger asks for it, or there is none.
    pub(crate) fn is_at_rest(&self) -> bool {
        !matches!(self.session, Session::Attached(_))
            || matches!(self.phase, Phase::Parked | Phase::Ended)
    }

    /// Whether requests that need a stopped guest can be served.
    ///
    /// # Errors
    /// [`DebugError::NotAttached`], [`DebugError::NotStopped`].
    pub(crate) fn check_stopped(&self) -> Result<(), DebugError> {
        self.attached()?;
        self.stopped()
    }

    /// Whether a debugger is attached.
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

    /// Not while the shell owes `programmed`, `changed` or `acted`.
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
