//! A step that leads to an instruction with RFLAGS.RF set: into a task that begins with EFLAGS.RF set, as a task does that a fault has left, or back to an instruction before
//! which an interrupt came when RF was set. That instruction meets no execution breakpoint (SDM volume 3, "Instruction-Breakpoint Exception Condition"), and the
//! step's trap waits there. So RF is taken out of the TSS, or out of the interrupt's frame, for that entry. Afterwards RF is set again there, and in the VP if
//! the VP is at that instruction.

use super::super::cpu::Cpu;
use super::super::guest_memory::GuestMemory;
use super::super::vcpu::Vcpu;
use super::Stepping;
use crate::arch::x86_64::page_walk::PagingState;
use crate::arch::x86_64::step_effects::Landing;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::debug_rpc::DebugError;

/// RF in the third byte of RFLAGS.
const RF_IN_BYTE: u8 = 1;

/// RF in memory that would keep a trap of a step from being met.
#[derive(Debug, Clone, Copy)]
pub(super) struct HiddenFlag {
    /// The byte that holds RF.
    byte: Gva,
    paging: PagingState,
    /// The address of the trap.
    first: Gva,
}

impl HiddenFlag {
    /// The flag that blocks the trap at this landing, if one does.
    pub(super) fn new(landing: &Landing, paging: PagingState) -> Option<Self> {
        let byte = landing.resume_flag?;
        let first = landing.first;
        Some(Self {
            byte,
            paging,
            first,
        })
    }
}

/// Whether RF has to be set in the VP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum ResumeFlag {
    /// Yes: the VP is at the instruction that would have begun with RF set.
    Missing,
    /// No.
    Right,
}

impl Stepping {
    /// Takes the flags out of memory that the planned step has found. Nothing may fail from here to the entry: only the code after an entry puts them back.
    pub(in super::super) fn hide_resume_flags(&mut self, memory: &GuestMemory) {
        let blocking = self
            .planned
            .as_mut()
            .map(|planned| std::mem::take(&mut planned.blocking));
        for flag in blocking.into_iter().flatten() {
            let mut was_set = false;
            let taken_out = memory.by(flag.paging).change_byte(flag.byte, |byte| {
                was_set = byte & RF_IN_BYTE != 0;
                byte & !RF_IN_BYTE
            });
            if taken_out.is_some() && was_set {
                self.hidden.push(flag);
            }
        }
    }

    /// The entry is over, or did not take place. Sets RF in memory to the value that it would have without us.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(in super::super) fn show_resume_flags<V: Vcpu>(
        &mut self,
        cpu: &mut Cpu<V>,
        memory: &GuestMemory,
    ) -> Result<ResumeFlag, DebugError> {
        if self.hidden.is_empty() {
            return Ok(ResumeFlag::Right);
        }
        let hidden = std::mem::take(&mut self.hidden);
        for HiddenFlag { byte, paging, .. } in &hidden {
            let shown = memory
                .by(*paging)
                .change_byte(*byte, |flags| flags | RF_IN_BYTE);
            if shown.is_none() {
                // It was mapped before: another VP of the guest has unmapped it since.
                tracing::warn!(%byte, "RFLAGS.RF cannot be put back into guest memory, which is not mapped any more");
            }
        }
        let rip = cpu.linear_rip()?;
        Ok(match hidden.iter().any(|flag| flag.first == rip) {
            true => ResumeFlag::Missing,
            false => ResumeFlag::Right,
        })
    }
}
