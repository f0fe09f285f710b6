//! Guest memory as one VP sees it: by its own page tables, without breakpoint bytes of ours, and without an access to a device.

use crate::arch::x86_64::code_location::CodeLocation;
use crate::arch::x86_64::code_location::Fetch;
use crate::arch::x86_64::page_walk::PagingState;
use crate::arch::x86_64::page_walk::walk;
use crate::arch::x86_64::step_effects::GuestState;
use crate::breakpoints::Breakpoints;
use crate::breakpoints::CodeBytes;
use crate::memory::GuestRam as _;
use crate::memory::slots::MemorySlots;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::RwLockReadGuard;
use std::sync::RwLockWriteGuard;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::Gva;

/// The smallest size of a page, in bytes.
pub(super) const PAGE: u64 = 4096;

/// RAM, and the breakpoint bytes in it.
#[derive(Clone)]
pub(crate) struct GuestMemory {
    pub(crate) ram: Arc<MemorySlots>,
    /// Changed only while every VP is parked (I3).
    pub(crate) breakpoints: Arc<RwLock<Breakpoints>>,
}

/// Memory by linear address.
pub(super) struct LinearMemory<'a> {
    memory: &'a GuestMemory,
    paging: PagingState,
    pub(super) syscall: SyscallMsrs,
}

/// The gates of the vectors 0 to 14 in long mode, where a gate is largest. These are the gates of the likeliest exceptions.
const PREFETCHED_BYTES: usize = 15 * 16;

/// Linear memory, and a part of it that was read in advance.
pub(super) struct Prefetched<'a> {
    memory: &'a LinearMemory<'a>,
    at: u64,
    bytes: [u8; PREFETCHED_BYTES],
    len: usize,
}

/// The guest's MSRs for `syscall`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SyscallMsrs {
    /// IA32_LSTAR, or CSTAR for compatibility mode.
    pub(super) entry: u64,
    /// IA32_FMASK.
    pub(super) mask: u64,
}

impl GuestMemory {
    /// Memory by these tables.
    pub(super) fn by(&self, paging: PagingState) -> LinearMemory<'_> {
        LinearMemory {
            memory: self,
            paging,
            syscall: SyscallMsrs::default(),
        }
    }

    /// The bytes of the next instruction that the VP can fetch. There are none where the VP's fetch faults.
    pub(super) fn code_at(&self, location: &CodeLocation) -> CodeBytes {
        self.breakpoints().code_at(&self.ram, location)
    }

    /// For reading. Callers hold the lock for a short time only, because every VP thread takes it.
    pub(super) fn breakpoints(&self) -> RwLockReadGuard<'_, Breakpoints> {
        let breakpoints = self.breakpoints.read();
        breakpoints.unwrap_or_else(PoisonError::into_inner)
    }

    /// For writing: while this guard exists, breakpoint bytes may be lifted and lowered.
    pub(super) fn change_breakpoints(&self) -> RwLockWriteGuard<'_, Breakpoints> {
        let breakpoints = self.breakpoints.write();
        breakpoints.unwrap_or_else(PoisonError::into_inner)
    }
}

impl LinearMemory<'_> {
    /// Reads up to the first byte that is not mapped or that is not RAM. Returns the number of bytes.
    pub(super) fn read_some(&self, gva: Gva, data: &mut [u8]) -> usize {
        let GuestMemory { ram, .. } = self.memory;
        let breakpoints = self.memory.breakpoints();
        breakpoints.read_linear(ram, &self.paging, gva, data)
    }

    /// Reads bytes of one page. `false` where there is no RAM.
    pub(super) fn read_physical(&self, gpa: Gpa, data: &mut [u8]) -> bool {
        let GuestMemory { ram, .. } = self.memory;
        let breakpoints = self.memory.breakpoints();
        breakpoints.read_physical(ram, gpa, data) == data.len()
    }

    /// The physical address of code. `None`: the VP's fetch from there faults.
    pub(super) fn fetches(&self, gva: Gva, location: &CodeLocation) -> Option<Gpa> {
        let page = walk(&*self.memory.ram, &self.paging, gva).ok()?;
        (location.fetch(&page) == Fetch::Permitted).then_some(page.gpa)
    }

    /// The physical address.
    pub(super) fn translate(&self, gva: Gva) -> Option<Gpa> {
        Some(walk(&*self.memory.ram, &self.paging, gva).ok()?.gpa)
    }

    /// This memory, with the start of a descriptor table read in advance.
    pub(super) fn prefetch(&self, table: Gva) -> Prefetched<'_> {
        let mut bytes = [0; PREFETCHED_BYTES];
        let len = self.read_some(table, &mut bytes);
        Prefetched {
            memory: self,
            at: table.value(),
            bytes,
            len,
        }
    }

    /// Changes one byte, whatever the write protection of its page. `None`: the byte is not in RAM that can be written.
    pub(super) fn change_byte(&self, gva: Gva, change: impl FnOnce(u8) -> u8) -> Option<()> {
        let mut byte = [0];
        if self.read_some(gva, &mut byte) == 0 {
            return None;
        }
        let gpa = self.translate(gva)?;
        let ram = &self.memory.ram;
        let bytes = &mut self.memory.change_breakpoints().bytes;
        let written =
            bytes.overlay_write(gpa, &[change(byte[0])], |piece| ram.write_some(gpa, piece));
        (written == 1).then_some(())
    }
}

impl GuestState for Prefetched<'_> {
    fn read(&self, gva: Gva, data: &mut [u8]) -> bool {
        let from = gva.value().checked_sub(self.at);
        let from = from.and_then(|from| usize::try_from(from).ok());
        let read =
            from.and_then(|from| self.bytes[..self.len].get(from..from.checked_add(data.len())?));
        match read {
            Some(bytes) => data.copy_from_slice(bytes),
            None => return self.memory.read(gva, data),
        }
        true
    }

    fn syscall_mask(&self) -> u64 {
        self.memory.syscall_mask()
    }

    fn syscall_entry(&self) -> u64 {
        self.memory.syscall_entry()
    }
}

impl GuestState for LinearMemory<'_> {
    fn read(&self, gva: Gva, data: &mut [u8]) -> bool {
        self.read_some(gva, data) == data.len()
    }

    fn syscall_mask(&self) -> u64 {
        self.syscall.mask
    }

    fn syscall_entry(&self) -> u64 {
        self.syscall.entry
    }
}
