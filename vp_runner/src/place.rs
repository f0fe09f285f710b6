//! Where a parked VP stands, and by which tables it translates: what breakpoint bytes have to know of it.

use crate::page_walk::PagingState;
use crate::page_walk::walk;
use vm_memory::GuestMemoryMmap;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::Gva;

/// The root's address in CR3: without PCID and cache bits (SDM volume 3, "Paging").
const CR3_ROOT: u64 = 0x000f_ffff_ffff_f000;
const CR0_PG: u64 = 1 << 31;
const EFER_LMA: u64 = 1 << 10;
const CR0_PE: u64 = 1;

/// A place in the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The linear address of RIP.
    pub rip: Gva,
    /// The VP's paging registers.
    pub paging: PagingState,
}

/// What `INT3` depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModeClass {
    /// CR0.PE is clear.
    Real,
    /// Protected mode, virtual-8086 mode included.
    Protected,
    /// Long mode, compatibility mode included.
    Long,
}

impl Place {
    /// The physical byte of RIP, where there is one.
    pub fn rip_gpa(&self, ram: &GuestMemoryMmap) -> Option<Gpa> {
        Some(walk(ram, &self.paging, self.rip).ok()?.gpa)
    }

    /// The root of its page tables; `None` without paging.
    pub fn root(&self) -> Option<u64> {
        match self.paging.cr0 & CR0_PG {
            0 => None,
            _ => Some(self.paging.cr3 & CR3_ROOT),
        }
    }

    /// The mode it is in.
    pub fn mode(&self) -> ModeClass {
        if self.paging.efer & EFER_LMA != 0 {
            ModeClass::Long
        } else if self.paging.cr0 & CR0_PE != 0 {
            ModeClass::Protected
        } else {
            ModeClass::Real
        }
    }
}
