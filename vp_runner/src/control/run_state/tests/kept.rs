//! A guest that cannot go on while nobody debugs it, and is kept.

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

/// VP 1 meets the event while VP 0 is in the guest. What comes once both have parked.
fn meets(state: &mut RunState, event: GuestEvent) -> Vec<Output> {
    let epoch = state.epoch;
    let cause = Some(Cause::Guest(event));
    let outputs = state.parked(VP1, epoch, cause, MOVED).unwrap();
    assert_eq!(outputs, [Output::Kick(VP0)]);
    state.parked(VP0, epoch, None, MOVED).unwrap()
}

/// A guest that runs with nobody to debug it.
fn undebugged(keeps: Keeps) -> RunState {
    let mut state = running_with(keeps);
    let epoch = state.epoch;
    state.detach(DetachAction::Resume).unwrap();
    for vp in [VP0, VP1] {
        state.parked(vp, epoch, None, MOVED).unwrap();
    }
    state.programmed(&[]).unwrap();
    state
}

/// As [`undebugged`], and VP 1 crashed.
fn kept() -> RunState {
    let mut state = undebugged(Keeps::Crashes);
    assert_eq!(meets(&mut state, CRASH), [Output::Kept(CRASH)]);
    state
}

fn attached(state: &mut RunState, event: GuestEvent) {
    let (epoch, reason) = (state.epoch, event.reason());
    let attached = Output::Attached { epoch, reason };
    assert_eq!(state.attach().unwrap(), [attached]);
}

#[test]
fn what_is_kept_is_what_was_asked_for() {
    use Keeps::*;
    for (keeps, event, stays) in [
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
            true => Output::Kept(event),
            false => Output::Act(event),
        };
        let mut state = undebugged(keeps);
        assert_eq!(meets(&mut state, event), [wanted], "{keeps:?}");
    }
}

#[test]
fn the_first_debugger_is_told_of_the_crash_and_of_whose_it_is() {
    let mut state = kept();
    attached(&mut state, CRASH);
    assert_eq!(state.tell(VP1, alive), Ok(Some(CRASH.reason())));
    assert_eq!(state.tell(VP0, alive), Ok(None));
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
        let stays = [Output::Release, Output::Detached, Output::Kept(CRASH)];
        assert_eq!(outputs, stays, "{lost:?}");
        attached(&mut state, CRASH);
        let outputs = state.detach(DetachAction::Resume).unwrap();
        assert_eq!(outputs.last(), Some(&Output::Act(CRASH)), "{lost:?}");
    }
}

/// It saw the crash as it happened, and then it was lost.
#[test]
fn a_crash_under_a_debugger_that_is_lost_is_kept() {
    let mut state = running_with(Keeps::Crashes);
    let (epoch, reason) = (state.epoch, CRASH.reason());
    let told = [Output::Report { epoch, reason }];
    assert_eq!(meets(&mut state, CRASH), told);
    let outputs = state.detach(DetachAction::ResumeUnlessHeld).unwrap();
    assert_eq!(outputs.last(), Some(&Output::Kept(CRASH)));
    attached(&mut state, CRASH);
}

/// The crash comes while the VPs are brought to a stop for a `detach`: no debugger was told of it.
#[test]
fn a_crash_that_no_debugger_was_told_of_is_kept_though_one_detaches() {
    let mut state = running_with(Keeps::Crashes);
    let epoch = state.epoch;
    state.detach(DetachAction::Resume).unwrap();
    let cause = Some(Cause::Guest(CRASH));
    state.parked(VP1, epoch, cause, MOVED).unwrap();
    let outputs = state.parked(VP0, epoch, None, MOVED).unwrap();
    assert_eq!(outputs.last(), Some(&Output::Kept(CRASH)));
}

#[test]
fn a_guest_that_was_repaired_runs_and_its_second_crash_is_kept_again() {
    let mut state = kept();
    attached(&mut state, CRASH);
    state.repaired(VP1);
    let outputs = state.detach(DetachAction::Resume).unwrap();
    assert_eq!(outputs.last(), Some(&Output::Program));
    state.programmed(&[]).unwrap();
    assert_eq!(meets(&mut state, CRASH), [Output::Kept(CRASH)]);
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
    let mut state = undebugged(Keeps::Crashes);
    state.lost().unwrap();
    assert_eq!(meets(&mut state, CRASH), [Output::Act(CRASH)]);
    let mut state = kept();
    let stopped = vmm_core_defs::stop::GuestEnd::Stopped;
    assert_eq!(state.shutdown().unwrap(), [Output::Exit(stopped)]);
}
