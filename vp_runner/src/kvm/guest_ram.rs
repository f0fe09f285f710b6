//! Guest RAM as the debugger accesses it. The RAM may be read-only, shrunk or unmapped. Every access can fail, and no access ends the process.
//!
//! A plain copy of `vm-memory` would end the process by a signal. So no other part of the runner accesses the VMM's guest memory.

use super::guarded;
use crate::arch::x86_64::page_walk::PhysicalMemory;
use crate::breakpoints::breakpoint_bytes::CodeMemory;
use crate::memory::GuestRam;
use crate::memory::slots::HostRange;
use crate::memory::slots::MemorySlots;
use vmm_core_defs::addr::Gpa;

pub(crate) use guarded::install;

/// All `len` bytes of one slot.
fn whole(range: Option<HostRange>, len: usize) -> Option<usize> {
    range.filter(|range| range.len == len).map(|range| range.at)
}

/// Whether a processor makes an access of `len` bytes at `at` in one access.
fn is_natural(at: usize, len: usize) -> bool {
    matches!(len, 1 | 2 | 4 | 8) && at.is_multiple_of(len)
}

/// Reads up to the first byte that cannot be read. Returns how many. A naturally aligned value of up to 8 bytes is read in one access.
pub(super) fn read(ram: &MemorySlots, gpa: Gpa, data: &mut [u8]) -> usize {
    let mapped = ram.mapped();
    let mut done = 0;
    while done < data.len() {
        let piece = &mut data[done..];
        let at = gpa.value().checked_add(done as u64);
        let Some(range) = at.and_then(|at| mapped.readable(at, piece.len())) else {
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
pub(super) fn write(ram: &MemorySlots, gpa: Gpa, data: &[u8]) -> usize {
    let mapped = ram.mapped();
    let mut done = 0;
    while done < data.len() {
        let piece = &data[done..];
        let at = gpa.value().checked_add(done as u64);
        let Some(range) = at.and_then(|at| mapped.writable(at, piece.len())) else {
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
    ram.written.note(gpa.value(), done);
    done
}

/// A value of `len` bytes, in one access.
fn load(ram: &MemorySlots, gpa: Gpa, len: usize) -> Option<u64> {
    let mapped = ram.mapped();
    guarded::load(whole(mapped.readable(gpa.value(), len), len)?, len)
}

/// One byte.
fn load_u8(ram: &MemorySlots, gpa: Gpa) -> Option<u8> {
    let [byte, ..] = load(ram, gpa, 1)?.to_le_bytes();
    Some(byte)
}

/// Four bytes, in one access.
pub(super) fn load_u32(ram: &MemorySlots, gpa: Gpa) -> Option<u32> {
    u32::try_from(load(ram, gpa, 4)?).ok()
}

/// Eight bytes, in one access.
pub(super) fn load_u64(ram: &MemorySlots, gpa: Gpa) -> Option<u64> {
    load(ram, gpa, 8)
}

/// Writes one byte.
pub(super) fn store_u8(ram: &MemorySlots, gpa: Gpa, byte: u8) -> Option<()> {
    let mapped = ram.mapped();
    guarded::store(whole(mapped.writable(gpa.value(), 1), 1)?, 1, byte.into())?;
    ram.written.note(gpa.value(), 1);
    Some(())
}

impl GuestRam for MemorySlots {
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

impl PhysicalMemory for MemorySlots {
    fn read_u32(&self, gpa: Gpa) -> Option<u32> {
        load_u32(self, gpa)
    }

    fn read_u64(&self, gpa: Gpa) -> Option<u64> {
        load_u64(self, gpa)
    }
}

impl CodeMemory for MemorySlots {
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
