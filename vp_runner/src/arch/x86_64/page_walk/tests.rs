//! The walk with hand-made tables. `kvm_translate` compares the walk with KVM's own on random tables.

use super::*;
use std::collections::BTreeMap;

mod kvm_translate;

const PG: u64 = 1 << 31;
const PSE: u64 = 1 << 4;
const PAE: u64 = 1 << 5;
const LA57: u64 = 1 << 12;
const NXE: u64 = 1 << 11;
const LMA: u64 = 1 << 10;
const NX: u64 = 1 << 63;
const P: u64 = 1;
const PW: u64 = 0b11;
const PWU: u64 = 0b111;
const PS: u64 = 1 << 7;

/// Physical memory that contains only the given entries, of 8 bytes each.
struct Entries(BTreeMap<u64, u64>);

impl Entries {
    fn new(entries: &[(u64, u64)]) -> Self {
        Self(entries.iter().copied().collect())
    }
}

impl PhysicalMemory for Entries {
    fn read_u32(&self, gpa: Gpa) -> Option<u32> {
        self.0.get(&gpa.value()).map(|v| u32::try_from(*v).unwrap())
    }

    fn read_u64(&self, gpa: Gpa) -> Option<u64> {
        self.0.get(&gpa.value()).copied()
    }
}

fn paging(cr4: u64, efer: u64) -> PagingState {
    PagingState {
        cr0: PG | 1,
        cr3: 0x1000,
        cr4,
        efer,
        limits: PagingLimits::new(46, true),
    }
}

fn long() -> PagingState {
    paging(PAE, LMA | NXE)
}

fn at(paging: &PagingState, entries: &[(u64, u64)], gva: u64) -> Result<Walk, WalkFaultReason> {
    walk(&Entries::new(entries), paging, Gva::new(gva)).map_err(|fault| {
        assert_eq!(fault.gva, Gva::new(gva));
        fault.reason
    })
}

fn reserved_bits(result: Result<Walk, WalkFaultReason>) -> u64 {
    match result {
        Err(WalkFaultReason::Reserved { bits, .. }) => bits,
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_paging_an_address_is_its_own_below_4_gib() {
    let mut off = long();
    off.cr0 = 1;
    let found = at(&off, &[], 0xffff_ffff_1234_5678).unwrap();
    assert_eq!(found.gpa, Gpa::new(0x1234_5678));
    assert_eq!(found.page_size, None);
    assert_eq!(found.bytes_left(), 0x1_0000_0000 - 0x1234_5678);
    assert_eq!(Translation::from(found).entries, []);
}

/// The indexes 0x1ff, 0x102, 3 and 4 at the four levels, and the offset 0x567.
const HIGH: u64 = 0xffff_ffc0_8060_4567 | 0xff80_0000_0000;

#[test]
fn four_levels_lead_to_a_4_kib_page_and_are_listed_root_first() {
    let index = |level: u64| HIGH >> (12 + 9 * (level - 1)) & 0x1ff;
    let entries = [
        (0x1000 + 8 * index(4), 0x2000 | PWU),
        (0x2000 + 8 * index(3), 0x3000 | PWU),
        (0x3000 + 8 * index(2), 0x4000 | PWU),
        (
            0x4000 + 8 * index(1),
            0x3fff_ffff_f000 | PWU | 0x7ff0_0000_0000_0e60,
        ),
    ];
    let found = Translation::from(at(&long(), &entries, HIGH).unwrap());
    assert_eq!(found.gpa, Gpa::new(0x3fff_ffff_f567));
    assert_eq!(found.page_size, Some(4096));
    assert!(found.writable && found.user && found.executable);
    let listed: Vec<_> = found
        .entries
        .iter()
        .map(|e| (e.gpa.value(), e.value))
        .collect();
    assert_eq!(listed, entries);
    assert_eq!(
        found.entries.iter().map(|e| e.level).collect::<Vec<_>>(),
        [4, 3, 2, 1]
    );
}

#[test]
fn large_pages_keep_the_low_bits_of_the_address() {
    let gib = [
        (0x1000, 0x2000 | PW),
        (0x2008, 0x8000_0000 | PW | PS | 1 << 12),
    ];
    let found = at(&long(), &gib, 0x5234_5678).unwrap();
    assert_eq!(
        (found.gpa, found.page_size),
        (Gpa::new(0x9234_5678), Some(1 << 30))
    );
    let mib = [
        (0x1000, 0x2000 | PW),
        (0x2008, 0x3000 | PW),
        (0x3000 + 8 * 0x91, 0x60_0000 | PW | PS),
    ];
    let found = at(&long(), &mib, 0x5234_5678).unwrap();
    assert_eq!(
        (found.gpa, found.page_size),
        (Gpa::new(0x74_5678), Some(2 << 20))
    );
    assert_eq!(found.bytes_left(), (2 << 20) - 0x14_5678);
}

#[test]
fn a_permission_holds_only_when_every_level_grants_it() {
    let with = |flags: [u64; 4]| {
        let entries = [
            (0x1000, 0x2000 | flags[0]),
            (0x2000, 0x3000 | flags[1]),
            (0x3000, 0x4000 | flags[2]),
            (0x4000, 0x5000 | flags[3]),
        ];
        let found = at(&long(), &entries, 0).unwrap();
        (found.writable, found.user, found.executable)
    };
    assert_eq!(with([PWU; 4]), (true, true, true));
    for level in 0..4 {
        let without = |bit: u64| {
            let mut flags = [PWU; 4];
            flags[level] ^= bit;
            with(flags)
        };
        assert_eq!(without(0b010), (false, true, true), "level {level}");
        assert_eq!(without(0b100), (true, false, true), "level {level}");
        assert_eq!(without(NX), (true, true, false), "level {level}");
    }
}

#[test]
fn five_levels_translate_57_bit_addresses() {
    let five = paging(PAE | LA57, LMA | NXE);
    let entries = [
        (0x1000 + 8 * 0x80, 0x2000 | P),
        (0x2000, 0x3000 | P),
        (0x3000, 0x4000_0000 | P | PS),
    ];
    let gva = 0x80 << 48 | 0x123;
    assert_eq!(at(&five, &entries, gva).unwrap().gpa, Gpa::new(0x4000_0123));
    assert_eq!(
        at(&long(), &entries, gva),
        Err(WalkFaultReason::NonCanonical)
    );
    assert_eq!(
        at(&five, &entries, 1 << 56),
        Err(WalkFaultReason::NonCanonical)
    );
}

#[test]
fn the_edges_of_the_canonical_halves() {
    for (gva, canonical) in [
        (0x0000_7fff_ffff_ffff, true),
        (0x0000_8000_0000_0000, false),
        (0xffff_7fff_ffff_ffff, false),
        (0xffff_8000_0000_0000, true),
    ] {
        let refused = at(&long(), &[], gva) == Err(WalkFaultReason::NonCanonical);
        assert_eq!(refused, !canonical, "{gva:#x}");
    }
}

#[test]
fn pae_has_four_root_entries_without_permissions_in_an_aligned_root() {
    let mut pae = paging(PAE, NXE);
    pae.cr3 = 0x1_0000_1020 | 0x18;
    let entries = [
        (0x1020 + 8 * 3, 0x2000 | P),
        (0x2000 + 8 * 0x1ff, 0x3000 | PWU),
        (0x3000 + 8, 0xf_0000_4000 | PWU | NX),
    ];
    let found = at(&pae, &entries, 0xffff_ffff_ffe0_1234).unwrap();
    assert_eq!(found.gpa, Gpa::new(0xf_0000_4234));
    assert_eq!(
        (found.writable, found.user, found.executable),
        (true, true, false)
    );
    let large = [(0x1020, 0x2000 | P), (0x2000, 0x3fff_ffe0_0000 | P | PS)];
    assert_eq!(
        at(&pae, &large, 0x12_3456).unwrap().gpa,
        Gpa::new(0x3fff_fff2_3456)
    );
}

#[test]
fn entries_of_32_bits_reach_4_kib_pages_and_with_pse_4_mib_ones_above_4_gib() {
    let table = [
        (0x1000 + 4 * 0x301, 0x2000 | PWU),
        (0x2000 + 4 * 5, 0xffff_f000 | P),
    ];
    let gva = 0xc040_5678;
    let found = at(&paging(0, 0), &table, gva).unwrap();
    assert_eq!(
        (found.gpa, found.page_size),
        (Gpa::new(0xffff_f678), Some(4096))
    );
    assert!(!found.writable && !found.user && found.executable);
    // Bits 13-20 are bits 32-39 of the address.
    let large = [(0x1000 + 4 * 0x301, 0xff40_0000 | 0xa5 << 13 | PW | PS)];
    let found = at(&paging(PSE, 0), &large, gva).unwrap();
    assert_eq!(
        (found.gpa, found.page_size),
        (Gpa::new(0xa5_ff40_5678), Some(4 << 20))
    );
    // Without CR4.PSE, the PS bit is ignored and the entry names a table.
    let ignored = [
        (0x1000 + 4 * 0x301, 0x2000 | PW | PS),
        (0x2000 + 4 * 5, 0x7000 | PW),
    ];
    assert_eq!(
        at(&paging(0, 0), &ignored, gva).unwrap().gpa,
        Gpa::new(0x7678)
    );
}

#[test]
fn reserved_bits_fault_where_the_manual_has_them() {
    let l4 = |entry| reserved_bits(at(&long(), &[(0x1000, entry)], 0));
    assert_eq!(l4(0x2000 | P | 1 << 46), 1 << 46);
    assert_eq!(l4(0x2000 | P | 1 << 51), 1 << 51);
    assert_eq!(l4(0x2000 | P | PS), PS, "no page of 512 GiB");
    let l3 = |paging: &PagingState, entry| {
        reserved_bits(at(paging, &[(0x1000, 0x2000 | P), (0x2000, entry)], 0))
    };
    assert_eq!(l3(&long(), P | PS | 1 << 13), 1 << 13);
    assert_eq!(l3(&long(), P | PS | 1 << 29), 1 << 29);
    let mut no_gib_pages = long();
    no_gib_pages.limits.gib_pages = false;
    assert_eq!(l3(&no_gib_pages, P | PS), PS);
    let l2 = [
        (0x1000, 0x2000 | P),
        (0x2000, 0x3000 | P),
        (0x3000, P | PS | 1 << 20),
    ];
    assert_eq!(reserved_bits(at(&long(), &l2, 0)), 1 << 20);
    let no_nx = paging(PAE, LMA);
    assert_eq!(
        reserved_bits(at(&no_nx, &[(0x1000, 0x2000 | P | NX)], 0)),
        NX
    );

    let pae = paging(PAE, NXE);
    for bit in [1, 2, 5, 8, 46, 63] {
        let root = [(0x1000, 0x2000 | P | 1 << bit)];
        assert_eq!(reserved_bits(at(&pae, &root, 0)), 1 << bit, "PAE root");
    }
    for bit in [46, 52, 62] {
        let entries = [(0x1000, 0x2000 | P), (0x2000, 0x3000 | P | 1 << bit)];
        assert_eq!(reserved_bits(at(&pae, &entries, 0)), 1 << bit);
    }
    let pse = |entry| reserved_bits(at(&paging(PSE, 0), &[(0x1000, entry)], 0));
    assert_eq!(pse(P | PS | 1 << 21), 1 << 21);
    let mut narrow = paging(PSE, 0);
    narrow.limits.physical_bits = 36;
    let wide_frame = [(0x1000, P | PS | 1 << 17)];
    assert_eq!(reserved_bits(at(&narrow, &wide_frame, 0)), 1 << 17);
}

#[test]
fn a_fault_says_where_the_walk_ended() {
    let entries = [(0x1000, 0x2000 | P), (0x2000, 0xdead_0000)];
    let reason = at(&long(), &entries, 0).unwrap_err();
    assert_eq!(
        reason.to_string(),
        "the entry 0xdead0000 of level 3 at 0x2000 is not present"
    );
    let reason = at(&long(), &entries[..1], 0).unwrap_err();
    assert_eq!(
        reason,
        WalkFaultReason::NoTable {
            level: 3,
            gpa: Gpa::new(0x2000)
        }
    );
}

/// Memory whose words are all the same, present or not. A guest may write anything to its tables and registers.
struct Everywhere(u64);

impl PhysicalMemory for Everywhere {
    fn read_u32(&self, _gpa: Gpa) -> Option<u32> {
        Some(u32::from_le_bytes(
            self.0.to_le_bytes().as_chunks::<4>().0[0],
        ))
    }

    fn read_u64(&self, _gpa: Gpa) -> Option<u64> {
        Some(self.0)
    }
}

proptest::proptest! {
    #[test]
    fn no_register_and_no_table_makes_the_walk_panic_or_leave_physical_memory(
        (cr0, cr3, cr4, efer) in proptest::prelude::any::<(u64, u64, u64, u64)>(),
        (physical_bits, gib_pages) in proptest::prelude::any::<(u8, bool)>(),
        (entry, gva) in proptest::prelude::any::<(u64, u64)>(),
    ) {
        let limits = PagingLimits::new(physical_bits, gib_pages);
        let paging = PagingState { cr0, cr3, cr4, efer, limits };
        // Present, and with reserved bits clear often enough to reach the lower levels.
        for entry in [entry, entry | P, entry & 0xffff_ffff | P, entry & 0xffff_f07f | P] {
            if let Ok(found) = walk(&Everywhere(entry), &paging, Gva::new(gva)) {
                proptest::prop_assert!(found.gpa.value() >> limits.physical_bits().max(40) == 0);
                proptest::prop_assert!(found.bytes_left() > 0);
            }
        }
    }
}
