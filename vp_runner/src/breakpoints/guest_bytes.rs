//! Guest memory as the guest sees it, without breakpoint bytes. All reads of the guest's own bytes are here, and so is the lifting of breakpoint bytes for one
//! instruction.

use super::Breakpoints;
use crate::arch::CodeLocation;
use crate::arch::Fetch;
use crate::arch::MAX_INSTRUCTION_LEN;
use crate::arch::PagingState;
use crate::arch::Walk;
use crate::arch::walk;
use crate::memory::GuestRam as _;
use crate::memory::slots::MemorySlots;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::Gva;

/// The bytes of one instruction, and perhaps of those behind it: at most [`MAX_INSTRUCTION_LEN`].
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CodeBytes {
    bytes: [u8; MAX_INSTRUCTION_LEN],
    len: usize,
}

impl CodeBytes {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Breakpoints {
    /// Reads up to the first byte that cannot be read. Returns the number of bytes.
    pub(crate) fn read_physical(&self, ram: &MemorySlots, gpa: Gpa, data: &mut [u8]) -> usize {
        let read = ram.read_some(gpa, data);
        self.bytes.overlay_read(gpa, &mut data[..read]);
        read
    }

    /// Reads with these page tables, up to the first byte that is not mapped or that is not RAM. Returns the number of bytes.
    pub(crate) fn read_linear(
        &self,
        ram: &MemorySlots,
        paging: &PagingState,
        gva: Gva,
        data: &mut [u8],
    ) -> usize {
        let mut done = 0;
        for (gpa, len) in pieces(ram, paging, gva, data.len()) {
            let read = self.read_physical(ram, gpa, &mut data[done..done + len]);
            done += read;
            if read < len {
                break;
            }
        }
        done
    }

    /// The bytes of the instruction at `location` that the VP can fetch. There are none where the VP's fetch faults.
    pub(crate) fn code_at(&self, ram: &MemorySlots, location: &CodeLocation) -> CodeBytes {
        let mut code = CodeBytes::default();
        let pages = pages(ram, &location.paging, location.rip, MAX_INSTRUCTION_LEN);
        for (page, len) in pages.take_while(|(page, _)| location.fetch(page) == Fetch::Permitted) {
            let read = self.read_physical(ram, page.gpa, &mut code.bytes[code.len..][..len]);
            code.len += read;
            if read < len {
                break;
            }
        }
        code
    }

    /// Writes the guest's own bytes of the instruction at `location` to memory. Returns the addresses for [`lower`](Self::lower). No other VP is in the guest.
    pub(crate) fn lift(&mut self, ram: &MemorySlots, location: &CodeLocation) -> Vec<Gpa> {
        let code = pieces(ram, &location.paging, location.rip, MAX_INSTRUCTION_LEN);
        let lifted: Vec<Gpa> = code
            .flat_map(|(gpa, len)| self.bytes.addresses_within(gpa, len))
            .collect();
        for gpa in &lifted {
            if let Err(err) = self.bytes.lift(ram, *gpa) {
                tracing::error!(error = %err, "a breakpoint byte could not be lifted");
            }
        }
        lifted
    }

    /// Writes the breakpoint bytes again that [`lift`](Self::lift) removed.
    pub(crate) fn lower(&mut self, ram: &MemorySlots, lifted: &[Gpa]) {
        for gpa in lifted {
            if let Err(err) = self.bytes.lower(ram, *gpa) {
                tracing::error!(error = %err, "a breakpoint byte could not be lowered");
            }
        }
    }
}

/// The physical pieces of a linear range, page by page, up to the first page that is not mapped.
fn pieces(
    ram: &MemorySlots,
    paging: &PagingState,
    gva: Gva,
    len: usize,
) -> impl Iterator<Item = (Gpa, usize)> {
    pages(ram, paging, gva, len).map(|(page, len)| (page.gpa, len))
}

/// The walk to each page of a linear range, up to the first page that is not mapped, with the number of bytes of the range on this page.
fn pages(
    ram: &MemorySlots,
    paging: &PagingState,
    gva: Gva,
    len: usize,
) -> impl Iterator<Item = (Walk, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let here = Gva::new(gva.value().wrapping_add(done as u64));
        let page = walk(ram, paging, here).ok()?;
        let in_page = usize::try_from(page.bytes_left()).unwrap_or(usize::MAX);
        let piece = in_page.min(len - done);
        done += piece;
        Some((page, piece))
    })
}
