//! Lists the pages that page tables map.
//!
//! Each page is found by a walk, so the list agrees with [`walk`] by construction. For an unmapped address, the fault shows how many bytes the missing entry
//! would have mapped. Tables may contain themselves, and then map more pages than could ever be listed. So every call is bounded.

use super::PagingMode;
use super::PagingState;
use super::PhysicalMemory;
use super::WalkFault;
use super::walk;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::memory::MappedPage;
use vmm_core_defs::memory::MappedPages;
use vmm_core_defs::memory::WalkFaultReason;

/// The most walks in one call. A walk reads up to five entries of guest memory, which takes some hundred nanoseconds.
const WALKS: usize = 1 << 14;

/// The mapped pages from the page that holds `from` on, or from the next mapped page.
pub(crate) fn mapped_pages(
    memory: &impl PhysicalMemory,
    paging: &PagingState,
    from: Gva,
) -> MappedPages {
    let mode = PagingMode::new(paging);
    let mut pages = Vec::new();
    let mut next = match mode {
        PagingMode::Off => None,
        _ => Some(mode.linear(from.value()).unwrap_or(mode.upper_half())),
    };
    for _ in 0..WALKS {
        let Some(linear) = next else {
            break;
        };
        let size = match look(memory, paging, mode, linear) {
            Found::Page(page) => {
                pages.push(page);
                Some(page.size)
            }
            Found::Gap(size) => size,
        };
        next = size.and_then(|size| mode.after(linear, size));
    }
    let next = next.map(Gva::new);
    MappedPages { pages, next }
}

/// The result of one walk for the addresses around the walked address.
pub(super) enum Found {
    /// The page that holds the address.
    Page(MappedPage),
    /// This many bytes, aligned, are not mapped. `None` if no address is mapped.
    Gap(Option<u64>),
}

pub(super) fn look(
    memory: &impl PhysicalMemory,
    paging: &PagingState,
    mode: PagingMode,
    linear: u64,
) -> Found {
    match walk(memory, paging, Gva::new(linear)) {
        Ok(found) => {
            let size = found.page_size.unwrap_or(1 << 32);
            let entry = found.path.entries().last();
            Found::Page(MappedPage {
                gva: Gva::new(linear & !(size - 1)),
                gpa: Gpa::new(found.gpa.value() & !(size - 1)),
                size,
                writable: found.writable,
                user: found.user,
                executable: found.executable,
                entry: entry.map_or(0, |entry| entry.value),
            })
        }
        Err(fault) => Found::Gap(not_mapped(mode, &fault)),
    }
}

/// How many bytes, aligned, are not mapped for this reason. `None` if no address is mapped.
fn not_mapped(mode: PagingMode, fault: &WalkFault) -> Option<u64> {
    match fault.reason {
        WalkFaultReason::NonCanonical => None,
        WalkFaultReason::NotPresent(entry) | WalkFaultReason::Reserved { entry, .. } => {
            Some(mode.page_size(entry.level))
        }
        // The number of bytes that one entry of the table above maps.
        WalkFaultReason::NoTable { level, .. } => {
            (level < mode.levels()).then(|| mode.page_size(level + 1))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::x86_64::page_walk::PagingLimits;
    use std::collections::BTreeMap;

    const PW: u64 = 0b11;
    const LARGE: u64 = 1 << 7;

    /// Entries at the addresses given; zeros elsewhere below `ram`.
    struct Tables {
        entries: BTreeMap<u64, u64>,
        ram: u64,
    }

    impl Tables {
        fn new(entries: &[(u64, u64)]) -> Self {
            Self {
                entries: entries.iter().copied().collect(),
                ram: 0x10_0000,
            }
        }
    }

    impl PhysicalMemory for Tables {
        fn read_u32(&self, gpa: Gpa) -> Option<u32> {
            self.read_u64(gpa).and_then(|entry| entry.try_into().ok())
        }

        fn read_u64(&self, gpa: Gpa) -> Option<u64> {
            let entry = self.entries.get(&gpa.value()).copied();
            (gpa.value() < self.ram).then_some(entry.unwrap_or(0))
        }
    }

    fn paging(cr4: u64, efer: u64) -> PagingState {
        PagingState {
            cr0: 1 << 31 | 1,
            cr3: 0x1000,
            cr4,
            efer,
            limits: PagingLimits::new(46, true),
        }
    }

    fn long() -> PagingState {
        paging(1 << 5, 1 << 10)
    }

    /// All pages, by as many calls as needed.
    fn all(tables: &Tables, paging: &PagingState) -> Vec<(u64, u64, u64)> {
        let mut pages = Vec::new();
        let mut next = Some(Gva::new(0));
        while let Some(from) = next {
            let some = mapped_pages(tables, paging, from);
            let page = |page: MappedPage| (page.gva.value(), page.gpa.value(), page.size);
            pages.extend(some.pages.into_iter().map(page));
            assert!(some.next.is_none_or(|next| next > from), "it goes on");
            next = some.next;
        }
        pages
    }

    #[test]
    fn pages_of_every_size_are_listed_in_both_halves() {
        let tables = Tables::new(&[
            (0x1000, 0x2000 | PW),
            (0x1ff8, 0x3000 | PW),
            // 1 GiB at 0, and a directory above.
            (0x2000, PW | LARGE),
            (0x2008, 0x4000 | PW),
            // 2 MiB, a hole, and a table with its second page.
            (0x4000, 0x20_0000 | PW | LARGE),
            (0x4010, 0x5000 | PW),
            (0x5008, 0x7000 | PW),
            // The last page of all.
            (0x3ff8, 0x6000 | PW),
            (0x6ff8, 0x7000 | PW),
            (0x7ff8, 0x9000 | 1),
        ]);
        assert_eq!(
            all(&tables, &long()),
            [
                (0, 0, 1 << 30),
                (0x4000_0000, 0x20_0000, 2 << 20),
                (0x4040_1000, 0x7000, 0x1000),
                (0xffff_ffff_ffff_f000, 0x9000, 0x1000),
            ]
        );
        // From inside of a page, and from between the halves.
        let from = mapped_pages(&tables, &long(), Gva::new(0x4000_1234));
        assert_eq!(from.pages[0].gva, Gva::new(0x4000_0000));
        let from = mapped_pages(&tables, &long(), Gva::new(1 << 60));
        assert_eq!(from.pages[0].gva, Gva::new(0xffff_ffff_ffff_f000));
        assert!(!from.pages[0].writable && from.pages[0].executable);
    }

    #[test]
    fn tables_of_32_bit_entries_end_at_4_gib() {
        let tables = Tables::new(&[
            (0x1000, 0x2000 | PW),
            (0x1ffc, 0xffc0_0000 | PW | LARGE),
            (0x2004, 0x8000 | PW),
        ]);
        let listed = all(&tables, &paging(1 << 4, 0));
        assert_eq!(
            listed,
            [
                (0x1000, 0x8000, 0x1000),
                (0xffc0_0000, 0xffc0_0000, 4 << 20)
            ]
        );
    }

    #[test]
    fn without_paging_nothing_is_mapped_and_nothing_is_walked() {
        let mut off = long();
        off.cr0 = 1;
        let none = mapped_pages(&Tables::new(&[]), &off, Gva::new(0));
        assert_eq!((none.pages, none.next), (vec![], None));
    }

    #[test]
    fn a_table_where_no_memory_is_maps_nothing() {
        let tables = Tables::new(&[(0x1000, 0x20_0000 | PW), (0x1ff8, 0x3000 | PW)]);
        assert_eq!(all(&tables, &long()), []);
        let mut nowhere = long();
        nowhere.cr3 = 0x20_0000;
        assert_eq!(all(&tables, &nowhere), []);
        // It hides none that follow, at any level.
        let tables = Tables::new(&[
            (0x1000, 0x20_0000 | PW),
            (0x1008, 0x3000 | PW),
            (0x3000, 0x20_0000 | PW),
            (0x3008, 0x6000 | PW),
            (0x6000, 0x20_0000 | PW),
            (0x6008, 0x7000 | PW),
            (0x7000, 0x9000 | PW),
        ]);
        let after = (1 << 39) + (1 << 30) + (2 << 20);
        assert_eq!(all(&tables, &long()), [(after, 0x9000, 0x1000)]);
    }

    /// 2^36 pages: every entry of the root leads to the root.
    #[test]
    fn one_call_takes_no_longer_for_tables_that_map_everything() {
        let entries: Vec<_> = (0..512).map(|i| (0x1000 + 8 * i, 0x1000 | PW)).collect();
        let some = mapped_pages(&Tables::new(&entries), &long(), Gva::new(0));
        assert_eq!(some.pages.len(), WALKS);
        assert_eq!(some.next, Some(Gva::new(WALKS as u64 * 0x1000)));
    }
}
