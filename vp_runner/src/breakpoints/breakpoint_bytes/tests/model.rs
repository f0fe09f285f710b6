//! Random sequences of events, compared with a simple model.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::HashMap;

#[derive(Debug, Clone)]
enum Op {
    Insert(u64),
    Remove(u64),
    Lift(u64),
    Lower(u64),
    Verify,
    Clear,
    GuestWrites(u64, u8),
    DebuggerReads(u64, usize),
    DebuggerWrites(u64, Vec<u8>),
}

const LEN: usize = 24;
const SIZE: u64 = LEN as u64;
/// A range with a page boundary in its middle.
const START: u64 = 0x1000 - SIZE / 2;

fn op() -> impl Strategy<Value = Op> {
    let at = 0..SIZE;
    let byte = prop_oneof![any::<u8>(), Just(INT3), Just(0x90)];
    prop_oneof![
        4 => at.clone().prop_map(Op::Insert),
        3 => at.clone().prop_map(Op::Remove),
        2 => at.clone().prop_map(Op::Lift),
        2 => at.clone().prop_map(Op::Lower),
        1 => Just(Op::Verify),
        1 => (0..20_u8).prop_map(|n| if n == 0 { Op::Clear } else { Op::Verify }),
        4 => (at.clone(), byte.clone()).prop_map(|(at, byte)| Op::GuestWrites(at, byte)),
        2 => (at.clone(), 0..LEN).prop_map(|(at, len)| Op::DebuggerReads(at, len)),
        3 => (at, vec(byte, 0..9)).prop_map(|(at, data)| Op::DebuggerWrites(at, data)),
    ]
}

/// The simple model: the true byte at each address, and the references to each breakpoint byte.
struct Model {
    truth: Vec<u8>,
    references: HashMap<u64, usize>,
    lifted: Vec<u64>,
}

impl Model {
    fn armed(&self, at: u64) -> bool {
        self.references.contains_key(&at) && !self.lifted.contains(&at)
    }

    fn remove_byte(&mut self, at: u64) {
        self.references.remove(&at);
        self.lifted.retain(|other| *other != at);
    }
}

fn run(op: &Op, ram: &Ram, bytes: &mut BreakpointBytes, model: &mut Model) {
    let gpa = |at: &u64| Gpa::new(START + at);
    let index = |at: u64| usize::try_from(at).unwrap();
    match op {
        Op::Insert(at) => {
            bytes.insert(ram, gpa(at)).unwrap();
            *model.references.entry(*at).or_default() += 1;
        }
        Op::Remove(at) => {
            let removed = bytes.remove(ram, gpa(at));
            match model.references.get_mut(at) {
                None => assert!(removed.is_err()),
                Some(1) => {
                    assert_ne!(removed, Ok(Removed::StillReferenced));
                    model.remove_byte(*at);
                }
                Some(count) => {
                    assert_eq!(removed, Ok(Removed::StillReferenced));
                    *count -= 1;
                }
            }
        }
        Op::Lift(at) => {
            let known = model.references.contains_key(at);
            assert_eq!(bytes.lift(ram, gpa(at)).is_ok(), known);
            if known && !model.lifted.contains(at) {
                model.lifted.push(*at);
            }
        }
        Op::Lower(at) => {
            let known = model.references.contains_key(at);
            assert_eq!(bytes.lower(ram, gpa(at)).is_ok(), known);
            model.lifted.retain(|other| other != at);
        }
        Op::Verify => {
            let found = verify(bytes, ram);
            assert!(found.gone.is_empty());
            for found in &found.rearmed {
                let truth = model.truth[index(found.gpa.value() - START)];
                assert_eq!(found.now, truth);
            }
            for at in (0..SIZE).filter(|at| model.armed(*at)) {
                assert_eq!(ram.bytes()[index(at)], INT3, "armed again");
            }
        }
        Op::Clear => {
            assert_eq!(bytes.clear(ram), model.references.len());
            model.references.clear();
            model.lifted.clear();
            assert_eq!(ram.bytes(), model.truth);
        }
        Op::GuestWrites(at, byte) => {
            // This write cannot be detected; see the documentation of the module.
            if *byte != INT3 || !model.armed(*at) {
                ram.write_byte(gpa(at), *byte).unwrap();
                model.truth[index(*at)] = *byte;
            }
        }
        Op::DebuggerReads(at, len) => {
            let end = (index(*at) + len).min(model.truth.len());
            let mut data = ram.bytes()[index(*at)..end].to_vec();
            bytes.overlay_read(gpa(at), &mut data);
            assert_eq!(data, model.truth[index(*at)..end]);
        }
        Op::DebuggerWrites(at, data) => {
            let end = (index(*at) + data.len()).min(model.truth.len());
            let fits = end - index(*at);
            let written = bytes.overlay_write(gpa(at), data, |masked| {
                ram.bytes.borrow_mut()[index(*at)..end].copy_from_slice(&masked[..fits]);
                fits
            });
            assert_eq!(written, fits);
            model.truth[index(*at)..end].copy_from_slice(&data[..fits]);
        }
    }
}

proptest! {
    #[test]
    fn any_course_of_events_agrees_with_the_naive_model(
        bytes in vec(prop_oneof![any::<u8>(), Just(INT3)], LEN),
        ops in vec(op(), 1..60),
    ) {
        let ram = Ram::new(START, &bytes);
        let mut breakpoint_bytes = BreakpointBytes::default();
        let mut model = Model { truth: bytes, references: HashMap::new(), lifted: Vec::new() };
        for op in &ops {
            run(op, &ram, &mut breakpoint_bytes, &mut model);
            let mut seen = ram.bytes();
            breakpoint_bytes.overlay_read(Gpa::new(START), &mut seen);
            prop_assert_eq!(&seen, &model.truth, "after {:?}", op);
            prop_assert_eq!(count(&breakpoint_bytes), model.references.len());
            for at in 0..SIZE {
                prop_assert_eq!(breakpoint_bytes.is_armed(Gpa::new(START + at)), model.armed(at));
            }
        }
        breakpoint_bytes.clear(&ram);
        prop_assert_eq!(ram.bytes(), model.truth);
    }
}
