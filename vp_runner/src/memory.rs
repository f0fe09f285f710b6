//! Guest memory for a debugger. RAM is accessed by copies that may fail, devices by naturally aligned accesses, and guest virtual addresses through the page walk.
//!
//! Reads and physical writes are safe at any time, also while VPs run. The copies are assembly code, so a race with a VP is no undefined behaviour, and only gives
//! a torn value. An access to RAM that the VMM has mapped read-only, or whose file has shrunk, is an error and never a signal (I10). For a virtual address the VP
//! must be parked, so that the registers in [`AddressSpace`] are the present ones.

use crate::arch::PagingState;
use crate::arch::PhysicalMemory;
use crate::arch::WalkFault;
use crate::arch::mapped_pages;
use crate::arch::memory_region;
use crate::arch::walk;
use crate::breakpoints::Breakpoints;
use crate::machine::DeviceOutcome;
use crate::machine::MmioOutcome;
use crate::machine::for_debugger::ForDebugger;

mod ram;
pub(crate) mod slots;
mod written;

use crate::memory::slots::MemorySlots;
pub(crate) use ram::GuestRam;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::RwLock;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::memory::MAX_TRANSFER;
use vmm_core_defs::memory::MappedPages;
use vmm_core_defs::memory::MemoryRegion;
use vmm_core_defs::memory::RamRange;
use vmm_core_defs::memory::Translation;

/// Guest RAM and the devices around it.
#[derive(Clone)]
pub(crate) struct DebugMemory {
    ram: Arc<MemorySlots>,
    machine: Arc<dyn ForDebugger>,
    breakpoints: Arc<RwLock<Breakpoints>>,
}

/// A VP's view of virtual memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AddressSpace {
    /// The VP, for messages.
    pub vp: VpIndex,
    /// The paging registers of the VP.
    pub paging: PagingState,
}

/// A contiguous range of physical memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    gpa: Gpa,
    len: usize,
}

/// RAM or device at a physical address, and the number of bytes.
enum Backing {
    Ram(usize),
    Device(usize),
}

impl DebugMemory {
    /// The memory of a VM without breakpoint bytes: reads return the guest's own bytes, and writes change the guest's byte under a breakpoint byte.
    pub(crate) fn new(
        ram: Arc<MemorySlots>,
        machine: Arc<dyn ForDebugger>,
        breakpoints: Arc<RwLock<Breakpoints>>,
    ) -> Self {
        Self {
            ram,
            machine,
            breakpoints,
        }
    }

    /// Translates a virtual address.
    ///
    /// # Errors
    /// [`DebugError::NotMapped`].
    pub(crate) fn translate(
        &self,
        space: &AddressSpace,
        gva: Gva,
    ) -> Result<Translation, DebugError> {
        self.ram.guard_accesses();
        match walk(&*self.ram, &space.paging, gva) {
            Ok(found) => Ok(found.into()),
            Err(fault) => Err(not_mapped(space, &fault)),
        }
    }

    /// The pages that the tables map from `from` on, as many as can be found in a few milliseconds.
    pub(crate) fn mapped_pages(&self, space: &AddressSpace, from: Gva) -> MappedPages {
        mapped_pages(&*self.ram, &space.paging, from)
    }

    /// The region around `gva`, as far as it can be found in a few milliseconds.
    pub(crate) fn memory_region(&self, space: &AddressSpace, gva: Gva) -> MemoryRegion {
        memory_region(&*self.ram, &space.paging, &self.ram_ranges(), gva)
    }

    /// The ranges of RAM, by address.
    pub(crate) fn ram_ranges(&self) -> Vec<RamRange> {
        self.ram.ranges()
    }

    /// Reads the bytes from `gpa` up to the first that cannot be read, at most `len`.
    ///
    /// # Errors
    /// [`DebugError::NoMemory`] or [`DebugError::MemoryOutOfReach`] if the first byte cannot be read; [`DebugError::BadLength`] for more than
    /// [`MAX_TRANSFER`] or a range that passes the end of the address space.
    pub(crate) fn read_gpa(&self, gpa: Gpa, len: usize) -> Result<Vec<u8>, DebugError> {
        check_range(gpa.value(), len)?;
        self.ram.guard_accesses();
        let mut data = vec![0; len];
        let read = self.read_run(gpa, &mut data);
        partial(data, read, || self.out_of_reach(gpa))
    }

    /// Reads the bytes from `gva` up to the first that cannot be read, at most `len`.
    ///
    /// # Errors
    /// As [`read_gpa`](Self::read_gpa), and [`DebugError::NotMapped`] if the first byte has no translation.
    pub(crate) fn read_gva(
        &self,
        space: &AddressSpace,
        gva: Gva,
        len: usize,
    ) -> Result<Vec<u8>, DebugError> {
        check_range(gva.value(), len)?;
        self.ram.guard_accesses();
        let (runs, fault) = self.map(space, gva, len);
        self.read_runs(space, &runs, fault, len)
    }

    /// As [`read_gpa`](Self::read_gpa), but `None` if the range includes a device, whose access may block.
    ///
    /// # Errors
    /// As [`read_gpa`](Self::read_gpa).
    pub(crate) fn read_gpa_of_ram(
        &self,
        gpa: Gpa,
        len: usize,
    ) -> Result<Option<Vec<u8>>, DebugError> {
        check_range(gpa.value(), len)?;
        match self.asks_devices(&[Run { gpa, len }]) {
            true => Ok(None),
            false => self.read_gpa(gpa, len).map(Some),
        }
    }

    /// As [`read_gva`](Self::read_gva), but `None` if the range includes a device, whose access may block.
    ///
    /// # Errors
    /// As [`read_gva`](Self::read_gva).
    pub(crate) fn read_gva_of_ram(
        &self,
        space: &AddressSpace,
        gva: Gva,
        len: usize,
    ) -> Result<Option<Vec<u8>>, DebugError> {
        check_range(gva.value(), len)?;
        self.ram.guard_accesses();
        let (runs, fault) = self.map(space, gva, len);
        match self.asks_devices(&runs) {
            true => Ok(None),
            false => self.read_runs(space, &runs, fault, len).map(Some),
        }
    }

    /// Reads the ranges `runs`. `fault` is the reason for which no range follows.
    fn read_runs(
        &self,
        space: &AddressSpace,
        runs: &[Run],
        fault: Option<WalkFault>,
        len: usize,
    ) -> Result<Vec<u8>, DebugError> {
        let mut data = vec![0; len];
        let mut done = 0;
        for run in runs {
            let read = self.read_run(run.gpa, &mut data[done..done + run.len]);
            done += read;
            if read < run.len {
                break;
            }
        }
        partial(data, done, || match (runs.first(), fault) {
            (Some(run), _) => self.out_of_reach(run.gpa),
            (None, Some(fault)) => not_mapped(space, &fault),
            (None, None) => unreachable!("a range of at least one byte maps or faults"),
        })
    }

    /// Writes all of `data`. Returns the first outcome of a device other than [`DeviceOutcome::Done`], which the caller has to carry out.
    ///
    /// # Errors
    /// [`DebugError::NoMemory`] or [`DebugError::MemoryOutOfReach`] with the first address that cannot be written. The bytes before this address are written then.
    /// [`DebugError::BadLength`] as for a read, with nothing written.
    pub(crate) fn write_gpa(&self, gpa: Gpa, data: &[u8]) -> Result<DeviceOutcome, DebugError> {
        check_range(gpa.value(), data.len())?;
        self.ram.guard_accesses();
        self.write_run(gpa, data)
    }

    /// Writes all of `data`, even to write-protected pages. Every page is translated before the first byte is written.
    ///
    /// # Errors
    /// As [`write_gpa`](Self::write_gpa), and [`DebugError::NotMapped`] with the first address that has no translation; nothing is written then.
    pub(crate) fn write_gva(
        &self,
        space: &AddressSpace,
        gva: Gva,
        data: &[u8],
    ) -> Result<DeviceOutcome, DebugError> {
        check_range(gva.value(), data.len())?;
        self.ram.guard_accesses();
        let (runs, fault) = self.map(space, gva, data.len());
        if let Some(fault) = fault {
            return Err(not_mapped(space, &fault));
        }
        self.write_runs(&runs, data)
    }

    /// As [`write_gpa`](Self::write_gpa), but `None`, with nothing written, if the range includes a device, whose access may block.
    ///
    /// # Errors
    /// As [`write_gpa`](Self::write_gpa).
    pub(crate) fn write_gpa_of_ram(
        &self,
        gpa: Gpa,
        data: &[u8],
    ) -> Result<Option<DeviceOutcome>, DebugError> {
        let len = data.len();
        check_range(gpa.value(), len)?;
        match self.asks_devices(&[Run { gpa, len }]) {
            true => Ok(None),
            false => self.write_gpa(gpa, data).map(Some),
        }
    }

    /// As [`write_gva`](Self::write_gva), but `None`, with nothing written, if the range includes a device, whose access may block.
    ///
    /// # Errors
    /// As [`write_gva`](Self::write_gva).
    pub(crate) fn write_gva_of_ram(
        &self,
        space: &AddressSpace,
        gva: Gva,
        data: &[u8],
    ) -> Result<Option<DeviceOutcome>, DebugError> {
        check_range(gva.value(), data.len())?;
        self.ram.guard_accesses();
        let (runs, fault) = self.map(space, gva, data.len());
        if let Some(fault) = fault {
            return Err(not_mapped(space, &fault));
        }
        match self.asks_devices(&runs) {
            true => Ok(None),
            false => self.write_runs(&runs, data).map(Some),
        }
    }

    fn write_runs(&self, runs: &[Run], data: &[u8]) -> Result<DeviceOutcome, DebugError> {
        let mut rest = data;
        let mut outcome = DeviceOutcome::Done;
        for run in runs {
            let (now, later) = rest.split_at(run.len);
            outcome = first_of(outcome, self.write_run(run.gpa, now)?);
            rest = later;
        }
        Ok(outcome)
    }

    /// Translates a range with one walk for each page, of any size, up to the first page without a translation. Merges pages that are contiguous in physical memory.
    /// The caller has called `check_range`.
    fn map(&self, space: &AddressSpace, gva: Gva, len: usize) -> (Vec<Run>, Option<WalkFault>) {
        map(&*self.ram, &space.paging, gva, len)
    }

    /// Whether an access includes anything but RAM.
    fn asks_devices(&self, runs: &[Run]) -> bool {
        runs.iter().any(|run| {
            let mut done = 0;
            while done < run.len {
                match self.backing(run.gpa.value() + done as u64) {
                    Backing::Ram(here) => done = done.saturating_add(here),
                    Backing::Device(_) => return true,
                }
            }
            false
        })
    }

    fn backing(&self, gpa: u64) -> Backing {
        if let Some(left) = self.ram.bytes_from(gpa) {
            return Backing::Ram(usize::try_from(left).unwrap_or(usize::MAX));
        }
        let next = self.ram.next_behind(gpa);
        let left = next.map_or(u64::MAX - gpa, |start| start - gpa);
        Backing::Device(usize::try_from(left).unwrap_or(usize::MAX).max(1))
    }

    /// Why the byte at `gpa` could not be accessed.
    fn out_of_reach(&self, gpa: Gpa) -> DebugError {
        match self.ram.bytes_from(gpa.value()) {
            Some(_) => DebugError::MemoryOutOfReach { gpa },
            None if self.machine.has_devices() => DebugError::NoMemory { gpa },
            None => DebugError::NoDeviceAccess { gpa },
        }
    }

    /// How many bytes were read.
    fn read_run(&self, gpa: Gpa, data: &mut [u8]) -> usize {
        let mut done = 0;
        while done < data.len() {
            let at = gpa.value() + done as u64;
            let left = data.len() - done;
            match self.backing(at) {
                Backing::Ram(here) => {
                    let piece = &mut data[done..done + left.min(here)];
                    let breakpoints = self.breakpoints.read();
                    let breakpoints = breakpoints.unwrap_or_else(PoisonError::into_inner);
                    let read = breakpoints.read_physical(&self.ram, Gpa::new(at), piece);
                    done += read;
                    if read < piece.len() {
                        return done;
                    }
                }
                Backing::Device(here) => {
                    let len = natural_piece(at, left.min(here));
                    let piece = &mut data[done..done + len];
                    match self.machine.read_device(Gpa::new(at), piece) {
                        MmioOutcome::Handled => done += len,
                        MmioOutcome::Unclaimed => return done,
                    }
                }
            }
        }
        done
    }

    fn write_run(&self, gpa: Gpa, data: &[u8]) -> Result<DeviceOutcome, DebugError> {
        let mut outcome = DeviceOutcome::Done;
        let mut done = 0;
        while done < data.len() {
            let at = gpa.value() + done as u64;
            let left = data.len() - done;
            match self.backing(at) {
                Backing::Ram(here) => {
                    let piece = &data[done..done + left.min(here)];
                    let breakpoints = self.breakpoints.write();
                    let written = breakpoints
                        .unwrap_or_else(PoisonError::into_inner)
                        .bytes
                        .overlay_write(Gpa::new(at), piece, |piece| {
                            self.ram.write_some(Gpa::new(at), piece)
                        });
                    if written < piece.len() {
                        return Err(self.out_of_reach(Gpa::new(at + written as u64)));
                    }
                    done += piece.len();
                }
                Backing::Device(here) => {
                    let len = natural_piece(at, left.min(here));
                    let piece = &data[done..done + len];
                    match self.machine.write_device(Gpa::new(at), piece) {
                        (MmioOutcome::Handled, asked) => outcome = first_of(outcome, asked),
                        (MmioOutcome::Unclaimed, _) => {
                            return Err(self.out_of_reach(Gpa::new(at)));
                        }
                    }
                    done += len;
                }
            }
        }
        Ok(outcome)
    }
}

fn map(
    memory: &impl PhysicalMemory,
    paging: &PagingState,
    gva: Gva,
    len: usize,
) -> (Vec<Run>, Option<WalkFault>) {
    let mut runs: Vec<Run> = Vec::new();
    let mut done = 0;
    while done < len {
        let here = Gva::new(gva.value() + done as u64);
        let page = match walk(memory, paging, here) {
            Ok(page) => page,
            Err(fault) => return (runs, Some(fault)),
        };
        let in_page = usize::try_from(page.bytes_left()).unwrap_or(usize::MAX);
        let take = in_page.min(len - done);
        match runs.last_mut() {
            Some(last) if last.gpa.checked_add(last.len as u64) == Some(page.gpa) => {
                last.len += take;
            }
            _ => runs.push(Run {
                gpa: page.gpa,
                len: take,
            }),
        }
        done += take;
    }
    (runs, None)
}

/// The largest of 8, 4, 2 and 1 that divides `at` and is not larger than `left`, which is not 0.
fn natural_piece(at: u64, left: usize) -> usize {
    let aligned = 1 << at.trailing_zeros().min(3);
    let fits = 1 << left.ilog2().min(3);
    aligned.min(fits)
}

fn first_of(first: DeviceOutcome, second: DeviceOutcome) -> DeviceOutcome {
    match first {
        DeviceOutcome::Done | DeviceOutcome::Panicked => second,
        DeviceOutcome::Reset | DeviceOutcome::PowerOff => first,
    }
}

fn check_range(address: u64, len: usize) -> Result<(), DebugError> {
    let last = (len as u64).saturating_sub(1);
    if len > MAX_TRANSFER || address.checked_add(last).is_none() {
        return Err(DebugError::BadLength {
            address,
            len: len as u64,
        });
    }
    Ok(())
}

fn partial(
    mut data: Vec<u8>,
    read: usize,
    error: impl FnOnce() -> DebugError,
) -> Result<Vec<u8>, DebugError> {
    if read == 0 && !data.is_empty() {
        return Err(error());
    }
    data.truncate(read);
    Ok(data)
}

fn not_mapped(space: &AddressSpace, fault: &WalkFault) -> DebugError {
    DebugError::NotMapped {
        vp: space.vp,
        gva: fault.gva,
        why: fault.reason,
    }
}

#[cfg(test)]
mod tests;
