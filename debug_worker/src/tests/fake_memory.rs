//! The memory of the fake VM: its page tables and its regions, which do not agree with each other.

use super::fake_vm::MEMORY_SIZE;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::memory::MappedPage;
use vmm_core_defs::memory::MappedPages;
use vmm_core_defs::memory::MemoryRegion;
use vmm_core_defs::memory::RegionRights;
use vmm_core_defs::memory::TableEntry;
use vmm_core_defs::memory::Translation;
use vmm_core_defs::memory::WalkFaultReason;

/// Addresses from 4 GiB on are mapped, each to the address 4 GiB below.
pub(super) fn translate(vp: VpIndex, gva: Gva) -> Result<Translation, DebugError> {
    let gpa = gva.value().checked_sub(1 << 32);
    let gpa = gpa.map(Gpa::new).ok_or_else(|| not_mapped(vp, gva))?;
    Ok(Translation {
        gpa,
        page_size: Some(1 << 12),
        writable: true,
        user: false,
        executable: true,
        entries: vec![TableEntry {
            level: 1,
            gpa: Gpa::new(0x2000),
            value: 3,
        }],
    })
}

pub(super) fn not_mapped(vp: VpIndex, gva: Gva) -> DebugError {
    let why = WalkFaultReason::NonCanonical;
    DebugError::NotMapped { vp, gva, why }
}

/// Two pages, with one answer each.
pub(super) fn mapped_pages(from: Gva) -> MappedPages {
    let page = |gva| MappedPage {
        gva: Gva::new(gva),
        gpa: Gpa::new(gva),
        size: 0x1000,
        writable: true,
        user: false,
        executable: true,
        entry: gva | 3,
    };
    match from.value() {
        0 => MappedPages {
            pages: vec![page(0x1000)],
            next: Some(Gva::new(0x2000)),
        },
        _ => MappedPages {
            pages: vec![page(0x2000)],
            next: None,
        },
    }
}

/// Code at 0x1000, data behind it, a device, a hole, and data up to the end of memory.
pub(super) fn memory_region(gva: Gva) -> MemoryRegion {
    const REGIONS: [(u64, Option<(bool, bool)>); 6] = [
        (0xfff, None),
        (0x1fff, Some((true, false))),
        (0x2fff, Some((true, true))),
        (0x3fff, Some((false, true))),
        (0x7_ffff, None),
        (MEMORY_SIZE as u64 - 1, Some((true, true))),
    ];
    let mut first = 0;
    for (last, rights) in REGIONS.into_iter().chain([(u64::MAX, None)]) {
        if gva.value() <= last {
            return MemoryRegion {
                first: Gva::new(first),
                last: Gva::new(last),
                rights: rights.map(|(ram, writable)| RegionRights {
                    ram,
                    writable,
                    executable: !writable,
                }),
            };
        }
        first = last + 1;
    }
    unreachable!("the last region has the last address")
}
