//! Stopping the guest: kicks the VPs, and decides what happens once every VP has parked.

use super::AfterAct;
use super::Cause;
use super::IllegalInput;
use super::Output;
use super::Outputs;
use super::Phase;
use super::Resume;
use super::RunState;
use super::Session;
use super::StopGoal;
use super::Vp;
use super::VpState;
use super::messages::Hit;
use super::vp_index;
use crate::control::at_breakpoint::AtBreakpoint;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::VpAction;
use vmm_core_defs::stop::DebugStopReason;
use vmm_core_defs::stop::Epoch;
use vmm_core_defs::stop::GuestEnd;
use vmm_core_defs::stop::StopOn;

impl RunState {
    /// Stops the guest for `goal`. If every VP is parked already, carries out the goal at once.
    pub(super) fn stop_for(&mut self, want: StopGoal) -> Vec<Output> {
        self.goals.insert(want);
        let mut outputs = self.kick_all();
        if self.phase == Phase::Running {
            self.phase = Phase::Stopping;
        }
        outputs.extend(self.decide_if_all_parked());
        outputs
    }

    /// A VP that was entered is in user space again, with its exit completed (I2). `cause` is `None` if the VP was kicked. `at` is the value that the VP was
    /// entered with, as the entry left it. `steps` is the number of instructions that the VP has stepped since its entry.
    ///
    /// # Errors
    /// [`IllegalInput`] if the VP was not entered in this epoch: the stop is stale.
    pub(crate) fn parked(
        &mut self,
        vp: VpIndex,
        epoch: Epoch,
        cause: Option<Cause>,
        mut at: AtBreakpoint,
        steps: u64,
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
        at.clear_decision();
        parking.state = VpState::Parked(at);
        self.take_steps(vp, steps);
        if self.phase == Phase::SteppingOver {
            return Ok(self.stepped_over(cause));
        }
        if let Some(hit) = cause.and_then(Cause::hit) {
            self.keep_hit(hit);
        }
        let mut outputs = self.kick_all();
        self.phase = Phase::Stopping;
        outputs.extend(self.decide_if_all_parked());
        Ok(outputs)
    }

    pub(super) fn kick_all(&mut self) -> Vec<Output> {
        let entered = self.vps.iter_mut().enumerate();
        entered
            .filter(|(_, vp)| vp.state == VpState::Entered)
            .map(|(index, vp)| {
                vp.state = VpState::Kicked;
                Output::Kick(vp_index(index))
            })
            .collect()
    }

    pub(super) fn decide_if_all_parked(&mut self) -> Vec<Output> {
        let parked = |vp: &Vp| matches!(vp.state, VpState::Parked(_));
        match self.vps.iter().all(parked) {
            true => self.decide(),
            false => Vec::new(),
        }
    }

    /// Every VP is parked (I2). Carries out the goals, in the order of precedence.
    fn decide(&mut self) -> Vec<Output> {
        let mut outputs = Vec::new();
        // The breakpoints are programmed before the next entry in any case.
        self.goals.remove(&StopGoal::Pause);
        if self.goals.contains(&StopGoal::Shutdown) {
            self.phase = Phase::Ended;
            return vec![Output::Exit(GuestEnd::Stopped)];
        }
        if self.goals.remove(&StopGoal::DetachAndKill) {
            let mut outputs = self.release();
            self.phase = Phase::Ended;
            outputs.push(Output::Exit(GuestEnd::Killed));
            return outputs;
        }
        let stay = self.goals.remove(&StopGoal::DetachAndStay);
        if self.goals.remove(&StopGoal::DetachAndRun) || stay {
            outputs.extend(self.release());
            if stay && self.session == Session::Detached {
                self.phase = Phase::Parked;
                return outputs;
            }
        }
        if self.goals.remove(&StopGoal::Change) {
            self.phase = Phase::Changing;
            outputs.push(Output::Change);
            return outputs;
        }
        outputs.extend(self.report_or_run());
        outputs
    }

    /// Ends the session (I6). A reset or power-off that the guest has asked for stays pending.
    fn release(&mut self) -> Vec<Output> {
        self.keep_guest_events();
        for vp in &mut self.vps {
            vp.forget();
        }
        self.stop_on = StopOn::default();
        // The shell refuses the waiting changes, since the session has ended.
        self.goals.remove(&StopGoal::Change);
        let mut outputs = vec![Output::Release, Output::Detached];
        if self.goals.remove(&StopGoal::Break) {
            outputs.push(Output::Broken);
        }
        outputs
    }

    /// The shell has carried out [`Output::Change`], or the change has failed. `still_hit` is that of [`Self::resume`].
    ///
    /// # Errors
    /// [`IllegalInput`].
    pub(crate) fn changed(
        &mut self,
        still_hit: impl Fn(DebugStopReason) -> Option<DebugStopReason>,
    ) -> Outputs {
        self.only_in(Phase::Changing, "changed")?;
        // If the guest is stopped, the next `resume` checks the hits, when the client has made all its changes.
        if self.session == Session::Attached(Resume::Open) {
            self.drop_obsolete_hits(still_hit);
        }
        Ok(self.report_or_run())
    }

    /// The goals that come before a stop are carried out. Reports a stop if there is one to report, otherwise continues the guest.
    fn report_or_run(&mut self) -> Vec<Output> {
        let open = match self.session {
            Session::Attached(open) => open,
            Session::Detached => {
                let mut outputs = self.release_leftovers();
                outputs.extend(self.run_guest());
                return outputs;
            }
        };
        if self.goals.remove(&StopGoal::Attach) {
            // A debugger that attaches gets the reason for which the guest had stopped.
            let reason = self
                .answering_hit()
                .and_then(|position| self.take_hit(position, self.hits[position].reason()))
                .or_else(|| self.report_pending_event())
                .unwrap_or(DebugStopReason::Break);
            let epoch = self.epoch;
            let mut outputs = vec![Output::Attached { epoch, reason }];
            outputs.extend(self.broken());
            self.phase = Phase::Parked;
            return outputs;
        }
        match open {
            Resume::Open => {
                self.keep_ends_of_steps();
                match self.answering_hit().is_some() || self.goals.contains(&StopGoal::Break) {
                    true => self.report(),
                    false => self.run_guest(),
                }
            }
            Resume::Answered => {
                self.phase = Phase::Parked;
                self.broken()
            }
        }
    }

    /// No debugger is attached, so only guest events count.
    fn release_leftovers(&mut self) -> Vec<Output> {
        self.keep_guest_events();
        self.broken()
    }

    /// Drops the hits. A guest event that needs an action becomes the pending event.
    fn keep_guest_events(&mut self) {
        for hit in std::mem::take(&mut self.hits) {
            if let Hit::Guest(event) = hit {
                self.set_pending_event(event);
            }
        }
    }

    /// Answers the open resume (I1): with the first hit of a VP that the resume runs (I7), otherwise with [`DebugStopReason::Break`].
    pub(super) fn report(&mut self) -> Vec<Output> {
        let reason = self
            .answering_hit()
            .and_then(|position| self.take_hit(position, self.hits[position].reason()))
            .unwrap_or(DebugStopReason::Break);
        // A finished step does not answer a later resume. Breakpoint hits stay.
        self.hits.retain(|hit| !hit.is_step());
        let epoch = self.epoch;
        self.session = Session::Attached(Resume::Answered);
        self.phase = Phase::Parked;
        let mut outputs = vec![Output::Report { epoch, reason }];
        outputs.extend(self.broken());
        outputs
    }

    fn broken(&mut self) -> Vec<Output> {
        let wanted = self.goals.remove(&StopGoal::Break);
        wanted.then_some(Output::Broken).into_iter().collect()
    }

    /// The position of the hit that answers the open resume (I1): the first finished step, otherwise the first hit, of a VP that the resume runs or of no VP.
    pub(super) fn answering_hit(&self) -> Option<usize> {
        let resumed = |hit: &Hit| self.resumes_vp_of(hit);
        let step = self
            .hits
            .iter()
            .position(|hit| hit.is_step() && resumed(hit));
        step.or_else(|| self.hits.iter().position(resumed))
    }

    /// Whether the open resume runs the VP of this hit, or the hit has no VP.
    fn resumes_vp_of(&self, hit: &Hit) -> bool {
        let vp = hit.reason().vp();
        let vp = vp.and_then(|vp| self.vps.get(vp.index() as usize));
        vp.is_none_or(|vp| vp.plan != VpAction::Stay)
    }

    /// Drops two kinds of hits of the VPs that the resume runs: hits whose breakpoint is gone, so that the VP retries the instruction (I7), and guest events that
    /// the pending event covers. The hits of other VPs stay, because clients remove their breakpoints while they step one VP.
    pub(super) fn drop_obsolete_hits(
        &mut self,
        still_hit: impl Fn(DebugStopReason) -> Option<DebugStopReason>,
    ) {
        let hits = std::mem::take(&mut self.hits);
        self.hits = hits
            .into_iter()
            .filter_map(|hit| match hit {
                _ if !self.resumes_vp_of(&hit) => Some(hit),
                // Another VP asked for the same, which is pending. It is not reported twice.
                Hit::Guest(event) => {
                    let covered = self
                        .pending_event
                        .is_some_and(|pending| event.is_covered_by(pending));
                    (!covered).then_some(hit)
                }
                Hit::Debug(reason) => still_hit(reason).map(Hit::Debug),
            })
            .collect();
    }

    /// Continues the guest by the plan, after the pending event.
    pub(super) fn run_guest(&mut self) -> Vec<Output> {
        if self.session == Session::Detached {
            for vp in &mut self.vps {
                vp.plan = VpAction::Run;
                vp.done = false;
            }
        }
        match self.pending_event {
            Some(event) if self.is_kept_stopped(event) => self.stay_stopped(event),
            Some(event) => {
                self.phase = Phase::Acting(AfterAct::Run);
                vec![Output::Act(event)]
            }
            None => self.program(),
        }
    }

    pub(super) fn program(&mut self) -> Vec<Output> {
        self.phase = Phase::Programming;
        self.reported_event = None;
        self.accepted_event = None;
        vec![Output::Program]
    }
}
