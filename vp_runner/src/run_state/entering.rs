//! From programmed debug registers into the guest: who enters, and how each VP gets past the breakpoint byte it stands on.

use super::*;

impl RunState {
    /// The debug registers of every VP and the breakpoint bytes are up to date (I5). `standing` are the VPs that stand on such a byte.
    ///
    /// # Errors
    /// [`IllegalInput`].
    pub fn programmed(&mut self, standing: &[Standing]) -> Outputs {
        self.only_in(Phase::Programming, "programmed")?;
        self.held = false;
        let moves = |vp: &&Vp| vp.plan != VpAction::Stay;
        let moving = self.vps.iter().filter(moves).count();
        self.over.clear();
        for vp in &mut self.vps {
            vp.start = vp.known.start();
        }
        for standing in standing {
            let Standing {
                vp: index,
                byte,
                over,
            } = standing;
            let vp = self.vps.get_mut(index.index() as usize);
            let passes = |vp: &Vp| *byte == ByteOf::OtherAddress || vp.known == Known::Reported;
            let Some(vp) = vp.filter(|vp| moves(&&**vp) && passes(vp)) else {
                continue;
            };
            match (moving, over, vp.by_itself) {
                (1, _, _) => vp.start = Start::Lift,
                (_, Over::CarriedOut, ByItself::MayTry) => vp.start = Start::CarryOut,
                _ => self.over.push_back(*index),
            }
        }
        Ok(self.step_over_or_enter())
    }

    fn step_over_or_enter(&mut self) -> Vec<Output> {
        let epoch = self.epoch;
        if let Some(vp) = self.over.pop_front() {
            self.phase = Phase::SteppingOver;
            let stepping = &mut self.vps[vp.index() as usize];
            stepping.state = VpState::Entered;
            stepping.by_itself = ByItself::MayTry;
            let action = stepping.plan;
            return vec![Output::StepOver { vp, action, epoch }];
        }
        self.phase = Phase::Running;
        let entering = self.vps.iter_mut().enumerate();
        entering
            .filter(|(_, vp)| vp.plan != VpAction::Stay)
            .map(|(index, vp)| {
                vp.state = VpState::Entered;
                vp.by_itself = match vp.start {
                    Start::CarryOut => ByItself::Trying,
                    Start::Past | Start::Retry | Start::Lift => ByItself::MayTry,
                };
                Output::Enter {
                    vp: vp_index(index),
                    action: vp.plan,
                    epoch,
                    start: vp.start,
                }
            })
            .collect()
    }

    /// The VP that stepped over is parked again, with or without having done it.
    pub(super) fn stepped_over(&mut self, cause: Option<Cause>) -> Vec<Output> {
        self.note(cause);
        if self.answer().is_none() && self.wants.is_empty() && self.owed.is_none() {
            return self.step_over_or_enter();
        }
        // Who goes over what is decided anew.
        self.over.clear();
        self.phase = Phase::Stopping;
        self.settle_if_parked()
    }

    /// A VP refused its debug registers: the guest stays parked, and the shell answers the open `Resume` with an error.
    ///
    /// # Errors
    /// [`IllegalInput`].
    pub fn program_failed(&mut self) -> Outputs {
        self.only_in(Phase::Programming, "program_failed")?;
        self.phase = Phase::Parked;
        if let Session::Attached(open) = &mut self.session {
            *open = Resume::Answered;
        }
        Ok(Vec::new())
    }
}
