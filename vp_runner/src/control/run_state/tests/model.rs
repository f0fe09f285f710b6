//! A model of the controller, the VPs and the client around the machine: the effects of the outputs, the possible next inputs, and the checks of the
//! invariants.

mod inputs;
mod outputs;

pub(super) use inputs::Input;

use super::*;
use std::collections::BTreeMap;
use vmm_core_defs::stop::FaultRegisters;
use vmm_core_defs::stop::GuestEnd;
use vmm_core_defs::stop::GuestEventKind;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum VpIs {
    Parked,
    InGuest(VpAction, AtBreakpoint),
    Kicked(VpAction, AtBreakpoint),
}

/// Whether a request waits for its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Request {
    None,
    Open,
}

/// The machine under test, and the state that its outputs have led to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Model {
    pub(super) state: RunState,
    vps: Vec<VpIs>,
    resume: Request,
    attach: Request,
    break_: Request,
    detach: Request,
    change: Request,
    reset: Request,
    /// Whether the one breakpoint is in the table, and in the debug registers of the VPs.
    table: bool,
    programmed: bool,
    /// VPs that have hit the breakpoint and whose hit is not reported yet (I7), in order.
    unreported: Vec<VpIndex>,
    /// VPs whose hit was dropped because its breakpoint was gone. These VPs retry the instruction (I7).
    dropped: Vec<VpIndex>,
    /// VPs with a breakpoint byte at their RIP.
    at_byte: BTreeMap<VpIndex, ByteOf>,
    /// VPs whose stop at their RIP was reported (I8).
    reported: BTreeSet<VpIndex>,
    /// VPs that the last resume runs (I1).
    resumed: BTreeSet<VpIndex>,
    /// The VP that steps over its byte, with the byte lifted.
    lifted: Option<VpIndex>,
    /// VPs that were entered to pass their byte.
    passing_byte: BTreeMap<VpIndex, ByteOf>,
    /// VPs whose instruction under the byte could not be emulated, and that have executed nothing since.
    emulation_failed: BTreeSet<VpIndex>,
    /// The number of steps that each VP is still to make in the present resume, for the VPs that step.
    left: BTreeMap<VpIndex, u64>,
    /// The number of steps that were made by `StepN` in the present resume, if it has this action.
    steps: Option<u64>,
    /// The VP of these that must run without other VPs.
    alone: Option<VpIndex>,
    /// The guest has caused an event that is yet to be carried out.
    event_pending: bool,
    /// No VP has entered yet.
    held: bool,
    keep_stopped: KeepStopped,
    /// Whether the walk includes breakpoints and the inputs that concern them.
    breakpoints: bool,
    /// The state of a crash that keeps the guest stopped.
    crash: Crash,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Crash {
    None,
    NotReported,
    Reported,
    /// The crash was reported to a debugger that then detached with `Resume`.
    Accepted,
}

fn on_byte((vp, of): (&VpIndex, &ByteOf)) -> VpAtByte {
    let byte = ByteAtRip {
        of: *of,
        emulation: emulation(*vp),
    };
    VpAtByte { vp: *vp, byte }
}

/// Some instructions can be emulated, some cannot.
fn emulation(vp: VpIndex) -> Emulation {
    match vp.index() % 2 {
        0 => Emulation::Possible,
        _ => Emulation::Impossible,
    }
}

/// The number of steps that an action asks for, if it does.
fn steps_of((vp, action): (VpIndex, &VpAction)) -> Option<(VpIndex, u64)> {
    match action {
        VpAction::Step => Some((vp, 1)),
        VpAction::StepN { count } => Some((vp, count.get())),
        _ => None,
    }
}

fn close(request: &mut Request, name: &str) {
    assert_eq!(*request, Request::Open, "{name} answered unasked (I1)");
    *request = Request::None;
}

impl Model {
    pub(super) fn new(vps: u32, keep_stopped: KeepStopped) -> Self {
        Self {
            state: RunState::new(vps, keep_stopped),
            keep_stopped,
            // Otherwise there would be too many states with two VPs.
            breakpoints: keep_stopped == KeepStopped::Nothing || vps == 1,
            crash: Crash::None,
            vps: vec![VpIs::Parked; vps as usize],
            resume: Request::None,
            attach: Request::None,
            break_: Request::None,
            detach: Request::None,
            change: Request::None,
            reset: Request::None,
            table: false,
            programmed: false,
            unreported: Vec::new(),
            dropped: Vec::new(),
            at_byte: BTreeMap::new(),
            reported: BTreeSet::new(),
            resumed: (0..vps).map(VpIndex::new).collect(),
            lifted: None,
            passing_byte: BTreeMap::new(),
            emulation_failed: BTreeSet::new(),
            left: BTreeMap::new(),
            steps: None,
            alone: None,
            event_pending: false,
            held: true,
        }
    }

    fn assert_parked(&self, why: &str) {
        let parked = self.vps.iter().all(|vp_is| *vp_is == VpIs::Parked);
        assert!(parked, "{why} while a VP may run (I2, I3)");
    }

    pub(super) fn apply(&mut self, input: &Input) {
        let before = self.state.clone();
        let table = self.table;
        let still_hit = move |reason| match reason {
            DebugStopReason::Breakpoint { .. } if !table => None,
            other => Some(other),
        };
        let stopped = self.state.check_stopped();
        let outputs = match input {
            Input::Attach => self.state.attach(),
            Input::Detach(action) => self.state.detach(*action),
            Input::Lost => self.state.lost(),
            Input::Resume(plan) => self.state.resume(plan, still_hit),
            Input::Break => self.state.break_(),
            Input::Change => self.state.change(),
            Input::Pause => self.state.pause(),
            Input::Reset => self.state.reset(),
            Input::StopOn(on) => self
                .state
                .stop_on(Some(*on))
                .map(|_| Vec::new())
                .map_err(Refused::from),
            Input::Shutdown => self.state.shutdown(),
            Input::Parked(vp, cause, steps) => {
                let epoch = self.state.epoch;
                if let Some(Cause::Debug(DebugStopReason::Breakpoint { vp, .. })) = cause {
                    self.unreported.push(*vp);
                }
                if let Some(Cause::Guest(event)) = cause {
                    self.event_pending |= event.needs_action();
                    if self.keep_stopped.includes(*event) && self.crash == Crash::None {
                        self.crash = Crash::NotReported;
                    }
                }
                self.note_steps(*vp, *steps);
                self.note_byte_at_rip(*vp, *cause);
                self.reported.remove(vp);
                self.emulation_failed.remove(vp);
                let mut at = self.park(*vp);
                match at.first() {
                    FirstInstruction::Meets => at.may_have_moved(),
                    _ => at.executed(),
                }
                self.state.parked(*vp, epoch, *cause, at, *steps)
            }
            Input::StillThere(vp) => {
                let at = self.park_without_executing(*vp);
                self.state.parked(*vp, self.state.epoch, None, at, 0)
            }
            Input::EmulationFailed(vp) => {
                let mut at = self.park_without_executing(*vp);
                at.emulation_failed();
                self.emulation_failed.insert(*vp);
                let cause = Some(Cause::NotReported);
                self.state.parked(*vp, self.state.epoch, cause, at, 0)
            }
            Input::ReportReason(vp) => match self.state.report_reason_of(*vp, still_hit) {
                Ok(reason) => {
                    if let Some(reason) = reason {
                        self.check_reported_on_request(*vp, reason, &before);
                    }
                    Ok(Vec::new())
                }
                Err(err) => Err(err.into()),
            },
            Input::ReportBreakpointAhead(vp) => {
                if let Some(reason) = self.state.report_breakpoint_ahead(*vp, BREAKPOINT) {
                    assert!(stopped.is_ok(), "reported {reason:?} of a guest that runs");
                    assert!(
                        self.reported.insert(*vp) && self.resumed.contains(vp),
                        "reported {reason:?} a second time, or of a VP that stayed (I7)"
                    );
                    assert!(
                        !self.unreported.contains(vp),
                        "an unreported hit is left (I7)"
                    );
                    self.at_byte.insert(*vp, ByteOf::ThisAddress);
                    self.dropped.retain(|other| other != vp);
                    self.check_reported_on_request(*vp, reason, &self.state.clone());
                }
                Ok(Vec::new())
            }
            Input::WriteRip(vp) => {
                if stopped.is_ok() {
                    self.state.rip_written(*vp);
                    self.reported.remove(vp);
                    self.emulation_failed.remove(vp);
                    self.at_byte.remove(vp);
                    self.unreported.retain(|other| other != vp);
                }
                Ok(Vec::new())
            }
        };
        let outputs = match outputs {
            Ok(outputs) => outputs,
            Err(refused) => {
                assert!(
                    matches!(refused, Refused::Client(_)),
                    "{input:?}: {refused}"
                );
                assert_eq!(self.state, before, "a refused input changed something");
                return;
            }
        };
        match (input, self.crash) {
            (Input::Lost, _) => self.keep_stopped = KeepStopped::Nothing,
            (Input::Detach(DetachAction::Resume), Crash::Reported) => self.crash = Crash::Accepted,
            (Input::Attach, Crash::Accepted) => self.crash = Crash::Reported,
            _ => {}
        }
        match input {
            Input::Attach => self.attach = Request::Open,
            Input::Detach(_) => self.detach = Request::Open,
            Input::Lost if before.check_attached().is_ok() => self.detach = Request::Open,
            Input::Resume(plan) => self.check_resume(plan, stopped, &outputs),
            Input::Break => self.break_ = Request::Open,
            Input::Change => self.change = Request::Open,
            Input::Reset => self.reset = Request::Open,
            Input::Lost | Input::Pause | Input::StopOn(_) | Input::Shutdown => {}
            Input::Parked(..) | Input::StillThere(_) | Input::EmulationFailed(_) => {}
            Input::ReportReason(_) | Input::ReportBreakpointAhead(_) | Input::WriteRip(_) => {}
        }
        let held = self.held;
        self.carry_out(outputs);
        self.check_open_requests();
        let lost = matches!(
            input,
            Input::Lost
                | Input::Detach(DetachAction::ResumeUnlessHeld | DetachAction::KillUnlessHeld)
        );
        if lost && held {
            let stays = self.held && self.state.phase == Phase::Parked;
            assert!(stays, "{input:?}: a held guest does not stay held (I6)");
        }
    }

    fn park(&mut self, vp: VpIndex) -> AtBreakpoint {
        let vp_is = &mut self.vps[vp.index() as usize];
        let at = match std::mem::replace(vp_is, VpIs::Parked) {
            VpIs::InGuest(_, at) | VpIs::Kicked(_, at) => at,
            VpIs::Parked => panic!("VP {vp} parks, and is parked"),
        };
        self.passing_byte.remove(&vp);
        self.alone = self.alone.filter(|other| *other != vp);
        // The VP has put the byte back.
        self.lifted = self.lifted.filter(|other| *other != vp);
        at
    }

    /// The VP has made this many steps since its entry.
    fn note_steps(&mut self, vp: VpIndex, made: u64) {
        let counts = match self.vps[vp.index() as usize] {
            VpIs::InGuest(action, _) | VpIs::Kicked(action, _) => {
                matches!(action, VpAction::StepN { .. })
            }
            VpIs::Parked => false,
        };
        if counts {
            self.steps = self.steps.map(|steps| steps + made);
        }
        if let Some(left) = self.left.get_mut(&vp) {
            *left -= made;
        }
    }

    /// Updates which VPs have a byte at their RIP, after a VP has parked.
    fn note_byte_at_rip(&mut self, vp: VpIndex, cause: Option<Cause>) {
        let hit = matches!(
            cause,
            Some(Cause::Debug(DebugStopReason::Breakpoint { .. }))
        );
        let not_reported = cause == Some(Cause::NotReported);
        match self.lifted == Some(vp) {
            true => self.at_byte.remove(&vp),
            false if hit => self.at_byte.insert(vp, ByteOf::ThisAddress),
            false if not_reported => self.at_byte.insert(vp, ByteOf::OtherAddress),
            false => None,
        };
    }

    /// Parks a VP that has executed nothing since its entry.
    fn park_without_executing(&mut self, vp: VpIndex) -> AtBreakpoint {
        if let Some(byte) = self.passing_byte.get(&vp) {
            self.at_byte.insert(vp, *byte);
        }
        self.park(vp)
    }

    /// A hit that is reported on request is reported once, and for the VP that was asked for.
    fn check_reported_on_request(
        &mut self,
        vp: VpIndex,
        reason: DebugStopReason,
        before: &RunState,
    ) {
        assert_eq!(reason.vp(), Some(vp));
        if before.vps[vp.index() as usize].reported.is_none() {
            self.check_reason(reason);
        }
        let again = self.state.report_reason_of(vp, Some);
        assert_eq!(
            again,
            Ok(Some(reason)),
            "another reason for the second request"
        );
    }

    /// Drops the hits of the resumed VPs, because the breakpoint is gone.
    fn drop_hits(&mut self) {
        let (dropped, kept) = std::mem::take(&mut self.unreported)
            .into_iter()
            .partition(|vp| self.resumed.contains(vp));
        self.unreported = kept;
        self.dropped.extend::<Vec<_>>(dropped);
    }

    /// I7: an unreported hit answers the first resume that runs its VP, before any VP runs, if its breakpoint still exists.
    fn check_resume(
        &mut self,
        plan: &[VpAction],
        stopped: Result<(), DebugError>,
        outputs: &[Output],
    ) {
        stopped.expect("a resume is taken only when stopped");
        self.left = (0..)
            .map(VpIndex::new)
            .zip(plan)
            .filter_map(steps_of)
            .collect();
        self.steps = plan
            .iter()
            .any(|action| matches!(action, VpAction::StepN { .. }))
            .then_some(0);
        self.resume = Request::Open;
        let moves = |vp: &VpIndex| plan[vp.index() as usize] != VpAction::Stay;
        self.resumed = (0..plan.len()).map(vp_index).filter(moves).collect();
        if !self.table {
            self.drop_hits();
        }
        if self.unreported.iter().any(|vp| self.resumed.contains(vp)) {
            assert!(
                matches!(outputs, [Output::Report { .. }]),
                "an unreported hit was not reported first (I7): {outputs:?}"
            );
        }
    }

    /// Whether the VP has a byte at its RIP and may pass the byte.
    fn passes_byte(&self, vp: VpIndex) -> bool {
        match self.at_byte.get(&vp) {
            Some(ByteOf::ThisAddress) => self.reported.contains(&vp),
            Some(ByteOf::OtherAddress) => true,
            None => false,
        }
    }

    /// Every open request waits for a VP that will park. No VP can miss a lifted byte.
    fn check_open_requests(&self) {
        if let Some(vp) = self.alone.or(self.lifted) {
            let others = self.vps.iter().enumerate();
            let mut others = others.filter(|(index, _)| vp_index(*index) != vp);
            let parked = others.all(|(_, vp_is)| *vp_is == VpIs::Parked);
            assert!(
                parked,
                "others may miss the lifted byte of {vp} (I5): {self:?}"
            );
        }
        if self.state.phase == Phase::Ended {
            // The requests are dropped, so their callers learn that the runner has ended.
            return;
        }
        let in_guest = self.vps.iter().any(|p| matches!(p, VpIs::InGuest(..)));
        let parked = self.vps.iter().all(|p| *p == VpIs::Parked);
        let asked = [
            self.attach,
            self.break_,
            self.detach,
            self.change,
            self.reset,
        ];
        if asked.contains(&Request::Open) {
            assert!(
                !parked && !in_guest,
                "an open request that will not be answered: {self:?}"
            );
        }
        if self.resume == Request::Open {
            assert!(!parked, "a resume that will not be answered (I1): {self:?}");
        }
    }

    /// Removes differences that have no effect. Epochs only grow, so only whether an epoch is the current one has an effect.
    pub(super) fn normalized(mut self) -> Self {
        self.state.epoch = Epoch::default();
        let asks_for_reasons = self.asks_for_reasons();
        let all_parked = self.state.phase == Phase::Parked;
        if all_parked {
            self.left.clear();
            (self.steps, self.state.steps) = (None, None);
            self.resumed = (0..self.vps.len()).map(vp_index).collect();
        }
        for vp in &mut self.state.vps {
            if all_parked {
                (vp.plan, vp.done) = (VpAction::Run, false);
            }
            if !asks_for_reasons {
                vp.reported = None;
            }
        }
        self
    }
}
