//! Stepping into a task that begins with EFLAGS.RF set, as a task does that a fault has left. Its first instruction meets no execution breakpoint (SDM volume 3,
//! "Instruction-Breakpoint Exception Condition"), and the step's breakpoint waits there. So RF is taken out of the task's TSS for that entry. Afterwards RF is set
//! again in the TSS, and in the VP where the VP is in that task.

use super::Vp;
use super::VpCause;
use super::guest_debug::RFLAGS_RF;
use crate::page_walk::PagingState;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::debug_rpc::DebugError;

/// RF in the third byte of RFLAGS.
const RF_IN_BYTE: u8 = 1;

/// RF that is out of memory for one entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct HiddenResumeFlag {
    /// The byte that it belongs to.
    byte: Gva,
    paging: PagingState,
    /// The selector of the task that the VP leaves.
    left: u16,
}

impl Vp {
    /// Takes RF out of this byte. `None` where that cannot be done.
    pub(super) fn hide_resume_flag(
        &mut self,
        byte: Gva,
        paging: PagingState,
    ) -> Option<HiddenResumeFlag> {
        let left = self.vcpu.registers().ok()?.1.tr.selector;
        let view = self.view(paging);
        view.change_byte(byte, |flags| flags & !RF_IN_BYTE)?;
        Some(HiddenResumeFlag { byte, paging, left })
    }

    /// The entry is over, or did not take place: RF is where it would be without us.
    ///
    /// # Errors
    /// [`GuestEvent::Crashed`](crate::exit::GuestEvent::Crashed).
    pub(super) fn show_resume_flag(&mut self) -> Result<(), VpCause> {
        let hidden = self.underway.as_mut().and_then(|step| step.hidden.take());
        let Some(hidden) = hidden else {
            return Ok(());
        };
        let HiddenResumeFlag { byte, paging, left } = hidden;
        let view = self.view(paging);
        if view.change_byte(byte, |flags| flags | RF_IN_BYTE).is_none() {
            // It was mapped before: another VP of the guest has unmapped it since.
            tracing::warn!(%byte, "EFLAGS.RF of a task cannot be put back into its TSS, which is not mapped any more");
        }
        self.set_resume_flag_in_another_task(left)
            .map_err(|err| self.crashed(&err))
    }

    fn set_resume_flag_in_another_task(&mut self, left: u16) -> Result<(), DebugError> {
        let (mut regs, sregs) = self.vcpu.registers()?;
        if sregs.tr.selector == left {
            return Ok(());
        }
        regs.rflags |= RFLAGS_RF;
        self.vcpu.write_general(&regs)
    }
}
