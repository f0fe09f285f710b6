//! VPs that come and go in each phase.

use super::*;
use crate::control::at_breakpoint::ByteAtRip;
use crate::control::at_breakpoint::ByteOf;
use crate::control::at_breakpoint::Emulation;
use crate::control::run_state::Cause;
use crate::control::run_state::KeepStopped;
use crate::control::run_state::Output;
use crate::control::run_state::VpAtByte;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::breakpoint::BreakpointKind;
use vmm_core_defs::debug_rpc::DetachAction;
use vmm_core_defs::stop::DebugStopReason;
use vmm_core_defs::stop::Epoch;
use vmm_core_defs::stop::GuestEventKind;

const FIRST: VpIndex = VpIndex::BSP;
const SECOND: VpIndex = VpIndex::new(1);

fn entered(outputs: &[Output]) -> Vec<VpIndex> {
    let vps = outputs.iter().filter_map(|output| match output {
        Output::Enter { vp, .. } => Some(*vp),
        _ => None,
    });
    vps.collect()
}

/// A guest with these VPs, which runs without a debugger.
fn running(vps: u32) -> RunState {
    let mut state = RunState::new(vps, KeepStopped::Nothing);
    state.start().unwrap();
    let outputs = state.programmed(&[]).unwrap();
    assert_eq!(entered(&outputs).len(), vps as usize);
    state
}

/// The same guest, stopped by a debugger that has attached.
fn attached(vps: u32) -> RunState {
    let mut state = running(vps);
    state.attach().unwrap();
    for vp in (0..vps).map(VpIndex::new) {
        state
            .parked(vp, Epoch::default(), None, AtBreakpoint::NEW, 0)
            .unwrap();
    }
    state.check_stopped().unwrap();
    state
}

#[test]
fn a_vp_that_joins_a_guest_without_vps_runs_at_once() {
    let mut state = running(0);
    assert_eq!(entered(&state.join(FIRST).unwrap()), [FIRST]);
    assert_eq!(entered(&state.join(SECOND).unwrap()), [SECOND]);
    assert!(state.join(SECOND).is_err(), "it is here already");
}

#[test]
fn vps_may_join_in_any_order_and_those_that_have_not_come_do_not_run() {
    let third = VpIndex::new(2);
    let mut state = running(0);
    assert_eq!(entered(&state.join(third).unwrap()), [third]);
    assert_eq!(entered(&state.join(FIRST).unwrap()), [FIRST]);
    let broken = state.attach().unwrap();
    assert_eq!(broken, [Output::Kick(FIRST), Output::Kick(third)]);
    for vp in [FIRST, third] {
        state
            .parked(vp, Epoch::default(), None, AtBreakpoint::NEW, 0)
            .unwrap();
    }
    state.check_stopped().unwrap();
    state.resume(&[VpAction::Run; 3], Some).unwrap();
    let outputs = state.programmed(&[]).unwrap();
    assert_eq!(entered(&outputs), [FIRST, third]);
    assert_eq!(entered(&state.join(SECOND).unwrap()), [SECOND]);
    assert!(state.join(SECOND).is_err(), "it is here already");
}

#[test]
fn a_vp_that_joins_a_stopped_guest_waits_for_the_next_resume() {
    let mut state = attached(1);
    assert_eq!(state.join(SECOND).unwrap(), []);
    assert!(state.resume(&[VpAction::Run], Some).is_err(), "one VP only");
    state.resume(&[VpAction::Run; 2], Some).unwrap();
    let outputs = state.programmed(&[]).unwrap();
    assert_eq!(entered(&outputs), [FIRST, SECOND]);
}

#[test]
fn a_vp_that_leaves_does_not_run_and_nobody_waits_for_it() {
    let mut state = attached(2);
    state.resume(&[VpAction::Run; 2], Some).unwrap();
    state.programmed(&[]).unwrap();
    let broken = state.break_().unwrap();
    assert_eq!(broken, [Output::Kick(FIRST), Output::Kick(SECOND)]);
    let epoch = Epoch::default().next();
    let parked = state.parked(FIRST, epoch, None, AtBreakpoint::NEW, 0);
    assert_eq!(parked.unwrap(), []);
    let outputs = state.leave(SECOND).unwrap();
    let reason = DebugStopReason::Break;
    assert_eq!(outputs, [Output::Report { epoch, reason }, Output::Broken]);
    state.resume(&[VpAction::Run; 2], Some).unwrap();
    let outputs = state.programmed(&[]).unwrap();
    assert_eq!(entered(&outputs), [FIRST]);
    assert_eq!(
        entered(&state.join(SECOND).unwrap()),
        [SECOND],
        "it is back"
    );
}

#[test]
fn the_hits_of_a_vp_that_leaves_are_dropped() {
    let mut state = attached(2);
    state.resume(&[VpAction::Step; 2], Some).unwrap();
    state.programmed(&[]).unwrap();
    let epoch = Epoch::default().next();
    let step = |vp| Some(Cause::Debug(DebugStopReason::SingleStep { vp }));
    state
        .parked(SECOND, epoch, step(SECOND), AtBreakpoint::NEW, 0)
        .unwrap();
    state.leave(SECOND).unwrap();
    let outputs = state
        .parked(FIRST, epoch, step(FIRST), AtBreakpoint::NEW, 0)
        .unwrap();
    let reason = DebugStopReason::SingleStep { vp: FIRST };
    assert_eq!(outputs, [Output::Report { epoch, reason }]);
}

#[test]
fn an_event_of_a_device_stops_a_guest_that_a_debugger_runs() {
    let mut state = attached(1);
    state.resume(&[VpAction::Run], Some).unwrap();
    state.programmed(&[]).unwrap();
    let vp = Some(FIRST);
    let outputs = state.device_event(GuestEvent::Reset { vp }).unwrap();
    assert_eq!(outputs, [Output::Kick(FIRST)]);
    let epoch = Epoch::default().next();
    let outputs = state
        .parked(FIRST, epoch, None, AtBreakpoint::NEW, 0)
        .unwrap();
    let reason = DebugStopReason::Reset { vp };
    assert_eq!(outputs, [Output::Report { epoch, reason }]);
    let outputs = state.resume(&[VpAction::Run], Some).unwrap();
    assert_eq!(outputs, [Output::Act(GuestEvent::Reset { vp })]);
}

#[test]
fn an_event_of_a_device_in_a_stopped_guest_waits_for_the_next_resume() {
    let mut state = attached(1);
    let vp = Some(FIRST);
    assert_eq!(state.device_event(GuestEvent::Reset { vp }).unwrap(), []);
    state.check_stopped().unwrap();
    let epoch = Epoch::default().next();
    let outputs = state.resume(&[VpAction::Run], Some).unwrap();
    let reason = DebugStopReason::Reset { vp };
    assert_eq!(outputs, [Output::Report { epoch, reason }]);
}

#[test]
fn only_a_debugger_has_events_that_are_stops() {
    let mut state = running(1);
    assert_eq!(state.stops_of_debugger(), None);
    state.attach().unwrap();
    let parked = state.parked(FIRST, Epoch::default(), None, AtBreakpoint::NEW, 0);
    parked.unwrap();
    let panics = StopOn::from_iter([GuestEventKind::Panic]);

    state.stop_on(Some(panics)).unwrap();
    assert_eq!(state.stops_of_debugger(), Some(panics));
}

/// The first VP steps over its breakpoint byte while the second one is parked. The guest runs when one of the two has left.
#[test]
fn a_vp_that_leaves_during_a_step_over_lets_the_others_run_if_it_was_the_one_that_stepped() {
    let stepping_over = || {
        let mut state = attached(2);
        state.resume(&[VpAction::Run; 2], Some).unwrap();
        state.programmed(&[]).unwrap();
        let epoch = Epoch::default().next();
        let breakpoint = Breakpoint {
            kind: BreakpointKind::Software,
            address: Gva::new(0x1000),
            len: 1,
        };
        let met = DebugStopReason::Breakpoint {
            vp: FIRST,
            breakpoint,
        };
        let met = Some(Cause::Debug(met));
        let at = AtBreakpoint::NEW;
        state.parked(FIRST, epoch, met, at, 0).unwrap();
        state.parked(SECOND, epoch, None, at, 0).unwrap();
        state.resume(&[VpAction::Run; 2], Some).unwrap();
        let byte = ByteAtRip {
            of: ByteOf::ThisAddress,
            emulation: Emulation::Impossible,
        };
        let outputs = state.programmed(&[VpAtByte { vp: FIRST, byte }]).unwrap();
        assert_eq!(entered(&outputs), [FIRST]);
        assert_eq!(state.phase, Phase::SteppingOver);
        state
    };
    let mut state = stepping_over();
    assert_eq!(entered(&state.leave(FIRST).unwrap()), [SECOND]);
    let mut state = stepping_over();
    assert_eq!(state.leave(SECOND).unwrap(), []);
    assert_eq!(state.phase, Phase::SteppingOver);
}

#[test]
fn an_event_of_a_device_does_not_run_a_guest_that_a_debugger_has_left_stopped() {
    let mut state = attached(1);
    state.detach(DetachAction::Stay).unwrap();
    let event = GuestEvent::Reset { vp: Some(FIRST) };
    assert_eq!(state.device_event(event).unwrap(), []);
    assert!(!state.is_running());
}
