//! The table on RAM without a VM, with hand-made page tables, and every way to arm a breakpoint.

use super::*;
use crate::arch::CodeLocation;
use crate::arch::PagingLimits;
use crate::arch::PagingState;
use crate::memory::slots::MemorySlots;
use crate::probe::Int3;
use crate::probe::Report;
use crate::probe::Seen;
use vm_memory::Bytes;
use vm_memory::GuestAddress;
use vmm_core_defs::breakpoint::BreakpointChange;

mod conditional;
mod guest_registers;
mod not_executable;

/// A guest with one VP, in long mode unless a test changes the mode. KVM exits for INT3 outside real mode.
struct Guest {
    ram: MemorySlots,
    bytes: BreakpointBytes,
    locations: Vec<CodeLocation>,
    int3: Int3Traps,
}

/// Page tables of two processes at 21000h and 28000h. The kernel's half is the same.
const ROOT: u64 = 0x2_1000;
const OTHER_ROOT: u64 = 0x2_8000;
/// The addresses of the page tables with 4 KiB pages: the user's and the kernel's.
const USER: u64 = 0x2_4000;
const KERNEL: u64 = 0x2_7000;
/// The first page of the kernel's table.
const KERNEL_PAGE: u64 = 0xffff_ffff_8000_0000;

impl Guest {
    fn new() -> Self {
        let ram = MemorySlots::zeroed(&[(0, 1 << 20)]);
        let mut guest = Self {
            ram,
            bytes: BreakpointBytes::default(),
            locations: vec![long(ROOT)],
            int3: report().int3_traps(),
        };
        for (at, entry) in [
            (ROOT, 0x2_2003),
            (0x2_2000, 0x2_3003),
            (0x2_3000, USER | 3),
            (ROOT + 511 * 8, 0x2_5003),
            (0x2_5000 + 510 * 8, 0x2_6003),
            (0x2_6000, KERNEL | 3),
            (OTHER_ROOT + 511 * 8, 0x2_5003),
        ] {
            guest.put_entry(at, entry);
        }
        // The low addresses of the tests' breakpoints are identity-mapped.
        for page in 1..8 {
            guest.put_entry(USER + page * 8, page << 12 | 3);
        }
        guest
    }

    fn put_entry(&mut self, at: u64, entry: u64) {
        self.ram
            .backing()
            .write_obj(entry, GuestAddress(at))
            .unwrap();
    }

    fn byte(&self, gpa: u64) -> u8 {
        self.ram.backing().read_obj(GuestAddress(gpa)).unwrap()
    }

    fn put(&self, gpa: u64, byte: u8) {
        self.ram
            .backing()
            .write_obj(byte, GuestAddress(gpa))
            .unwrap();
    }

    fn code(&mut self) -> GuestCode<'_> {
        GuestCode {
            walks: Walks::default(),
            ram: &self.ram,
            bytes: &mut self.bytes,
            locations: &self.locations,
            int3: self.int3,
        }
    }

    fn apply(
        &mut self,
        table: &mut BreakpointTable,
        changes: &[BreakpointChange],
    ) -> Result<(), DebugError> {
        let mut made = Changes::default();
        let applied = table.apply(&mut self.code(), changes, &mut made);
        // In two parts, as the controller does.
        while applied.is_err() && !made.is_empty() {
            table.undo(&mut self.code(), &mut made, changes.len().div_ceil(2));
        }
        applied
    }

    fn reconcile(&mut self, table: &mut BreakpointTable) {
        let software = table.software();
        table.reconcile(&mut self.code(), &software);
    }
}

fn report() -> Report {
    let finding = crate::probe::Finding {
        works: true,
        seen: Seen::Other,
    };
    Report {
        int3_real: Int3::NotTrapped(Seen::Other),
        int3_protected: Int3::DebugExit,
        int3_long: Int3::DebugExit,
        execution_breakpoints: finding,
        data_watchpoints: finding,
        single_step: finding,
        interrupts_held: finding,
        shadow_holds: finding,
        register_access: finding,
        resume_flag: finding,
        sync_regs: finding,
        user_mode: crate::probe::UserMode {
            code_runs: true,
            int3: Int3::DebugExit,
            execution_breakpoints: finding,
            single_step: finding,
        },
        frozen_time: finding,
    }
}

fn long(root: u64) -> CodeLocation {
    CodeLocation {
        rip: Gva::new(0),
        paging: PagingState {
            cr0: 1 << 31 | 1,
            cr3: root,
            cr4: 1 << 5,
            efer: 1 << 10 | 1 << 8,
            limits: PagingLimits::new(40, true),
        },
        user: false,
    }
}

fn real() -> CodeLocation {
    let mut location = long(0);
    (
        location.paging.cr0,
        location.paging.cr4,
        location.paging.efer,
    ) = (0x10, 0, 0);
    location
}

fn armings(table: &BreakpointTable) -> Vec<Arming> {
    let list = table.list().into_iter();
    list.map(|status| status.arming).collect()
}

fn in_memory(gpa: u64) -> Arming {
    Arming::Memory { gpa: Gpa::new(gpa) }
}

#[track_caller]
fn assert_register(arming: &Arming, wanted: usize, says: &str) {
    match arming {
        Arming::DebugRegister {
            number,
            why: Some(why),
        } if *number == wanted && why.to_string().contains(says) => {}
        other => panic!("{other:?}"),
    }
}

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

fn kinds(table: &BreakpointTable) -> Vec<Breakpoint> {
    let list = table.list().into_iter();
    list.map(|status| status.breakpoint).collect()
}

#[test]
fn inserting_twice_is_one_breakpoint() {
    let mut table = BreakpointTable::default();
    let mut guest = Guest::new();
    guest
        .apply(
            &mut table,
            &[insert(Execute, 0x1000), insert(Execute, 0x1000)],
        )
        .unwrap();
    assert_eq!(kinds(&table).len(), 1);
    guest.apply(&mut table, &[remove(Execute, 0x1000)]).unwrap();
    assert_eq!(table.list(), []);
    assert_eq!(table.slots(), Slots::default());
}

#[test]
fn removing_what_is_not_there_is_an_error_and_names_the_address() {
    let mut table = BreakpointTable::default();
    let mut guest = Guest::new();
    guest.apply(&mut table, &[insert(Execute, 0x1000)]).unwrap();
    assert_eq!(
        guest.apply(&mut table, &[remove(Software, 0x1000)]),
        Err(DebugError::NoSuchBreakpoint {
            address: Gva::new(0x1000)
        })
    );
}

#[test]
fn a_fifth_debug_register_is_refused_and_a_freed_one_is_used_again() {
    let mut table = BreakpointTable::default();
    let mut guest = Guest::new();
    for n in 0..4 {
        guest
            .apply(&mut table, &[insert(Execute, 0x1000 + n)])
            .unwrap();
    }
    let full = table.list();
    assert_eq!(
        guest.apply(&mut table, &[insert(Execute, 0x2000)]),
        Err(DebugError::NoFreeSlot { slots: 4 })
    );
    assert_eq!(table.list(), full, "a refused change changes nothing");
    guest
        .apply(
            &mut table,
            &[remove(Execute, 0x1002), insert(Execute, 0x2000)],
        )
        .unwrap();
    assert_eq!(table.on_register(2), Some(at(Execute, 0x2000)));
}

#[test]
fn a_failing_change_undoes_the_ones_before_it() {
    let mut table = BreakpointTable::default();
    let mut guest = Guest::new();
    let bad = BreakpointChange::Insert(Breakpoint {
        kind: Write,
        address: Gva::new(0x1001),
        len: 4,
    });
    assert!(matches!(
        guest.apply(&mut table, &[insert(Execute, 0x1000), bad]),
        Err(DebugError::BadBreakpoint { .. })
    ));
    assert_eq!(table.list(), []);
    assert_eq!(table.slots(), Slots::default());
}

#[test]
fn equal_encodings_share_a_debug_register_until_the_last_goes() {
    let mut table = BreakpointTable::default();
    let mut guest = Guest::new();
    guest.int3 = Int3Traps::default();
    guest
        .apply(
            &mut table,
            &[
                insert(Software, 0x1000),
                insert(Execute, 0x1000),
                insert(Read, 0x2000),
                insert(ReadWrite, 0x2000),
                insert(Write, 0x2000),
            ],
        )
        .unwrap();
    assert_eq!(table.slots().iter().flatten().count(), 3);
    assert_eq!(table.on_register(0), Some(at(Software, 0x1000)));
    guest
        .apply(&mut table, &[remove(Software, 0x1000)])
        .unwrap();
    assert_eq!(
        table.on_register(0),
        Some(at(Execute, 0x1000)),
        "the other is still armed"
    );
    guest.apply(&mut table, &[remove(Execute, 0x1000)]).unwrap();
    assert_eq!(table.slots()[0], None);
    assert_eq!(
        table.slots()[2].map(|slot| slot.access()),
        Some(Access::Write)
    );
}

#[test]
fn a_kept_hit_follows_what_is_armed_now() {
    let mut table = BreakpointTable::default();
    let mut guest = Guest::new();
    let software = at(Software, 0x1000);
    guest
        .apply(
            &mut table,
            &[insert(Software, 0x1000), insert(Execute, 0x1000)],
        )
        .unwrap();
    assert_eq!(table.still_hit(&software), Some(software));
    guest
        .apply(&mut table, &[remove(Software, 0x1000)])
        .unwrap();
    assert_eq!(table.still_hit(&software), Some(at(Execute, 0x1000)));
    guest.apply(&mut table, &[remove(Execute, 0x1000)]).unwrap();
    assert_eq!(table.still_hit(&software), None);
}

#[test]
fn a_software_breakpoint_is_a_byte_and_costs_no_register() {
    let mut table = BreakpointTable::default();
    let mut guest = Guest::new();
    guest.put(0x1234, 0x55);
    let many: Vec<_> = (0..100).map(|n| insert(Software, 0x1234 + n)).collect();
    guest.apply(&mut table, &many).unwrap();
    assert_eq!(table.slots(), Slots::default());
    assert_eq!(armings(&table)[0], in_memory(0x1234));
    assert_eq!(guest.byte(0x1234), 0xcc);
    let (address, gpa) = (Gva::new(0x1234), Gpa::new(0x1234));
    assert_eq!(table.at_byte(address, gpa), Some(at(Software, 0x1234)));
    assert_eq!(table.at_byte(Gva::new(0x9234), gpa), None, "an alias");
    guest
        .apply(&mut table, &[remove(Software, 0x1234)])
        .unwrap();
    assert_eq!(guest.byte(0x1234), 0x55);
}

#[test]
fn a_refused_batch_leaves_memory_and_registers_as_they_were() {
    let mut table = BreakpointTable::default();
    let mut guest = Guest::new();
    guest
        .apply(
            &mut table,
            &[insert(Software, 0x1000), insert(Execute, 0x2000)],
        )
        .unwrap();
    let before = table.list();
    let refused = guest.apply(
        &mut table,
        &[
            remove(Software, 0x1000),
            insert(Software, 0x3000),
            remove(Execute, 0x2000),
            remove(Execute, 0x9999),
        ],
    );
    assert!(refused.is_err());
    assert_eq!(table.list(), before);
    assert_eq!((guest.byte(0x1000), guest.byte(0x3000)), (0xcc, 0));
    assert_eq!(table.on_register(0), Some(at(Execute, 0x2000)));
}

#[test]
fn one_that_is_not_mapped_waits_on_a_register_and_becomes_a_byte() {
    let mut table = BreakpointTable::default();
    let mut guest = Guest::new();
    let address = KERNEL_PAGE + 0x10;
    guest
        .apply(&mut table, &[insert(Software, address)])
        .unwrap();
    assert_register(&armings(&table)[0], 0, "no page maps it yet");
    assert!(table.has_register_at(Gva::new(address)));
    guest.put_entry(KERNEL, 0x9003);
    guest.reconcile(&mut table);
    assert_eq!(armings(&table), [in_memory(0x9010)]);
    assert_eq!(table.slots(), Slots::default());
    // The page moves, and is then unmapped.
    guest.put_entry(KERNEL, 0xa003);
    guest.reconcile(&mut table);
    assert_eq!(armings(&table), [in_memory(0xa010)]);
    assert_eq!((guest.byte(0x9010), guest.byte(0xa010)), (0, 0xcc));
    guest.put_entry(KERNEL, 0);
    guest.reconcile(&mut table);
    assert_register(&armings(&table)[0], 0, "no page maps it yet");
    assert_eq!(guest.byte(0xa010), 0);
}

#[test]
fn a_fifth_that_is_not_mapped_is_held_and_a_hardware_breakpoint_goes_before_it() {
    let mut table = BreakpointTable::default();
    let mut guest = Guest::new();
    for n in 0..5 {
        guest
            .apply(&mut table, &[insert(Software, KERNEL_PAGE + n)])
            .unwrap();
    }
    assert!(table.has_unarmed());
    let Arming::Pending { why } = &armings(&table)[4] else {
        panic!("armed");
    };
    assert!(matches!(why, Some(Pending::Unmapped(_))), "{why:?}");
    guest.apply(&mut table, &[insert(Execute, 0x1000)]).unwrap();
    assert_eq!(table.on_register(0), Some(at(Execute, 0x1000)));
    guest.put_entry(KERNEL, 0x9003);
    guest.reconcile(&mut table);
    assert!(!table.has_unarmed());
    assert_eq!(
        guest.bytes.addresses_within(Gpa::new(0), 1 << 40).count(),
        5
    );
}

#[test]
fn an_address_of_a_process_is_looked_up_in_its_tables_only() {
    let mut table = BreakpointTable::default();
    let mut guest = Guest::new();
    guest
        .apply(
            &mut table,
            &[insert(Software, 0x1000), insert(Software, 0xf000)],
        )
        .unwrap();
    guest.locations = vec![long(OTHER_ROOT)];
    // The other process maps the second address. The first process need not.
    guest.put_entry(OTHER_ROOT, 0x2_2003);
    guest.put_entry(USER + 15 * 8, 0x9003);
    guest.reconcile(&mut table);
    assert_eq!(armings(&table)[0], in_memory(0x1000));
    assert_register(&armings(&table)[1], 0, "no page maps it yet");
    // The page has a new owner, so no breakpoint byte is written there.
    guest.put(0x1000, 0x77);
    guest.reconcile(&mut table);
    assert_register(&armings(&table)[0], 1, "overwritten");
    assert_eq!(guest.byte(0x1000), 0x77);
    guest.locations = vec![long(ROOT)];
    guest.reconcile(&mut table);
    assert_eq!(armings(&table), [in_memory(0x1000), in_memory(0x9000)]);
}

/// Page tables as with kernel page-table isolation: the tables of the process do not map the kernel.
#[test]
fn a_byte_in_a_kernel_that_is_hidden_while_a_process_runs_stays() {
    let mut table = BreakpointTable::default();
    let mut guest = Guest::new();
    guest.put_entry(KERNEL, 0x9003);
    guest
        .apply(&mut table, &[insert(Software, KERNEL_PAGE)])
        .unwrap();
    guest.put_entry(OTHER_ROOT + 511 * 8, 0);
    guest.locations = vec![long(OTHER_ROOT)];
    guest.reconcile(&mut table);
    assert_eq!(armings(&table), [in_memory(0x9000)]);
    guest.put(0x9000, 0x42);
    guest.reconcile(&mut table);
    assert_register(&armings(&table)[0], 0, "overwritten");
    guest.locations = vec![long(ROOT)];
    guest.reconcile(&mut table);
    assert_eq!(
        (guest.byte(0x9000), table.slots()),
        (0xcc, Slots::default())
    );
}

#[test]
fn an_overwritten_byte_is_armed_again_with_the_new_one_saved() {
    let mut table = BreakpointTable::default();
    let mut guest = Guest::new();
    guest
        .apply(&mut table, &[insert(Software, 0x1000)])
        .unwrap();
    guest.put(0x1000, 0x42);
    assert!(guest.bytes.is_any_overwritten(&guest.ram));
    guest.reconcile(&mut table);
    assert_eq!(guest.byte(0x1000), 0xcc);
    guest
        .apply(&mut table, &[remove(Software, 0x1000)])
        .unwrap();
    assert_eq!(guest.byte(0x1000), 0x42);
}

#[test]
fn before_paging_a_high_address_waits_and_real_mode_gets_no_byte_where_it_does_not_trap() {
    let mut table = BreakpointTable::default();
    let mut guest = Guest::new();
    guest.locations = vec![real()];
    guest
        .apply(
            &mut table,
            &[insert(Software, KERNEL_PAGE), insert(Software, 0x1000)],
        )
        .unwrap();
    assert_register(&armings(&table)[0], 0, "before long mode");
    assert_register(&armings(&table)[1], 1, "does not trap");
    // Paging is on. A second VP that was never started does not count.
    guest.put_entry(KERNEL, 0x9003);
    guest.locations = vec![real(), long(ROOT)];
    guest.reconcile(&mut table);
    assert_eq!(armings(&table), [in_memory(0x9000), in_memory(0x1000)]);
    table.before_reset(&mut guest.code());
    assert_eq!(
        (
            guest.byte(0x9000),
            guest.bytes.addresses_within(Gpa::new(0), 1 << 40).count()
        ),
        (0, 0)
    );
    guest.locations = vec![real()];
    guest.reconcile(&mut table);
    assert_register(&armings(&table)[0], 0, "before long mode");
}

#[test]
fn where_the_vmm_lets_no_byte_be_written_a_register_stands_in() {
    use crate::kvm::guest_ram::odd_ram::CLOSED;
    use crate::kvm::guest_ram::odd_ram::READ_ONLY;
    use crate::kvm::guest_ram::odd_ram::SHRUNK;
    use crate::kvm::guest_ram::odd_ram::odd_ram;
    let mut guest = Guest::new();
    let plain = std::mem::replace(&mut guest.ram, odd_ram());
    let mut tables = vec![0; 0x4_0000];
    plain
        .backing()
        .read_slice(&mut tables, GuestAddress(0))
        .unwrap();
    guest
        .ram
        .backing()
        .write_slice(&tables, GuestAddress(0))
        .unwrap();
    let pages = [READ_ONLY, SHRUNK + 0x1000, CLOSED];
    for (page, gpa) in (1..).zip(pages) {
        guest.put_entry(USER + page * 8, gpa | 3);
    }
    let mut table = BreakpointTable::default();
    for page in 1..=3 {
        guest
            .apply(&mut table, &[insert(Software, page << 12 | 5)])
            .unwrap();
    }
    for arming in armings(&table) {
        let Arming::DebugRegister { why: Some(why), .. } = arming else {
            panic!("{arming:?}");
        };
        assert_eq!(why, Pending::NoRam);
    }
    guest.reconcile(&mut table);
    assert_eq!(armings(&table).len(), 3);
}
