//! An exhaustive walk: every state reachable with 1, 2 and 3 VPs, by every input that is legal there (and the ones that clients can get wrong),
//! against a model of the world that checks the invariants at each output.

use super::*;
use std::collections::HashSet;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::breakpoint::BreakpointKind;

const BREAKPOINT: Breakpoint = Breakpoint {
    kind: BreakpointKind::Execute,
    address: Gva::new(0x1000),
    len: 1,
};

fn hit(vp: VpIndex) -> DebugStopReason {
    DebugStopReason::Breakpoint {
        vp,
        breakpoint: BREAKPOINT,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    Parked,
    InGuest(VpAction),
    Kicked(VpAction),
}

/// Whether a request waits for its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Request {
    None,
    Open,
}

/// The machine under test and all that its outputs have brought about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    state: RunState,
    places: Vec<Place>,
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
}

/// What can happen next.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Input {
    Attach,
    Detach(DetachAction),
    Lost,
    Resume(Vec<VpAction>),
    Break,
    Change,
    Reset,
    Shutdown,
    Parked(VpIndex, Option<Cause>),
}

fn close(request: &mut Request, name: &str) {
    assert_eq!(*request, Request::Open, "{name} answered unasked (I1)");
    *request = Request::None;
}

impl World {
    fn new(vps: u32) -> Self {
        Self {
            state: RunState::new(vps),
            places: vec![Place::Parked; vps as usize],
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
        }
    }

    fn assert_parked(&self, why: &str) {
        let parked = self.places.iter().all(|place| *place == Place::Parked);
        assert!(parked, "{why} while a VP may run (I2, I3)");
    }

    fn inputs(&self) -> Vec<Input> {
        let mut inputs = vec![
            Input::Attach,
            Input::Detach(DetachAction::Resume),
            Input::Detach(DetachAction::Stay),
            Input::Lost,
            Input::Break,
            Input::Change,
            Input::Reset,
            Input::Shutdown,
        ];
        let count = self.places.len();
        let plan = |first, others| {
            let mut plan = vec![others; count];
            plan[0] = first;
            Input::Resume(plan)
        };
        inputs.push(plan(VpAction::Run, VpAction::Run));
        inputs.push(plan(VpAction::Step, VpAction::Stay));
        inputs.push(plan(VpAction::Stay, VpAction::Stay));
        if count > 1 {
            inputs.push(plan(VpAction::Step, VpAction::Run));
            inputs.push(plan(VpAction::Step, VpAction::Step));
        }
        for (index, place) in self.places.iter().enumerate() {
            let vp = vp_index(index);
            let action = match place {
                Place::Parked => continue,
                Place::InGuest(action) => action,
                Place::Kicked(action) => {
                    inputs.push(Input::Parked(vp, None));
                    action
                }
            };
            if *action == VpAction::Step {
                let step = DebugStopReason::SingleStep { vp };
                inputs.push(Input::Parked(vp, Some(Cause::Debug(step))));
            }
            if self.programmed {
                inputs.push(Input::Parked(vp, Some(Cause::Debug(hit(vp)))));
            }
            let event = match index {
                0 => GuestEvent::Reset,
                _ => GuestEvent::TripleFault { vp },
            };
            inputs.push(Input::Parked(vp, Some(Cause::Guest(event))));
        }
        inputs
    }

    fn feed(&mut self, input: &Input) {
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
            Input::Reset => self.state.reset(),
            Input::Shutdown => self.state.shutdown(),
            Input::Parked(vp, cause) => {
                let epoch = self.state.epoch;
                if let Some(Cause::Debug(DebugStopReason::Breakpoint { vp, .. })) = cause {
                    self.unreported.push(*vp);
                }
                self.places[vp.index() as usize] = Place::Parked;
                self.state.parked(*vp, epoch, *cause)
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
        match input {
            Input::Attach => self.attach = Request::Open,
            Input::Detach(_) => self.detach = Request::Open,
            Input::Lost if before.check_attached().is_ok() => self.detach = Request::Open,
            Input::Resume(_) => self.check_resume(stopped, &outputs),
            Input::Break => self.break_ = Request::Open,
            Input::Change => self.change = Request::Open,
            Input::Reset => self.reset = Request::Open,
            Input::Lost | Input::Shutdown | Input::Parked(..) => {}
        }
        self.carry_out(outputs);
        self.check_rest();
    }

    /// I7: a kept hit of a live breakpoint answers the resume before any VP runs.
    fn check_resume(&mut self, stopped: Result<(), DebugError>, outputs: &[Output]) {
        stopped.expect("a resume is taken only when stopped");
        self.resume = Request::Open;
        if !self.table {
            self.dropped.append(&mut self.unreported);
        }
        if !self.unreported.is_empty() {
            assert!(
                matches!(outputs, [Output::Report { .. }]),
                "a kept hit was not reported (I7): {outputs:?}"
            );
        }
    }

    fn carry_out(&mut self, outputs: Vec<Output>) {
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
                let Place::InGuest(action) = *place else {
                    panic!("kicked a VP that is {place:?}");
                };
                *place = Place::Kicked(action);
            }
            Output::Program => {
                self.assert_parked("programmed");
                self.programmed = self.table;
                return self.state.programmed().unwrap();
            }
            Output::Enter {
                vp,
                action,
                epoch,
                start,
            } => self.check_enter(vp, action, epoch, start),
            Output::Report { epoch, reason } => {
                self.assert_parked("reported");
                close(&mut self.resume, "resume");
                assert_eq!(epoch, self.state.epoch, "I1");
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
                    self.dropped.append(&mut self.unreported);
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
            Output::Act(_) => {
                self.assert_parked("acted");
                self.unreported.clear();
                self.dropped.clear();
                return self.state.acted().unwrap();
            }
            Output::ResetDone => close(&mut self.reset, "reset"),
            Output::Exit => self.assert_parked("ended"),
        }
        Vec::new()
    }

    fn check_enter(&mut self, vp: VpIndex, action: VpAction, epoch: Epoch, start: Start) {
        assert_eq!(self.programmed, self.table, "entered unprogrammed (I5)");
        assert_eq!(epoch, self.state.epoch, "I1");
        assert_ne!(action, VpAction::Stay);
        for (request, name) in [
            (self.break_, "break"),
            (self.attach, "attach"),
            (self.detach, "detach"),
        ] {
            assert_eq!(request, Request::None, "entered with a {name} open (I4)");
        }
        let place = &mut self.places[vp.index() as usize];
        assert_eq!(*place, Place::Parked, "entered twice");
        *place = Place::InGuest(action);
        assert!(!self.unreported.contains(&vp), "ran past a kept hit (I7)");
        if let Some(position) = self.dropped.iter().position(|other| *other == vp) {
            assert_eq!(start, Start::Retry, "a dropped hit is not retried (I7)");
            self.dropped.remove(position);
        }
    }

    fn check_reason(&mut self, reason: DebugStopReason) {
        if let DebugStopReason::Breakpoint { vp, .. } = reason {
            let position = self.unreported.iter().position(|other| *other == vp);
            let position = position.expect("a hit is reported once (I7)");
            self.unreported.remove(position);
        }
    }

    /// Nothing is forgotten: who waits, waits for a VP that will park.
    fn check_rest(&self) {
        if self.state.phase == Phase::Ended {
            // Dropped requests tell their callers that the runner is gone.
            return;
        }
        let in_guest = self.places.iter().any(|p| matches!(p, Place::InGuest(_)));
        let parked = self.places.iter().all(|p| *p == Place::Parked);
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

    /// Epochs only grow; what matters of one is that it is the current.
    fn normalized(mut self) -> Self {
        self.state.epoch = Epoch::default();
        self
    }
}

/// Walks breadth-first; says how many states there are.
fn walk(vps: u32) -> usize {
    let mut seen = HashSet::new();
    let mut fresh = VecDeque::new();
    let paused = World::new(vps);
    let mut running = paused.clone();
    let outputs = running.state.start().unwrap();
    running.carry_out(outputs);
    for world in [paused, running] {
        seen.insert(world.clone());
        fresh.push_back(world);
    }
    while let Some(world) = fresh.pop_front() {
        if world.state.phase == Phase::Ended {
            continue;
        }
        for input in world.inputs() {
            let mut next = world.clone();
            next.feed(&input);
            let next = next.normalized();
            if seen.insert(next.clone()) {
                fresh.push_back(next);
            }
        }
    }
    seen.len()
}

#[test]
fn every_reachable_state_of_one_vp_keeps_the_invariants() {
    let states = walk(1);
    assert!(states > 50, "only {states} states: the walk did not walk");
}

#[test]
fn every_reachable_state_of_two_vps_keeps_the_invariants() {
    let states = walk(2);
    assert!(states > 1000, "only {states} states: the walk did not walk");
}

#[test]
fn every_reachable_state_of_three_vps_keeps_the_invariants() {
    let states = walk(3);
    println!("{states} states");
    assert!(
        states > 10_000,
        "only {states} states: the walk did not walk"
    );
}

const VP0: VpIndex = VpIndex::new(0);
const VP1: VpIndex = VpIndex::new(1);

fn alive(reason: DebugStopReason) -> Option<DebugStopReason> {
    Some(reason)
}

/// Two VPs under a debugger, both entered.
fn running() -> RunState {
    let mut state = RunState::new(2);
    state.attach().unwrap();
    state.resume(&[VpAction::Run; 2], alive).unwrap();
    state.programmed().unwrap();
    state
}

#[test]
fn a_second_hit_waits_for_the_next_resume() {
    let mut state = running();
    let epoch = state.epoch;
    let first = Some(Cause::Debug(hit(VP1)));
    let outputs = state.parked(VP1, epoch, first).unwrap();
    assert_eq!(outputs, [Output::Kick(VP0)]);
    let second = Some(Cause::Debug(hit(VP0)));
    let outputs = state.parked(VP0, epoch, second).unwrap();
    let reason = hit(VP1);
    assert_eq!(outputs, [Output::Report { epoch, reason }]);
    let outputs = state.resume(&[VpAction::Run; 2], alive).unwrap();
    let epoch = epoch.next();
    let reason = hit(VP0);
    assert_eq!(outputs, [Output::Report { epoch, reason }]);
}

#[test]
fn a_stop_of_an_older_epoch_is_refused_as_stale() {
    let mut state = running();
    let refused = state.parked(VP0, Epoch::default(), Some(Cause::Debug(hit(VP0))));
    assert!(matches!(refused, Err(Refused::Shell(_))));
    let epoch = state.epoch;
    state.break_().unwrap();
    state.parked(VP0, epoch, None).unwrap();
    let twice = state.parked(VP0, epoch, None);
    assert!(matches!(twice, Err(Refused::Shell(_))));
}

#[test]
fn a_finished_step_is_told_before_a_breakpoint_that_keeps() {
    let mut state = RunState::new(2);
    state.attach().unwrap();
    state
        .resume(&[VpAction::Step, VpAction::Run], alive)
        .unwrap();
    state.programmed().unwrap();
    let epoch = state.epoch;
    let step = DebugStopReason::SingleStep { vp: VP0 };
    state
        .parked(VP1, epoch, Some(Cause::Debug(hit(VP1))))
        .unwrap();
    let outputs = state.parked(VP0, epoch, Some(Cause::Debug(step))).unwrap();
    let reason = step;
    assert_eq!(outputs, [Output::Report { epoch, reason }]);
}

#[test]
fn a_guest_that_crashed_tries_again_once_its_registers_are_repaired() {
    let mut state = running();
    let epoch = state.epoch;
    let cause = vmm_core_defs::stop::CrashCause::Internal { suberror: 1 };
    let crash = GuestEvent::Crashed { vp: VP0, cause };
    state.parked(VP0, epoch, Some(Cause::Guest(crash))).unwrap();
    state.parked(VP1, epoch, None).unwrap();
    let mut unrepaired = state.clone();
    let outputs = unrepaired.resume(&[VpAction::Run; 2], alive).unwrap();
    assert_eq!(outputs, [Output::Act(crash)]);
    state.repaired(VP0);
    let outputs = state.resume(&[VpAction::Run; 2], alive).unwrap();
    assert_eq!(outputs, [Output::Program]);
}

#[test]
fn refused_debug_registers_leave_the_guest_stopped_and_debuggable() {
    let mut state = RunState::new(1);
    state.attach().unwrap();
    state.resume(&[VpAction::Run], alive).unwrap();
    assert_eq!(state.program_failed().unwrap(), []);
    assert_eq!(state.check_stopped(), Ok(()));
    assert_eq!(
        state.resume(&[VpAction::Run], alive).unwrap(),
        [Output::Program]
    );
}
