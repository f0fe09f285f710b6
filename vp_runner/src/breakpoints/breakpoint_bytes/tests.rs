use super::*;
use std::cell::Cell;
use std::cell::RefCell;
use std::time::Duration;
use std::time::Instant;

mod model;

/// RAM from an address on, which counts what is done to it.
struct Ram {
    start: u64,
    bytes: RefCell<Vec<u8>>,
    accesses: Cell<usize>,
}

impl Ram {
    fn new(start: u64, bytes: &[u8]) -> Self {
        Self {
            start,
            bytes: RefCell::new(bytes.to_vec()),
            accesses: Cell::new(0),
        }
    }

    fn index(&self, gpa: Gpa) -> Option<usize> {
        self.accesses.set(self.accesses.get() + 1);
        let index = usize::try_from(gpa.value().checked_sub(self.start)?).ok()?;
        (index < self.bytes.borrow().len()).then_some(index)
    }

    fn bytes(&self) -> Vec<u8> {
        self.bytes.borrow().clone()
    }

    fn accesses_of(&self, work: impl FnOnce()) -> usize {
        let before = self.accesses.get();
        work();
        self.accesses.get() - before
    }
}

impl CodeMemory for Ram {
    fn read_byte(&self, gpa: Gpa) -> Option<u8> {
        self.index(gpa).map(|index| self.bytes.borrow()[index])
    }

    fn write_byte(&self, gpa: Gpa, byte: u8) -> Option<()> {
        self.index(gpa)
            .map(|index| self.bytes.borrow_mut()[index] = byte)
    }
}

const NOPS: [u8; 8] = [0x90; 8];

/// How many bytes are patched.
fn count(patches: &BreakpointBytes) -> usize {
    patches.patched(Gpa::new(0), 1 << 40).count()
}

/// Looks at every patch.
fn verify(patches: &mut BreakpointBytes, ram: &impl CodeMemory) -> Verified {
    patches.verify_within(ram, Gpa::new(0)..=Gpa::new(u64::MAX))
}

#[test]
fn a_byte_is_patched_once_and_restored_by_the_last_remove() {
    let ram = Ram::new(0, &NOPS);
    let mut patches = BreakpointBytes::default();
    let gpa = Gpa::new(3);
    patches.insert(&ram, gpa).unwrap();
    patches.insert(&ram, gpa).unwrap();
    assert_eq!((ram.bytes()[3], count(&patches)), (INT3, 1));
    assert_eq!(patches.remove(&ram, gpa), Ok(Removed::StillWanted));
    assert_eq!(ram.bytes()[3], INT3);
    assert_eq!(patches.remove(&ram, gpa), Ok(Removed::Restored));
    assert_eq!(ram.bytes(), NOPS);
    assert_eq!(
        patches.remove(&ram, gpa),
        Err(PatchError::NotPatched { gpa })
    );
}

#[test]
fn where_no_ram_is_nothing_is_kept() {
    let ram = Ram::new(0, &NOPS);
    let mut patches = BreakpointBytes::default();
    let gpa = Gpa::new(8);
    assert_eq!(patches.insert(&ram, gpa), Err(PatchError::NoMemory { gpa }));
    assert!(patches.is_empty());
}

#[test]
fn new_code_over_a_patch_is_armed_again_and_survives_its_removal() {
    let ram = Ram::new(0, &NOPS);
    let mut patches = BreakpointBytes::default();
    for gpa in [1, 2, 3] {
        patches.insert(&ram, Gpa::new(gpa)).unwrap();
    }
    // The same byte again at 1, another at 2, and 3 as it was.
    ram.write_byte(Gpa::new(1), 0x90).unwrap();
    ram.write_byte(Gpa::new(2), 0x55).unwrap();
    let mut seen = [0; 4];
    seen.copy_from_slice(&ram.bytes()[..4]);
    patches.overlay_read(Gpa::new(0), &mut seen);
    assert_eq!(seen, [0x90, 0x90, 0x55, 0x90], "before anyone has noticed");
    let rearmed = |gpa, now| Rearmed {
        gpa: Gpa::new(gpa),
        before: 0x90,
        now,
    };
    assert_eq!(
        verify(&mut patches, &ram).rearmed,
        [rearmed(1, 0x90), rearmed(2, 0x55)]
    );
    assert_eq!(ram.bytes()[..4], [0x90, INT3, INT3, INT3]);
    assert_eq!(verify(&mut patches, &ram), Verified::default());
    assert_eq!(patches.clear(&ram), 3);
    assert_eq!(ram.bytes()[..4], [0x90, 0x90, 0x55, 0x90]);
}

#[test]
fn removing_a_patch_leaves_the_byte_the_guest_wrote_over_it() {
    let ram = Ram::new(0, &NOPS);
    let mut patches = BreakpointBytes::default();
    patches.insert(&ram, Gpa::new(1)).unwrap();
    ram.write_byte(Gpa::new(1), 0x55).unwrap();
    assert_eq!(patches.remove(&ram, Gpa::new(1)), Ok(Removed::Overwritten));
    assert_eq!(ram.bytes()[1], 0x55);
}

#[test]
fn verifying_a_range_leaves_the_others() {
    let ram = Ram::new(0, &NOPS);
    let mut patches = BreakpointBytes::default();
    for gpa in [1, 4, 6] {
        patches.insert(&ram, Gpa::new(gpa)).unwrap();
        ram.write_byte(Gpa::new(gpa), 0x55).unwrap();
    }
    let found = patches.verify_within(&ram, Gpa::new(2)..=Gpa::new(4));
    assert_eq!(found.rearmed.len(), 1);
    assert_eq!(ram.bytes()[..7], [0x90, 0x55, 0x90, 0x90, INT3, 0x90, 0x55]);
    let (low, high) = (Gpa::new(2), Gpa::new(4));
    assert_eq!(patches.verify_within(&ram, high..=low), Verified::default());
}

#[test]
fn memory_that_went_away_is_said_to_be_gone() {
    let ram = Ram::new(0, &NOPS);
    let mut patches = BreakpointBytes::default();
    patches.insert(&ram, Gpa::new(7)).unwrap();
    ram.bytes.borrow_mut().pop();
    assert_eq!(verify(&mut patches, &ram).gone, [Gpa::new(7)]);
    assert_eq!(patches.remove(&ram, Gpa::new(7)), Ok(Removed::Gone));
}

#[test]
fn an_instruction_that_changes_itself_while_lifted_keeps_its_change() {
    let ram = Ram::new(0, &NOPS);
    let mut patches = BreakpointBytes::default();
    let gpa = Gpa::new(2);
    patches.insert(&ram, gpa).unwrap();
    patches.lift(&ram, gpa).unwrap();
    assert_eq!(ram.bytes(), NOPS);
    assert!(!patches.is_armed(gpa), "an INT3 met now is the guest's");
    assert_eq!(
        verify(&mut patches, &ram),
        Verified::default(),
        "it stays lifted"
    );
    assert_eq!(ram.bytes(), NOPS);
    ram.write_byte(gpa, 0x55).unwrap();
    patches.lower(&ram, gpa).unwrap();
    assert!(patches.is_armed(gpa));
    assert_eq!(ram.bytes()[2], INT3);
    patches.clear(&ram);
    assert_eq!(ram.bytes()[2], 0x55);
}

#[test]
fn removing_a_lifted_patch_leaves_memory_as_it_is() {
    // Its own INT3, so that what is in memory does not tell.
    let ram = Ram::new(0, &[INT3, 0x90]);
    let mut patches = BreakpointBytes::default();
    for gpa in [0, 1].map(Gpa::new) {
        patches.insert(&ram, gpa).unwrap();
        patches.lift(&ram, gpa).unwrap();
    }
    ram.write_byte(Gpa::new(1), INT3).unwrap();
    assert_eq!(patches.clear(&ram), 2);
    assert_eq!(ram.bytes(), [INT3, INT3]);
}

#[test]
fn a_write_that_got_half_way_saves_only_that_half() {
    let ram = Ram::new(0, &NOPS);
    let mut patches = BreakpointBytes::default();
    patches.insert(&ram, Gpa::new(1)).unwrap();
    patches.insert(&ram, Gpa::new(3)).unwrap();
    let written = patches.overlay_write(Gpa::new(0), &[1, 2, 3, 4], |data| {
        assert_eq!(data, [1, INT3, 3, INT3]);
        ram.bytes.borrow_mut()[..2].copy_from_slice(&data[..2]);
        2
    });
    assert_eq!(written, 2);
    patches.clear(&ram);
    assert_eq!(ram.bytes()[..4], [1, 2, 0x90, 0x90]);
}

#[test]
fn overlays_reach_both_sides_of_a_page_boundary_and_the_end_of_the_address_space() {
    for start in [0xffc, u64::MAX - 7] {
        let ram = Ram::new(start, &NOPS);
        let mut patches = BreakpointBytes::default();
        let at = |offset: u64| Gpa::new(start + offset);
        for offset in [3, 4, 7] {
            patches.insert(&ram, at(offset)).unwrap();
        }
        let mut data: [u8; 8] = ram.bytes().try_into().unwrap();
        assert_eq!(data.iter().filter(|byte| **byte == INT3).count(), 3);
        patches.overlay_read(at(0), &mut data);
        assert_eq!(data, NOPS);
        let inside: Vec<Gpa> = patches.patched(at(3), 4).collect();
        assert_eq!(inside, [at(3), at(4)]);
        assert_eq!(patches.patched(at(3), 0).count(), 0);
        patches.overlay_write(at(0), &[1; 8], |masked| {
            assert_eq!(masked, [1, 1, 1, INT3, INT3, 1, 1, INT3]);
            ram.bytes.borrow_mut().copy_from_slice(masked);
            8
        });
        patches.clear(&ram);
        assert_eq!(ram.bytes(), [1; 8]);
    }
}

const MANY: u64 = 10_000;
/// Not in the order of their addresses.
fn scattered(index: u64) -> Gpa {
    Gpa::new(index * 7919 % MANY * 16)
}

fn with(count: u64, ram: &Ram) -> BreakpointBytes {
    let mut patches = BreakpointBytes::default();
    for index in 0..count {
        patches.insert(ram, scattered(index)).unwrap();
    }
    patches
}

/// One pair of insert and remove; the best of many, so that a busy machine does not show.
fn best_pair(patches: &mut BreakpointBytes, ram: &Ram) -> Duration {
    let fresh = Gpa::new(MANY * 8 + 1);
    let pairs = 100;
    let round = || {
        let begun = Instant::now();
        for _ in 0..pairs {
            patches.insert(ram, fresh).unwrap();
            patches.remove(ram, fresh).unwrap();
        }
        begun.elapsed()
    };
    std::iter::repeat_with(round).take(50).min().unwrap()
}

#[test]
fn one_of_ten_thousand_costs_what_one_of_ten_costs() {
    let ram = Ram::new(0, &vec![0x90; 16 * usize::try_from(MANY).unwrap()]);
    let mut few = with(10, &ram);
    let fresh = Gpa::new(MANY * 8 + 1);
    let few_accesses = ram.accesses_of(|| {
        few.insert(&ram, fresh).unwrap();
        few.remove(&ram, fresh).unwrap();
    });
    let few_time = best_pair(&mut few, &ram);
    few.clear(&ram);

    let mut many = with(MANY, &ram);
    assert_eq!(count(&many) as u64, MANY);
    let many_accesses = ram.accesses_of(|| {
        many.insert(&ram, fresh).unwrap();
        many.remove(&ram, fresh).unwrap();
    });
    assert_eq!((few_accesses, many_accesses), (4, 4));
    let many_time = best_pair(&mut many, &ram);
    eprintln!("100 pairs: {few_time:?} with 10 patches, {many_time:?} with {MANY}");
    // The depth of the tree is 4 to 5 times as much; anything that passes over the table is 100 times as much and more.
    assert!(many_time < few_time * 20, "{few_time:?} {many_time:?}");
    // Nor does a read of one page look at the others.
    let mut page = vec![INT3; 16];
    many.overlay_read(Gpa::new(16), &mut page);
    assert_eq!(page[0], 0x90);
    assert_eq!(many.clear(&ram) as u64, MANY);
    assert!(ram.bytes().iter().all(|byte| *byte == 0x90));
}
