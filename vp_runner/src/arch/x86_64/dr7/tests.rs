use super::*;
use proptest::prelude::*;

fn breakpoint(kind: BreakpointKind, address: u64, len: u64) -> Breakpoint {
    Breakpoint {
        kind,
        address: Gva::new(address),
        len,
    }
}

fn slot(kind: BreakpointKind, address: u64, len: u64) -> Slot {
    Slot::new(&breakpoint(kind, address, len)).unwrap()
}

/// The table of the SDM. A common error is a swapped encoding, such as that of a write watchpoint and of an I/O breakpoint.
#[test]
fn each_kind_and_length_has_the_manuals_encoding_in_each_slot() {
    use BreakpointKind::*;
    let table = [
        (Software, 1, 0b0000),
        (Execute, 1, 0b0000),
        (Execute, 15, 0b0000),
        (Write, 1, 0b0001),
        (Write, 2, 0b0101),
        (Write, 4, 0b1101),
        (Write, 8, 0b1001),
        (Read, 1, 0b0011),
        (ReadWrite, 1, 0b0011),
        (ReadWrite, 2, 0b0111),
        (ReadWrite, 4, 0b1111),
        (ReadWrite, 8, 0b1011),
    ];
    for (kind, len, condition) in table {
        for n in 0..SLOTS {
            let mut slots = [None; SLOTS];
            slots[n] = Some(slot(kind, 0x1000, len));
            let expected = 0x600 | 2 << (2 * n) | condition << (16 + 4 * n);
            assert_eq!(encode(&slots), expected, "{kind:?} {len} in slot {n}");
        }
    }
}

#[test]
fn nothing_enabled_is_the_reset_value() {
    assert_eq!(encode(&[None; SLOTS]), 0x400);
}

#[test]
fn lengths_that_no_register_watches_are_refused() {
    for len in [0, 3, 5, 6, 7, 9, 16, 1 << 63, u64::MAX] {
        let asked = breakpoint(BreakpointKind::Write, 0x1000, len);
        assert_eq!(
            Slot::new(&asked),
            Err(DebugError::BadBreakpoint {
                address: asked.address,
                len
            })
        );
    }
}

#[test]
fn a_local_enable_counts_as_much_as_a_global_one() {
    let db = [0x10, 0x20, 0x30, 0x40];
    let decoded = decode(&db, 0b01 | 0b10 << 2);
    assert_eq!(decoded[0].unwrap().address(), Gva::new(0x10));
    assert_eq!(decoded[1].unwrap().address(), Gva::new(0x20));
    assert_eq!(decoded[2], None);
}

#[test]
fn a_guests_io_breakpoint_is_decoded_as_one() {
    let decoded = decode(&[0x3f8, 0, 0, 0], 0x400 | 1 | 0b0010 << 16);
    assert_eq!(decoded[0].unwrap().access(), Access::Io);
}

#[test]
fn dr6_tells_a_step_from_an_access_to_the_debug_registers() {
    // The two values that a KVM has reported: a step, and slot 0 alone.
    assert!(Dr6(0xffff_4ff0).single_step());
    assert!(!Dr6(0xffff_0ff1).single_step());
    assert!(Dr6(0xffff_2ff0).debug_register_access());
    assert!(!Dr6(0xffff_4ff0).debug_register_access());
}

/// KVM delivers a `#DB` of its own in this way (SDM volume 3, "Debug Status Register (DR6)").
#[test]
fn dr6_is_written_in_its_breakpoint_bits_and_added_to_in_the_rest() {
    const RESET: u64 = 0xffff_0ff0;
    let table = [
        (RESET, 0, RESET),
        (RESET, 0b10, 0xffff_0ff2),
        // B0-3 are those of this exception. BS, BD and BT stay until the guest clears them.
        (0xffff_4ff5, 0b10, 0xffff_4ff2),
        (0xffff_2ff0, 1 << 14, 0xffff_6ff0),
        // The guest wrote zeros, also to reserved bits. Bit 12 never reads as one.
        (0, 1, 0xffff_0ff1),
        (0x1000, 0, RESET),
        // A bus lock and a transaction clear their bits.
        (RESET, 1 << 11, 0xffff_07f0),
        (RESET, 1 << 16, 0xfffe_0ff0),
    ];
    for (before, payload, after) in table {
        let delivered = DebugPayload(payload).deliver(before);
        assert_eq!(delivered, after, "{before:#x} {payload:#x}");
    }
    assert_eq!(Dr6(0xffff_2ff1).others(), DebugPayload(1 << 13));
    assert_eq!(Dr6(0xfffe_47f1).others(), DebugPayload(1 << 11 | 1 << 16));
    assert!(Dr6(0xffff_4fff).others().is_empty());
}

#[test]
fn an_access_that_meets_one_meets_another_that_watches_all_of_it_for_as_much() {
    use BreakpointKind::*;
    let table = [
        ((Write, 0x1000, 4), (Write, 0x1000, 4), true),
        ((Write, 0x1000, 8), (Write, 0x1004, 2), true),
        ((ReadWrite, 0x1000, 8), (Write, 0x1006, 2), true),
        ((ReadWrite, 0x1000, 4), (ReadWrite, 0x1003, 1), true),
        // The access may have been to the other byte, of another kind, or elsewhere.
        ((Write, 0x1004, 2), (Write, 0x1000, 8), false),
        ((Write, 0x1000, 4), (ReadWrite, 0x1000, 4), false),
        ((Write, 0x1000, 4), (Write, 0x1004, 4), false),
        ((Execute, 0x1000, 1), (Execute, 0x1000, 1), false),
        ((Write, 0x1000, 1), (Execute, 0x1000, 1), false),
    ];
    for (this, other, met) in table {
        let [this, other] = [this, other].map(|(kind, address, len)| slot(kind, address, len));
        assert_eq!(this.is_met_with(&other), met, "{this:?} {other:?}");
    }
}

fn any_kind() -> impl Strategy<Value = BreakpointKind> {
    prop_oneof![
        Just(BreakpointKind::Software),
        Just(BreakpointKind::Execute),
        Just(BreakpointKind::Write),
        Just(BreakpointKind::Read),
        Just(BreakpointKind::ReadWrite),
    ]
}

fn any_slot() -> impl Strategy<Value = Slot> {
    (
        any_kind(),
        any::<u64>(),
        prop_oneof![Just(1u64), Just(2), Just(4), Just(8)],
    )
        .prop_map(|(kind, address, len)| slot(kind, address & !(len - 1), len))
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(slots in prop::array::uniform4(prop::option::of(any_slot()))) {
        let db = slots.map(|slot| slot.map_or(0xdead, |slot| slot.address().value()));
        prop_assert_eq!(decode(&db, encode(&slots)), slots);
    }

    #[test]
    fn only_aligned_watchpoints_of_legal_length_are_accepted(
        kind in any_kind(),
        address in any::<u64>(),
        len in prop_oneof![0u64..20, any::<u64>()],
    ) {
        let legal = !kind.is_watchpoint()
            || (matches!(len, 1 | 2 | 4 | 8) && address % len == 0);
        prop_assert_eq!(Slot::new(&breakpoint(kind, address, len)).is_ok(), legal);
    }

    #[test]
    fn any_guest_dr7_decodes_to_slots_that_match_the_same_bytes(
        db in prop::array::uniform4(any::<u64>()),
        dr7 in any::<u64>(),
    ) {
        let decoded = decode(&db, dr7);
        let again = decode(&decoded.map(|s| s.map_or(0, |s| s.address().value())), encode(&decoded));
        prop_assert_eq!(again, decoded);
    }
}
