//! The memory slots of a VM: which guest physical addresses are memory, and where this memory is in the VMM (api.rst, `KVM_SET_USER_MEMORY_REGION`).
//!
//! Slots may change at any time: a VMM adds memory, takes memory away, or maps all memory anew at a reboot. A change waits for the accesses that are in progress,
//! so no access reaches an address of the VMM after the VMM was told that its slot is gone.

use super::written::WrittenPages;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::RwLockReadGuard;
use vm_memory::GuestMemoryBackend;
use vm_memory::GuestMemoryMmap;
use vm_memory::GuestMemoryRegion;
use vm_memory::MemoryRegionAddress;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::memory::RamRange;

/// One memory slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemorySlot {
    /// The guest physical address of the first byte.
    pub(crate) gpa: u64,
    /// The size in bytes.
    pub(crate) size: u64,
    /// The address of the first byte in this process.
    pub(crate) host: usize,
    /// Whether the guest may write the memory (`KVM_MEM_READONLY` is not set). A debugger does not write to other memory.
    pub(crate) writable: bool,
}

impl MemorySlot {
    /// The guest physical addresses. Empty if the slot is.
    pub(crate) fn range(&self) -> RangeInclusive<Gpa> {
        match self.size.checked_sub(1) {
            Some(last) => Gpa::new(self.gpa)..=Gpa::new(self.gpa.saturating_add(last)),
            None => Self::nowhere(),
        }
    }

    /// The addresses of no slot.
    pub(crate) fn nowhere() -> RangeInclusive<Gpa> {
        Gpa::new(1)..=Gpa::new(0)
    }
}

/// A range of addresses of this process at which guest memory was mapped. It may be unmapped now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HostRange {
    /// The first byte.
    pub(crate) at: usize,
    /// The number of bytes.
    pub(crate) len: usize,
}

/// The slots of a VM.
pub(crate) struct MemorySlots {
    table: RwLock<Table>,
    /// The pages that were written by this crate.
    pub(crate) written: WrittenPages,
}

#[derive(Debug, Default)]
struct Table {
    by_number: BTreeMap<u32, MemorySlot>,
    /// The same slots, by address.
    sorted: Vec<MemorySlot>,
    /// Memory that stays mapped for as long as this value exists. `None` if the VMM sees to that.
    backing: Option<Arc<GuestMemoryMmap>>,
}

impl Table {
    fn set(&mut self, number: u32, slot: Option<MemorySlot>) {
        match slot {
            Some(slot) => self.by_number.insert(number, slot),
            None => self.by_number.remove(&number),
        };
        self.sorted = self.by_number.values().copied().collect();
        self.sorted.sort_by_key(|slot| slot.gpa);
    }

    fn find(&self, gpa: u64) -> Option<(&MemorySlot, u64)> {
        let behind = self.sorted.partition_point(|slot| slot.gpa <= gpa);
        let slot = self.sorted.get(behind.checked_sub(1)?)?;
        let offset = gpa - slot.gpa;
        (offset < slot.size).then_some((slot, offset))
    }
}

/// The slots as long as they cannot change.
pub(crate) struct Mapped<'a>(RwLockReadGuard<'a, Table>);

impl Mapped<'_> {
    /// The memory at an address, for reads: up to `len` bytes of one slot.
    pub(crate) fn readable(&self, gpa: u64, len: usize) -> Option<HostRange> {
        self.find(gpa, len).map(|(range, _)| range)
    }

    /// The memory at an address, for writes: up to `len` bytes of one slot that the guest may write.
    pub(crate) fn writable(&self, gpa: u64, len: usize) -> Option<HostRange> {
        self.find(gpa, len)
            .and_then(|(range, writable)| writable.then_some(range))
    }

    fn find(&self, gpa: u64, len: usize) -> Option<(HostRange, bool)> {
        let (slot, offset) = self.0.find(gpa)?;
        let left = usize::try_from(slot.size - offset).unwrap_or(usize::MAX);
        let at = slot.host.checked_add(usize::try_from(offset).ok()?)?;
        let len = len.min(left);
        Some((HostRange { at, len }, slot.writable))
    }
}

impl MemorySlots {
    /// No memory. The VMM sets the slots.
    pub(crate) fn empty() -> Self {
        Self {
            table: RwLock::default(),
            written: WrittenPages::default(),
        }
    }

    /// The regions of `memory`.
    pub(crate) fn of(memory: Arc<GuestMemoryMmap>) -> Self {
        let slots = Self::empty();
        slots.set_all(memory);
        slots
    }

    /// Makes the regions of `memory` the slots, once no access is in progress. The memory stays mapped until it is replaced.
    pub(crate) fn set_all(&self, memory: Arc<GuestMemoryMmap>) {
        let mut table = Table::default();
        for (number, region) in (0..).zip(memory.iter()) {
            if let Ok(host) = region.get_host_address(MemoryRegionAddress(0)) {
                let slot = MemorySlot {
                    gpa: region.start_addr().0,
                    size: region.len(),
                    host: host as usize,
                    writable: true,
                };
                table.set(number, Some(slot));
            }
        }
        table.backing = Some(memory);
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = table;
    }

    /// Sets, changes or (`None`) removes a slot, once no access is in progress.
    pub(crate) fn set(&self, number: u32, slot: Option<MemorySlot>) {
        let table = self.table.write();
        table
            .unwrap_or_else(PoisonError::into_inner)
            .set(number, slot);
    }

    /// A slot.
    pub(crate) fn slot(&self, number: u32) -> Option<MemorySlot> {
        self.table().by_number.get(&number).copied()
    }

    /// Keeps the slots as they are until the result is dropped.
    pub(crate) fn mapped(&self) -> Mapped<'_> {
        Mapped(self.table())
    }

    fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes of memory from `gpa` to the end of its slot. `None` where there is no memory.
    pub(crate) fn bytes_from(&self, gpa: u64) -> Option<u64> {
        let table = self.table();
        let (slot, offset) = table.find(gpa)?;
        Some(slot.size - offset)
    }

    /// The first address of memory behind `gpa`.
    pub(crate) fn next_behind(&self, gpa: u64) -> Option<u64> {
        let table = self.table();
        let behind = table.sorted.partition_point(|slot| slot.gpa <= gpa);
        table.sorted.get(behind).map(|slot| slot.gpa)
    }

    /// The slots, by address.
    pub(crate) fn ranges(&self) -> Vec<RamRange> {
        let table = self.table();
        let slots = table.sorted.iter();
        slots
            .map(|slot| RamRange {
                gpa: Gpa::new(slot.gpa),
                len: slot.size,
            })
            .collect()
    }
}

#[cfg(test)]
impl MemorySlots {
    /// Zeroed memory at these addresses, with these lengths.
    pub(crate) fn zeroed(ranges: &[(u64, usize)]) -> Self {
        let ranges: Vec<_> = ranges
            .iter()
            .map(|(gpa, len)| (vm_memory::GuestAddress(*gpa), *len))
            .collect();
        GuestMemoryMmap::from_ranges(&ranges)
            .expect("a test's memory")
            .into()
    }

    /// The memory that a test has made.
    pub(crate) fn backing(&self) -> Arc<GuestMemoryMmap> {
        let backing = self.table().backing.clone();
        backing.expect("slots of a test's memory")
    }
}

#[cfg(test)]
impl From<GuestMemoryMmap> for MemorySlots {
    fn from(memory: GuestMemoryMmap) -> Self {
        Self::of(Arc::new(memory))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(gpa: u64, size: u64, host: usize) -> Option<MemorySlot> {
        let writable = true;
        Some(MemorySlot {
            gpa,
            size,
            host,
            writable,
        })
    }

    fn readable(slots: &MemorySlots, gpa: u64, len: usize) -> Option<(usize, usize)> {
        let range = slots.mapped().readable(gpa, len)?;
        Some((range.at, range.len))
    }

    #[test]
    fn an_address_is_looked_up_in_its_slot_and_in_no_other() {
        let slots = MemorySlots::empty();
        assert_eq!(readable(&slots, 0, 1), None);
        slots.set(7, slot(0x10_0000, 0x1000, 0x7000_0000));
        slots.set(2, slot(0, 0x1000, 0x5000_0000));
        assert_eq!(readable(&slots, 0xfff, 8), Some((0x5000_0fff, 1)));
        assert_eq!(readable(&slots, 0x1000, 8), None);
        assert_eq!(readable(&slots, 0x10_0008, 8), Some((0x7000_0008, 8)));
        assert_eq!(readable(&slots, 0x10_1000, 8), None);
        assert_eq!(slots.bytes_from(0x10_0ff0), Some(16));
        assert_eq!(slots.bytes_from(0x1000), None);
        assert_eq!(slots.next_behind(0x1000), Some(0x10_0000));
        assert_eq!(slots.next_behind(0x10_0000), None);
        assert_eq!(slots.ranges().len(), 2);
        let range = slots.slot(7).map(|slot| slot.range());
        assert_eq!(range, Some(Gpa::new(0x10_0000)..=Gpa::new(0x10_0fff)));
        assert_eq!(slots.slot(1), None);
    }

    #[test]
    fn a_slot_moves_and_goes_by_its_number() {
        let slots = MemorySlots::empty();
        slots.set(0, slot(0, 0x1000, 0x5000_0000));
        slots.set(0, slot(0x8000, 0x1000, 0x5000_0000));
        assert_eq!(readable(&slots, 0, 1), None);
        assert_eq!(readable(&slots, 0x8000, 1), Some((0x5000_0000, 1)));
        slots.set(0, None);
        assert_eq!(readable(&slots, 0x8000, 1), None);
        assert!(slots.ranges().is_empty());
    }

    #[test]
    fn memory_that_the_guest_cannot_write_is_read_only() {
        let slots = MemorySlots::empty();
        let rom = MemorySlot {
            gpa: 0,
            size: 16,
            host: 0x1000,
            writable: false,
        };
        slots.set(0, Some(rom));
        assert!(slots.mapped().readable(0, 1).is_some());
        assert!(slots.mapped().writable(0, 1).is_none());
    }

    #[test]
    fn ranges_at_the_ends_of_the_address_spaces_do_not_overflow() {
        let slots = MemorySlots::empty();
        slots.set(0, slot(u64::MAX - 15, 16, usize::MAX - 7));
        assert_eq!(readable(&slots, u64::MAX, 4), None);
        assert_eq!(
            readable(&slots, u64::MAX - 15, 4),
            Some((usize::MAX - 7, 4))
        );
        assert_eq!(slots.next_behind(u64::MAX), None);
    }
}
