//! Applies every sequence of events up to a length, and compares the value with the one that follows from the history of events.

use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Reported,
    Forgotten,
    Decided(Option<ByteAtRip>, Others),
    Undecided,
    EmulationFailed,
    MayHaveMoved,
    Executed,
}

const LENGTH: usize = 5;

fn bytes() -> Vec<Option<ByteAtRip>> {
    let of = [ByteOf::ThisAddress, ByteOf::OtherAddress];
    let emulation = [Emulation::Possible, Emulation::Impossible];
    let pairs = of
        .into_iter()
        .flat_map(|of| emulation.map(|emulation| Some(ByteAtRip { of, emulation })));
    std::iter::once(None).chain(pairs).collect()
}

fn events() -> Vec<Event> {
    let decided = bytes().into_iter().flat_map(|byte| {
        [Others::Move, Others::StayParked].map(|others| Event::Decided(byte, others))
    });
    [
        Event::Reported,
        Event::Forgotten,
        Event::Undecided,
        Event::EmulationFailed,
        Event::MayHaveMoved,
        Event::Executed,
    ]
    .into_iter()
    .chain(decided)
    .collect()
}

fn apply(at: &mut AtBreakpoint, event: Event) {
    match event {
        Event::Reported => at.reported(),
        Event::Forgotten => at.forget(),
        Event::Decided(byte, others) => at.decide(byte, others),
        Event::Undecided => at.clear_decision(),
        Event::EmulationFailed => at.emulation_failed(),
        Event::MayHaveMoved => at.may_have_moved(),
        Event::Executed => at.executed(),
    }
}

/// Whether `event` came later than every event that ends its effect.
fn holds(history: &[Event], event: Event) -> bool {
    let last = |event| history.iter().rposition(|other| *other == event);
    let ended = [Event::Forgotten, Event::MayHaveMoved, Event::Executed].map(last);
    last(event).is_some_and(|at| ended.into_iter().flatten().all(|end| end < at))
}

/// How the next first instruction treats a breakpoint, as it follows from the history.
fn first_by(history: &[Event]) -> FirstInstruction {
    let decision = history
        .iter()
        .enumerate()
        .rev()
        .find_map(|(at, event)| match event {
            Event::Decided(byte, others) => Some((at, *byte, *others)),
            _ => None,
        });
    let Some((at, byte, others)) = decision else {
        return FirstInstruction::Meets;
    };
    let later = &history[at..];
    let over = [Event::Undecided, Event::Forgotten, Event::Executed];
    if over.into_iter().any(|event| later.contains(&event)) {
        return FirstInstruction::Meets;
    }
    let before = &history[..at];
    let reported = holds(before, Event::Reported);
    let failed = holds(before, Event::EmulationFailed);
    match byte {
        None if reported => FirstInstruction::Disarmed,
        Some(byte) if reported || byte.of == ByteOf::OtherAddress => match others {
            Others::StayParked => FirstInstruction::Lifted,
            Others::Move if byte.emulation == Emulation::Possible && !failed => {
                FirstInstruction::Emulated
            }
            Others::Move => FirstInstruction::OthersStopped,
        },
        None | Some(_) => FirstInstruction::Meets,
    }
}

fn walk(at: AtBreakpoint, history: &mut Vec<Event>, seen: &mut usize) {
    *seen += 1;
    assert_eq!(
        at.may_pass(),
        holds(history, Event::Reported),
        "{history:?}"
    );
    assert_eq!(at.first(), first_by(history), "{history:?}");
    let lifted = [FirstInstruction::Lifted, FirstInstruction::OthersStopped];
    assert_eq!(at.is_byte_lifted(), lifted.contains(&at.first()));
    if history.len() == LENGTH {
        return;
    }
    for event in events() {
        let mut next = at;
        apply(&mut next, event);
        history.push(event);
        walk(next, history, seen);
        history.pop();
    }
}

#[test]
fn a_vp_passes_what_was_reported_and_meets_the_rest_after_every_order_of_events() {
    let mut seen = 0;
    walk(AtBreakpoint::NEW, &mut Vec::new(), &mut seen);
    assert!(seen > 1_000_000, "only {seen} histories");
}
