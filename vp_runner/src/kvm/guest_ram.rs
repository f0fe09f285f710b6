//! Guest RAM as the debugger accesses it. The RAM may be read-only, shrunk or unmapped. Every access can fail, and no access ends the process.
//!
//! A plain copy of `vm-memory` would end the process by a signal. So no other part of the runner accesses the VMM's guest memory.

use super::guarded;
use super::guarded::HostRange;
use crate::arch::x86_64::page_walk::PhysicalMemory;
use crate::breakpoints::breakpoint_bytes::CodeMemory;
use crate::memory::GuestRam;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryBackend;
use vm_memory::GuestMemoryMmap;
use vm_memory::GuestMemoryRegion;
use vm_memory::MemoryRegionAddress;
use vmm_core_defs::addr::Gpa;

pub(crate) use guarded::install;

/// The memory at an address: up to `len` bytes of the same region.
fn host(ram: &GuestMemoryMmap, gpa: u64, len: usize) -> Option<HostRange> {
    let region = ram.find_region(GuestAddress(gpa))?;
    let offset = gpa - region.start_addr().0;
    let left = usize::try_from(region.len() - offset).unwrap_or(usize::MAX);
    let start = region.get_host_address(MemoryRegionAddress(0)).ok()?;
    Some(HostRange {
        at: (start as usize).checked_add(usize::try_from(offset).ok()?)?,
        len: len.min(left),
    })
}

/// All `len` bytes of one region.
fn whole(ram: &GuestMemoryMmap, gpa: Gpa, len: usize) -> Option<usize> {
    let range = host(ram, gpa.value(), len)?;
    (range.len == len).then_some(range.at)
}

/// Whether a processor makes an access of `len` bytes at `at` in one access.
fn is_natural(at: usize, len: usize) -> bool {
    matches!(len, 1 | 2 | 4 | 8) && at.is_multiple_of(len)
}

/// Reads up to the first byte that cannot be read. Returns how many. A naturally aligned value of up to 8 bytes is read in one access.
pub(super) fn read(ram: &GuestMemoryMmap, gpa: Gpa, data: &mut [u8]) -> usize {
    let mut done = 0;
    while done < data.len() {
        let piece = &mut data[done..];
        let at = gpa.value().checked_add(done as u64);
        let Some(range) = at.and_then(|at| host(ram, at, piece.len())) else {
            break;
        };
        let read = match is_natural(range.at, range.len) {
            true => guarded::load(range.at, range.len).map_or(0, |value| {
                piece[..range.len].copy_from_slice(&value.to_le_bytes()[..range.len]);
                range.len
            }),
            false => guarded::read(range, piece),
        };
        done += read;
        if read < range.len {
            break;
        }
    }
    done
}

/// Writes up to the first byte that cannot be written. Returns how many. A naturally aligned value of up to 8 bytes is written in one access.
pub(super) fn write(ram: &GuestMemoryMmap, gpa: Gpa, data: &[u8]) -> usize {
    let mut done = 0;
    while done < data.len() {
        let piece = &data[done..];
        let at = gpa.value().checked_add(done as u64);
        let Some(range) = at.and_then(|at| host(ram, at, piece.len())) else {
            break;
        };
        let written = match is_natural(range.at, range.len) {
            true => {
                let mut value = [0; 8];
                value[..range.len].copy_from_slice(&piece[..range.len]);
                guarded::store(range.at, range.len, u64::from_le_bytes(value))
                    .map_or(0, |()| range.len)
            }
            false => guarded::write(range, piece),
        };
        done += written;
        if written < range.len {
            break;
        }
    }
    done
}

/// One byte.
fn load_u8(ram: &GuestMemoryMmap, gpa: Gpa) -> Option<u8> {
    let [byte, ..] = guarded::load(whole(ram, gpa, 1)?, 1)?.to_le_bytes();
    Some(byte)
}

/// Four bytes, in one access.
pub(super) fn load_u32(ram: &GuestMemoryMmap, gpa: Gpa) -> Option<u32> {
    let value = guarded::load(whole(ram, gpa, 4)?, 4)?;
    u32::try_from(value).ok()
}

/// Eight bytes, in one access.
pub(super) fn load_u64(ram: &GuestMemoryMmap, gpa: Gpa) -> Option<u64> {
    guarded::load(whole(ram, gpa, 8)?, 8)
}

/// Writes one byte.
pub(super) fn store_u8(ram: &GuestMemoryMmap, gpa: Gpa, byte: u8) -> Option<()> {
    guarded::store(whole(ram, gpa, 1)?, 1, byte.into())
}

impl GuestRam for GuestMemoryMmap {
    fn read_some(&self, gpa: Gpa, data: &mut [u8]) -> usize {
        read(self, gpa, data)
    }

    fn write_some(&self, gpa: Gpa, data: &[u8]) -> usize {
        write(self, gpa, data)
    }

    fn guard_accesses(&self) {
        guarded::check();
    }
}

impl PhysicalMemory for GuestMemoryMmap {
    fn read_u32(&self, gpa: Gpa) -> Option<u32> {
        load_u32(self, gpa)
    }

    fn read_u64(&self, gpa: Gpa) -> Option<u64> {
        load_u64(self, gpa)
    }
}

impl CodeMemory for GuestMemoryMmap {
    fn read_byte(&self, gpa: Gpa) -> Option<u8> {
        load_u8(self, gpa)
    }

    fn write_byte(&self, gpa: Gpa, byte: u8) -> Option<()> {
        store_u8(self, gpa, byte)
    }
}

#[cfg(test)]
pub(crate) mod odd_ram;
#[cfg(test)]
mod tests;
