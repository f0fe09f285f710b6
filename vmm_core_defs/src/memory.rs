//! Replies about memory and address translation.

use crate::addr::Gpa;
use crate::addr::Gva;
use serde::Deserialize;
use serde::Serialize;
use thiserror::Error;

/// The maximum length of a memory read or write in one request, in bytes.
///
/// The limit is far above what a packet of a client can contain, and so small that a client cannot exhaust the memory
/// of the VMM.
pub const MAX_TRANSFER: usize = 16 << 20;

/// The translation of a guest virtual address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Translation {
    /// The guest physical address of the byte.
    pub gpa: Gpa,
    /// The size of the page that maps the byte, in bytes. `None` if paging is off.
    pub page_size: Option<u64>,
    /// Whether every level of the walk allows writes.
    pub writable: bool,
    /// Whether every level of the walk allows accesses from user mode.
    pub user: bool,
    /// Whether every level of the walk allows instruction fetches.
    pub executable: bool,
    /// The table entries that the walk read, from the root down.
    pub entries: Vec<TableEntry>,
}

/// Pages that a VP's page tables map, in the order of their virtual addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappedPages {
    /// The mapped pages, with their different sizes.
    pub pages: Vec<MappedPage>,
    /// The address at which the next request has to begin. `None` if no page is mapped above the last one.
    pub next: Option<Gva>,
}

/// A page that page tables map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappedPage {
    /// The virtual address of the first byte.
    pub gva: Gva,
    /// The physical address of the first byte.
    pub gpa: Gpa,
    /// The size of the page, in bytes.
    pub size: u64,
    /// Whether every level of the walk allows writes.
    pub writable: bool,
    /// Whether every level of the walk allows accesses from user mode.
    pub user: bool,
    /// Whether every level of the walk allows instruction fetches.
    pub executable: bool,
    /// The entry that maps the page. A 32-bit entry is zero-extended.
    pub entry: u64,
}

/// A range of virtual addresses with the same properties for a VP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryRegion {
    /// The first byte of the region.
    pub first: Gva,
    /// The last byte of the region. (The end of a region at the top of the address space has no 64-bit number.)
    pub last: Gva,
    /// The rights in the page tables. `None` if the region is not mapped.
    pub rights: Option<RegionRights>,
}

/// The properties that all bytes of a mapped region share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionRights {
    /// Whether the region is mapped to RAM. Otherwise it is mapped to a device or to nothing.
    pub ram: bool,
    /// Whether every level of the walk allows writes.
    pub writable: bool,
    /// Whether every level of the walk allows instruction fetches.
    pub executable: bool,
}

/// A range of guest physical addresses with RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RamRange {
    /// The first byte of the range.
    pub gpa: Gpa,
    /// The length of the range, in bytes.
    pub len: u64,
}

/// A table entry that a page walk read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableEntry {
    /// The level of the table, 5 down to 1, as the SDM numbers the levels (1 is the page table). Only x86 is supported.
    pub level: u8,
    /// The physical address of the entry.
    pub gpa: Gpa,
    /// The value of the entry. A 32-bit entry is zero-extended.
    pub value: u64,
}

/// The reason why a page walk finds no page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum WalkFaultReason {
    /// The address is not canonical: its upper bits differ from the highest bit that is translated.
    #[error("it is not canonical")]
    NonCanonical,
    /// The P bit of an entry is clear.
    #[error("the entry {:#x} of level {} at {} is not present", .0.value, .0.level, .0.gpa)]
    NotPresent(TableEntry),
    /// An entry has reserved bits set.
    #[error("the entry {:#x} of level {} at {} has reserved bits {bits:#x} set", .entry.value, .entry.level, .entry.gpa)]
    Reserved {
        /// The entry with the reserved bits.
        entry: TableEntry,
        /// The reserved bits that are set.
        bits: u64,
    },
    /// The table that an entry points to is not in RAM.
    #[error("its table of level {level} would be at {gpa}, where no memory is")]
    NoTable {
        /// The level of the table that is not in RAM.
        level: u8,
        /// The physical address at which the walk would read the entry.
        gpa: Gpa,
    },
}
