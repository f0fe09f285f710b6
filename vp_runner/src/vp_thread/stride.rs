//! Steps of a range that follow each other without anything being looked at but the next instruction's opcode.
//!
//! An instruction on general registers alone ([`Opcode::Faultless`]) changes nothing that [`Vp::plan`] goes by but RIP: the guest's debug registers,
//! its trap flag, its mode and its tables are as they were, no event has become due that the step does not hold back, and KVM has kept its
//! debug state. So between two of them the VP only looks whether the next is one as well.
//!
//! Their page is translated once. That is what a processor may do too: it goes by its TLB until it is made to forget, which takes an
//! instruction that is none of these, or another VP's request by an interrupt, which is held back. The bytes themselves are read each time.

use super::step::PAGE;
use super::step::PEEKED;
use super::step::is_within_page;
use super::*;
use crate::arch::x86_64::step_effects::opcode;
use crate::arch::x86_64::step_effects::opcode::Opcode;

/// What is known, before an instruction is stepped, of the step after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sequel {
    /// It has to be planned.
    Planned,
    /// It may be a stride; with the page that the last one read its opcode from.
    Stride(Option<CodePage>),
}

/// Whether the VP may enter for the next step as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stride {
    GoesOn,
    Over,
}

/// 4 KiB of code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CodePage {
    linear: u64,
    physical: Gpa,
}

impl CodePage {
    /// The physical address of a linear one, if it is on this page.
    fn translate(&self, gva: Gva) -> Option<Gpa> {
        let offset = gva.value().checked_sub(self.linear)?;
        let address = self.physical.value().checked_add(offset)?;
        (offset < PAGE).then_some(Gpa::new(address))
    }
}

impl Vp {
    /// The sequel of a faultless step that nothing of the guest's own may interrupt.
    pub(super) fn sequel(&self, entry: &Entry) -> Sequel {
        let guests_none = self.guests.is_some_and(|guests| !guests.is_any_enabled());
        let undisturbed =
            self.events == Events::None && self.vcpu.holds_interrupts() && guests_none;
        match undisturbed && !self.takes_interrupts(entry) && entry.is_usual() {
            true => Sequel::Stride(None),
            false => Sequel::Planned,
        }
    }

    /// What has come of an entry: if it was a step of a range over a faultless instruction, and the next one is faultless too, that one is the
    /// step under way now.
    pub(super) fn stride(&mut self, next: &Next, entry: &Entry) -> Stride {
        match self.after_stride(next, entry) {
            Some(()) => Stride::GoesOn,
            None => Stride::Over,
        }
    }

    fn after_stride(&mut self, next: &Next, entry: &Entry) -> Option<()> {
        let Next::Debug(exit) = next else { return None };
        let Sequel::Stride(page) = self.underway.as_ref()?.sequel else {
            return None;
        };
        let rip = Gva::new(exit.pc);
        if !exit.is_step_alone() || !entry.ranges_over(rip) || !is_within_page(rip) {
            return None;
        }
        let page = match page.filter(|page| page.translate(rip).is_some()) {
            Some(page) => page,
            None => self.code_page(rip)?,
        };
        let mut bytes = [0; PEEKED];
        let view = self.view(self.underway.as_ref()?.paging());
        if !view.read_physical(page.translate(rip)?, &mut bytes)
            || opcode::of(&bytes, true) != Opcode::Faultless
        {
            return None;
        }
        self.underway.as_mut()?.stride_to(rip, page);
        self.vcpu.kept_trap_flag();
        self.life = Life::Started;
        Some(())
    }

    fn code_page(&self, rip: Gva) -> Option<CodePage> {
        let linear = rip.value() & !(PAGE - 1);
        let paging = self.underway.as_ref()?.paging();
        let physical = self.view(paging).translate(Gva::new(linear))?;
        Some(CodePage { linear, physical })
    }
}
