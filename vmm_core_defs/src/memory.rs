//! Replies about memory and address translation.

use crate::addr::Gpa;
use crate::addr::Gva;
use serde::Deserialize;
use serde::Serialize;
use thiserror::Error;

/// The longest read or write one request may ask for, in bytes.
///
/// Far above what a client's packet can carry, and small enough that no client can make the VMM run out of memory.
pub const MAX_TRANSFER: usize = 16 << 20;

/// What a guest virtual address translates to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Translation {
    /// The byte's guest physical address.
    pub gpa: Gpa,
    /// How large the page is that maps it, in bytes; `None` where paging is off.
    pub page_size: Option<u64>,
    /// Whether a write is allowed at every level of the walk.
    pub writable: bool,
    /// Whether user mode may touch it at every level of the walk.
    pub user: bool,
    /// Whether instructions may be fetched from it.
    pub executable: bool,
    /// The table entries the walk read, the root's first.
    pub entries: Vec<TableEntry>,
}

/// Some of what a VP's page tables map, in the order of its addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappedPages {
    /// The pages, of whatever size each is.
    pub pages: Vec<MappedPage>,
    /// Where the next request is to begin; `None` where no page is mapped further on.
    pub next: Option<Gva>,
}

/// A page that page tables map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappedPage {
    /// Its first byte.
    pub gva: Gva,
    /// The physical address of its first byte.
    pub gpa: Gpa,
    /// How large it is, in bytes.
    pub size: u64,
    /// Whether a write is allowed at every level of the walk.
    pub writable: bool,
    /// Whether user mode may touch it at every level of the walk.
    pub user: bool,
    /// Whether instructions may be fetched from it.
    pub executable: bool,
    /// The entry that maps it; 32-bit entries are zero-extended.
    pub entry: u64,
}

/// Virtual addresses that follow each other and are all alike to a VP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryRegion {
    /// Its first byte.
    pub first: Gva,
    /// Its last byte: one past it has no number at the end of the address space.
    pub last: Gva,
    /// What the page tables allow there; `None` where nothing is mapped.
    pub rights: Option<RegionRights>,
}

/// What is the same for every byte of a region that is mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionRights {
    /// Whether RAM is there. Elsewhere is a device, or nothing.
    pub ram: bool,
    /// Whether a write is allowed at every level of the walk.
    pub writable: bool,
    /// Whether instructions may be fetched.
    pub executable: bool,
}

/// A range of guest physical memory that RAM backs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RamRange {
    /// Its first byte.
    pub gpa: Gpa,
    /// How many bytes.
    pub len: u64,
}

/// One entry read by a page walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableEntry {
    /// 5 down to 1, as the SDM numbers the levels (1 is the page table). x86 only so far.
    pub level: u8,
    /// Where the entry lies.
    pub gpa: Gpa,
    /// The entry itself; 32-bit entries are zero-extended.
    pub value: u64,
}

/// Why a page walk ends before it finds a page: what is wrong with the address, or with an entry on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum WalkFaultReason {
    /// The upper bits are not all equal to the highest one translated.
    #[error("it is not canonical")]
    NonCanonical,
    /// The P bit is clear.
    #[error("the entry {:#x} of level {} at {} is not present", .0.value, .0.level, .0.gpa)]
    NotPresent(TableEntry),
    /// A reserved bit is set.
    #[error("the entry {:#x} of level {} at {} has reserved bits {bits:#x} set", .entry.value, .entry.level, .entry.gpa)]
    Reserved {
        /// The entry.
        entry: TableEntry,
        /// The reserved bits that are set.
        bits: u64,
    },
    /// The table itself is not in RAM.
    #[error("its table of level {level} would be at {gpa}, where no memory is")]
    NoTable {
        /// The table's level.
        level: u8,
        /// Where the entry would be.
        gpa: Gpa,
    },
}
