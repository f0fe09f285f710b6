use super::*;
use crate::dr7::Access;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::breakpoint::BreakpointKind;

fn at(kind: BreakpointKind, address: u64) -> Breakpoint {
    let len = if kind.is_watchpoint() { 4 } else { 1 };
    Breakpoint {
        kind,
        address: Gva::new(address),
        len,
    }
}

fn insert(kind: BreakpointKind, address: u64) -> BreakpointChange {
    BreakpointChange::Insert(at(kind, address))
}

fn remove(kind: BreakpointKind, address: u64) -> BreakpointChange {
    BreakpointChange::Remove(at(kind, address))
}

use BreakpointKind::Execute;
use BreakpointKind::Read;
use BreakpointKind::ReadWrite;
use BreakpointKind::Software;
use BreakpointKind::Write;

#[test]
fn inserting_twice_is_one_breakpoint() {
    let mut table = BreakpointTable::default();
    table
        .apply(&[insert(Execute, 0x1000), insert(Execute, 0x1000)])
        .unwrap();
    assert_eq!(table.iter().count(), 1);
    table.apply(&[remove(Execute, 0x1000)]).unwrap();
    assert_eq!(table, BreakpointTable::default());
}

#[test]
fn removing_what_is_not_there_is_an_error_and_names_the_address() {
    let mut table = BreakpointTable::default();
    table.apply(&[insert(Execute, 0x1000)]).unwrap();
    assert_eq!(
        table.apply(&[remove(Software, 0x1000)]),
        Err(DebugError::NoSuchBreakpoint {
            address: Gva::new(0x1000)
        })
    );
}

#[test]
fn a_fifth_debug_register_is_refused_and_a_freed_one_is_used_again() {
    let mut table = BreakpointTable::default();
    for n in 0..4 {
        table.apply(&[insert(Execute, 0x1000 + n)]).unwrap();
    }
    let full = table.clone();
    assert_eq!(
        table.apply(&[insert(Software, 0x2000)]),
        Err(DebugError::NoFreeSlot { slots: 4 })
    );
    assert_eq!(table, full, "a refused change changes nothing");
    table
        .apply(&[remove(Execute, 0x1002), insert(Software, 0x2000)])
        .unwrap();
    assert_eq!(table.on(2), Some(at(Software, 0x2000)));
}

#[test]
fn a_failing_change_undoes_the_ones_before_it() {
    let mut table = BreakpointTable::default();
    let bad = BreakpointChange::Insert(Breakpoint {
        kind: Write,
        address: Gva::new(0x1001),
        len: 4,
    });
    assert!(matches!(
        table.apply(&[insert(Execute, 0x1000), bad]),
        Err(DebugError::BadBreakpoint { .. })
    ));
    assert_eq!(table, BreakpointTable::default());
}

#[test]
fn equal_encodings_share_a_debug_register_until_the_last_goes() {
    let mut table = BreakpointTable::default();
    table
        .apply(&[
            insert(Software, 0x1000),
            insert(Execute, 0x1000),
            insert(Read, 0x2000),
            insert(ReadWrite, 0x2000),
            insert(Write, 0x2000),
        ])
        .unwrap();
    assert_eq!(table.slots().iter().flatten().count(), 3);
    assert_eq!(table.on(0), Some(at(Software, 0x1000)));
    table.apply(&[remove(Software, 0x1000)]).unwrap();
    assert_eq!(
        table.on(0),
        Some(at(Execute, 0x1000)),
        "the other is still armed"
    );
    table.apply(&[remove(Execute, 0x1000)]).unwrap();
    assert_eq!(table.slots()[0], None);
    assert_eq!(
        table.slots()[2].map(|slot| slot.access()),
        Some(Access::Write)
    );
}

#[test]
fn a_kept_hit_follows_what_is_armed_now() {
    let mut table = BreakpointTable::default();
    let software = at(Software, 0x1000);
    table
        .apply(&[insert(Software, 0x1000), insert(Execute, 0x1000)])
        .unwrap();
    assert_eq!(table.still_hit(&software), Some(software));
    table.apply(&[remove(Software, 0x1000)]).unwrap();
    assert_eq!(table.still_hit(&software), Some(at(Execute, 0x1000)));
    table.apply(&[remove(Execute, 0x1000)]).unwrap();
    assert_eq!(table.still_hit(&software), None);
}
