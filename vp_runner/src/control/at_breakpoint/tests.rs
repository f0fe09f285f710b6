//! Every order of events up to a length, against what the history of events says.

use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Reported,
    Forgotten,
    Decided(Option<ByteAtRip>, Others),
    Undecided,
    NotCarriedOut,
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
        Event::NotCarriedOut,
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
        Event::Undecided => at.undecided(),
        Event::NotCarriedOut => at.not_carried_out(),
        Event::MayHaveMoved => at.may_have_moved(),
        Event::Executed => at.executed(),
    }
}

/// Whether `what` came later than everything that ends it.
fn holds(history: &[Event], what: Event) -> bool {
    let last = |event| history.iter().rposition(|other| *other == event);
    let ended = [Event::Forgotten, Event::MayHaveMoved, Event::Executed].map(last);
    last(what).is_some_and(|at| ended.into_iter().flatten().all(|end| end < at))
}

/// What the history says of the next first instruction.
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
    let failed = holds(before, Event::NotCarriedOut);
    match byte {
        None if reported => FirstInstruction::Disarmed,
        Some(byte) if reported || byte.of == ByteOf::OtherAddress => match others {
            Others::StayParked => FirstInstruction::Lifted,
            Others::Move if byte.emulation == Emulation::Possible && !failed => {
                FirstInstruction::CarriedOut
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
