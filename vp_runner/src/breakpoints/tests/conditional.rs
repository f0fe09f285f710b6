//! Breakpoints that VPs pass often, at instructions that are not carried out in place of a VP.

use super::*;

const SITE: u64 = 0x1000;

#[test]
fn one_moves_to_a_free_register_and_back() {
    let (mut table, mut guest) = (BreakpointTable::default(), Guest::new());
    let others = [insert(Software, SITE), insert(Software, SITE + 8)];
    guest.apply(&mut table, &others).unwrap();
    table.pass_by_executing(&at(Software, SITE), true);
    guest.reconcile(&mut table);
    assert_register(&armings(&table)[0], 0, "conditions");
    assert_eq!(armings(&table)[1], in_memory(SITE + 8));
    assert_eq!(guest.byte(SITE), 0, "no byte of ours");
    assert!(table.has_register_at(Gva::new(SITE)));
    guest.reconcile(&mut table);
    assert_register(&armings(&table)[0], 0, "conditions");
    table.pass_by_executing(&at(Software, SITE), false);
    guest.reconcile(&mut table);
    assert_eq!(armings(&table)[0], in_memory(SITE));
    assert!(!table.has_register_at(Gva::new(SITE)));
}

#[test]
fn one_gives_its_register_to_a_hardware_breakpoint_and_gets_one_that_comes_free() {
    let (mut table, mut guest) = (BreakpointTable::default(), Guest::new());
    guest.apply(&mut table, &[insert(Software, SITE)]).unwrap();
    table.pass_by_executing(&at(Software, SITE), true);
    guest.reconcile(&mut table);
    let registers: Vec<_> = (0..4).map(|n| insert(Write, 0x2000 + 8 * n)).collect();
    guest.apply(&mut table, &registers).unwrap();
    guest.reconcile(&mut table);
    assert_eq!(armings(&table)[0], in_memory(SITE));
    guest.apply(&mut table, &[remove(Write, 0x2008)]).unwrap();
    guest.reconcile(&mut table);
    assert_register(&armings(&table)[0], 2, "conditions");
    assert_eq!(guest.byte(SITE), 0, "no byte of ours");
}

#[test]
fn one_that_is_removed_and_inserted_again_is_a_byte() {
    let (mut table, mut guest) = (BreakpointTable::default(), Guest::new());
    guest.apply(&mut table, &[insert(Software, SITE)]).unwrap();
    table.pass_by_executing(&at(Software, SITE), true);
    for change in [remove(Software, SITE), insert(Software, SITE)] {
        guest.apply(&mut table, &[change]).unwrap();
    }
    guest.reconcile(&mut table);
    assert_eq!(armings(&table), [in_memory(SITE)]);
}
