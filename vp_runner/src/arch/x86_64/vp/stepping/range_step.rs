//! The fast path of steps that follow each other, in a range or by a number, where the VP looks at nothing but the next instruction.
//!
//! An instruction on general registers alone ([`Class::Faultless`](crate::arch::x86_64::step_effects::class::Class::Faultless)) changes nothing that [`Stepping::plan`] depends on but RIP. The guest's debug registers,
//! its trap flag, its mode and its tables are as they were; no event has become due that the step does not hold back; and KVM has kept its
//! debug state. So between two such steps the VP only looks whether the next instruction is one as well.
//!
//! The page of the code is translated once. A processor may do that too: it goes by its TLB until it is made to forget, which takes an
//! instruction that is not on general registers alone, or another VP's request by an interrupt, which is held back. The bytes themselves are read each time.
//!
//! On a host whose KVM emulates guest code, a second has 112,000 steps with this path and 106,000 without it (medians of five runs in turns, `cargo run --release -p vp_runner
//! --example rpc_step`). It saves the plan of a step, which takes the same time where KVM steps faster.

use super::super::cpu::Cpu;
use super::super::cpu::Events;
use super::super::debugging::Debugging;
use super::super::guest_memory::GuestMemory;
use super::super::guest_memory::LinearMemory;
use super::super::guest_memory::PAGE;
use super::super::vcpu::Vcpu;
use super::Stepping;
use super::is_within_page;
use crate::arch::x86_64::code_location::CodeLocation;
use crate::arch::x86_64::stop_cause::DebugExit;
use crate::control::entry::Entry;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::regs::x86_64::bits::MAX_INSTRUCTION_LEN;

/// How the step after the one under way is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NextStep {
    /// It has to be planned.
    Plan,
    /// It may be made like the last step. The page is the page of the last instruction.
    SameAgain(Option<CodePage>),
}

/// Whether the VP may enter for the next step as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum FastPath {
    Continue,
    Done,
}

/// 4 KiB of code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CodePage {
    linear: u64,
    physical: Gpa,
}

impl CodePage {
    /// The page around a linear address. `None`: the VP's fetch from there faults.
    fn of(rip: Gva, memory: &LinearMemory<'_>, location: &CodeLocation) -> Option<Self> {
        let linear = rip.value() & !(PAGE - 1);
        let physical = memory.fetches(Gva::new(linear), location)?;
        Some(Self { linear, physical })
    }

    /// The physical address of a linear one, if it is on this page.
    fn translate(&self, gva: Gva) -> Option<Gpa> {
        let offset = gva.value().checked_sub(self.linear)?;
        let address = self.physical.value().checked_add(offset)?;
        (offset < PAGE).then_some(Gpa::new(address))
    }
}

impl NextStep {
    /// After a faultless step, the next may be the same again if nothing of the guest's own can come in between.
    pub(super) fn after_faultless<V: Vcpu>(
        entry: &Entry,
        cpu: &Cpu<V>,
        debugging: &Debugging,
    ) -> Self {
        let guests = cpu.known_guest_registers();
        let undisturbed = cpu.events == Events::None
            && cpu.vcpu.holds_interrupts()
            && guests.is_some_and(|guests| !guests.is_any_enabled());
        match undisturbed && !debugging.takes_interrupts(entry) && entry.passes_nothing() {
            true => Self::SameAgain(None),
            false => Self::Plan,
        }
    }
}

impl Stepping {
    /// The VP has left the guest with a debug exit. If this was a step over a faultless instruction, the client's steps go on, and the next instruction is faultless too, the
    /// step over that one is under way now.
    pub(in super::super) fn fast_path<V: Vcpu>(
        &mut self,
        exit: &DebugExit,
        entry: &mut Entry,
        cpu: &mut Cpu<V>,
        memory: &GuestMemory,
    ) -> FastPath {
        match self.same_again(exit, entry, memory) {
            Some(()) => {
                // The entry goes on, as `same_again` has found.
                let _ = entry.executed(exit.pc);
                cpu.vcpu.kept_trap_flag();
                FastPath::Continue
            }
            None => FastPath::Done,
        }
    }

    fn same_again(&mut self, exit: &DebugExit, entry: &Entry, memory: &GuestMemory) -> Option<()> {
        let planned = self.planned.as_mut()?;
        let NextStep::SameAgain(page) = planned.next else {
            return None;
        };
        let rip = Gva::new(exit.pc);
        if !exit.is_step_alone() || !entry.goes_on_at(rip) || !is_within_page(rip) {
            return None;
        }
        let memory = memory.by(planned.location.paging);
        let page = match page.filter(|page| page.translate(rip).is_some()) {
            Some(page) => page,
            None => CodePage::of(rip, &memory, &planned.location)?,
        };
        let mut bytes = [0; MAX_INSTRUCTION_LEN];
        if !memory.read_physical(page.translate(rip)?, &mut bytes) {
            return None;
        }
        let instruction = self.recent.faultless(rip, &bytes)?;
        planned.location.rip = rip;
        planned.instruction = Some(instruction);
        planned.next = NextStep::SameAgain(Some(page));
        Some(())
    }
}
