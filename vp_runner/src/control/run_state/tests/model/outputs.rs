//! The effects of the outputs, and the checks at each output.

use super::*;

impl Model {
    pub(in crate::control::run_state::tests) fn carry_out(&mut self, outputs: Vec<Output>) {
        let mut outputs_left = VecDeque::from(outputs);
        while let Some(output) = outputs_left.pop_front() {
            let more = self.carry_out_one(output);
            if !more.is_empty() || matches!(output, Output::Program | Output::Act(_)) {
                assert!(
                    outputs_left.is_empty(),
                    "{output:?} is not the last of its list"
                );
            }
            outputs_left.extend(more);
        }
    }

    fn carry_out_one(&mut self, output: Output) -> Vec<Output> {
        match output {
            Output::Kick(vp) => {
                let vp_is = &mut self.vps[vp.index() as usize];
                let VpIs::InGuest(action, at) = *vp_is else {
                    panic!("kicked a VP that is {vp_is:?}");
                };
                *vp_is = VpIs::Kicked(action, at);
            }
            Output::Program => {
                self.assert_parked("programmed");
                self.programmed = self.table;
                if !self.programmed {
                    self.at_byte.clear();
                }
                let vps_at_bytes: Vec<_> = self.at_byte.iter().map(on_byte).collect();
                return self.state.programmed(&vps_at_bytes).unwrap();
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
                assert_eq!(self.state.steps(), self.steps, "the number of steps");
                if let DebugStopReason::SingleStep { vp } = reason {
                    let left = self.left.get(&vp).copied();
                    assert_eq!(
                        left,
                        Some(0),
                        "a step of an older resume, or one too few (I8)"
                    );
                    // The VP may pass where it is now, so it does not retry a hit.
                    self.dropped.retain(|other| *other != vp);
                }
                let named = reason.vp();
                assert!(named.is_none_or(|vp| self.resumed.contains(&vp)), "I1");
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
                self.at_byte.clear();
                self.reported.clear();
                self.emulation_failed.clear();
                self.left.clear();
                self.resumed = (0..self.vps.len()).map(vp_index).collect();
                // The shell refuses the waiting changes.
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
            Output::KeptStopped(event) => {
                self.assert_parked("kept");
                assert!(self.keep_stopped.includes(event), "kept for nobody");
                assert_eq!(self.state.session, Session::Detached, "kept");
                assert!(
                    matches!(self.crash, Crash::NotReported | Crash::Reported),
                    "kept: {self:?}"
                );
            }
            Output::Act(event) => {
                self.assert_parked("acted");
                let debugged = self.state.check_attached().is_ok();
                let may =
                    !self.keep_stopped.includes(event) || debugged || self.crash == Crash::Accepted;
                assert!(may, "a crash that is to be kept ends the guest: {self:?}");
                self.crash = Crash::None;
                self.event_pending = false;
                self.unreported.clear();
                self.dropped.clear();
                self.at_byte.clear();
                self.reported.clear();
                self.emulation_failed.clear();
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

    /// Checks whether the VP passes a breakpoint, and how (I8).
    fn check_first(&mut self, vp: VpIndex, first: FirstInstruction) {
        let passes = self.passes_byte(vp);
        let reported = self.reported.contains(&vp);
        let moving = self.resumed.len();
        match first {
            FirstInstruction::Meets => {
                assert!(!passes && !reported, "hits the breakpoint again (I8)")
            }
            FirstInstruction::Disarmed => {
                assert!(!passes, "entered with the byte at RIP in place (I8)");
                assert!(reported, "passes a breakpoint without a reported stop (I8)");
            }
            FirstInstruction::Lifted
            | FirstInstruction::Emulated
            | FirstInstruction::OthersStopped => {
                assert!(
                    passes,
                    "passes no byte, or a byte whose hit was not reported (I8)"
                );
                let alone = first == FirstInstruction::Lifted;
                assert_eq!(moving == 1, alone, "{moving} VPs move: {first:?}");
            }
        }
        if first == FirstInstruction::Emulated {
            assert_eq!(emulation(vp), Emulation::Possible);
            assert!(!self.emulation_failed.contains(&vp), "tries again for ever");
        }
        if first == FirstInstruction::OthersStopped {
            let parked = |vp_is: &VpIs| *vp_is == VpIs::Parked;
            assert!(self.vps.iter().all(parked), "not alone (I5)");
            return;
        }
        let byte = self.at_byte.remove(&vp);
        if passes {
            self.passing_byte.extend(byte.map(|byte| (vp, byte)));
        }
    }

    fn check_enter(&mut self, vp: VpIndex, action: VpAction, epoch: Epoch, at: AtBreakpoint) {
        assert_eq!(self.lifted, None, "entered with a byte lifted (I5)");
        assert_eq!(self.programmed, self.table, "entered unprogrammed (I5)");
        assert_eq!(epoch, self.state.epoch, "I1");
        assert_ne!(action, VpAction::Stay);
        let steps = steps_of((vp, &action)).map(|(_, steps)| steps);
        let left = self.left.get(&vp).copied();
        assert_eq!(steps, left, "a step too many or too few (I8)");
        self.held = false;
        for (request, name) in [
            (self.break_, "break"),
            (self.attach, "attach"),
            (self.detach, "detach"),
        ] {
            assert_eq!(request, Request::None, "entered with a {name} open (I4)");
        }
        assert_eq!(
            self.state.pending_event, None,
            "ran although a guest event was pending"
        );
        assert_eq!(
            self.state.answering_hit(),
            None,
            "ran although a hit answers the resume"
        );
        let kept = |hit: &Hit| matches!(hit, Hit::Guest(_));
        assert!(
            !self.event_pending || self.state.hits.iter().any(kept),
            "lost a guest event"
        );
        let vp_is = &mut self.vps[vp.index() as usize];
        assert_eq!(*vp_is, VpIs::Parked, "entered twice");
        *vp_is = VpIs::InGuest(action, at);
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
            self.crash = Crash::Reported;
        }
        if let DebugStopReason::Breakpoint { vp, .. } = reason {
            let position = self.unreported.iter().position(|other| *other == vp);
            let position = position.expect("a hit is reported once (I7)");
            self.unreported.remove(position);
        }
        self.reported.extend(reason.vp());
    }
}
