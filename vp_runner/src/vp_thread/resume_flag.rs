//! Stepping to where RFLAGS.RF is set: into a task that begins with EFLAGS.RF set, as a task does that a fault has left, or back to an instruction that an
//! interrupt came before when RF was set. That instruction meets no execution breakpoint (SDM volume 3, "Instruction-Breakpoint Exception Condition"), and the
//! step's breakpoint waits there. So RF is taken out of the TSS, or of the interrupt's frame, for that entry. Afterwards RF is set again there, and in the VP where
//! the VP is at that instruction.

use super::Vp;
use crate::arch::x86_64::page_walk::PagingState;
use crate::arch::x86_64::step_effects::Landing;
use crate::control::run_state::Cause;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::regs::x86_64::bits::rflags;

/// RF in the third byte of RFLAGS.
const RF_IN_BYTE: u8 = 1;

/// RF in memory that would keep a breakpoint of a step from being met.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockingFlag {
    /// The byte that RF is in.
    byte: Gva,
    paging: PagingState,
    /// Where the breakpoint waits.
    first: Gva,
}

impl BlockingFlag {
    /// The flag that blocks the breakpoint at this landing, if one does.
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

/// Whether RF is to be set in the VP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OwedFlag {
    Yes,
    No,
}

impl Vp {
    /// Takes the flags that the planned step has found out of memory. Nothing may fail from here to the entry: only what follows an entry brings them back.
    pub(super) fn hide_resume_flags(&mut self) {
        let blocking = self
            .underway
            .as_mut()
            .map(|step| std::mem::take(&mut step.blocking));
        for flag in blocking.into_iter().flatten() {
            let mut was_set = false;
            let view = self.view(flag.paging);
            let taken_out = view.change_byte(flag.byte, |byte| {
                was_set = byte & RF_IN_BYTE != 0;
                byte & !RF_IN_BYTE
            });
            if taken_out.is_some() && was_set {
                self.hidden.push(flag);
            }
        }
    }

    /// The entry is over, or did not take place: RF is in memory where it would be without us.
    ///
    /// # Errors
    /// [`GuestEvent::Crashed`](crate::control::guest_event::GuestEvent::Crashed).
    pub(super) fn show_resume_flags(&mut self) -> Result<OwedFlag, Cause> {
        if self.hidden.is_empty() {
            return Ok(OwedFlag::No);
        }
        let hidden = std::mem::take(&mut self.hidden);
        for BlockingFlag { byte, paging, .. } in &hidden {
            let view = self.view(*paging);
            if view
                .change_byte(*byte, |flags| flags | RF_IN_BYTE)
                .is_none()
            {
                // It was mapped before: another VP of the guest has unmapped it since.
                tracing::warn!(%byte, "RFLAGS.RF cannot be put back into guest memory, which is not mapped any more");
            }
        }
        let rip = self.vcpu.linear_rip().map_err(|err| self.crashed(&err))?;
        let there = hidden.iter().any(|flag| flag.first.value() == rip);
        Ok(if there { OwedFlag::Yes } else { OwedFlag::No })
    }

    /// Sets RF in the VP, once its exit has been looked at: an exit that comes in spite of RF would tell of a KVM that ignores RF.
    ///
    /// # Errors
    /// [`GuestEvent::Crashed`](crate::control::guest_event::GuestEvent::Crashed).
    pub(super) fn pay(&mut self, owed: OwedFlag) -> Result<(), Cause> {
        match owed {
            OwedFlag::Yes => self.set_resume_flag().map_err(|err| self.crashed(&err)),
            OwedFlag::No => Ok(()),
        }
    }

    pub(super) fn set_resume_flag(&mut self) -> Result<(), DebugError> {
        let (mut regs, _) = self.vcpu.registers()?;
        regs.rflags |= rflags::RF;
        self.vcpu.write_general(&regs)
    }
}
