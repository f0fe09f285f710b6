//! Stepping into a task that begins with EFLAGS.RF set, as one does that a fault has left: its first instruction meets no execution breakpoint (SDM volume 3,
//! "Instruction-Breakpoint Exception Condition"), where the step's waits. RF is out of the task's TSS for that entry. The VP then has it, as it would have without
//! us, and so has the TSS.

use super::Vp;
use super::VpCause;
use crate::page_walk::PagingState;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::debug_rpc::DebugError;

const RFLAGS_RF: u64 = 1 << 16;
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
        // Present: it was there before, and only the guest's other VPs can have unmapped it.
        let _ = self
            .view(paging)
            .change_byte(byte, |flags| flags | RF_IN_BYTE);
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
