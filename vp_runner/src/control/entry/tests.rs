use super::*;
use crate::control::at_breakpoint::ByteAtRip;
use crate::control::at_breakpoint::ByteOf;
use crate::control::at_breakpoint::Emulation;
use crate::control::at_breakpoint::Others;
use std::num::NonZeroU64;

const VP: VpIndex = VpIndex::new(1);
const RANGE: VpAction = VpAction::StepRange {
    start: Gva::new(0x1000),
    end: Gva::new(0x1010),
};
const TWO: VpAction = VpAction::StepN {
    count: NonZeroU64::new(2).unwrap(),
};
const INSIDE: u64 = 0x1008;
const OUTSIDE: u64 = 0x1010;
const SLOT_2: Hits = 1 << 2;

const STEPPED: Cause = Cause::Debug(DebugStopReason::SingleStep { vp: VP });

/// The value of a VP that passes a breakpoint in this way.
fn passing(first: FirstInstruction) -> AtBreakpoint {
    let byte = |emulation| {
        let of = ByteOf::ThisAddress;
        Some(ByteAtRip { of, emulation })
    };
    let (byte, others) = match first {
        FirstInstruction::Meets => return AtBreakpoint::NEW,
        FirstInstruction::Disarmed => (None, Others::Move),
        FirstInstruction::Lifted => (byte(Emulation::Possible), Others::StayParked),
        FirstInstruction::Emulated => (byte(Emulation::Possible), Others::Move),
        FirstInstruction::OthersStopped => (byte(Emulation::Impossible), Others::Move),
    };
    let mut at = AtBreakpoint::NEW;
    at.reported();
    at.decide(byte, others);
    assert_eq!(at.first(), first);
    at
}

fn entry(action: VpAction, first: FirstInstruction) -> Entry {
    Entry::new(VP, action, passing(first), SLOT_2)
}

#[test]
fn an_executed_instruction_ends_what_was_asked_for_and_nothing_else() {
    use FirstInstruction::*;
    use VpAction::*;
    for (action, first, pc, ends) in [
        (Run, Meets, OUTSIDE, None),
        (Run, Disarmed, OUTSIDE, None),
        (Run, Lifted, OUTSIDE, None),
        (Run, Emulated, OUTSIDE, None),
        (Run, OthersStopped, OUTSIDE, Some(Cause::NotReported)),
        (Step, Meets, OUTSIDE, Some(STEPPED)),
        (Step, Emulated, OUTSIDE, Some(STEPPED)),
        (Step, OthersStopped, OUTSIDE, Some(STEPPED)),
        (TWO, Meets, OUTSIDE, None),
        (TWO, Emulated, OUTSIDE, None),
        (TWO, OthersStopped, OUTSIDE, Some(Cause::NotReported)),
        (RANGE, Meets, INSIDE, None),
        (RANGE, Meets, OUTSIDE, Some(STEPPED)),
        (RANGE, OthersStopped, INSIDE, Some(Cause::NotReported)),
        (RANGE, OthersStopped, OUTSIDE, Some(STEPPED)),
    ] {
        let mut entry = entry(action, first);
        let row = format!("{action:?} {first:?} {pc:#x}");
        assert_eq!(entry.executed(pc), ends, "{row}");
        assert_eq!(entry.at(), AtBreakpoint::NEW, "{row}");
        assert!(entry.passes_nothing(), "{row}");
    }
}

#[test]
fn what_is_out_of_the_way_is_so_for_one_instruction_that_is_stepped() {
    use FirstInstruction::*;
    for (first, disarmed, lifted) in [
        (Meets, 0, false),
        (Disarmed, SLOT_2, false),
        (Lifted, SLOT_2, true),
        (Emulated, SLOT_2, false),
        (OthersStopped, SLOT_2, true),
    ] {
        let mut entry = entry(VpAction::Run, first);
        assert_eq!(entry.disarmed(), disarmed, "{first:?}");
        assert_eq!(entry.is_byte_lifted(), lifted, "{first:?}");
        let stepping = match first {
            Meets => SingleStepping::Off,
            _ => SingleStepping::On,
        };
        assert_eq!(entry.stepping(), stepping, "{first:?}");
        let _ = entry.executed(INSIDE);
        assert_eq!(entry.stepping(), SingleStepping::Off, "{first:?}");
        entry.disarm(1);
        assert_eq!(
            (entry.disarmed(), entry.stepping()),
            (1, SingleStepping::On)
        );
    }
}

#[test]
fn a_vp_keeps_its_right_until_it_may_have_executed_something() {
    use FirstInstruction::*;
    for first in [Disarmed, Lifted, Emulated, OthersStopped] {
        let mut entry = entry(VpAction::Run, first);
        entry.enters_guest();
        assert!(entry.at().may_pass(), "{first:?}: kicked before it moved");
        entry.guest_exception_first();
        assert!(!entry.at().may_pass(), "{first:?}: a handler comes first");
        assert_eq!(entry.disarmed(), 0, "{first:?}");
        // The first instruction of the handler executes while the byte is still lifted.
        assert_eq!(
            entry.is_byte_lifted(),
            matches!(first, Lifted | OthersStopped)
        );
    }
    let mut event = entry(VpAction::Run, Disarmed);
    event.guest_event();
    assert!(!event.at().may_pass(), "an `out` has executed");
    let nothing_here = 0;
    let mut entry = Entry::new(VP, VpAction::Run, passing(Disarmed), nothing_here);
    entry.enters_guest();
    assert!(!entry.at().may_pass(), "there was nothing to pass");
}

#[test]
fn a_vp_that_waits_leaves_its_byte_or_says_that_it_did_nothing() {
    let mut waiting = entry(VpAction::Run, FirstInstruction::Lifted);
    waiting.leave_byte_in_place();
    assert!(!waiting.is_byte_lifted());
    for action in [VpAction::Run, VpAction::Step, RANGE] {
        let mut waiting = entry(action, FirstInstruction::OthersStopped);
        assert_eq!(waiting.vp_waits(), Some(Cause::NotReported));
        assert!(!waiting.is_byte_lifted());
    }
}

#[test]
fn hlt_ends_a_step_and_lets_a_run_wait() {
    use FirstInstruction::*;
    for (action, first, ends) in [
        (VpAction::Run, Meets, None),
        (VpAction::Run, Lifted, None),
        (VpAction::Run, OthersStopped, Some(Cause::NotReported)),
        (VpAction::Step, Meets, Some(STEPPED)),
        (TWO, Meets, Some(STEPPED)),
        (RANGE, Lifted, Some(STEPPED)),
    ] {
        let mut entry = entry(action, first);
        assert_eq!(entry.halted(), ends, "{action:?} {first:?}");
        // RIP is behind `hlt`. The VP has not hit a breakpoint there.
        assert!(!entry.at().may_pass() && entry.passes_nothing());
    }
}

#[test]
fn an_instruction_that_cannot_be_carried_out_is_executed_with_the_others_stopped() {
    let mut entry = entry(VpAction::Run, FirstInstruction::Emulated);
    assert_eq!(entry.emulation_failed(), Cause::NotReported);
    let mut at = entry.at();
    let byte = ByteAtRip {
        of: ByteOf::ThisAddress,
        emulation: Emulation::Possible,
    };
    at.decide(Some(byte), Others::Move);
    assert_eq!(at.first(), FirstInstruction::OthersStopped);
}

#[test]
fn the_clients_step_and_the_rest() {
    use FirstInstruction::*;
    for (action, first, steps, clients) in [
        (VpAction::Run, Disarmed, false, false),
        (VpAction::Run, OthersStopped, true, false),
        (VpAction::Step, Meets, true, true),
        (VpAction::Step, OthersStopped, true, false),
        (RANGE, Lifted, true, true),
    ] {
        let entry = entry(action, first);
        assert_eq!(entry.is_stepping(), steps, "{action:?} {first:?}");
        assert_eq!(entry.is_clients_step(), clients, "{action:?} {first:?}");
    }
}

#[test]
fn a_range_goes_on_inside_itself_unless_the_others_wait() {
    let ranges = |first, pc| entry(RANGE, first).goes_on_at(Gva::new(pc));
    assert!(ranges(FirstInstruction::Meets, INSIDE));
    assert!(!ranges(FirstInstruction::Meets, OUTSIDE));
    assert!(!ranges(FirstInstruction::OthersStopped, INSIDE));
    let run = entry(VpAction::Run, FirstInstruction::Meets);
    assert!(!run.goes_on_at(Gva::new(INSIDE)));
}

#[test]
fn each_instruction_counts_once_and_the_last_one_ends_the_steps() {
    let mut two = entry(TWO, FirstInstruction::Meets);
    assert!(two.goes_on_at(Gva::new(OUTSIDE)));
    assert_eq!((two.executed(OUTSIDE), two.steps()), (None, 1));
    assert!(
        !two.goes_on_at(Gva::new(INSIDE)),
        "the next one is the last"
    );
    assert_eq!((two.executed(INSIDE), two.steps()), (Some(STEPPED), 2));
    assert!(!entry(TWO, FirstInstruction::OthersStopped).goes_on_at(Gva::new(OUTSIDE)));
}

#[test]
fn hlt_counts_as_a_step_and_a_vp_that_waits_already_makes_none() {
    let mut halts = entry(TWO, FirstInstruction::Meets);
    assert_eq!((halts.halted(), halts.steps()), (Some(STEPPED), 1));
    let mut waits = entry(TWO, FirstInstruction::Meets);
    assert_eq!(
        (waits.nothing_to_execute(), waits.steps()),
        (Some(STEPPED), 0)
    );
}

#[test]
fn a_false_condition_counts_for_one_address_until_the_vp_may_have_moved() {
    let rip = Gva::new(INSIDE);
    let passes = || {
        let mut entry = entry(VpAction::Run, FirstInstruction::Meets);
        entry.condition_is_false(rip);
        assert!(entry.passes_at(rip) && !entry.passes_at(Gva::new(OUTSIDE)));
        assert!(entry.at().may_pass());
        entry
    };
    // The register is disarmed for the instruction there.
    let mut disarmed = passes();
    disarmed.disarm(SLOT_2);
    disarmed.enters_guest();
    assert!(disarmed.passes_at(rip));
    assert_eq!(disarmed.executed(INSIDE), None);
    let (mut enters, mut faults) = (passes(), passes());
    enters.enters_guest();
    faults.guest_exception_first();
    for entry in [disarmed, enters, faults] {
        assert!(!entry.passes_at(rip) && !entry.at().may_pass());
    }
}
