//! The address of a VP's next instruction, and the tables that translate it.

use super::page_walk::PhysicalMemory;
use crate::arch::x86_64::cpu_mode::ModeClass;
use crate::arch::x86_64::page_walk::PagingState;
use crate::arch::x86_64::page_walk::Walk;
use crate::arch::x86_64::page_walk::format::NO_EXECUTE;
use crate::arch::x86_64::page_walk::walk;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::regs::x86_64::bits::cr0;
use vmm_core_defs::regs::x86_64::bits::cr3;
use vmm_core_defs::regs::x86_64::bits::cr4;

/// The location of a VP's next instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CodeLocation {
    /// The linear address of RIP.
    pub rip: Gva,
    /// The VP's paging registers.
    pub paging: PagingState,
    /// Whether the VP is in user mode, ring 3.
    pub user: bool,
}

/// Whether an instruction can be fetched from a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fetch {
    /// The fetch succeeds.
    Permitted,
    /// Only in user mode. The VP is in another ring, so its fetch would fault.
    UserOnly,
    /// The fetch faults, in user mode too.
    Forbidden,
}

impl CodeLocation {
    /// The guest-physical address of RIP, if RIP is mapped.
    pub(crate) fn rip_gpa(&self, ram: &impl PhysicalMemory) -> Option<Gpa> {
        Some(walk(ram, &self.paging, self.rip).ok()?.gpa)
    }

    /// Whether the VP can fetch an instruction from a page that it translates to (SDM volume 3, "Determination of Access Rights").
    pub(crate) fn fetch(&self, page: &Walk) -> Fetch {
        let supervisor_on_user_page = !self.user && page.user && page.page_size.is_some();
        // Linux without SMEP, but with page-table isolation, sets NX in the root entries of the kernel's tables for user addresses.
        let by_root_alone = || {
            let mut entries = page.path.entries();
            let root = entries
                .next()
                .is_some_and(|entry| entry.value & NO_EXECUTE != 0);
            root && entries.all(|entry| entry.value & NO_EXECUTE == 0)
        };
        match (supervisor_on_user_page, page.executable) {
            (true, true) if self.paging.cr4 & cr4::SMEP != 0 => Fetch::UserOnly,
            (true, false) if by_root_alone() => Fetch::UserOnly,
            (_, false) => Fetch::Forbidden,
            (_, true) => Fetch::Permitted,
        }
    }

    /// The root of the VP's page tables. `None` without paging.
    pub(crate) fn root(&self) -> Option<u64> {
        match self.paging.cr0 & cr0::PG {
            0 => None,
            _ => Some(self.paging.cr3 & cr3::ROOT),
        }
    }

    /// The class of the processor mode.
    pub(crate) fn mode(&self) -> ModeClass {
        ModeClass::of(self.paging.cr0, self.paging.efer)
    }
}
