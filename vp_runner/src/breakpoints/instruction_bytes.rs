//! The bytes of the instruction at a place: what the guest has there, and how a VP is let execute it.

use super::Breakpoints;
use crate::arch::x86_64::page_walk::walk;
use crate::arch::x86_64::place::Place;
use crate::kvm::guest_ram;
use vm_memory::GuestMemoryMmap;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::regs::x86_64::bits::MAX_INSTRUCTION_LEN;

impl Breakpoints {
    /// What the guest has at `place`, without bytes of ours, up to the first that is not mapped.
    pub(crate) fn code_at(&self, ram: &GuestMemoryMmap, place: &Place) -> Vec<u8> {
        let mut code = Vec::with_capacity(MAX_INSTRUCTION_LEN);
        for (gpa, len) in pieces(ram, place) {
            let mut piece = vec![0; len];
            if !guest_ram::read_all(ram, gpa, &mut piece) {
                break;
            }
            self.patches.overlay_read(gpa, &mut piece);
            code.extend(piece);
        }
        code
    }

    /// Puts the guest's own bytes under the instruction at `place`. Returns which, for [`lower`](Self::lower). No other VP is in the guest.
    pub(crate) fn lift(&mut self, ram: &GuestMemoryMmap, place: &Place) -> Vec<Gpa> {
        let lifted: Vec<Gpa> = pieces(ram, place)
            .into_iter()
            .flat_map(|(gpa, len)| self.patches.patched(gpa, len))
            .collect();
        for gpa in &lifted {
            if let Err(err) = self.patches.lift(ram, *gpa) {
                tracing::error!(error = %err, "a breakpoint byte could not be lifted");
            }
        }
        lifted
    }

    /// Arms again what was lifted.
    pub(crate) fn lower(&mut self, ram: &GuestMemoryMmap, lifted: &[Gpa]) {
        for gpa in lifted {
            if let Err(err) = self.patches.lower(ram, *gpa) {
                tracing::error!(error = %err, "a breakpoint byte could not be lowered");
            }
        }
    }
}

/// Where the instruction may lie in memory, page by page. It ends before a page that is not there, or faults.
fn pieces(ram: &GuestMemoryMmap, place: &Place) -> Vec<(Gpa, usize)> {
    let mut pieces = Vec::new();
    let mut done = 0;
    while done < MAX_INSTRUCTION_LEN {
        let here = Gva::new(place.rip.value().wrapping_add(done as u64));
        let Ok(page) = walk(ram, &place.paging, here) else {
            break;
        };
        let in_page = usize::try_from(page.bytes_left()).unwrap_or(usize::MAX);
        let len = in_page.min(MAX_INSTRUCTION_LEN - done);
        pieces.push((page.gpa, len));
        done += len;
    }
    pieces
}
