use super::*;
use std::cell::Cell;
use std::cell::RefCell;
use std::time::Duration;
use std::time::Instant;

mod model;

/// RAM that begins at an address and counts its accesses.
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

/// The number of breakpoint bytes.
fn count(bytes: &BreakpointBytes) -> usize {
    bytes.addresses_within(Gpa::new(0), 1 << 40).count()
}

/// Verifies every breakpoint byte.
fn verify(bytes: &mut BreakpointBytes, ram: &impl CodeMemory) -> Verified {
    bytes.verify_within(ram, Gpa::new(0)..=Gpa::new(u64::MAX))
}

#[test]
fn a_byte_is_patched_once_and_restored_by_the_last_remove() {
    let ram = Ram::new(0, &NOPS);
    let mut bytes = BreakpointBytes::default();
    let gpa = Gpa::new(3);
    bytes.insert(&ram, gpa).unwrap();
    bytes.insert(&ram, gpa).unwrap();
    assert_eq!((ram.bytes()[3], count(&bytes)), (INT3, 1));
    assert_eq!(bytes.remove(&ram, gpa), Ok(Removed::StillReferenced));
    assert_eq!(ram.bytes()[3], INT3);
    assert_eq!(bytes.remove(&ram, gpa), Ok(Removed::Restored));
    assert_eq!(ram.bytes(), NOPS);
    assert_eq!(bytes.remove(&ram, gpa), Err(ByteError::NoByte { gpa }));
}

#[test]
fn where_no_ram_is_nothing_is_kept() {
    let ram = Ram::new(0, &NOPS);
    let mut bytes = BreakpointBytes::default();
    let gpa = Gpa::new(8);
    assert_eq!(bytes.insert(&ram, gpa), Err(ByteError::NoMemory { gpa }));
    assert!(bytes.is_empty());
}

#[test]
fn new_code_over_a_patch_is_armed_again_and_survives_its_removal() {
    let ram = Ram::new(0, &NOPS);
    let mut bytes = BreakpointBytes::default();
    for gpa in [1, 2, 3] {
        bytes.insert(&ram, Gpa::new(gpa)).unwrap();
    }
    // The guest writes the same byte at 1 and another byte at 2, and does not write 3.
    ram.write_byte(Gpa::new(1), 0x90).unwrap();
    ram.write_byte(Gpa::new(2), 0x55).unwrap();
    let mut seen = [0; 4];
    seen.copy_from_slice(&ram.bytes()[..4]);
    bytes.overlay_read(Gpa::new(0), &mut seen);
    assert_eq!(seen, [0x90, 0x90, 0x55, 0x90], "before anyone has noticed");
    let rearmed = |gpa, now| Rearmed {
        gpa: Gpa::new(gpa),
        before: 0x90,
        now,
    };
    assert_eq!(
        verify(&mut bytes, &ram).rearmed,
        [rearmed(1, 0x90), rearmed(2, 0x55)]
    );
    assert_eq!(ram.bytes()[..4], [0x90, INT3, INT3, INT3]);
    assert_eq!(verify(&mut bytes, &ram), Verified::default());
    assert_eq!(bytes.clear(&ram), 3);
    assert_eq!(ram.bytes()[..4], [0x90, 0x90, 0x55, 0x90]);
}

#[test]
fn removing_a_patch_leaves_the_byte_the_guest_wrote_over_it() {
    let ram = Ram::new(0, &NOPS);
    let mut bytes = BreakpointBytes::default();
    bytes.insert(&ram, Gpa::new(1)).unwrap();
    ram.write_byte(Gpa::new(1), 0x55).unwrap();
    assert_eq!(bytes.remove(&ram, Gpa::new(1)), Ok(Removed::Overwritten));
    assert_eq!(ram.bytes()[1], 0x55);
}

#[test]
fn verifying_a_range_leaves_the_others() {
    let ram = Ram::new(0, &NOPS);
    let mut bytes = BreakpointBytes::default();
    for gpa in [1, 4, 6] {
        bytes.insert(&ram, Gpa::new(gpa)).unwrap();
        ram.write_byte(Gpa::new(gpa), 0x55).unwrap();
    }
    let found = bytes.verify_within(&ram, Gpa::new(2)..=Gpa::new(4));
    assert_eq!(found.rearmed.len(), 1);
    assert_eq!(ram.bytes()[..7], [0x90, 0x55, 0x90, 0x90, INT3, 0x90, 0x55]);
    let (low, high) = (Gpa::new(2), Gpa::new(4));
    assert_eq!(bytes.verify_within(&ram, high..=low), Verified::default());
}

#[test]
fn memory_that_went_away_is_said_to_be_gone() {
    let ram = Ram::new(0, &NOPS);
    let mut bytes = BreakpointBytes::default();
    bytes.insert(&ram, Gpa::new(7)).unwrap();
    ram.bytes.borrow_mut().pop();
    assert_eq!(verify(&mut bytes, &ram).gone, [Gpa::new(7)]);
    assert_eq!(bytes.remove(&ram, Gpa::new(7)), Ok(Removed::Gone));
}

#[test]
fn memory_that_goes_away_and_comes_back_never_keeps_a_breakpoint_byte() {
    let ram = Ram::new(0, &NOPS);
    let mut bytes = BreakpointBytes::default();
    for gpa in [1, 2, 5] {
        bytes.insert(&ram, Gpa::new(gpa)).unwrap();
    }
    bytes.withdraw_within(&ram, Gpa::new(0)..=Gpa::new(3));
    assert_eq!(ram.bytes()[..6], [0x90, 0x90, 0x90, 0x90, 0x90, INT3]);
    // The memory is away now. A snapshot begins and ends meanwhile, and another breakpoint byte is removed.
    let away = Ram::new(4, &ram.bytes()[4..]);
    bytes.quiesce(&away);
    bytes.unquiesce(&away);
    assert_eq!(bytes.remove(&away, Gpa::new(1)), Ok(Removed::Gone));
    assert_eq!(away.bytes(), [0x90, INT3, 0x90, 0x90]);
    // The memory is back.
    let rearmed = verify(&mut bytes, &ram).rearmed;
    assert_eq!(rearmed.len(), 1);
    assert_eq!(ram.bytes()[..6], [0x90, 0x90, INT3, 0x90, 0x90, INT3]);
    bytes.clear(&ram);
    assert_eq!(ram.bytes(), NOPS);
}

#[test]
fn a_lifted_byte_whose_memory_was_away_is_armed_when_the_memory_is_back() {
    let ram = Ram::new(0, &NOPS);
    let mut bytes = BreakpointBytes::default();
    let gpa = Gpa::new(1);
    bytes.insert(&ram, gpa).unwrap();
    bytes.lift(&ram, gpa).unwrap();
    let away = Ram::new(4, &NOPS);
    assert_eq!(bytes.lower(&away, gpa), Err(ByteError::NoMemory { gpa }));
    assert_eq!(verify(&mut bytes, &ram).rearmed.len(), 1);
    assert_eq!(ram.bytes()[1], INT3);
}

#[test]
fn an_instruction_that_changes_itself_while_lifted_keeps_its_change() {
    let ram = Ram::new(0, &NOPS);
    let mut bytes = BreakpointBytes::default();
    let gpa = Gpa::new(2);
    bytes.insert(&ram, gpa).unwrap();
    bytes.lift(&ram, gpa).unwrap();
    assert_eq!(ram.bytes(), NOPS);
    assert!(!bytes.is_armed(gpa), "an INT3 met now is the guest's");
    assert_eq!(
        verify(&mut bytes, &ram),
        Verified::default(),
        "it stays lifted"
    );
    assert_eq!(ram.bytes(), NOPS);
    ram.write_byte(gpa, 0x55).unwrap();
    bytes.lower(&ram, gpa).unwrap();
    assert!(bytes.is_armed(gpa));
    assert_eq!(ram.bytes()[2], INT3);
    bytes.clear(&ram);
    assert_eq!(ram.bytes()[2], 0x55);
}

#[test]
fn removing_a_lifted_patch_leaves_memory_as_it_is() {
    // The guest writes an INT3 of its own, which looks like the breakpoint byte.
    let ram = Ram::new(0, &[INT3, 0x90]);
    let mut bytes = BreakpointBytes::default();
    for gpa in [0, 1].map(Gpa::new) {
        bytes.insert(&ram, gpa).unwrap();
        bytes.lift(&ram, gpa).unwrap();
    }
    ram.write_byte(Gpa::new(1), INT3).unwrap();
    assert_eq!(bytes.clear(&ram), 2);
    assert_eq!(ram.bytes(), [INT3, INT3]);
}

#[test]
fn a_write_that_got_half_way_saves_only_that_half() {
    let ram = Ram::new(0, &NOPS);
    let mut bytes = BreakpointBytes::default();
    bytes.insert(&ram, Gpa::new(1)).unwrap();
    bytes.insert(&ram, Gpa::new(3)).unwrap();
    let written = bytes.overlay_write(Gpa::new(0), &[1, 2, 3, 4], |data| {
        assert_eq!(data, [1, INT3, 3, INT3]);
        ram.bytes.borrow_mut()[..2].copy_from_slice(&data[..2]);
        2
    });
    assert_eq!(written, 2);
    bytes.clear(&ram);
    assert_eq!(ram.bytes()[..4], [1, 2, 0x90, 0x90]);
}

#[test]
fn overlays_reach_both_sides_of_a_page_boundary_and_the_end_of_the_address_space() {
    for start in [0xffc, u64::MAX - 7] {
        let ram = Ram::new(start, &NOPS);
        let mut bytes = BreakpointBytes::default();
        let at = |offset: u64| Gpa::new(start + offset);
        for offset in [3, 4, 7] {
            bytes.insert(&ram, at(offset)).unwrap();
        }
        let mut data: [u8; 8] = ram.bytes().try_into().unwrap();
        assert_eq!(data.iter().filter(|byte| **byte == INT3).count(), 3);
        bytes.overlay_read(at(0), &mut data);
        assert_eq!(data, NOPS);
        let inside: Vec<Gpa> = bytes.addresses_within(at(3), 4).collect();
        assert_eq!(inside, [at(3), at(4)]);
        assert_eq!(bytes.addresses_within(at(3), 0).count(), 0);
        bytes.overlay_write(at(0), &[1; 8], |masked| {
            assert_eq!(masked, [1, 1, 1, INT3, INT3, 1, 1, INT3]);
            ram.bytes.borrow_mut().copy_from_slice(masked);
            8
        });
        bytes.clear(&ram);
        assert_eq!(ram.bytes(), [1; 8]);
    }
}

const MANY: u64 = 10_000;
/// Addresses, not in ascending order.
fn scattered(index: u64) -> Gpa {
    Gpa::new(index * 7919 % MANY * 16)
}

fn with(count: u64, ram: &Ram) -> BreakpointBytes {
    let mut bytes = BreakpointBytes::default();
    for index in 0..count {
        bytes.insert(ram, scattered(index)).unwrap();
    }
    bytes
}

/// The time of one insert and one remove: the shortest of many, so that other load on the machine has no effect.
fn best_pair(bytes: &mut BreakpointBytes, ram: &Ram) -> Duration {
    let fresh = Gpa::new(MANY * 8 + 1);
    let pairs = 100;
    let round = || {
        let begun = Instant::now();
        for _ in 0..pairs {
            bytes.insert(ram, fresh).unwrap();
            bytes.remove(ram, fresh).unwrap();
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
    eprintln!("100 pairs: {few_time:?} with 10 bytes, {many_time:?} with {MANY}");
    // The depth of the tree grows 4 to 5 times. A scan of the whole table would grow 100 times or more.
    assert!(many_time < few_time * 20, "{few_time:?} {many_time:?}");
    // A read of one page does not visit the breakpoint bytes of other pages.
    let mut page = vec![INT3; 16];
    many.overlay_read(Gpa::new(16), &mut page);
    assert_eq!(page[0], 0x90);
    assert_eq!(many.clear(&ram) as u64, MANY);
    assert!(ram.bytes().iter().all(|byte| *byte == 0x90));
}

#[test]
fn a_quiesced_guest_has_no_breakpoint_byte_whatever_a_debugger_does_meanwhile() {
    let ram = Ram::new(0, &NOPS);
    let mut bytes = BreakpointBytes::default();
    let at = Gpa::new;
    for gpa in [1, 2, 3, 4] {
        bytes.insert(&ram, at(gpa)).unwrap();
    }
    bytes.lift(&ram, at(4)).unwrap();
    bytes.quiesce(&ram);
    bytes.quiesce(&ram);
    assert_eq!(ram.bytes(), NOPS);
    bytes.insert(&ram, at(5)).unwrap();
    assert_eq!(bytes.remove(&ram, at(1)), Ok(Removed::Restored));
    bytes.lift(&ram, at(2)).unwrap();
    bytes.lower(&ram, at(2)).unwrap();
    bytes.lower(&ram, at(4)).unwrap();
    assert_eq!(verify(&mut bytes, &ram), Verified::default());
    assert!(!bytes.is_any_overwritten(&ram));
    let write = |piece: &[u8]| {
        for (index, byte) in piece.iter().enumerate() {
            ram.write_byte(at(3 + index as u64), *byte).unwrap();
        }
        piece.len()
    };
    assert_eq!(bytes.overlay_write(at(3), &[0xf8], write), 1);
    let guests = [0x90, 0x90, 0x90, 0xf8, 0x90, 0x90, 0x90, 0x90];
    assert_eq!(ram.bytes(), guests);
    bytes.unquiesce(&ram);
    assert_eq!(ram.bytes(), guests, "one holder is left");
    bytes.unquiesce(&ram);
    let armed = [0x90, 0x90, INT3, INT3, INT3, INT3, 0x90, 0x90];
    assert_eq!(ram.bytes(), armed);
    let mut shown = ram.bytes();
    bytes.overlay_read(at(0), &mut shown);
    assert_eq!(shown, guests);
    assert_eq!(bytes.clear(&ram), 4);
    assert_eq!(ram.bytes(), guests);
}

#[test]
fn an_int3_of_the_guests_own_is_kept_over_a_quiesce() {
    let ram = Ram::new(0, &[INT3; 2]);
    let mut bytes = BreakpointBytes::default();
    bytes.insert(&ram, Gpa::new(0)).unwrap();
    bytes.quiesce(&ram);
    assert_eq!(ram.bytes(), [INT3; 2]);
    let mut shown = ram.bytes();
    bytes.overlay_read(Gpa::new(0), &mut shown);
    assert_eq!(shown, [INT3; 2]);
    bytes.clear(&ram);
    bytes.unquiesce(&ram);
    assert_eq!(ram.bytes(), [INT3; 2]);
}
