//! Walks the guest's page tables (SDM volume 3, chapter "Paging").
//!
//! The walk uses only reads of guest-physical memory, so it works while VPs run. `KVM_TRANSLATE`, a vCPU ioctl, does not. A walk
//! takes a *linear* address: [`linear_address`](crate::arch::x86_64::cpu_mode::linear_address) adds segment bases. The walk does not check an access. It
//! returns the permissions of the tables, and sets no accessed or dirty bit.
//!
//! The walk ignores bit 8 of upper entries (reserved on AMD, ignored on Intel), protection keys, SMEP/SMAP, control-flow enforcement, nested guests' tables,
//! and the PAE root entries that an Intel processor has loaded at its last write of CR3 (the walk reads these entries from memory).

use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::memory::TableEntry;
use vmm_core_defs::memory::Translation;
use vmm_core_defs::memory::WalkFaultReason;
use vmm_core_defs::regs::X86VpState;

pub(in crate::arch::x86_64) mod format;
mod mapped_pages;
mod memory_region;

pub(crate) use format::PagingMode;
pub(crate) use mapped_pages::mapped_pages;
pub(crate) use memory_region::memory_region;

/// Reads page-table entries. Entries are naturally aligned. Each is read in one access, since a VP may be changing it.
pub(crate) trait PhysicalMemory {
    /// The 4 bytes at `gpa`, or `None` if there is no RAM.
    fn read_u32(&self, gpa: Gpa) -> Option<u32>;
    /// The 8 bytes at `gpa`, or `None` if there is no RAM.
    fn read_u64(&self, gpa: Gpa) -> Option<u64>;
}

/// The properties of paging in the guest's CPUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PagingLimits {
    physical_bits: u8,
    gib_pages: bool,
}

impl PagingLimits {
    /// `physical_bits` is MAXPHYADDR, the width of a physical address. Outside 32 to 52, which no processor has, it counts as 36, which is also
    /// what a processor without the CPUID leaf has (SDM volume 3, "Enumeration of Paging Features by CPUID").
    pub const fn new(physical_bits: u8, gib_pages: bool) -> Self {
        let physical_bits = match physical_bits {
            32..=52 => physical_bits,
            _ => 36,
        };
        Self {
            physical_bits,
            gib_pages,
        }
    }

    /// The width of a physical address in bits, 32 to 52.
    pub const fn physical_bits(&self) -> u8 {
        self.physical_bits
    }
}

/// The registers that decide how a VP translates addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PagingState {
    /// CR0, for PG.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4, for PSE, PAE and LA57.
    pub cr4: u64,
    /// EFER, for LMA and NXE.
    pub efer: u64,
    /// The properties in CPUID.
    pub limits: PagingLimits,
}

impl PagingState {
    /// The paging registers of a register file.
    pub(crate) const fn new(state: &X86VpState, limits: PagingLimits) -> Self {
        Self {
            cr0: state.cr0,
            cr3: state.cr3,
            cr4: state.cr4,
            efer: state.efer,
            limits,
        }
    }
}

/// The path of a walk: the entries that were read, first that of the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Path {
    entries: [Option<TableEntry>; 5],
}

impl Path {
    fn push(&mut self, entry: TableEntry) {
        if let Some(free) = self.entries.iter_mut().find(|slot| slot.is_none()) {
            *free = Some(entry);
        }
    }

    /// The entries, the root's first.
    pub fn entries(&self) -> impl Iterator<Item = TableEntry> {
        self.entries.iter().flatten().copied()
    }
}

/// A translated address. It becomes a [`Translation`], and unlike it costs no allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walk {
    /// The byte's guest physical address.
    pub gpa: Gpa,
    /// The size of the page in bytes; `None` without paging.
    pub page_size: Option<u64>,
    /// Whether every level permits writes.
    pub writable: bool,
    /// Whether every level permits user mode.
    pub user: bool,
    /// Whether no level forbids instruction fetches.
    pub executable: bool,
    /// The path of the walk.
    pub path: Path,
}

impl Walk {
    /// The number of bytes from this one to the end of its page. Without paging, up to 4 GiB.
    pub const fn bytes_left(&self) -> u64 {
        let size = match self.page_size {
            Some(size) => size,
            None => 1 << 32,
        };
        size - (self.gpa.value() & (size - 1))
    }
}

impl From<Walk> for Translation {
    fn from(walk: Walk) -> Self {
        Self {
            gpa: walk.gpa,
            page_size: walk.page_size,
            writable: walk.writable,
            user: walk.user,
            executable: walk.executable,
            entries: walk.path.entries().collect(),
        }
    }
}

/// Why an address has no translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{gva} has no translation: {reason}")]
pub(crate) struct WalkFault {
    /// The linear address that has no translation.
    pub gva: Gva,
    /// The reason, with the entry at which the walk ended.
    pub reason: WalkFaultReason,
}

/// Translates a linear address. Outside long mode the upper 32 bits are ignored, since they do not exist there.
///
/// # Errors
/// [`WalkFault`] if any access of a VP would fault.
pub(crate) fn walk(
    memory: &impl PhysicalMemory,
    paging: &PagingState,
    gva: Gva,
) -> Result<Walk, WalkFault> {
    let mode = PagingMode::new(paging);
    let mut path = Path::default();
    let Some(linear) = mode.linear(gva.value()) else {
        return Err(WalkFault {
            gva,
            reason: WalkFaultReason::NonCanonical,
        });
    };
    let mut table = mode.root(paging);
    let (mut writable, mut user, mut executable) = (true, true, true);
    for level in (1..=mode.levels()).rev() {
        let fault = |reason| WalkFault { gva, reason };
        let gpa = Gpa::new(table + mode.entry_offset(linear, level));
        let value = if mode.entry_bytes() == 4 {
            memory.read_u32(gpa).map(u64::from)
        } else {
            memory.read_u64(gpa)
        };
        let Some(value) = value else {
            return Err(fault(WalkFaultReason::NoTable { level, gpa }));
        };
        let entry = TableEntry { level, gpa, value };
        path.push(entry);
        if value & format::PRESENT == 0 {
            return Err(fault(WalkFaultReason::NotPresent(entry)));
        }
        let leaf = mode.is_leaf(value, level, paging);
        let bits = value & mode.reserved(level, leaf, paging);
        if bits != 0 {
            return Err(fault(WalkFaultReason::Reserved { entry, bits }));
        }
        if mode.has_permissions(level) {
            writable &= value & format::WRITABLE != 0;
            user &= value & format::USER != 0;
            executable &= value & format::NO_EXECUTE == 0;
        }
        if leaf {
            let page_size = mode.page_size(level);
            let frame = mode.frame(value, level, paging);
            return Ok(Walk {
                gpa: Gpa::new(frame | linear & (page_size - 1)),
                page_size: Some(page_size),
                writable,
                user,
                executable,
                path,
            });
        }
        table = mode.next_table(value, paging);
    }
    // Reached only without levels, that is without paging, because level 1 is always a leaf.
    Ok(Walk {
        gpa: Gpa::new(linear),
        page_size: None,
        writable,
        user,
        executable,
        path,
    })
}

#[cfg(test)]
mod tests;
