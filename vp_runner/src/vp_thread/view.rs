//! Guest memory as one VP sees it: by its own page tables, without bytes of ours, and without a device being touched.

use super::Surroundings;
use super::Vp;
use crate::arch::x86_64::page_walk::PagingState;
use crate::arch::x86_64::page_walk::walk;
use crate::arch::x86_64::step_effects::Guest;
use crate::kvm::guest_ram;
use std::sync::PoisonError;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::regs::x86_64::bits::MAX_INSTRUCTION_LEN;

/// Memory by linear address, and where `syscall` leads.
pub(super) struct View<'a> {
    around: &'a Surroundings,
    paging: PagingState,
    pub(super) syscall: Syscall,
}

/// The gates of the vectors up to 14 in long mode, where they are largest: of the exceptions that a step is looked after for.
const AHEAD: usize = 15 * 16;

/// A view some of which has been read already.
pub(super) struct Ahead<'a> {
    view: &'a View<'a>,
    at: u64,
    bytes: [u8; AHEAD],
    len: usize,
}

/// What the guest's MSRs say of `syscall`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Syscall {
    pub(super) entry: u64,
    pub(super) mask: u64,
}

impl Vp {
    /// Memory by these tables.
    pub(super) fn view(&self, paging: PagingState) -> View<'_> {
        View {
            around: &self.around,
            paging,
            syscall: Syscall::default(),
        }
    }
}

impl View<'_> {
    /// Reads up to the first byte that is not mapped or no RAM. Returns how many.
    pub(super) fn read_some(&self, gva: Gva, data: &mut [u8]) -> usize {
        let mut done = 0;
        while done < data.len() {
            let here = Gva::new(gva.value().wrapping_add(done as u64));
            let Ok(page) = walk(&*self.around.ram, &self.paging, here) else {
                break;
            };
            let in_page = usize::try_from(page.bytes_left()).unwrap_or(usize::MAX);
            let end = done + in_page.min(data.len() - done);
            let piece = &mut data[done..end];
            if !self.read_physical(page.gpa, piece) {
                break;
            }
            done = end;
        }
        done
    }

    /// Reads bytes of one page. `false` where no RAM is.
    pub(super) fn read_physical(&self, gpa: Gpa, data: &mut [u8]) -> bool {
        if !guest_ram::read_all(&self.around.ram, gpa, data) {
            return false;
        }
        let breakpoints = self.around.breakpoints.read();
        let breakpoints = breakpoints.unwrap_or_else(PoisonError::into_inner);
        breakpoints.patches.overlay_read(gpa, data);
        true
    }

    /// The physical address.
    pub(super) fn translate(&self, gva: Gva) -> Option<Gpa> {
        Some(walk(&*self.around.ram, &self.paging, gva).ok()?.gpa)
    }

    /// This, with the start of a descriptor table that is looked at more than once.
    pub(super) fn read_ahead(&self, table: Gva) -> Ahead<'_> {
        let mut bytes = [0; AHEAD];
        let len = self.read_some(table, &mut bytes);
        Ahead {
            view: self,
            at: table.value(),
            bytes,
            len,
        }
    }

    /// As many of an instruction's bytes as can be read.
    pub(super) fn code_at(&self, rip: Gva) -> Vec<u8> {
        let mut code = vec![0; MAX_INSTRUCTION_LEN];
        let len = self.read_some(rip, &mut code);
        code.truncate(len);
        code
    }

    /// Changes one byte, whatever the page's write protection. `None`: it cannot be.
    pub(super) fn change_byte(&self, gva: Gva, change: impl FnOnce(u8) -> u8) -> Option<()> {
        let mut byte = [0];
        if self.read_some(gva, &mut byte) == 0 {
            return None;
        }
        let gpa = self.translate(gva)?;
        let breakpoints = self.around.breakpoints.write();
        let patches = &mut breakpoints.unwrap_or_else(PoisonError::into_inner).patches;
        let written = patches.overlay_write(gpa, &[change(byte[0])], |piece| {
            guest_ram::write(&self.around.ram, gpa, piece)
        });
        (written == 1).then_some(())
    }
}

impl Guest for Ahead<'_> {
    fn read(&self, gva: Gva, data: &mut [u8]) -> bool {
        let from = gva.value().checked_sub(self.at);
        let from = from.and_then(|from| usize::try_from(from).ok());
        let read =
            from.and_then(|from| self.bytes[..self.len].get(from..from.checked_add(data.len())?));
        match read {
            Some(bytes) => data.copy_from_slice(bytes),
            None => return self.view.read(gva, data),
        }
        true
    }

    fn syscall_mask(&self) -> u64 {
        self.view.syscall_mask()
    }

    fn syscall_entry(&self) -> u64 {
        self.view.syscall_entry()
    }
}

impl Guest for View<'_> {
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
