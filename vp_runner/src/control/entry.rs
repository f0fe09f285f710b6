//! One entry of a VP into the guest: whether the VP steps, which breakpoints are disarmed for the next instruction, and when the client's action is done.
//!
//! An execution breakpoint on a debug register fires again when the VP resumes at its address. Some KVMs ignore `RFLAGS.RF`, and while KVM steps, the
//! breakpoint still comes first. So the register is disarmed on this VP for the first instruction (I8).

use crate::arch::Hits;
use crate::arch::SingleStepping;
use crate::control::at_breakpoint::AtBreakpoint;
use crate::control::at_breakpoint::FirstInstruction;
use crate::control::run_state::Cause;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::VpAction;
use vmm_core_defs::stop::DebugStopReason;

/// The state of one entry, which changes with each instruction that the entry steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    vp: VpIndex,
    action: VpAction,
    at: AtBreakpoint,
    /// The debug registers that are disarmed for the next instruction.
    disarmed: Hits,
    /// The linear address of a breakpoint of which no condition holds, until the VP has executed the instruction there.
    passes_at: Option<Gva>,
    /// The number of instructions that the VP has stepped in this entry.
    steps: u64,
}

impl Entry {
    /// An entry of this VP for `action`, which is not [`VpAction::Stay`]. `at_rip`: the debug registers with an execution breakpoint at RIP.
    pub(crate) fn new(vp: VpIndex, action: VpAction, at: AtBreakpoint, at_rip: Hits) -> Self {
        let disarmed = match at.first() {
            FirstInstruction::Meets => 0,
            FirstInstruction::Disarmed
            | FirstInstruction::Lifted
            | FirstInstruction::Emulated
            | FirstInstruction::OthersStopped => at_rip,
        };
        Self {
            vp,
            action,
            at,
            disarmed,
            passes_at: None,
            steps: 0,
        }
    }

    /// The number of instructions that the VP has stepped in this entry. Run control takes it from the steps that the client has asked for.
    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    /// The value that the VP returns as it parks.
    pub(crate) fn at(&self) -> AtBreakpoint {
        self.at
    }

    /// How the VP gets past a breakpoint at the next instruction.
    pub(crate) fn first(&self) -> FirstInstruction {
        self.at.first()
    }

    /// Whether the breakpoint byte is lifted for the next instruction, and every other VP waits for this instruction.
    pub(crate) fn is_byte_lifted(&self) -> bool {
        self.at.is_byte_lifted()
    }

    /// Whether the VP executes its instructions one by one: for a step, for the steps of a range, or for [`FirstInstruction::OthersStopped`].
    pub(crate) fn is_stepping(&self) -> bool {
        self.action != VpAction::Run || self.first() == FirstInstruction::OthersStopped
    }

    /// Whether the client has asked for the step. Other steps pass a breakpoint.
    pub(crate) fn is_clients_step(&self) -> bool {
        self.action != VpAction::Run && self.first() != FirstInstruction::OthersStopped
    }

    /// Whether the next `KVM_RUN` executes one instruction only.
    pub(crate) fn stepping(&self) -> SingleStepping {
        match self.is_stepping() || !self.passes_nothing() {
            true => SingleStepping::On,
            false => SingleStepping::Off,
        }
    }

    /// Whether no breakpoint is disarmed or lifted for the next instruction.
    pub(crate) fn passes_nothing(&self) -> bool {
        self.disarmed == 0 && !self.is_byte_lifted()
    }

    /// Whether the client's steps go on when the VP has executed one more instruction, and RIP is at this linear address then.
    pub(crate) fn goes_on_at(&self, rip: Gva) -> bool {
        self.first() != FirstInstruction::OthersStopped
            && match self.action {
                VpAction::StepRange { start, end } => (start..end).contains(&rip),
                VpAction::StepN { count } => self.steps + 1 < count.get(),
                _ => false,
            }
    }

    /// Disarms these debug registers too for the next instruction.
    pub(crate) fn disarm(&mut self, registers: Hits) {
        self.disarmed |= registers;
    }

    /// The debug registers that are disarmed for the next instruction.
    pub(crate) fn disarmed(&self) -> Hits {
        self.disarmed
    }

    /// The VP waits before it executes the instruction under the byte, so the byte stays in memory, and the VP hits the byte later.
    pub(crate) fn leave_byte_in_place(&mut self) {
        self.at.clear_decision();
    }

    /// The VP has hit a breakpoint at this linear address of which no condition holds. It passes the breakpoint as one whose stop was reported, also if it is kicked before.
    pub(crate) fn condition_is_false(&mut self, rip: Gva) {
        self.at.reported();
        self.passes_at = Some(rip);
    }

    /// Whether the VP has hit a breakpoint at this address, and no condition held. A debug register may fire before the byte at one address.
    pub(crate) fn passes_at(&self, rip: Gva) -> bool {
        self.passes_at == Some(rip)
    }

    /// The instruction under the byte cannot be emulated. The VP parks, and passes the byte with the other VPs stopped.
    pub(crate) fn emulation_failed(&mut self) -> Cause {
        self.at.emulation_failed();
        Cause::NotReported
    }

    /// An exception of the guest is delivered before the next instruction. When the guest's handler returns with RFLAGS.RF set, a debug register does not fire.
    /// A breakpoint byte is hit again, since RF does not suppress `INT3`.
    pub(crate) fn guest_exception_first(&mut self) {
        self.disarmed = 0;
        self.passes_at = None;
        self.at.may_have_moved();
    }

    /// The VP enters the guest. A VP that passes a breakpoint counts as moved only after it has executed the instruction there.
    pub(crate) fn enters_guest(&mut self) {
        if self.passes_nothing() {
            self.passes_at = None;
            self.at.may_have_moved();
        }
    }

    /// A guest event ends the entry. The instruction that caused the event may have executed, such as an `out` to a reset port.
    pub(crate) fn guest_event(&mut self) {
        self.at.may_have_moved();
    }

    /// One instruction has executed, and RIP is at the linear address `pc` now. Returns a cause if the entry ends.
    pub(crate) fn executed(&mut self, pc: u64) -> Option<Cause> {
        self.count_step();
        let done = match self.action {
            VpAction::Run | VpAction::Stay => false,
            VpAction::Step => true,
            VpAction::StepN { count } => self.steps >= count.get(),
            VpAction::StepRange { start, end } => !(start.value()..end.value()).contains(&pc),
            // The controller refuses an action that it does not know (`plan`).
            _ => true,
        };
        self.ends(done)
    }

    /// One more instruction has executed. A stop of its own ends the entry.
    pub(crate) fn count_step(&mut self) {
        self.steps = self.steps.saturating_add(1);
    }

    /// `hlt` has executed, and only the client can wake the VP. Returns a cause if the entry ends.
    pub(crate) fn halted(&mut self) -> Option<Cause> {
        self.count_step();
        self.nothing_to_execute()
    }

    /// The VP waits, and only the client can wake it. Returns a cause if the entry ends.
    pub(crate) fn nothing_to_execute(&mut self) -> Option<Cause> {
        self.ends(self.action != VpAction::Run)
    }

    /// The VP is halted or waits for its start-up message. Another VP may have to wake this VP, so it does not wait with the other VPs stopped. Returns a cause
    /// if the entry ends.
    pub(crate) fn vp_waits(&mut self) -> Option<Cause> {
        self.ends(false)
    }

    fn ends(&mut self, done: bool) -> Option<Cause> {
        let alone = self.first() == FirstInstruction::OthersStopped;
        self.disarmed = 0;
        self.passes_at = None;
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
