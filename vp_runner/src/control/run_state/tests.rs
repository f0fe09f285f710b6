//! An exhaustive walk through every state that is reachable with 1, 2 and 3 VPs. In each state the walk applies every legal input, and the illegal inputs that
//! a client can cause. A model of the controller, the VPs and the client checks the invariants at each output.

mod keep_stopped;
mod model;

use super::*;
use crate::control::at_breakpoint::ByteAtRip;
use crate::control::at_breakpoint::ByteOf;
use crate::control::at_breakpoint::Emulation;
use crate::control::at_breakpoint::FirstInstruction;
use model::Model;
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

/// Walks breadth-first. Returns the number of states.
fn walk(vps: u32, keep_stopped: KeepStopped) -> usize {
    let mut seen = HashSet::new();
    let mut fresh = VecDeque::new();
    let paused = Model::new(vps, keep_stopped);
    let mut running = paused.clone();
    let outputs = running.state.start().unwrap();
    running.carry_out(outputs);
    for model in [paused, running] {
        seen.insert(model.clone());
        fresh.push_back(model);
    }
    while let Some(model) = fresh.pop_front() {
        if model.state.phase == Phase::Ended {
            continue;
        }
        for input in model.inputs() {
            let mut next = model.clone();
            next.apply(&input);
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
    let states = walk(1, KeepStopped::Nothing);
    assert!(states > 50, "only {states} states: the walk did not walk");
}

#[test]
fn every_reachable_state_of_two_vps_keeps_the_invariants() {
    let states = walk(2, KeepStopped::Nothing);
    println!("{states} states");
    assert!(states > 1000, "only {states} states: the walk did not walk");
}

#[test]
fn every_reachable_state_of_three_vps_keeps_the_invariants() {
    let states = walk(3, KeepStopped::Nothing);
    println!("{states} states");
    assert!(
        states > 10_000,
        "only {states} states: the walk is not complete"
    );
}

#[test]
fn every_reachable_state_keeps_the_invariants_where_a_crashed_guest_is_kept() {
    for (vps, least) in [(1, 10_000), (2, 1000)] {
        let states = walk(vps, KeepStopped::CrashesAndTripleFaults);
        println!("{vps} VPs: {states} states");
        assert!(
            states > least,
            "only {states} states: the walk is not complete"
        );
    }
}

const VP0: VpIndex = VpIndex::new(0);
const VP1: VpIndex = VpIndex::new(1);

/// The value that a VP returns after it has executed instructions.
const MOVED: AtBreakpoint = AtBreakpoint::NEW;

fn alive(reason: DebugStopReason) -> Option<DebugStopReason> {
    Some(reason)
}

/// Two VPs under a debugger, both entered.
fn running() -> RunState {
    running_with(KeepStopped::Nothing)
}

fn running_with(keep_stopped: KeepStopped) -> RunState {
    let mut state = RunState::new(2, keep_stopped);
    state.attach().unwrap();
    state.resume(&[VpAction::Run; 2], alive).unwrap();
    state.programmed(&[]).unwrap();
    state
}

#[test]
fn a_second_hit_waits_for_the_next_resume() {
    let mut state = running();
    let epoch = state.epoch;
    let first = Some(Cause::Debug(hit(VP1)));
    let outputs = state.parked(VP1, epoch, first, MOVED, 0).unwrap();
    assert_eq!(outputs, [Output::Kick(VP0)]);
    let second = Some(Cause::Debug(hit(VP0)));
    let outputs = state.parked(VP0, epoch, second, MOVED, 0).unwrap();
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
    let met = Some(Cause::Debug(hit(VP0)));
    let refused = state.parked(VP0, Epoch::default(), met, MOVED, 0);
    assert!(matches!(refused, Err(Refused::Shell(_))));
    let epoch = state.epoch;
    state.break_().unwrap();
    state.parked(VP0, epoch, None, MOVED, 0).unwrap();
    let twice = state.parked(VP0, epoch, None, MOVED, 0);
    assert!(matches!(twice, Err(Refused::Shell(_))));
}

#[test]
fn a_finished_step_is_told_before_a_breakpoint_that_keeps() {
    let mut state = RunState::new(2, KeepStopped::Nothing);
    state.attach().unwrap();
    state
        .resume(&[VpAction::Step, VpAction::Run], alive)
        .unwrap();
    state.programmed(&[]).unwrap();
    let epoch = state.epoch;
    let step = DebugStopReason::SingleStep { vp: VP0 };
    state
        .parked(VP1, epoch, Some(Cause::Debug(hit(VP1))), MOVED, 0)
        .unwrap();
    let stepped = Some(Cause::Debug(step));
    let outputs = state.parked(VP0, epoch, stepped, MOVED, 0).unwrap();
    let reason = step;
    assert_eq!(outputs, [Output::Report { epoch, reason }]);
}

#[test]
fn a_guest_that_crashed_tries_again_once_its_registers_are_repaired() {
    let mut state = running();
    let epoch = state.epoch;
    let cause = vmm_core_defs::stop::CrashCause::Internal { suberror: 1 };
    let crash = GuestEvent::Crashed { vp: VP0, cause };
    let crashed = Some(Cause::Guest(crash));
    state.parked(VP0, epoch, crashed, MOVED, 0).unwrap();
    state.parked(VP1, epoch, None, MOVED, 0).unwrap();
    let mut unrepaired = state.clone();
    let outputs = unrepaired.resume(&[VpAction::Run; 2], alive).unwrap();
    assert_eq!(outputs, [Output::Act(crash)]);
    state.repaired(VP0);
    let outputs = state.resume(&[VpAction::Run; 2], alive).unwrap();
    assert_eq!(outputs, [Output::Program]);
}

#[test]
fn refused_debug_registers_leave_the_guest_stopped_and_debuggable() {
    let mut state = RunState::new(1, KeepStopped::Nothing);
    state.attach().unwrap();
    state.resume(&[VpAction::Run], alive).unwrap();
    assert_eq!(state.program_failed().unwrap(), []);
    assert_eq!(state.check_stopped(), Ok(()));
    assert_eq!(
        state.resume(&[VpAction::Run], alive).unwrap(),
        [Output::Program]
    );
}

/// Two VPs that are held before their first instruction, with a debugger that has not resumed the guest.
fn attached_to_a_held_guest() -> RunState {
    let mut state = RunState::new(2, KeepStopped::Nothing);
    state.attach().unwrap();
    state
}

#[test]
fn a_held_guest_stays_held_when_its_debugger_is_lost_and_runs_when_it_detaches() {
    for lost in [DetachAction::ResumeUnlessHeld, DetachAction::KillUnlessHeld] {
        let mut state = attached_to_a_held_guest();
        let detached = [Output::Release, Output::Detached];
        assert_eq!(state.detach(lost).unwrap(), detached, "{lost:?}");
        assert_eq!(state.lost().unwrap(), [], "no debugger will ever come");
        state.attach().unwrap();
        let outputs = state.detach(DetachAction::Resume).unwrap();
        assert_eq!(outputs.last(), Some(&Output::Program), "{lost:?}");
    }
    let mut state = attached_to_a_held_guest();
    let outputs = state.lost().unwrap();
    assert_eq!(outputs, [Output::Release, Output::Detached]);
}

#[test]
fn a_guest_that_was_resumed_once_is_no_longer_held() {
    let lose = |action| {
        let mut state = attached_to_a_held_guest();
        let step = [VpAction::Step, VpAction::Stay];
        state.resume(&step, alive).unwrap();
        state.programmed(&[]).unwrap();
        let stepped = DebugStopReason::SingleStep { vp: VP0 };
        let epoch = state.epoch;
        state
            .parked(VP0, epoch, Some(Cause::Debug(stepped)), MOVED, 0)
            .unwrap();
        state.detach(action).unwrap()
    };
    let outputs = lose(DetachAction::ResumeUnlessHeld);
    assert_eq!(outputs.last(), Some(&Output::Program));
    let outputs = lose(DetachAction::KillUnlessHeld);
    let killed = vmm_core_defs::stop::GuestEnd::Killed;
    assert_eq!(outputs.last(), Some(&Output::Exit(killed)));
}

const EMULATED: VpAtByte = VpAtByte {
    vp: VP0,
    byte: ByteAtRip {
        of: ByteOf::ThisAddress,
        emulation: Emulation::Possible,
    },
};

/// How each VP is entered.
fn entries(outputs: &[Output]) -> Vec<AtBreakpoint> {
    let entry = |output: &Output| match output {
        Output::Enter { at, .. } => *at,
        other => panic!("{other:?}"),
    };
    outputs.iter().map(entry).collect()
}

fn firsts(outputs: &[Output]) -> Vec<FirstInstruction> {
    entries(outputs).iter().map(AtBreakpoint::first).collect()
}

/// Whether a parked VP may pass a breakpoint at its RIP.
fn may_pass(state: &RunState, vp: VpIndex) -> bool {
    match state.vps[vp.index() as usize].state {
        VpState::Parked(at) => at.may_pass(),
        VpState::Entered | VpState::Kicked => panic!("VP {vp} is not parked"),
    }
}

/// VP 0 has hit a byte whose instruction can be emulated, the hit was reported, and the client resumes with `plan`.
fn resumed_on_a_byte(plan: &[VpAction]) -> (RunState, Vec<Output>) {
    let mut state = running();
    let epoch = state.epoch;
    let met = Some(Cause::Debug(hit(VP0)));
    state.parked(VP0, epoch, met, MOVED, 0).unwrap();
    state.parked(VP1, epoch, None, MOVED, 0).unwrap();
    state.resume(plan, alive).unwrap();
    let outputs = state.programmed(&[EMULATED]).unwrap();
    (state, outputs)
}

#[test]
fn a_vp_that_moves_alone_goes_over_its_byte_without_coming_back_for_it() {
    let (_, outputs) = resumed_on_a_byte(&[VpAction::Run, VpAction::Stay]);
    assert_eq!(firsts(&outputs), [FirstInstruction::Lifted]);
}

#[test]
fn a_vp_that_cannot_carry_out_its_instruction_steps_over_with_the_others_parked() {
    use FirstInstruction::*;
    let (mut state, outputs) = resumed_on_a_byte(&[VpAction::Run; 2]);
    assert_eq!(firsts(&outputs), [Emulated, Meets]);
    let epoch = state.epoch;
    let mut at = entries(&outputs)[0];
    at.emulation_failed();
    let cannot = Some(Cause::NotReported);
    state.parked(VP0, epoch, cannot, at, 0).unwrap();
    let outputs = state.parked(VP1, epoch, None, MOVED, 0).unwrap();
    assert_eq!(outputs, [Output::Program]);
    let outputs = state.programmed(&[EMULATED]).unwrap();
    assert_eq!(firsts(&outputs), [OthersStopped]);
    let done = Some(Cause::NotReported);
    let outputs = state.parked(VP0, epoch, done, MOVED, 0).unwrap();
    assert_eq!(firsts(&outputs), [Meets, Meets]);
}

/// Both VPs have hit the breakpoint, and the hit of VP 1 was reported.
fn both_hit() -> RunState {
    let mut state = running();
    let epoch = state.epoch;
    for vp in [VP1, VP0] {
        let met = Some(Cause::Debug(hit(vp)));
        state.parked(vp, epoch, met, MOVED, 0).unwrap();
    }
    state
}

const ALONE: [VpAction; 2] = [VpAction::Stay, VpAction::Step];

#[test]
fn a_kept_hit_answers_no_resume_of_another_vp() {
    let mut state = both_hit();
    // The client removes its breakpoints for this step.
    let gone = |_| None;
    assert_eq!(state.resume(&ALONE, gone).unwrap(), [Output::Program]);
    state.programmed(&[]).unwrap();
    let epoch = state.epoch;
    let step = DebugStopReason::SingleStep { vp: VP1 };
    let stepped = Some(Cause::Debug(step));
    let outputs = state.parked(VP1, epoch, stepped, MOVED, 0).unwrap();
    let reason = step;
    assert_eq!(outputs, [Output::Report { epoch, reason }]);
    // A client ignores the reason of a VP that it did not resume.
    assert_eq!(state.report_reason_of(VP0, alive), Ok(None));
    let outputs = state.resume(&[VpAction::Run; 2], alive).unwrap();
    let (epoch, reason) = (epoch.next(), hit(VP0));
    assert_eq!(outputs, [Output::Report { epoch, reason }]);
}

#[test]
fn a_hit_that_was_told_on_request_is_not_reported_again() {
    let mut state = both_hit();
    assert_eq!(state.report_reason_of(VP1, alive), Ok(Some(hit(VP1))));
    assert_eq!(state.report_reason_of(VP0, alive), Ok(Some(hit(VP0))));
    assert_eq!(state.report_reason_of(VP0, alive), Ok(Some(hit(VP0))));
    let outputs = state.resume(&[VpAction::Run; 2], alive).unwrap();
    assert_eq!(outputs, [Output::Program]);
    assert!([VP0, VP1].into_iter().all(|vp| may_pass(&state, vp)));
}

#[test]
fn a_breakpoint_that_a_vp_was_about_to_meet_is_told_on_request_once_and_passed() {
    let mut state = running();
    let epoch = state.epoch;
    let met = Some(Cause::Debug(hit(VP1)));
    state.parked(VP1, epoch, met, MOVED, 0).unwrap();
    assert_eq!(
        state.report_breakpoint_ahead(VP0, BREAKPOINT),
        None,
        "VP 0 moves"
    );
    state.parked(VP0, epoch, None, MOVED, 0).unwrap();
    let first = state.report_breakpoint_ahead(VP0, BREAKPOINT);
    assert_eq!(first, Some(hit(VP0)));
    assert_eq!(state.report_reason_of(VP0, alive), Ok(first));
    assert_eq!(state.report_breakpoint_ahead(VP0, BREAKPOINT), None);
    let outputs = state.resume(&ALONE, alive).unwrap();
    assert_eq!(outputs, [Output::Program]);
    assert!(may_pass(&state, VP0));
}

#[test]
fn a_breakpoint_at_a_vp_that_was_not_let_go_is_not_told_on_request() {
    let mut state = running();
    let epoch = state.epoch;
    let met = Some(Cause::Debug(hit(VP1)));
    state.parked(VP1, epoch, met, MOVED, 0).unwrap();
    state.parked(VP0, epoch, None, MOVED, 0).unwrap();
    state.resume(&ALONE, alive).unwrap();
    state.programmed(&[]).unwrap();
    let step = Some(Cause::Debug(DebugStopReason::SingleStep { vp: VP1 }));
    state
        .parked(VP1, state.epoch, step, MOVED, 0)
        .expect("the step ends");
    assert_eq!(state.report_breakpoint_ahead(VP0, BREAKPOINT), None);
    assert!(!may_pass(&state, VP0));
}

#[test]
fn a_hit_whose_breakpoint_is_gone_is_not_told_on_request() {
    let mut state = both_hit();
    assert_eq!(state.report_reason_of(VP0, |_| None), Ok(None));
    assert_eq!(state.report_reason_of(VP0, alive), Ok(Some(hit(VP0))));
}

#[test]
fn a_vp_whose_rip_was_set_meets_the_breakpoint_there_and_its_kept_hit_is_gone() {
    let mut state = both_hit();
    state.rip_written(VP0);
    state.rip_written(VP1);
    let outputs = state.resume(&[VpAction::Run; 2], alive).unwrap();
    assert_eq!(outputs, [Output::Program]);
    let vps_at_bytes = [VP0, VP1].map(|vp| VpAtByte { vp, ..EMULATED });
    let outputs = state.programmed(&vps_at_bytes).unwrap();
    assert_eq!(firsts(&outputs), [FirstInstruction::Meets; 2]);
}

/// Two VPs step at once, and both finish.
#[test]
fn a_finished_step_answers_no_later_resume() {
    let mut state = RunState::new(2, KeepStopped::Nothing);
    state.attach().unwrap();
    state.resume(&[VpAction::Step; 2], alive).unwrap();
    state.programmed(&[]).unwrap();
    for vp in [VP0, VP1] {
        let stepped = Some(Cause::Debug(DebugStopReason::SingleStep { vp }));
        state.parked(vp, state.epoch, stepped, MOVED, 0).unwrap();
    }
    let outputs = state.resume(&[VpAction::Run; 2], alive).unwrap();
    assert_eq!(outputs, [Output::Program]);
}
