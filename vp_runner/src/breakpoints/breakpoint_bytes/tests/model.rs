//! Random courses of events against a naive model.

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
/// In the middle of it a page ends.
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

/// The naive model: what every byte would be without us, and who wants a patch where.
struct Model {
    truth: Vec<u8>,
    wanted: HashMap<u64, usize>,
    lifted: Vec<u64>,
}

impl Model {
    fn armed(&self, at: u64) -> bool {
        self.wanted.contains_key(&at) && !self.lifted.contains(&at)
    }

    fn drop_patch(&mut self, at: u64) {
        self.wanted.remove(&at);
        self.lifted.retain(|other| *other != at);
    }
}

fn run(op: &Op, ram: &Ram, patches: &mut BreakpointBytes, model: &mut Model) {
    let gpa = |at: &u64| Gpa::new(START + at);
    let index = |at: u64| usize::try_from(at).unwrap();
    match op {
        Op::Insert(at) => {
            patches.insert(ram, gpa(at)).unwrap();
            *model.wanted.entry(*at).or_default() += 1;
        }
        Op::Remove(at) => {
            let removed = patches.remove(ram, gpa(at));
            match model.wanted.get_mut(at) {
                None => assert!(removed.is_err()),
                Some(1) => {
                    assert_ne!(removed, Ok(Removed::StillWanted));
                    model.drop_patch(*at);
                }
                Some(count) => {
                    assert_eq!(removed, Ok(Removed::StillWanted));
                    *count -= 1;
                }
            }
        }
        Op::Lift(at) => {
            let known = model.wanted.contains_key(at);
            assert_eq!(patches.lift(ram, gpa(at)).is_ok(), known);
            if known && !model.lifted.contains(at) {
                model.lifted.push(*at);
            }
        }
        Op::Lower(at) => {
            let known = model.wanted.contains_key(at);
            assert_eq!(patches.lower(ram, gpa(at)).is_ok(), known);
            model.lifted.retain(|other| other != at);
        }
        Op::Verify => {
            let found = verify(patches, ram);
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
            assert_eq!(patches.clear(ram), model.wanted.len());
            model.wanted.clear();
            model.lifted.clear();
            assert_eq!(ram.bytes(), model.truth);
        }
        Op::GuestWrites(at, byte) => {
            // The one thing that cannot be noticed; see the module's text.
            if *byte != INT3 || !model.armed(*at) {
                ram.write_byte(gpa(at), *byte).unwrap();
                model.truth[index(*at)] = *byte;
            }
        }
        Op::DebuggerReads(at, len) => {
            let end = (index(*at) + len).min(model.truth.len());
            let mut data = ram.bytes()[index(*at)..end].to_vec();
            patches.overlay_read(gpa(at), &mut data);
            assert_eq!(data, model.truth[index(*at)..end]);
        }
        Op::DebuggerWrites(at, data) => {
            let end = (index(*at) + data.len()).min(model.truth.len());
            let fits = end - index(*at);
            let written = patches.overlay_write(gpa(at), data, |masked| {
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
        let mut patches = BreakpointBytes::default();
        let mut model = Model { truth: bytes, wanted: HashMap::new(), lifted: Vec::new() };
        for op in &ops {
            run(op, &ram, &mut patches, &mut model);
            let mut seen = ram.bytes();
            patches.overlay_read(Gpa::new(START), &mut seen);
            prop_assert_eq!(&seen, &model.truth, "after {:?}", op);
            prop_assert_eq!(count(&patches), model.wanted.len());
            for at in 0..SIZE {
                prop_assert_eq!(patches.is_armed(Gpa::new(START + at)), model.armed(at));
            }
        }
        patches.clear(&ram);
        prop_assert_eq!(ram.bytes(), model.truth);
    }
}
