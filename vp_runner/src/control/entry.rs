//! One entry of a VP into the guest: which instruction is stepped, what is out of the way for it, and when the client's action is done.
//!
//! A debug register that waits for execution fires again at once when the VP resumes on its address: some KVMs ignore `RFLAGS.RF`, and with
//! single step on as well the breakpoint still comes first. So the register is disarmed on this VP for the first instruction (I8).

use crate::arch::Hits;
use crate::arch::Stepping;
use crate::control::at_breakpoint::AtBreakpoint;
use crate::control::at_breakpoint::FirstInstruction;
use crate::control::run_state::Cause;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::VpAction;
use vmm_core_defs::stop::DebugStopReason;

/// What an entry has still to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    vp: VpIndex,
    action: VpAction,
    at: AtBreakpoint,
    /// The debug registers that are disarmed for the next instruction.
    disarmed: Hits,
}

impl Entry {
    /// An entry of this VP for `action`, which is not [`VpAction::Stay`]. `here`: the debug registers that wait for the instruction at RIP.
    pub(crate) fn new(vp: VpIndex, action: VpAction, at: AtBreakpoint, here: Hits) -> Self {
        let disarmed = match at.first() {
            FirstInstruction::Meets => 0,
            FirstInstruction::Disarmed
            | FirstInstruction::Lifted
            | FirstInstruction::CarriedOut
            | FirstInstruction::OthersStopped => here,
        };
        Self {
            vp,
            action,
            at,
            disarmed,
        }
    }

    /// What the VP gives back as it parks.
    pub(crate) fn at(&self) -> AtBreakpoint {
        self.at
    }

    /// How the VP gets past a breakpoint at the next instruction.
    pub(crate) fn first(&self) -> FirstInstruction {
        self.at.first()
    }

    /// Whether every other VP waits for one instruction of this one.
    pub(crate) fn is_byte_lifted(&self) -> bool {
        self.at.is_byte_lifted()
    }

    /// Whether the VP executes its instructions one by one: a step, the steps of a range, or the one instruction of [`FirstInstruction::OthersStopped`].
    pub(crate) fn steps(&self) -> bool {
        self.action != VpAction::Run || self.first() == FirstInstruction::OthersStopped
    }

    /// Whether the client has asked for the step. The other steps pass a breakpoint.
    pub(crate) fn is_clients_step(&self) -> bool {
        self.action != VpAction::Run && self.first() != FirstInstruction::OthersStopped
    }

    /// Whether the next stay in the guest executes one instruction only.
    pub(crate) fn stepping(&self) -> Stepping {
        match self.steps() || !self.is_usual() {
            true => Stepping::On,
            false => Stepping::Off,
        }
    }

    /// Whether no breakpoint is out of the way for the next instruction.
    pub(crate) fn is_usual(&self) -> bool {
        self.disarmed == 0 && !self.is_byte_lifted()
    }

    /// Whether the steps of a range go on at this instruction.
    pub(crate) fn ranges_over(&self, rip: Gva) -> bool {
        let VpAction::StepRange { start, end } = self.action else {
            return false;
        };
        self.first() != FirstInstruction::OthersStopped && (start..end).contains(&rip)
    }

    /// These debug registers are not to be met by the next instruction either.
    pub(crate) fn disarm(&mut self, registers: Hits) {
        self.disarmed |= registers;
    }

    /// The debug registers that are not to be met by the next instruction.
    pub(crate) fn disarmed(&self) -> Hits {
        self.disarmed
    }

    /// The VP waits for something before it executes the instruction under the byte, so the byte stays in memory, and the VP meets it later.
    pub(crate) fn leave_byte(&mut self) {
        self.at.undecided();
    }

    /// The instruction under the byte cannot be carried out: the VP parks, and passes the byte with the others stopped.
    pub(crate) fn not_carried_out(&mut self) -> Cause {
        self.at.not_carried_out();
        Cause::NotReported
    }

    /// The guest's own exception comes first. A debug register is not met after the guest's handler, which returns with RFLAGS.RF set; a breakpoint byte is met
    /// again, since `INT3` does not heed RF.
    pub(crate) fn diverted(&mut self) {
        self.disarmed = 0;
        self.at.may_have_moved();
    }

    /// The VP enters the guest. A VP that passes a breakpoint counts as moved only when it has executed the instruction there.
    pub(crate) fn enters_guest(&mut self) {
        if self.is_usual() {
            self.at.may_have_moved();
        }
    }

    /// An event of the guest's own ends the entry. The instruction that brought the event may have executed, as an `out` to a reset port has.
    pub(crate) fn guest_event(&mut self) {
        self.at.may_have_moved();
    }

    /// One instruction has executed, and RIP is at the linear address `pc` now. Says whether that ends the entry.
    pub(crate) fn executed(&mut self, pc: u64) -> Option<Cause> {
        let done = match self.action {
            VpAction::Run | VpAction::Stay => false,
            VpAction::Step => true,
            VpAction::StepRange { start, end } => !(start.value()..end.value()).contains(&pc),
        };
        self.ends(done)
    }

    /// `hlt` has executed, and nothing but the client can wake the VP. Says whether that ends the entry.
    pub(crate) fn halted(&mut self) -> Option<Cause> {
        self.ends(self.action != VpAction::Run)
    }

    /// The VP is halted or waits for its start. Another VP may have to wake it, so it does not execute its next instruction with the others stopped.
    pub(crate) fn waits_instead(&mut self) -> Option<Cause> {
        self.ends(false)
    }

    fn ends(&mut self, done: bool) -> Option<Cause> {
        let alone = self.first() == FirstInstruction::OthersStopped;
        self.disarmed = 0;
        self.at.executed();
        match (done, alone) {
            (true, _) => Some(self.stepped()),
            (false, true) => Some(Cause::NotReported),
            (false, false) => None,
        }
    }

    /// The client's step is done.
    fn stepped(&self) -> Cause {
        Cause::Debug(DebugStopReason::SingleStep { vp: self.vp })
    }
}

#[cfg(test)]
mod tests;
