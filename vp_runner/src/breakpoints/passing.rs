//! What a VP passes together at one address, and whether it has to execute the instruction there for that.

use super::ArmedBy;
use super::BreakpointTable;
use crate::arch::CodeLocation;
use crate::memory::slots::MemorySlots;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::breakpoint::Breakpoint;

impl BreakpointTable {
    /// Whether VPs pass this breakpoint often, and its instruction is not carried out in place of a VP. [`reconcile`](Self::reconcile) acts upon it.
    pub(crate) fn pass_by_executing(&mut self, breakpoint: &Breakpoint, executes: bool) {
        if let Some(entry) = self.entries.get_mut(breakpoint) {
            entry.is_passed_by_executing = executes;
        }
    }

    /// What [`pass_by_executing`](Self::pass_by_executing) has set for the first breakpoint at this address.
    pub(crate) fn is_passed_by_executing(&self, address: Gva) -> bool {
        let first = self.at.get(&address).and_then(|here| here.first());
        let entry = first.and_then(|first| self.entries.get(first));
        entry.is_some_and(|entry| entry.is_passed_by_executing)
    }

    /// The breakpoints at `location`, of which the VP has hit one for execution: those that the VP hits at once, with those of a debug register first. A VP that passes one of
    /// them passes all.
    pub(crate) fn hit_together(
        &self,
        ram: &MemorySlots,
        location: &CodeLocation,
    ) -> Vec<Breakpoint> {
        let here = self.at.get(&location.rip).map_or(&[][..], Vec::as_slice);
        if let [only] = here {
            return vec![*only];
        }
        self.armed_at(ram, location)
    }

    /// The breakpoints that a VP at `location` is about to hit, in the order of [`hit_together`](Self::hit_together).
    pub(crate) fn armed_at(&self, ram: &MemorySlots, location: &CodeLocation) -> Vec<Breakpoint> {
        let here = self.at.get(&location.rip).map_or(&[][..], Vec::as_slice);
        let gpa = location.rip_gpa(ram);
        let armed = |by_register: bool| {
            here.iter().copied().filter(move |breakpoint| {
                let Some(entry) = self.entries.get(breakpoint) else {
                    return false;
                };
                match entry.armed {
                    ArmedBy::Byte(byte) => !by_register && Some(byte) == gpa,
                    ArmedBy::Register(_) => {
                        by_register
                            && !breakpoint.kind.is_watchpoint()
                            && !(breakpoint.kind.is_software()
                                && entry.owner.has_another_byte(ram, location))
                    }
                    ArmedBy::Nothing => false,
                }
            })
        };
        armed(true).chain(armed(false)).collect()
    }
}
