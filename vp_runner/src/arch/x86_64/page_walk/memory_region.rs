//! The region around an address: the adjacent addresses with the same properties, by the page tables and the ranges of RAM.
//!
//! Like [`mapped_pages`](super::mapped_pages()), the search takes one step for each page, or for each entry that maps nothing, and is bounded. The bound
//! towards higher addresses is larger than the bound towards lower addresses. So if a long region is returned in pieces, a request for the address after a
//! piece does not return the start of that piece again, and pieces never overlap.

use super::PagingMode;
use super::PagingState;
use super::PhysicalMemory;
use super::mapped_pages::Found;
use super::mapped_pages::look;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::memory::MemoryRegion;
use vmm_core_defs::memory::RamRange;
use vmm_core_defs::memory::RegionRights;

/// The most steps towards higher addresses. A step reads up to five entries of guest memory.
const STEPS_UP: usize = 1 << 14;
const STEPS_DOWN: usize = STEPS_UP / 2;

/// The region that holds `at`. `ram` is sorted by address.
pub(crate) fn memory_region(
    memory: &impl PhysicalMemory,
    paging: &PagingState,
    ram: &[RamRange],
    at: Gva,
) -> MemoryRegion {
    let mode = PagingMode::new(paging);
    let look = |at| span(memory, paging, mode, ram, at);
    let start = look(at.value());
    let (mut first, mut last) = (start.first, start.last);
    for _ in 0..STEPS_UP {
        let next = match last.checked_add(1) {
            Some(next) => look(next),
            None => break,
        };
        if next.rights != start.rights {
            break;
        }
        last = next.last;
    }
    let mut earlier = first;
    let mut found = false;
    for _ in 0..STEPS_DOWN {
        let previous = match earlier.checked_sub(1) {
            Some(previous) => look(previous),
            None => {
                found = true;
                break;
            }
        };
        if previous.rights != start.rights {
            found = true;
            break;
        }
        earlier = previous.first;
    }
    if found {
        first = earlier;
    }
    MemoryRegion {
        first: Gva::new(first),
        last: Gva::new(last),
        rights: start.rights,
    }
}

/// The result of one step: a range of addresses with the same properties, including the last address.
#[derive(Debug, Clone, Copy)]
struct Span {
    first: u64,
    last: u64,
    rights: Option<RegionRights>,
}

/// The part of one page, or of one hole, that holds `at` and is either completely in RAM or completely outside.
fn span(
    memory: &impl PhysicalMemory,
    paging: &PagingState,
    mode: PagingMode,
    ram: &[RamRange],
    at: u64,
) -> Span {
    let gap = |first, last| Span {
        first,
        last,
        rights: None,
    };
    if at > mode.last() {
        return gap(mode.last() + 1, u64::MAX);
    }
    if mode.linear(at).is_none() {
        return gap(!mode.upper_half() + 1, mode.upper_half() - 1);
    }
    let page = match look(memory, paging, mode, at) {
        Found::Page(page) => page,
        Found::Gap(None) => return gap(0, u64::MAX),
        Found::Gap(Some(size)) => return gap(at & !(size - 1), at | (size - 1)),
    };
    let offset = at & (page.size - 1);
    let gpa = page.gpa.value() + offset;
    let (is_ram, from, to) = around(ram, gpa);
    Span {
        first: at - offset.min(gpa - from),
        last: at + (page.size - 1 - offset).min(to - gpa),
        rights: Some(RegionRights {
            ram: is_ram,
            writable: page.writable,
            executable: page.executable,
        }),
    }
}

/// Whether there is RAM at `gpa`, and the first and last address for which the answer is certainly the same.
fn around(ram: &[RamRange], gpa: u64) -> (bool, u64, u64) {
    let mut from = 0;
    for range in ram {
        let (first, next) = (
            range.gpa.value(),
            range.gpa.value().saturating_add(range.len),
        );
        if gpa < first {
            return (false, from, first - 1);
        }
        if gpa < next {
            return (true, first, next - 1);
        }
        from = next;
    }
    (false, from, u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::x86_64::page_walk::PagingLimits;
    use std::cell::Cell;
    use std::collections::BTreeMap;
    use vmm_core_defs::addr::Gpa;

    const P: u64 = 0b01;
    const PW: u64 = 0b11;
    const LARGE: u64 = 1 << 7;
    const NX: u64 = 1 << 63;
    const HALF: u64 = 1 << 47;

    /// Entries at the addresses given, zeros elsewhere below `END`; counts what is read.
    struct Tables {
        entries: BTreeMap<u64, u64>,
        reads: Cell<usize>,
    }

    const END: u64 = 0x10_0000;
    const RAM: [RamRange; 1] = [RamRange {
        gpa: Gpa::new(0),
        len: END,
    }];

    impl Tables {
        fn new(entries: impl IntoIterator<Item = (u64, u64)>) -> Self {
            Self {
                entries: entries.into_iter().collect(),
                reads: Cell::new(0),
            }
        }
    }

    impl PhysicalMemory for Tables {
        fn read_u32(&self, gpa: Gpa) -> Option<u32> {
            self.read_u64(gpa).and_then(|entry| entry.try_into().ok())
        }

        fn read_u64(&self, gpa: Gpa) -> Option<u64> {
            self.reads.set(self.reads.get() + 1);
            let entry = self.entries.get(&gpa.value()).copied();
            (gpa.value() < END).then_some(entry.unwrap_or(0))
        }
    }

    fn paging(cr0: u64, cr4: u64, efer: u64) -> PagingState {
        PagingState {
            cr0,
            cr3: 0x1000,
            cr4,
            efer,
            limits: PagingLimits::new(46, true),
        }
    }

    fn long() -> PagingState {
        paging(1 << 31 | 1, 1 << 5, 1 << 10 | 1 << 11)
    }

    fn rights(letters: &str) -> Option<RegionRights> {
        (letters != "---").then(|| RegionRights {
            ram: letters.contains('r'),
            writable: letters.contains('w'),
            executable: letters.contains('x'),
        })
    }

    fn region(first: u64, last: u64, letters: &str) -> MemoryRegion {
        MemoryRegion {
            first: Gva::new(first),
            last: Gva::new(last),
            rights: rights(letters),
        }
    }

    fn at(tables: &Tables, paging: &PagingState, gva: u64) -> MemoryRegion {
        memory_region(tables, paging, &RAM, Gva::new(gva))
    }

    /// From the first address to the last, as clients ask. The answer at the beginning of each region is that at its end.
    fn all(tables: &Tables, paging: &PagingState) -> Vec<MemoryRegion> {
        let mut regions = Vec::new();
        let mut next = Some(0);
        while let Some(from) = next {
            let here = at(tables, paging, from);
            assert_eq!(here.first.value(), from);
            assert_eq!(at(tables, paging, here.last.value()), here);
            let middle = from + (here.last.value() - from) / 2;
            assert_eq!(at(tables, paging, middle), here);
            next = here.last.value().checked_add(1);
            regions.push(here);
        }
        regions
    }

    #[test]
    fn pages_of_every_size_become_regions_and_all_else_is_gaps() {
        let tables = Tables::new([
            (0x1000, 0x2000 | PW),
            (0x1ff8, 0x3000 | PW),
            // 1 GiB at 0, of which 1 MiB is RAM, and a directory above.
            (0x2000, PW | LARGE),
            (0x2008, 0x4000 | PW),
            (0x4010, 0x5000 | PW),
            (0x5008, 0x7000 | PW),
            (0x5010, 0x3000 | PW),
            (0x5018, 0x8000 | P | NX),
            // The last page of all.
            (0x3ff8, 0x6000 | PW),
            (0x6ff8, 0x7000 | PW),
            (0x7ff8, 0x9000 | P),
        ]);
        assert_eq!(
            all(&tables, &long()),
            [
                region(0, END - 1, "rwx"),
                region(END, 0x3fff_ffff, "-wx"),
                region(0x4000_0000, 0x4040_0fff, "---"),
                // Two pages that follow each other here and not in memory.
                region(0x4040_1000, 0x4040_2fff, "rwx"),
                region(0x4040_3000, 0x4040_3fff, "r--"),
                region(0x4040_4000, u64::MAX - 0x1000, "---"),
                region(u64::MAX - 0xfff, u64::MAX, "r-x"),
            ]
        );
    }

    #[test]
    fn a_hole_of_the_whole_address_space_is_found_in_a_few_steps() {
        for tables in [
            Tables::new([]),
            // A root that leads to where no memory is.
            Tables::new((0..512).map(|i| (0x1000 + 8 * i, 0x40_0000 | PW))),
        ] {
            let whole = region(0, u64::MAX, "---");
            for gva in [0, HALF - 1, HALF, u64::MAX - HALF, u64::MAX] {
                tables.reads.set(0);
                assert_eq!(at(&tables, &long(), gva), whole, "{gva:#x}");
                assert!(tables.reads.get() <= 2 * 600, "{}", tables.reads.get());
            }
        }
        let mut nowhere = long();
        nowhere.cr3 = 0x40_0000;
        let tables = Tables::new([]);
        assert_eq!(at(&tables, &nowhere, 0x1234), region(0, u64::MAX, "---"));
    }

    /// The upper half begins where the hole of addresses that are none ends.
    #[test]
    fn addresses_that_are_none_are_a_gap_between_the_halves() {
        let (lower, upper) = (0x17f8, 0x1800);
        let table = |root, entry| [(root, 0x2000 | PW), (entry, PW | LARGE)];
        let tables = Tables::new(table(lower, 0x2ff8).into_iter().chain(table(upper, 0x2000)));
        assert_eq!(
            at(&tables, &long(), 1 << 60),
            region(HALF, u64::MAX - HALF, "---")
        );
    }

    #[test]
    fn tables_of_32_bit_entries_end_at_4_gib_and_so_does_memory_without_paging() {
        let tables = Tables::new([
            (0x1000, 0x2000 | PW),
            (0x1ffc, 0xffc0_0000 | PW | LARGE),
            (0x2004, 0x8000 | PW),
        ]);
        assert_eq!(
            all(&tables, &paging(1 << 31 | 1, 1 << 4, 0)),
            [
                region(0, 0xfff, "---"),
                region(0x1000, 0x1fff, "rwx"),
                region(0x2000, 0xffbf_ffff, "---"),
                region(0xffc0_0000, 0xffff_ffff, "-wx"),
                region(1 << 32, u64::MAX, "---"),
            ]
        );
        assert_eq!(
            all(&tables, &paging(1, 0, 0)),
            [
                region(0, END - 1, "rwx"),
                region(END, 0xffff_ffff, "-wx"),
                region(1 << 32, u64::MAX, "---"),
            ]
        );
    }

    #[test]
    fn a_page_that_ram_fills_in_parts_is_a_region_for_each_part() {
        let ram = [(0x2000, 0x3000), (0x6000, 0x1000), (0x9000, 0x7000)];
        let ram = ram.map(|(gpa, len)| RamRange {
            gpa: Gpa::new(gpa),
            len,
        });
        for (gpa, wanted) in [
            (0, (false, 0, 0x1fff)),
            (0x1fff, (false, 0, 0x1fff)),
            (0x2000, (true, 0x2000, 0x4fff)),
            (0x4fff, (true, 0x2000, 0x4fff)),
            (0x5000, (false, 0x5000, 0x5fff)),
            (0x8abc, (false, 0x7000, 0x8fff)),
            (0xffff, (true, 0x9000, 0xffff)),
            (0x1_0000, (false, 0x1_0000, u64::MAX)),
        ] {
            assert_eq!(around(&ram, gpa), wanted, "{gpa:#x}");
        }
        let tables = Tables::new([(0x1000, 0x2000 | PW), (0x2000, PW | LARGE)]);
        let region_at = |gva| memory_region(&tables, &long(), &ram, Gva::new(gva));
        assert_eq!(region_at(0x1234), region(0, 0x1fff, "-wx"));
        assert_eq!(region_at(0x2000), region(0x2000, 0x4fff, "rwx"));
        assert_eq!(region_at(0x5fff), region(0x5000, 0x5fff, "-wx"));
    }

    /// 2^36 pages: every entry of the root leads to the root.
    #[test]
    fn a_region_without_end_is_told_in_pieces_that_do_not_overlap() {
        let tables = Tables::new((0..512).map(|i| (0x1000 + 8 * i, 0x1000 | PW)));
        let mut from = 0;
        for _ in 0..3 {
            tables.reads.set(0);
            let piece = at(&tables, &long(), from);
            assert!(tables.reads.get() < 5 * (STEPS_UP + STEPS_DOWN + 4));
            assert_eq!(piece.first.value(), from);
            assert!(piece.last.value() >= from + STEPS_UP as u64 * 0x1000 - 1);
            from = piece.last.value() + 1;
        }
    }
}
