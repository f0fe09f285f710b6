//! What happens when the guest is to stop, and when every VP has parked.

use super::AfterAct;
use super::Output;
use super::Outputs;
use super::Phase;
use super::Resume;
use super::RunState;
use super::Session;
use super::Vp;
use super::VpState;
use super::Want;
use super::messages::Hit;
use super::vp_index;
use vmm_core_defs::debug_rpc::VpAction;
use vmm_core_defs::stop::DebugStopReason;
use vmm_core_defs::stop::GuestEnd;
use vmm_core_defs::stop::StopOn;

impl RunState {
    /// Notes what is wanted, and sees to it at once where every VP is parked.
    pub(super) fn want(&mut self, want: Want) -> Vec<Output> {
        self.wants.insert(want);
        let mut outputs = self.kick_all();
        if self.phase == Phase::Running {
            self.phase = Phase::Stopping;
        }
        outputs.extend(self.settle_if_parked());
        outputs
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

    pub(super) fn settle_if_parked(&mut self) -> Vec<Output> {
        let parked = |vp: &Vp| matches!(vp.state, VpState::Parked(_));
        match self.vps.iter().all(parked) {
            true => self.settle(),
            false => Vec::new(),
        }
    }

    /// Every VP is parked (I2): does what is wanted, the strongest first.
    fn settle(&mut self) -> Vec<Output> {
        let mut outputs = Vec::new();
        // Whatever comes of it, programming comes before the next entry.
        self.wants.remove(&Want::Pause);
        if self.wants.contains(&Want::Shutdown) {
            self.phase = Phase::Ended;
            return vec![Output::Exit(GuestEnd::Stopped)];
        }
        if self.wants.remove(&Want::DetachAndKill) {
            let mut outputs = self.release();
            self.phase = Phase::Ended;
            outputs.push(Output::Exit(GuestEnd::Killed));
            return outputs;
        }
        let stay = self.wants.remove(&Want::DetachAndStay);
        if self.wants.remove(&Want::DetachAndRun) || stay {
            outputs.extend(self.release());
            if stay && self.session == Session::Detached {
                self.phase = Phase::Parked;
                return outputs;
            }
        }
        if self.wants.remove(&Want::Change) {
            self.phase = Phase::Changing;
            outputs.push(Output::Change);
            return outputs;
        }
        outputs.extend(self.conclude());
        outputs
    }

    /// Ends the session (I6). A reset or power-off the guest had asked for stays owed.
    fn release(&mut self) -> Vec<Output> {
        self.owe_hits();
        for vp in &mut self.vps {
            // What a VP had met under this debugger is nothing that the next one is to be told of.
            vp.forget();
        }
        self.stop_on = StopOn::default();
        // Changes that waited are refused by the shell with the session gone.
        self.wants.remove(&Want::Change);
        let mut outputs = vec![Output::Release, Output::Detached];
        if self.wants.remove(&Want::Break) {
            outputs.push(Output::Broken);
        }
        outputs
    }

    /// The table has changed (or not, where it could not); see [`Output::Change`].
    ///
    /// # Errors
    /// [`IllegalInput`].
    pub(crate) fn changed(
        &mut self,
        still_hit: impl Fn(DebugStopReason) -> Option<DebugStopReason>,
    ) -> Outputs {
        self.only_in(Phase::Changing, "changed")?;
        // While stopped the hits are looked at by the next `resume`, when the client has made all its changes.
        if self.session == Session::Attached(Resume::Open) {
            self.drop_dead_hits(still_hit);
        }
        Ok(self.conclude())
    }

    /// With no change left to make: reports the stop where there is one to report, else goes on.
    fn conclude(&mut self) -> Vec<Output> {
        let open = match self.session {
            Session::Attached(open) => open,
            Session::Detached => {
                let mut outputs = self.release_leftovers();
                outputs.extend(self.go_on());
                return outputs;
            }
        };
        if self.wants.remove(&Want::Attach) {
            // A debugger that attaches learns what had stopped the guest before.
            let reason = self
                .answer()
                .and_then(|position| self.take_hit(position, self.hits[position].reason()))
                .or_else(|| self.tell_owed())
                .unwrap_or(DebugStopReason::Break);
            let epoch = self.epoch;
            let mut outputs = vec![Output::Attached { epoch, reason }];
            outputs.extend(self.broken());
            self.phase = Phase::Parked;
            return outputs;
        }
        match open {
            Resume::Open if self.answer().is_none() && !self.wants.contains(&Want::Break) => {
                self.go_on()
            }
            Resume::Open => self.report(),
            Resume::Answered => {
                self.phase = Phase::Parked;
                self.broken()
            }
        }
    }

    /// A guest that nobody debugs has no stops but its own events.
    fn release_leftovers(&mut self) -> Vec<Output> {
        self.owe_hits();
        self.broken()
    }

    /// Nobody is told any more: what is to be acted upon is.
    fn owe_hits(&mut self) {
        for hit in std::mem::take(&mut self.hits) {
            if let Hit::Guest(event) = hit {
                self.owe(event);
            }
        }
    }

    /// Answers the open resume (I1): the first hit of a VP that it let go (I7), or that the guest was interrupted.
    pub(super) fn report(&mut self) -> Vec<Output> {
        let reason = self
            .answer()
            .and_then(|position| self.take_hit(position, self.hits[position].reason()))
            .unwrap_or(DebugStopReason::Break);
        // A finished step says nothing at a later resume; breakpoints keep.
        self.hits.retain(|hit| !hit.is_step());
        let epoch = self.epoch;
        self.session = Session::Attached(Resume::Answered);
        self.phase = Phase::Parked;
        let mut outputs = vec![Output::Report { epoch, reason }];
        outputs.extend(self.broken());
        outputs
    }

    fn broken(&mut self) -> Vec<Output> {
        let wanted = self.wants.remove(&Want::Break);
        wanted.then_some(Output::Broken).into_iter().collect()
    }

    /// The position of the hit that answers the open resume: that of a VP which the resume lets go, or of none in particular (I1). A finished step
    /// goes first.
    pub(super) fn answer(&self) -> Option<usize> {
        let lets_go = |hit: &Hit| self.lets_go(hit);
        let step = self
            .hits
            .iter()
            .position(|hit| hit.is_step() && lets_go(hit));
        step.or_else(|| self.hits.iter().position(lets_go))
    }

    /// Whether the open resume lets the VP of this hit go, or the hit is of none in particular.
    fn lets_go(&self, hit: &Hit) -> bool {
        let vp = hit.reason().vp();
        let vp = vp.and_then(|vp| self.vps.get(vp.index() as usize));
        vp.is_none_or(|vp| vp.plan != VpAction::Stay)
    }

    /// Of the VPs that the resume lets go: drops the hits whose breakpoint is gone; their VPs retry the instruction (I7). The hits of the others keep:
    /// Clients take breakpoints out while they step one VP. Drops what is owed already.
    pub(super) fn drop_dead_hits(
        &mut self,
        still_hit: impl Fn(DebugStopReason) -> Option<DebugStopReason>,
    ) {
        let hits = std::mem::take(&mut self.hits);
        self.hits = hits
            .into_iter()
            .filter_map(|hit| match hit {
                _ if !self.lets_go(&hit) => Some(hit),
                // Another VP asked for the same: it will be acted upon, and needs no telling twice.
                Hit::Guest(event) => {
                    let met = self.owed.is_some_and(|owed| event.is_met_by(owed));
                    (!met).then_some(hit)
                }
                Hit::Debug(reason) => still_hit(reason).map(Hit::Debug),
            })
            .collect();
    }

    /// Lets the guest go as planned, after what it had asked for.
    pub(super) fn go_on(&mut self) -> Vec<Output> {
        if self.session == Session::Detached {
            for vp in &mut self.vps {
                vp.plan = VpAction::Run;
            }
        }
        match self.owed {
            Some(event) if self.is_kept(event) => self.keep(event),
            Some(event) => {
                self.phase = Phase::Acting(AfterAct::Run);
                vec![Output::Act(event)]
            }
            None => self.program(),
        }
    }

    pub(super) fn program(&mut self) -> Vec<Output> {
        self.phase = Phase::Programming;
        self.shown = None;
        self.let_go = None;
        vec![Output::Program]
    }
}
