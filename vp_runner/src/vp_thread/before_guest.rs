//! What an entry does before the VP is in the guest: where it starts, the guest's own breakpoint there, and the byte that is passed.

use super::Enter;
use super::Life;
use super::Vp;
use crate::arch::x86_64::debug_registers::Hits;
use crate::arch::x86_64::dr7::Access;
use crate::arch::x86_64::dr7::Slot;
use crate::arch::x86_64::stop_cause::Stepping;
use crate::control::at_breakpoint::FirstInstruction;
use crate::control::entry::Entry;
use crate::control::run_state::Cause;
use crate::kvm::vcpu::DebugState;
use crate::kvm::vcpu::Interrupts;
use std::ops::ControlFlow;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::VpActivity;

/// Whether the VP enters the guest, or parks with a cause (`None`: it was kicked).
pub(super) type BeforeGuest = ControlFlow<Option<Cause>>;

impl Vp {
    /// What the entry has to do.
    pub(super) fn plan_entry(&mut self, enter: &Enter) -> Result<Entry, DebugError> {
        let here = match enter.at.first() {
            FirstInstruction::Meets => 0,
            FirstInstruction::Disarmed
            | FirstInstruction::Lifted
            | FirstInstruction::CarriedOut
            | FirstInstruction::OthersStopped => self.slots_here()?,
        };
        Ok(Entry::new(self.around.index, enter.action, enter.at, here))
    }

    /// Everything that comes before the first stay in the guest.
    pub(super) fn before_guest(&mut self, entry: &mut Entry) -> BeforeGuest {
        self.wait_in_halt(entry)?;
        self.guests_turn(entry)?;
        match entry.first() {
            FirstInstruction::Meets | FirstInstruction::Disarmed => ControlFlow::Continue(()),
            FirstInstruction::CarriedOut => self.pass_beside_others(entry),
            FirstInstruction::Lifted | FirstInstruction::OthersStopped => self.lift_byte(entry),
        }
    }

    /// A VP that waits for an event may have nothing to execute.
    fn wait_in_halt(&mut self, entry: &mut Entry) -> BeforeGuest {
        if self.life == Life::Halted {
            if entry.steps() {
                return ControlFlow::Break(entry.halted());
            }
            self.around.gate.wait_for_kick();
            return ControlFlow::Break(None);
        }
        if entry.steps() && self.waits_for_start() {
            // There is no instruction to step, and nobody may be there to start the VP.
            return ControlFlow::Break(entry.halted());
        }
        if entry.first() == FirstInstruction::OthersStopped && self.waits() {
            return ControlFlow::Break(entry.waits_instead());
        }
        ControlFlow::Continue(())
    }

    fn lift_byte(&mut self, entry: &mut Entry) -> BeforeGuest {
        // A VP that waits meets the byte when it goes on, which may not be soon.
        if self.waits() {
            entry.leave_byte();
            return ControlFlow::Continue(());
        }
        match self.lift() {
            Ok(()) => ControlFlow::Continue(()),
            Err(err) => ControlFlow::Break(Some(self.crashed(&err))),
        }
    }

    /// What KVM is to be told for this part of the entry.
    pub(super) fn debug_state(&self, entry: &Entry) -> DebugState {
        let mut state = DebugState {
            registers: self.debug_registers.without(entry.disarmed()),
            bytes: self.arms.bytes,
            stepping: Stepping::Off,
            interrupts: Interrupts::Free,
        };
        if let Some(underway) = &self.underway {
            underway.apply(&mut state);
        }
        state
    }

    fn waits_for_start(&mut self) -> bool {
        self.life == Life::Untouched
            && matches!(self.vcpu.activity(), Ok(VpActivity::WaitingForStart))
    }

    fn waits(&mut self) -> bool {
        let activity = self.vcpu.activity();
        matches!(
            activity,
            Ok(VpActivity::WaitingForStart | VpActivity::Halted)
        )
    }

    /// The debug registers that wait for the execution of the instruction at RIP.
    fn slots_here(&mut self) -> Result<Hits, DebugError> {
        let executes = |slot: &Slot| slot.access() == Access::Execute;
        if !self.arms.slots.iter().flatten().any(executes) {
            return Ok(0);
        }
        let rip = self.vcpu.linear_rip()?;
        Ok(self.slots_at(Gva::new(rip)))
    }

    fn slots_at(&self, rip: Gva) -> Hits {
        let slots = self.arms.slots.iter().enumerate();
        let here = slots.filter(|(_, slot)| {
            slot.is_some_and(|slot| slot.access() == Access::Execute && slot.address() == rip)
        });
        here.fold(0, |hits, (index, _)| hits | 1 << index)
    }

    /// Whether a debug register of ours waits for the instruction at this RIP and is not disarmed for it.
    pub(super) fn waits_to_be_met(&self, rip: Gva, entry: &Entry) -> bool {
        self.slots_at(rip) & !entry.disarmed() != 0
    }
}
