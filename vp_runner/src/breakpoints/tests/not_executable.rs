//! Breakpoints on pages that the VP may not execute: the return address of a function that a debugger calls, and user pages while the VP is in the kernel.

use super::*;

const NO_EXECUTE: u64 = 1 << 63;
const WRITABLE: u64 = 3;
const USER_PAGE: u64 = 7;
const NXE: u64 = 1 << 11;
const SMEP: u64 = 1 << 20;
/// An address on the kernel's stack.
const ON_STACK: u64 = KERNEL_PAGE + 0x3ff;
/// An address of a process.
const OF_USER: u64 = 0x2005;

/// The kernel's first page is a stack, and the second page of the low addresses belongs to the process.
fn guest() -> Guest {
    let mut guest = Guest::new();
    guest.locations[0].paging.efer |= NXE;
    guest.put_entry(KERNEL, 0x9000 | WRITABLE | NO_EXECUTE);
    for (at, entry) in [
        (ROOT, 0x2_2000 | USER_PAGE),
        (0x2_2000, 0x2_3000 | USER_PAGE),
        (0x2_3000, USER | USER_PAGE),
        (USER + 2 * 8, 0x2000 | USER_PAGE),
    ] {
        guest.put_entry(at, entry);
    }
    guest
}

#[test]
fn one_on_a_stack_is_held_by_a_debug_register() {
    let (mut table, mut guest) = (BreakpointTable::default(), guest());
    guest
        .apply(&mut table, &[insert(Software, ON_STACK)])
        .unwrap();
    assert_register(&armings(&table)[0], 0, "not executable");
    assert_eq!(guest.byte(0x93ff), 0, "no byte of ours is on the stack");
    assert!(table.has_register_at(Gva::new(ON_STACK)));
    guest.reconcile(&mut table);
    assert_register(&armings(&table)[0], 0, "not executable");
    // When the page becomes executable, the register becomes free.
    guest.put_entry(KERNEL, 0x9000 | WRITABLE);
    guest.reconcile(&mut table);
    assert_eq!(armings(&table), [in_memory(0x93ff)]);
    guest
        .apply(&mut table, &[remove(Software, ON_STACK)])
        .unwrap();
    assert_eq!(guest.byte(0x93ff), 0);
}

#[test]
fn one_whose_page_stops_being_executable_moves_to_a_register() {
    let (mut table, mut guest) = (BreakpointTable::default(), guest());
    guest.put_entry(KERNEL, 0x9000 | WRITABLE);
    guest
        .apply(&mut table, &[insert(Software, ON_STACK)])
        .unwrap();
    assert_eq!(armings(&table), [in_memory(0x93ff)]);
    guest.put_entry(KERNEL, 0x9000 | WRITABLE | NO_EXECUTE);
    guest.reconcile(&mut table);
    assert_register(&armings(&table)[0], 0, "not executable");
    assert_eq!(guest.byte(0x93ff), 0);
}

#[test]
fn without_a_register_it_is_refused_and_with_one_it_keeps_it() {
    let (mut table, mut guest) = (BreakpointTable::default(), guest());
    let registers: Vec<_> = (0..4).map(|n| insert(Write, 0x1000 + 8 * n)).collect();
    guest.apply(&mut table, &registers).unwrap();
    let full = table.list();
    let address = Gva::new(ON_STACK);
    assert_eq!(
        guest.apply(&mut table, &[insert(Software, ON_STACK)]),
        Err(DebugError::NotExecutable { address })
    );
    assert_eq!(table.list(), full, "a refused change changes nothing");
    // The breakpoint has a register now, and does not lose it to a hardware breakpoint.
    guest
        .apply(
            &mut table,
            &[remove(Write, 0x1000), insert(Software, ON_STACK)],
        )
        .unwrap();
    assert_eq!(
        guest.apply(&mut table, &[insert(Execute, 0x1000)]),
        Err(DebugError::NoFreeSlot { slots: 4 })
    );
    assert!(table.has_register_at(address));
}

#[test]
fn it_takes_the_register_of_one_that_is_only_not_mapped_yet() {
    let (mut table, mut guest) = (BreakpointTable::default(), guest());
    let unmapped: Vec<_> = (0..4)
        .map(|n| insert(Software, KERNEL_PAGE + 0x9000 + n))
        .collect();
    guest.apply(&mut table, &unmapped).unwrap();
    guest
        .apply(&mut table, &[insert(Software, ON_STACK)])
        .unwrap();
    assert!(table.has_register_at(Gva::new(ON_STACK)));
    assert!(matches!(armings(&table)[0], Arming::Pending { .. }));
}

#[test]
fn without_nxe_the_bit_is_reserved_and_without_paging_everything_executes() {
    let (mut table, mut guest) = (BreakpointTable::default(), guest());
    guest.locations[0].paging.efer &= !NXE;
    guest
        .apply(&mut table, &[insert(Software, ON_STACK)])
        .unwrap();
    assert_register(&armings(&table)[0], 0, "reserved bits");
    let mut table = BreakpointTable::default();
    guest.locations = vec![real()];
    guest.int3 = Int3Traps::EVERYWHERE;
    guest
        .apply(&mut table, &[insert(Software, OF_USER)])
        .unwrap();
    assert_eq!(armings(&table), [in_memory(OF_USER)]);
}

/// SMEP, or Linux without SMEP: the kernel's own page tables forbid execution in their entries for user addresses.
#[test]
fn a_user_page_seen_from_the_kernel_takes_a_register_if_one_is_free_and_else_a_byte() {
    for by_root in [false, true] {
        let (mut table, mut guest) = (BreakpointTable::default(), guest());
        match by_root {
            true => guest.put_entry(ROOT, 0x2_2000 | USER_PAGE | NO_EXECUTE),
            false => guest.locations[0].paging.cr4 |= SMEP,
        }
        let all: Vec<_> = (0..5).map(|n| insert(Software, OF_USER + n)).collect();
        guest.apply(&mut table, &all).unwrap();
        let list = armings(&table);
        for (slot, arming) in list[..4].iter().enumerate() {
            assert_register(arming, slot, "user mode only");
        }
        assert_eq!(list[4], in_memory(OF_USER + 4));
        // A hardware breakpoint takes the register of one of them, which becomes a byte.
        guest.apply(&mut table, &[insert(Execute, 0x1000)]).unwrap();
        guest.reconcile(&mut table);
        assert_eq!(armings(&table)[0], in_memory(OF_USER));
        // In user mode all of them become bytes.
        guest.locations[0].user = true;
        guest.put_entry(ROOT, 0x2_2000 | USER_PAGE);
        guest.reconcile(&mut table);
        let bytes: Vec<_> = (0..5).map(|n| in_memory(OF_USER + n)).collect();
        assert_eq!(armings(&table)[..5], bytes);
        // They stay bytes when the VP is in the kernel again.
        guest.locations[0].user = false;
        guest.reconcile(&mut table);
        assert_eq!(armings(&table)[..5], bytes);
    }
}

#[test]
fn a_page_that_nobody_may_execute_is_no_user_page_of_that_kind() {
    let (mut table, mut guest) = (BreakpointTable::default(), guest());
    guest.put_entry(USER + 2 * 8, 0x2000 | USER_PAGE | NO_EXECUTE);
    for user in [false, true] {
        guest.locations[0].user = user;
        guest
            .apply(&mut table, &[insert(Software, OF_USER)])
            .unwrap();
        assert_register(&armings(&table)[0], 0, "not executable");
        guest
            .apply(&mut table, &[remove(Software, OF_USER)])
            .unwrap();
    }
}
