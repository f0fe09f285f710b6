//! What the machine's outputs bring about, and what must hold at each.

use super::*;

impl World {
    pub(in crate::control::run_state::tests) fn carry_out(&mut self, outputs: Vec<Output>) {
        let mut todo = VecDeque::from(outputs);
        while let Some(output) = todo.pop_front() {
            let more = self.carry_out_one(output);
            if !more.is_empty() || matches!(output, Output::Program | Output::Act(_)) {
                assert!(todo.is_empty(), "{output:?} is not the last of its list");
            }
            todo.extend(more);
        }
    }

    fn carry_out_one(&mut self, output: Output) -> Vec<Output> {
        match output {
            Output::Kick(vp) => {
                let place = &mut self.places[vp.index() as usize];
                let RipAt::InGuest(action, at) = *place else {
                    panic!("kicked a VP that is {place:?}");
                };
                *place = RipAt::Kicked(action, at);
            }
            Output::Program => {
                self.assert_parked("programmed");
                self.programmed = self.table;
                if !self.programmed {
                    self.standing.clear();
                }
                let on_bytes: Vec<_> = self.standing.iter().map(on_byte).collect();
                return self.state.programmed(&on_bytes).unwrap();
            }
            Output::Enter {
                vp,
                action,
                epoch,
                at,
            } => {
                self.check_first(vp, at.first());
                self.check_enter(vp, action, epoch, at);
                match at.first() {
                    FirstInstruction::OthersStopped => self.lifted = Some(vp),
                    FirstInstruction::Lifted => self.alone = Some(vp),
                    _ => {}
                }
            }
            Output::Report { epoch, reason } => {
                self.assert_parked("reported");
                close(&mut self.resume, "resume");
                assert_eq!(epoch, self.state.epoch, "I1");
                self.check_wanted(reason);
                if let DebugStopReason::SingleStep { vp } = reason {
                    assert!(self.stepped.contains(&vp), "a step of an older resume (I8)");
                }
                let named = reason.vp();
                assert!(named.is_none_or(|vp| self.let_go.contains(&vp)), "I1");
                self.check_reason(reason);
            }
            Output::Attached { reason, .. } => {
                self.assert_parked("attached");
                close(&mut self.attach, "attach");
                self.check_reason(reason);
            }
            Output::Broken => {
                self.assert_parked("answered a break");
                assert_eq!(self.resume, Request::None, "the resume is answered first");
                close(&mut self.break_, "break");
            }
            Output::Abandon => match self.resume {
                Request::Open => close(&mut self.resume, "resume"),
                Request::None => close(&mut self.attach, "attach"),
            },
            Output::Release => {
                self.assert_parked("released");
                self.table = false;
                self.programmed = false;
                self.unreported.clear();
                self.dropped.clear();
                self.standing.clear();
                self.reported.clear();
                self.not_carried_out.clear();
                self.let_go = (0..self.places.len()).map(vp_index).collect();
                // The shell refuses what waits.
                self.change = Request::None;
            }
            Output::Detached => {
                assert!(!self.programmed, "I6");
                close(&mut self.detach, "detach");
            }
            Output::Change => {
                self.assert_parked("changed");
                close(&mut self.change, "change");
                self.table = !self.table;
                if !self.table && self.resume == Request::Open {
                    self.drop_hits();
                }
                let table = self.table;
                return self
                    .state
                    .changed(move |reason| match reason {
                        DebugStopReason::Breakpoint { .. } if !table => None,
                        other => Some(other),
                    })
                    .unwrap();
            }
            Output::Kept(event) => {
                self.assert_parked("kept");
                assert!(self.keeps.covers(event), "kept for nobody");
                assert_eq!(self.state.session, Session::Detached, "kept");
                assert!(
                    matches!(self.crash, Crash::Untold | Crash::Told),
                    "kept: {self:?}"
                );
            }
            Output::Act(event) => {
                self.assert_parked("acted");
                let debugged = self.state.check_attached().is_ok();
                let may = !self.keeps.covers(event) || debugged || self.crash == Crash::LetGo;
                assert!(may, "a crash that is to be kept ends the guest: {self:?}");
                self.crash = Crash::None;
                self.asked = false;
                self.unreported.clear();
                self.dropped.clear();
                self.standing.clear();
                self.reported.clear();
                self.not_carried_out.clear();
                return self.state.acted().unwrap();
            }
            Output::ResetDone => close(&mut self.reset, "reset"),
            Output::Exit(how) => {
                self.assert_parked("ended");
                assert!(how != GuestEnd::Killed || !self.programmed, "I6");
            }
        }
        Vec::new()
    }

    /// Who passes what, and how (I8).
    fn check_first(&mut self, vp: VpIndex, first: FirstInstruction) {
        let passes = self.passes_byte(vp);
        let known = self.reported.contains(&vp);
        let moving = self.let_go.len();
        match first {
            FirstInstruction::Meets => assert!(!passes && !known, "meets it again (I8)"),
            FirstInstruction::Disarmed => {
                assert!(!passes, "entered on the byte that it is to pass (I8)");
                assert!(known, "passes where no stop was reported (I8)");
            }
            FirstInstruction::Lifted
            | FirstInstruction::CarriedOut
            | FirstInstruction::OthersStopped => {
                assert!(passes, "goes over nothing, or unmet (I8)");
                let alone = first == FirstInstruction::Lifted;
                assert_eq!(moving == 1, alone, "{moving} VPs move: {first:?}");
            }
        }
        if first == FirstInstruction::CarriedOut {
            assert_eq!(emulation(vp), Emulation::Possible);
            assert!(!self.not_carried_out.contains(&vp), "tried for ever");
        }
        if first == FirstInstruction::OthersStopped {
            let parked = |place: &RipAt| *place == RipAt::Parked;
            assert!(self.places.iter().all(parked), "not alone (I5)");
            return;
        }
        let byte = self.standing.remove(&vp);
        if passes {
            self.going_over.extend(byte.map(|byte| (vp, byte)));
        }
    }

    fn check_enter(&mut self, vp: VpIndex, action: VpAction, epoch: Epoch, at: AtBreakpoint) {
        assert_eq!(self.lifted, None, "entered with a byte lifted (I5)");
        assert_eq!(self.programmed, self.table, "entered unprogrammed (I5)");
        assert_eq!(epoch, self.state.epoch, "I1");
        assert_ne!(action, VpAction::Stay);
        self.held = false;
        for (request, name) in [
            (self.break_, "break"),
            (self.attach, "attach"),
            (self.detach, "detach"),
        ] {
            assert_eq!(request, Request::None, "entered with a {name} open (I4)");
        }
        assert_eq!(
            self.state.owed, None,
            "ran past what the guest had asked for"
        );
        assert_eq!(
            self.state.answer(),
            None,
            "ran past an answer to the resume"
        );
        let kept = |hit: &Hit| matches!(hit, Hit::Guest(_));
        assert!(
            !self.asked || self.state.hits.iter().any(kept),
            "forgot what the guest had asked for"
        );
        let place = &mut self.places[vp.index() as usize];
        assert_eq!(*place, RipAt::Parked, "entered twice");
        *place = RipAt::InGuest(action, at);
        assert!(!self.unreported.contains(&vp), "ran past a kept hit (I7)");
        if let Some(position) = self.dropped.iter().position(|other| *other == vp) {
            assert_eq!(
                at.first(),
                FirstInstruction::Meets,
                "a dropped hit is not retried (I7)"
            );
            self.dropped.remove(position);
        }
    }

    fn check_wanted(&self, reason: DebugStopReason) {
        let kind = match reason {
            DebugStopReason::Reset { .. } => GuestEventKind::Reset,
            DebugStopReason::PowerOff { .. } => GuestEventKind::PowerOff,
            DebugStopReason::TripleFault { .. } => GuestEventKind::TripleFault,
            DebugStopReason::Panic { .. } => GuestEventKind::Panic,
            _ => return,
        };
        let on = self.state.clone().stop_on(None);
        assert!(on.unwrap().contains(kind), "reported {reason:?} unasked");
    }

    pub(super) fn check_reason(&mut self, reason: DebugStopReason) {
        if matches!(reason, DebugStopReason::TripleFault { .. }) && self.crash != Crash::None {
            self.crash = Crash::Told;
        }
        if let DebugStopReason::Breakpoint { vp, .. } = reason {
            let position = self.unreported.iter().position(|other| *other == vp);
            let position = position.expect("a hit is reported once (I7)");
            self.unreported.remove(position);
        }
        self.reported.extend(reason.vp());
    }
}
