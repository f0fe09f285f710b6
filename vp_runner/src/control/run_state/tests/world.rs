//! The machine in a model of the world: what its outputs bring about, what can happen next, and what must never be.

mod inputs;
mod outputs;

pub(super) use inputs::Input;

use super::*;
use std::collections::BTreeMap;
use vmm_core_defs::stop::FaultRegisters;
use vmm_core_defs::stop::GuestEnd;
use vmm_core_defs::stop::GuestEventKind;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum RipAt {
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

/// The machine under test and all that its outputs have brought about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) state: RunState,
    places: Vec<RipAt>,
    resume: Request,
    attach: Request,
    break_: Request,
    detach: Request,
    change: Request,
    reset: Request,
    /// Whether the one breakpoint is in the table, and in the debug registers of the VPs.
    table: bool,
    programmed: bool,
    /// VPs that met the breakpoint and have not been reported (I7), in order.
    unreported: Vec<VpIndex>,
    /// VPs whose hit was dropped since its breakpoint was gone: they retry the instruction (I7).
    dropped: Vec<VpIndex>,
    /// VPs that stand on a breakpoint byte.
    standing: BTreeMap<VpIndex, ByteOf>,
    /// VPs whose stop at their RIP was reported (I8).
    reported: BTreeSet<VpIndex>,
    /// VPs that the last resume let go (I1).
    let_go: BTreeSet<VpIndex>,
    /// The VP that steps over, with the byte lifted.
    lifted: Option<VpIndex>,
    /// VPs that were entered to go over their byte.
    going_over: BTreeMap<VpIndex, ByteOf>,
    /// VPs whose instruction under the byte could not be carried out, and that have not moved since.
    not_carried_out: BTreeSet<VpIndex>,
    /// VPs that have finished a step under the present resume.
    stepped: BTreeSet<VpIndex>,
    /// The one of them that was to be alone.
    alone: Option<VpIndex>,
    /// The guest asked for something that is yet to be carried out.
    asked: bool,
    /// No VP has entered yet.
    held: bool,
    keeps: Keeps,
    /// Whether there are breakpoints and what goes with them.
    breakpoints: bool,
    /// What became of a crash that keeps the guest.
    crash: Crash,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Crash {
    None,
    Untold,
    Told,
    /// A debugger that was told has let the guest go.
    LetGo,
}

fn on_byte((vp, of): (&VpIndex, &ByteOf)) -> OnByte {
    let byte = ByteAtRip {
        of: *of,
        emulation: emulation(*vp),
    };
    OnByte { vp: *vp, byte }
}

/// Some instructions can be carried out, some cannot.
fn emulation(vp: VpIndex) -> Emulation {
    match vp.index() % 2 {
        0 => Emulation::Possible,
        _ => Emulation::Impossible,
    }
}

fn close(request: &mut Request, name: &str) {
    assert_eq!(*request, Request::Open, "{name} answered unasked (I1)");
    *request = Request::None;
}

impl World {
    pub(super) fn new(vps: u32, keeps: Keeps) -> Self {
        Self {
            state: RunState::new(vps, keeps),
            keeps,
            // With two VPs there are too many states else.
            breakpoints: keeps == Keeps::Nothing || vps == 1,
            crash: Crash::None,
            places: vec![RipAt::Parked; vps as usize],
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
            standing: BTreeMap::new(),
            reported: BTreeSet::new(),
            let_go: (0..vps).map(VpIndex::new).collect(),
            lifted: None,
            going_over: BTreeMap::new(),
            not_carried_out: BTreeSet::new(),
            stepped: BTreeSet::new(),
            alone: None,
            asked: false,
            held: true,
        }
    }

    fn assert_parked(&self, why: &str) {
        let parked = self.places.iter().all(|place| *place == RipAt::Parked);
        assert!(parked, "{why} while a VP may run (I2, I3)");
    }

    pub(super) fn feed(&mut self, input: &Input) {
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
            Input::Parked(vp, cause) => {
                let epoch = self.state.epoch;
                if let Some(Cause::Debug(DebugStopReason::Breakpoint { vp, .. })) = cause {
                    self.unreported.push(*vp);
                }
                if let Some(Cause::Guest(event)) = cause {
                    self.asked |= event.is_acted_upon();
                    if self.keeps.covers(*event) && self.crash == Crash::None {
                        self.crash = Crash::Untold;
                    }
                }
                if let Some(Cause::Debug(DebugStopReason::SingleStep { vp })) = cause {
                    self.stepped.insert(*vp);
                }
                self.note_standing(*vp, *cause);
                self.reported.remove(vp);
                self.not_carried_out.remove(vp);
                let mut at = self.park(*vp);
                match at.first() {
                    FirstInstruction::Meets => at.may_have_moved(),
                    _ => at.executed(),
                }
                self.state.parked(*vp, epoch, *cause, at)
            }
            Input::StillThere(vp) => {
                let at = self.park_in_place(*vp);
                self.state.parked(*vp, self.state.epoch, None, at)
            }
            Input::NotCarriedOut(vp) => {
                let mut at = self.park_in_place(*vp);
                at.not_carried_out();
                self.not_carried_out.insert(*vp);
                let cause = Some(Cause::NotReported);
                self.state.parked(*vp, self.state.epoch, cause, at)
            }
            Input::Tell(vp) => match self.state.tell(*vp, still_hit) {
                Ok(reason) => {
                    if let Some(reason) = reason {
                        self.check_told(*vp, reason, &before);
                    }
                    Ok(Vec::new())
                }
                Err(err) => Err(err.into()),
            },
            Input::TellStanding(vp) => {
                if let Some(reason) = self.state.tell_standing(*vp, BREAKPOINT) {
                    assert!(stopped.is_ok(), "told {reason:?} of a guest that runs");
                    assert!(
                        self.reported.insert(*vp) && self.let_go.contains(vp),
                        "told {reason:?} a second time, or of a VP that stayed (I7)"
                    );
                    assert!(!self.unreported.contains(vp), "a kept hit is left (I7)");
                    self.standing.insert(*vp, ByteOf::ThisAddress);
                    self.dropped.retain(|other| other != vp);
                    self.check_told(*vp, reason, &self.state.clone());
                }
                Ok(Vec::new())
            }
            Input::Redirect(vp) => {
                if stopped.is_ok() {
                    self.state.redirected(*vp);
                    self.reported.remove(vp);
                    self.not_carried_out.remove(vp);
                    self.standing.remove(vp);
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
            (Input::Lost, _) => self.keeps = Keeps::Nothing,
            (Input::Detach(DetachAction::Resume), Crash::Told) => self.crash = Crash::LetGo,
            (Input::Attach, Crash::LetGo) => self.crash = Crash::Told,
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
            Input::Parked(..) | Input::StillThere(_) | Input::NotCarriedOut(_) => {}
            Input::Tell(_) | Input::TellStanding(_) | Input::Redirect(_) => {}
        }
        let held = self.held;
        self.carry_out(outputs);
        self.check_rest();
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
        let place = &mut self.places[vp.index() as usize];
        let at = match std::mem::replace(place, RipAt::Parked) {
            RipAt::InGuest(_, at) | RipAt::Kicked(_, at) => at,
            RipAt::Parked => panic!("VP {vp} parks, and is parked"),
        };
        self.going_over.remove(&vp);
        self.alone = self.alone.filter(|other| *other != vp);
        // It has put the byte back.
        self.lifted = self.lifted.filter(|other| *other != vp);
        at
    }

    /// Who stands on a byte after a VP has parked.
    fn note_standing(&mut self, vp: VpIndex, cause: Option<Cause>) {
        let hit = matches!(
            cause,
            Some(Cause::Debug(DebugStopReason::Breakpoint { .. }))
        );
        let unseen = cause == Some(Cause::NotReported);
        match self.lifted == Some(vp) {
            true => self.standing.remove(&vp),
            false if hit => self.standing.insert(vp, ByteOf::ThisAddress),
            false if unseen => self.standing.insert(vp, ByteOf::OtherAddress),
            false => None,
        };
    }

    /// It has executed nothing since it was entered.
    fn park_in_place(&mut self, vp: VpIndex) -> AtBreakpoint {
        if let Some(byte) = self.going_over.get(&vp) {
            self.standing.insert(vp, *byte);
        }
        self.park(vp)
    }

    /// A hit that is told on request is told once, and of the VP that was asked for.
    fn check_told(&mut self, vp: VpIndex, reason: DebugStopReason, before: &RunState) {
        assert_eq!(reason.vp(), Some(vp));
        if before.vps[vp.index() as usize].told.is_none() {
            self.check_reason(reason);
        }
        let again = self.state.tell(vp, Some);
        assert_eq!(again, Ok(Some(reason)), "told otherwise the second time");
    }

    /// The hits of these VPs whose breakpoint is gone are dropped.
    fn drop_hits(&mut self) {
        let (dropped, kept) = std::mem::take(&mut self.unreported)
            .into_iter()
            .partition(|vp| self.let_go.contains(vp));
        self.unreported = kept;
        self.dropped.extend::<Vec<_>>(dropped);
    }

    /// I7: a kept hit of a live breakpoint answers the first resume that includes its VP, before any VP runs.
    fn check_resume(
        &mut self,
        plan: &[VpAction],
        stopped: Result<(), DebugError>,
        outputs: &[Output],
    ) {
        stopped.expect("a resume is taken only when stopped");
        self.stepped.clear();
        self.resume = Request::Open;
        let moves = |vp: &VpIndex| plan[vp.index() as usize] != VpAction::Stay;
        self.let_go = (0..plan.len()).map(vp_index).filter(moves).collect();
        if !self.table {
            self.drop_hits();
        }
        if self.unreported.iter().any(|vp| self.let_go.contains(vp)) {
            assert!(
                matches!(outputs, [Output::Report { .. }]),
                "a kept hit was not reported (I7): {outputs:?}"
            );
        }
    }

    /// Whether the VP stands on a byte that it is to pass.
    fn passes_byte(&self, vp: VpIndex) -> bool {
        match self.standing.get(&vp) {
            Some(ByteOf::ThisAddress) => self.reported.contains(&vp),
            Some(ByteOf::OtherAddress) => true,
            None => false,
        }
    }

    /// Nothing is forgotten: who waits, waits for a VP that will park. Nobody runs through a gap.
    fn check_rest(&self) {
        if let Some(vp) = self.alone.or(self.lifted) {
            let others = self.places.iter().enumerate();
            let mut others = others.filter(|(index, _)| vp_index(*index) != vp);
            let parked = others.all(|(_, place)| *place == RipAt::Parked);
            assert!(
                parked,
                "others may run through the gap of {vp} (I5): {self:?}"
            );
        }
        if self.state.phase == Phase::Ended {
            // Dropped requests tell their callers that the runner is gone.
            return;
        }
        let in_guest = self.places.iter().any(|p| matches!(p, RipAt::InGuest(..)));
        let parked = self.places.iter().all(|p| *p == RipAt::Parked);
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
                "an open request nobody works on: {self:?}"
            );
        }
        if self.resume == Request::Open {
            assert!(!parked, "a resume nobody answers (I1): {self:?}");
        }
    }

    /// Without what nothing depends on any more. Epochs only grow; what matters of one is that it is the current.
    pub(super) fn normalized(mut self) -> Self {
        self.state.epoch = Epoch::default();
        let tells = self.tells();
        let rests = self.state.phase == Phase::Parked;
        let waits = |vp: &VpIndex| {
            let step = Hit::Debug(DebugStopReason::SingleStep { vp: *vp });
            self.state.hits.contains(&step)
        };
        self.stepped.retain(waits);
        if rests {
            self.stepped.clear();
            self.let_go = (0..self.places.len()).map(vp_index).collect();
        }
        for vp in &mut self.state.vps {
            if rests {
                vp.plan = VpAction::Run;
            }
            if !tells {
                vp.told = None;
            }
        }
        self
    }
}
