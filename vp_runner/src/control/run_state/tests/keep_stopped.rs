//! A guest that cannot continue while no debugger is attached, and stays stopped.

use super::*;
use vmm_core_defs::stop::CrashCause;
use vmm_core_defs::stop::FaultRegisters;

const CRASH: GuestEvent = GuestEvent::Crashed {
    vp: VP1,
    cause: CrashCause::Internal { suberror: 1 },
};

const FAULT: GuestEvent = GuestEvent::TripleFault {
    vp: VP1,
    registers: FaultRegisters::Kept,
};

/// VP 1 parks with the event while VP 0 is in the guest. Returns the outputs after both have parked.
fn meets(state: &mut RunState, event: GuestEvent) -> Vec<Output> {
    let epoch = state.epoch;
    let cause = Some(Cause::Guest(event));
    let outputs = state.parked(VP1, epoch, cause, MOVED, 0).unwrap();
    assert_eq!(outputs, [Output::Kick(VP0)]);
    state.parked(VP0, epoch, None, MOVED, 0).unwrap()
}

/// A guest that runs without a debugger.
fn undebugged(keep_stopped: KeepStopped) -> RunState {
    let mut state = running_with(keep_stopped);
    let epoch = state.epoch;
    state.detach(DetachAction::Resume).unwrap();
    for vp in [VP0, VP1] {
        state.parked(vp, epoch, None, MOVED, 0).unwrap();
    }
    state.programmed(&[]).unwrap();
    state
}

/// As [`undebugged`], and VP 1 has crashed.
fn kept() -> RunState {
    let mut state = undebugged(KeepStopped::Crashes);
    assert_eq!(meets(&mut state, CRASH), [Output::KeptStopped(CRASH)]);
    state
}

fn attached(state: &mut RunState, event: GuestEvent) {
    let (epoch, reason) = (state.epoch, event.reason());
    let attached = Output::Attached { epoch, reason };
    assert_eq!(state.attach().unwrap(), [attached]);
}

#[test]
fn what_is_kept_is_what_was_asked_for() {
    use KeepStopped::*;
    for (keep_stopped, event, stays) in [
        (Nothing, CRASH, false),
        (Nothing, FAULT, false),
        (Crashes, CRASH, true),
        (Crashes, FAULT, false),
        (CrashesAndTripleFaults, CRASH, true),
        (CrashesAndTripleFaults, FAULT, true),
        (
            CrashesAndTripleFaults,
            GuestEvent::Reset { vp: None },
            false,
        ),
        (
            CrashesAndTripleFaults,
            GuestEvent::PowerOff { vp: None },
            false,
        ),
    ] {
        let wanted = match stays {
            true => Output::KeptStopped(event),
            false => Output::Act(event),
        };
        let mut state = undebugged(keep_stopped);
        assert_eq!(meets(&mut state, event), [wanted], "{keep_stopped:?}");
    }
}

#[test]
fn the_first_debugger_is_told_of_the_crash_and_of_whose_it_is() {
    let mut state = kept();
    attached(&mut state, CRASH);
    assert_eq!(state.report_reason_of(VP1, alive), Ok(Some(CRASH.reason())));
    assert_eq!(state.report_reason_of(VP0, alive), Ok(None));
}

#[test]
fn a_debugger_that_was_told_ends_the_guest_by_detaching_and_not_by_being_lost() {
    for lost in [
        DetachAction::ResumeUnlessHeld,
        DetachAction::ResumeUnlessCrashed,
    ] {
        let mut state = kept();
        attached(&mut state, CRASH);
        let outputs = state.detach(lost).unwrap();
        let stays = [
            Output::Release,
            Output::Detached,
            Output::KeptStopped(CRASH),
        ];
        assert_eq!(outputs, stays, "{lost:?}");
        attached(&mut state, CRASH);
        let outputs = state.detach(DetachAction::Resume).unwrap();
        assert_eq!(outputs.last(), Some(&Output::Act(CRASH)), "{lost:?}");
    }
}

/// The crash is reported to the debugger, and then the debugger is lost.
#[test]
fn a_crash_under_a_debugger_that_is_lost_is_kept() {
    let mut state = running_with(KeepStopped::Crashes);
    let (epoch, reason) = (state.epoch, CRASH.reason());
    let told = [Output::Report { epoch, reason }];
    assert_eq!(meets(&mut state, CRASH), told);
    let outputs = state.detach(DetachAction::ResumeUnlessHeld).unwrap();
    assert_eq!(outputs.last(), Some(&Output::KeptStopped(CRASH)));
    attached(&mut state, CRASH);
}

/// The crash happens while the VPs stop for a `detach`, so it was not reported to a debugger.
#[test]
fn a_crash_that_no_debugger_was_told_of_is_kept_though_one_detaches() {
    let mut state = running_with(KeepStopped::Crashes);
    let epoch = state.epoch;
    state.detach(DetachAction::Resume).unwrap();
    let cause = Some(Cause::Guest(CRASH));
    state.parked(VP1, epoch, cause, MOVED, 0).unwrap();
    let outputs = state.parked(VP0, epoch, None, MOVED, 0).unwrap();
    assert_eq!(outputs.last(), Some(&Output::KeptStopped(CRASH)));
}

#[test]
fn a_guest_that_was_repaired_runs_and_its_second_crash_is_kept_again() {
    let mut state = kept();
    attached(&mut state, CRASH);
    state.repaired(VP1);
    let outputs = state.detach(DetachAction::Resume).unwrap();
    assert_eq!(outputs.last(), Some(&Output::Program));
    state.programmed(&[]).unwrap();
    assert_eq!(meets(&mut state, CRASH), [Output::KeptStopped(CRASH)]);
    attached(&mut state, CRASH);
}

#[test]
fn a_reset_by_the_debugger_takes_a_kept_guest_to_its_first_instruction() {
    let mut state = kept();
    attached(&mut state, CRASH);
    let acts = [Output::Act(GuestEvent::Reset { vp: None })];
    assert_eq!(state.reset().unwrap(), acts);
    assert_eq!(state.acted().unwrap(), [Output::ResetDone]);
    let outputs = state.detach(DetachAction::ResumeUnlessHeld).unwrap();
    assert_eq!(outputs.last(), Some(&Output::Program));
}

#[test]
fn nothing_is_kept_for_debuggers_that_cannot_come_and_a_kept_guest_ends_when_told() {
    let mut state = kept();
    assert_eq!(state.lost().unwrap(), [Output::Act(CRASH)]);
    let mut state = kept();
    attached(&mut state, CRASH);
    let outputs = state.lost().unwrap();
    assert_eq!(outputs.last(), Some(&Output::Act(CRASH)));
    let mut state = undebugged(KeepStopped::Crashes);
    state.lost().unwrap();
    assert_eq!(meets(&mut state, CRASH), [Output::Act(CRASH)]);
    let mut state = kept();
    let stopped = vmm_core_defs::stop::GuestEnd::Stopped;
    assert_eq!(state.shutdown().unwrap(), [Output::Exit(stopped)]);
}
