//! Sharing of registers: no breakpoint is lost, and each hit is reported to its owner by the owner's number.

use super::*;
use proptest::prelude::*;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::breakpoint::BreakpointKind;

fn slot(kind: BreakpointKind, address: u64) -> Slot {
    let address = Gva::new(address);
    let len = 1;
    Slot::new(&Breakpoint { kind, address, len }).unwrap()
}

fn guest(slots: Slots) -> GuestRegisters {
    GuestRegisters {
        db: slots.map(|slot| slot.map_or(0, |slot| slot.address().value())),
        dr7: dr7::encode(&slots),
    }
}

/// Each breakpoint has its own address.
fn some(of: u64) -> impl Strategy<Value = Slots> {
    prop::array::uniform4(any::<bool>()).prop_map(move |on| {
        std::array::from_fn(|n| {
            let kind = match n % 2 {
                0 => BreakpointKind::Execute,
                _ => BreakpointKind::Write,
            };
            on[n].then(|| slot(kind, of + n as u64))
        })
    })
}

proptest! {
    #[test]
    fn both_sets_are_in_it_or_there_is_no_room(ours in some(0x1000), guests in some(0x2000)) {
        let count = |slots: &Slots| slots.iter().flatten().count();
        let both = DebugRegisters::share(&ours, &guest(guests));
        if count(&ours) > 0 && count(&ours) + count(&guests) > SLOTS {
            prop_assert_eq!(both, Err(NoRoom));
            return Ok(());
        }
        let both = both.unwrap();
        let Some((db, dr7)) = both.programmed() else {
            prop_assert_eq!(count(&ours), 0, "KVM is left to the guest's");
            return Ok(());
        };
        let programmed = dr7::decode(&db, dr7);
        for n in 0..SLOTS {
            prop_assert!(ours[n].is_none() || programmed[n] == ours[n]);
            let dr6 = Dr6(1 << n);
            match both.ours(dr6) {
                Some(index) => prop_assert_eq!((index, programmed[n]), (n, ours[n])),
                None => prop_assert!(ours[n].is_none()),
            }
        }
        for (n, wanted) in guests.into_iter().enumerate() {
            let Some(wanted) = wanted else { continue };
            let at = programmed.iter().position(|slot| *slot == Some(wanted)).unwrap();
            prop_assert_eq!(both.guests(Dr6(1 << at)), 1 << n);
        }
        // All of them are hit at the same time.
        let all = guests.iter().enumerate().filter(|(_, slot)| slot.is_some());
        prop_assert_eq!(both.guests(Dr6(0xf)), all.fold(0, |bits, (n, _)| bits | 1 << n));
    }
}

proptest! {
    #[test]
    fn a_trap_that_must_be_there_is_whatever_else_is(
        ours in some(0x1000),
        guests in some(0x2000),
        trap in 0x1000..0x1004_u64,
    ) {
        let Ok(both) = DebugRegisters::share(&ours, &guest(guests)) else {
            return Ok(());
        };
        let count = |registers: &DebugRegisters| registers.used.iter().flatten().count();
        let guests_in = |registers: &DebugRegisters| registers.guests(Dr6(0xf)).count_ones();
        let with = both.with_forced_trap(Gva::new(0), Gva::new(trap));
        prop_assert!(with.executes_at(Gva::new(trap)));
        // The breakpoints that were not replaced are still in their registers.
        let new = u32::from(!both.executes_at(Gva::new(trap)));
        let full = count(&both) == SLOTS;
        prop_assert_eq!(count(&with), if full { SLOTS } else { count(&both) + new as usize });
        let none_of_ours = guests_in(&both) == 4;
        let lost = u32::from(full && none_of_ours && new == 1);
        prop_assert_eq!(guests_in(&with), guests_in(&both) - lost);
    }
}

#[test]
fn the_guests_own_breakpoint_is_left_out_where_it_is_passed_and_nowhere_else() {
    let execute = |address| Some(slot(BreakpointKind::Execute, address));
    let write = Some(slot(BreakpointKind::Write, 0x1000));
    let guest = guest([execute(0x1000), execute(0x2000), write, None]);
    let registers = DebugRegisters::of_guest(&guest);
    let left = registers.without_execution_at(Gva::new(0x1000));
    assert_eq!(left.guests(Dr6(0xf)), 0b110);
    assert_eq!(left.without_execution_at(Gva::new(0x3000)), left);
}

#[test]
fn the_breakpoint_that_the_step_is_to_meet_makes_no_room_for_a_trap() {
    let execute = |address| Some(slot(BreakpointKind::Execute, address));
    let ours = [0x1000, 0x2000, 0x3000, 0x4000].map(execute);
    let all = DebugRegisters::share(&ours, &guest([None; SLOTS])).unwrap();
    let traps = [0x5000, 0x6000, 0x7000, 0x8000].map(Gva::new);
    for rip in [0x1000, 0x2000, 0x3000, 0x4000].map(Gva::new) {
        let with = all.with_traps(rip, traps.into_iter());
        assert!(with.executes_at(rip), "{rip}");
        let placed = traps.into_iter().filter(|at| with.executes_at(*at));
        assert_eq!(placed.count(), 3, "{rip}");
    }
}

#[test]
fn a_breakpoint_where_a_trap_is_wanted_makes_no_room_for_a_later_trap() {
    let handler = Gva::new(0x1000);
    let ours = slot(BreakpointKind::Execute, handler.value());
    let ours = [Some(ours), None, None, None];
    let registers = DebugRegisters::share(&ours, &guest([None; SLOTS])).unwrap();
    let traps = [0x5000, 0x1000, 0x6000, 0x7000, 0x8000].map(Gva::new);
    let with = registers.with_traps(Gva::new(0), traps.into_iter());
    assert_eq!(with.ours(Dr6(0xf)), Some(0));
    let placed = traps.map(|at| with.executes_at(at));
    assert_eq!(placed, [true, true, true, true, false]);
}

#[test]
fn what_the_guest_has_let_go_or_changed_fires_for_nobody() {
    let execute = |address| Some(slot(BreakpointKind::Execute, address));
    let ours = [execute(0x1000), None, None, None];
    let then = guest([None, execute(0x2000), execute(0x3000), execute(0x4000)]);
    let now = guest([None, execute(0x2000), execute(0x3008), None]);
    let shared = DebugRegisters::share(&ours, &then).unwrap();
    assert_eq!(shared.guests(Dr6(0xf)), 0b1110);
    let shared = shared.as_of(&now);
    assert_eq!(shared.guests(Dr6(0xf)), 0b0010);
    assert_eq!(shared.ours(Dr6(0xf)), Some(0));
}

#[test]
fn a_register_of_the_guests_keeps_its_number_where_ours_leave_it() {
    let ours = [
        None,
        Some(slot(BreakpointKind::Execute, 0x1000)),
        None,
        None,
    ];
    let wanted = |address| Some(slot(BreakpointKind::Write, address));
    let theirs = guest([None, wanted(0x2000), None, wanted(0x3000)]);
    let shared = DebugRegisters::share(&ours, &theirs).unwrap();
    let (db, _) = shared.programmed().unwrap();
    assert_eq!(db, [0x2000, 0x1000, 0, 0x3000]);
    assert_eq!(shared.guests(Dr6(0b0001)), 0b0010);
    assert_eq!(shared.guests(Dr6(0b1000)), 0b1000);
    assert_eq!(shared.guests(Dr6(0b0110)), 0);
}

#[test]
fn an_access_is_carried_out_where_it_is_passed_and_ours_stay() {
    let ours = [
        Some(slot(BreakpointKind::Execute, 0x1000)),
        None,
        None,
        None,
    ];
    let shared = DebugRegisters::share(&ours, &guest([None; SLOTS])).unwrap();
    assert_eq!(shared.access(), RegisterAccess::Reported);
    assert_eq!(shared.without(0b0010).access(), RegisterAccess::Reported);
    let passed = shared.without(Dr6::ACCESS);
    assert_eq!(passed.access(), RegisterAccess::Emulated);
    assert_eq!(passed.programmed(), shared.programmed());
    assert_ne!(passed, shared);
    // The debugger may have no register left, and a step may take some then.
    let passed = shared.without(Dr6::ACCESS | 0b0001);
    assert!(passed.is_guests());
    let own = guest([Some(slot(BreakpointKind::Write, 0x2000)), None, None, None]);
    let with_trap = passed.with_guest(&own);
    let with_trap = with_trap.with_traps(Gva::new(0), [Gva::new(0x3000)].into_iter());
    assert_eq!(with_trap.access(), RegisterAccess::Emulated);
    assert_eq!(with_trap.guests(Dr6(0b0001)), 0b0001);
    assert!(with_trap.trapped(Dr6(0b0010)));
}

#[test]
fn with_all_of_ours_passed_kvm_is_left_to_the_guests() {
    let ours = [
        Some(slot(BreakpointKind::Execute, 0x1000)),
        None,
        None,
        None,
    ];
    let theirs = [
        Some(slot(BreakpointKind::Execute, 0x2000)),
        None,
        None,
        None,
    ];
    let shared = DebugRegisters::share(&ours, &guest(theirs)).unwrap();
    assert_eq!(shared.without(0b0001), DebugRegisters::default());
    assert_eq!(shared.without(0b0001).programmed(), None);
    let without = shared.without(0b0010);
    assert_eq!(
        (without.ours(Dr6(1)), without.guests(Dr6(0b11))),
        (Some(0), 0)
    );
}

/// One emulated CPU reported only the first of these hits.
#[test]
fn of_two_that_wait_for_the_same_write_the_other_is_met_too() {
    let write = Some(slot(BreakpointKind::Write, 0x2000));
    let ours = [write, None, None, None];
    let shared = DebugRegisters::share(&ours, &guest([write, None, None, None])).unwrap();
    for dr6 in [0b0001, 0b0010] {
        let dr6 = Dr6(dr6);
        assert_eq!((shared.ours(dr6), shared.guests_done(dr6)), (Some(0), 1));
    }
}

#[test]
fn rf_is_for_execution_breakpoints_alone() {
    let ours = [
        Some(slot(BreakpointKind::Execute, 0x1000)),
        None,
        None,
        None,
    ];
    let theirs = [
        Some(slot(BreakpointKind::Execute, 0x1000)),
        Some(slot(BreakpointKind::Write, 0x2000)),
        None,
        None,
    ];
    let shared = DebugRegisters::share(&ours, &guest(theirs)).unwrap();
    let at = (1..SLOTS)
        .find(|n| shared.guests(Dr6(1 << n)) == 1)
        .unwrap();
    assert_eq!(shared.unheeded_rf(Dr6(1)), Some(1));
    assert_eq!(shared.unheeded_rf(Dr6(1 | 1 << at)), Some(1 | 1 << at));
    let write = (1..SLOTS)
        .find(|n| shared.guests(Dr6(1 << n)) == 2)
        .unwrap();
    for dr6 in [0, 1 << write, 1 | 1 << write, 1 | 1 << 14, 1 | 1 << 13] {
        assert_eq!(shared.unheeded_rf(Dr6(dr6)), None, "{dr6:#x}");
    }
    assert_eq!(shared.guests_done(Dr6(1 << at | 1 << write)), 2);
}
