//! Guest memory without the breakpoint bytes in it: the one place where the guest's own bytes are read, and where a VP gets them for one instruction.

use super::Breakpoints;
use crate::arch::CodeLocation;
use crate::arch::MAX_INSTRUCTION_LEN;
use crate::arch::PagingState;
use crate::arch::walk;
use crate::memory::GuestRam as _;
use vm_memory::GuestMemoryMmap;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::Gva;

impl Breakpoints {
    /// Reads up to the first byte that cannot be read. Returns the number of bytes.
    pub(crate) fn read_physical(&self, ram: &GuestMemoryMmap, gpa: Gpa, data: &mut [u8]) -> usize {
        let read = ram.read_some(gpa, data);
        self.patches.overlay_read(gpa, &mut data[..read]);
        read
    }

    /// Reads by these tables up to the first byte that is not mapped or that is not RAM. Returns the number of bytes.
    pub(crate) fn read_linear(
        &self,
        ram: &GuestMemoryMmap,
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

    /// As many bytes of the instruction at `location` as can be read, at most [`MAX_INSTRUCTION_LEN`].
    pub(crate) fn code_at(&self, ram: &GuestMemoryMmap, location: &CodeLocation) -> Vec<u8> {
        let mut code = vec![0; MAX_INSTRUCTION_LEN];
        let len = self.read_linear(ram, &location.paging, location.rip, &mut code);
        code.truncate(len);
        code
    }

    /// Puts the guest's own bytes into memory under the instruction at `location`. Returns the bytes for [`lower`](Self::lower). No other VP is in the guest.
    pub(crate) fn lift(&mut self, ram: &GuestMemoryMmap, location: &CodeLocation) -> Vec<Gpa> {
        let code = pieces(ram, &location.paging, location.rip, MAX_INSTRUCTION_LEN);
        let lifted: Vec<Gpa> = code
            .flat_map(|(gpa, len)| self.patches.patched(gpa, len))
            .collect();
        for gpa in &lifted {
            if let Err(err) = self.patches.lift(ram, *gpa) {
                tracing::error!(error = %err, "a breakpoint byte could not be lifted");
            }
        }
        lifted
    }

    /// Puts the breakpoint bytes back that [`lift`](Self::lift) took out.
    pub(crate) fn lower(&mut self, ram: &GuestMemoryMmap, lifted: &[Gpa]) {
        for gpa in lifted {
            if let Err(err) = self.patches.lower(ram, *gpa) {
                tracing::error!(error = %err, "a breakpoint byte could not be lowered");
            }
        }
    }
}

/// The physical pieces of a linear range, page by page, up to the first page that is not mapped.
fn pieces(
    ram: &GuestMemoryMmap,
    paging: &PagingState,
    gva: Gva,
    len: usize,
) -> impl Iterator<Item = (Gpa, usize)> {
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
        Some((page.gpa, piece))
    })
}
