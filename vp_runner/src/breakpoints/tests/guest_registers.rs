//! The guest keeps the debug registers that it uses.

use super::*;

fn uses(guest: u32, yours: u32) -> Result<(), DebugError> {
    Err(DebugError::GuestUsesSlots {
        slots: 4,
        guest,
        yours,
    })
}

fn leave(table: &mut BreakpointTable, guest: &mut Guest, registers: usize) {
    table.leave_to_guest(&mut guest.code(), registers);
}

fn armed(table: &BreakpointTable) -> Vec<bool> {
    let pending = |status: BreakpointStatus| match status.arming {
        Arming::Pending { why } => {
            assert_eq!(why, Some(Pending::GuestHasRegisters));
            false
        }
        _ => true,
    };
    table.list().into_iter().map(pending).collect()
}

#[test]
fn what_does_not_fit_beside_the_guests_is_refused_with_the_reason() {
    let mut table = BreakpointTable::default();
    let mut guest = Guest::new();
    leave(&mut table, &mut guest, 4);
    let first = [insert(Execute, 0x1000)];
    assert_eq!(guest.apply(&mut table, &first), uses(4, 0));
    assert_eq!(table.list(), []);
    leave(&mut table, &mut guest, 3);
    guest.apply(&mut table, &first).unwrap();
    let second = [insert(Write, 0x2000)];
    assert_eq!(guest.apply(&mut table, &second), uses(3, 1));
    // The breakpoint may share the register of another breakpoint.
    guest.apply(&mut table, &first).unwrap();
    leave(&mut table, &mut guest, 0);
    guest.apply(&mut table, &second).unwrap();
    assert_eq!(armed(&table), [true, true]);
}

#[test]
fn registers_that_the_guest_takes_and_lets_go_come_back_in_the_order_of_insertion() {
    let mut table = BreakpointTable::default();
    let mut guest = Guest::new();
    let four = [0x1000, 0x1001, 0x1002, 0x1003].map(|address| insert(Execute, address));
    guest.apply(&mut table, &four).unwrap();
    let whole = table.list();
    leave(&mut table, &mut guest, 1);
    assert_eq!(armed(&table), [true, true, true, false]);
    assert!(table.has_unarmed());
    leave(&mut table, &mut guest, 3);
    assert_eq!(armed(&table), [true, false, false, false]);
    assert_eq!(table.slots().iter().flatten().count(), 1);
    leave(&mut table, &mut guest, 4);
    assert_eq!(table.slots(), Slots::default());
    assert!(table.wants_registers(), "or nobody would look again");
    leave(&mut table, &mut guest, 2);
    assert_eq!(armed(&table), [true, true, false, false]);
    leave(&mut table, &mut guest, 0);
    assert_eq!(table.list(), whole);
    let all = [0x1000, 0x1001, 0x1002, 0x1003].map(|address| remove(Execute, address));
    guest.apply(&mut table, &all).unwrap();
    assert!(!table.wants_registers());
}

#[test]
fn a_breakpoint_that_waits_can_be_removed_and_makes_no_room_by_it() {
    let mut table = BreakpointTable::default();
    let mut guest = Guest::new();
    let two = [insert(Execute, 0x1000), insert(Execute, 0x1001)];
    guest.apply(&mut table, &two).unwrap();
    leave(&mut table, &mut guest, 3);
    guest.apply(&mut table, &[remove(Execute, 0x1001)]).unwrap();
    let third = [insert(Execute, 0x1002)];
    assert_eq!(guest.apply(&mut table, &third), uses(3, 1));
    guest.apply(&mut table, &[remove(Execute, 0x1000)]).unwrap();
    guest.apply(&mut table, &third).unwrap();
    assert_eq!(armed(&table), [true]);
}

#[test]
fn pending_software_breakpoints_yield_to_the_guest_first() {
    let mut table = BreakpointTable::default();
    let mut guest = Guest::new();
    // The addresses are not mapped, so the breakpoints are on debug registers.
    let pending = [insert(Software, 0x9000), insert(Software, 0x9001)];
    guest.apply(&mut table, &pending).unwrap();
    guest
        .apply(
            &mut table,
            &[insert(Execute, 0x1000), insert(Execute, 0x1001)],
        )
        .unwrap();
    leave(&mut table, &mut guest, 2);
    let kinds = table.slots().map(|slot| slot.map(|slot| slot.address()));
    assert_eq!(
        kinds,
        [None, None, Some(Gva::new(0x1000)), Some(Gva::new(0x1001))]
    );
    // One more hardware breakpoint does not fit, since no register can be freed.
    let third = [insert(Execute, 0x1002)];
    assert_eq!(guest.apply(&mut table, &third), uses(2, 2));
    leave(&mut table, &mut guest, 1);
    guest.reconcile(&mut table);
    assert_eq!(
        table.slots()[0].map(|slot| slot.address()),
        Some(Gva::new(0x9000))
    );
    guest.apply(&mut table, &third).unwrap();
    assert_eq!(
        table.slots()[0].map(|slot| slot.address()),
        Some(Gva::new(0x1002))
    );
}
