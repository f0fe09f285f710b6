//! One entry's course through the guest: what is stepped, and which debug register is passed.
//!
//! A debug register that waits for execution fires again at once when the VP resumes on its address: some KVMs ignore `RFLAGS.RF`, and with
//! single step on as well the breakpoint still comes first. So it is disarmed on this VP for the first instruction (I8). Whether
//! to do so is run control's decision ([`Start`]): only where a stop of the VP was reported there.

use super::*;
use crate::debug_registers::Hits;
use crate::dr7::Access;
use crate::dr7::Slot;
use crate::kvm::vcpu::Interrupts;

/// How the VP came to rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// By a stop or a kick, or before its first instruction.
    Usual,
    /// KVM gave up on it, which the client was told of.
    Crashed,
}

/// What an entry has still to do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Course {
    action: VpAction,
    extent: Extent,
    /// The debug registers that are disarmed for the next instruction.
    passing: Hits,
    /// Whether the breakpoint byte under the next instruction is out of memory.
    pub(super) lifted: Lifted,
    moved: Moved,
}

/// Whether the VP is yet to execute what is under the breakpoint byte it stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lifted {
    Yes,
    No,
}

impl Course {
    /// Whether the action is a step of some kind.
    pub(super) fn steps(&self) -> bool {
        self.action != VpAction::Run || self.extent == Extent::StepOver
    }

    /// Whether the other VPs wait for one instruction of this one.
    pub(super) fn is_step_over(&self) -> bool {
        self.extent == Extent::StepOver || self.lifted == Lifted::Yes
    }

    /// Whether the client asked for it, and not a breakpoint that is passed.
    pub(super) fn is_clients_step(&self) -> bool {
        self.action != VpAction::Run && self.extent == Extent::Whole
    }

    /// Whether the next entry executes one instruction only.
    pub(super) fn stepping(&self) -> Stepping {
        match self.steps() || self.passing != 0 || self.lifted == Lifted::Yes {
            true => Stepping::On,
            false => Stepping::Off,
        }
    }

    /// One instruction has executed. Says what that ends.
    pub(super) fn stepped_to(&mut self, pc: u64) -> Option<VpCause> {
        self.passing = 0;
        self.lifted = Lifted::No;
        self.moved = Moved::Yes;
        let done = match self.action {
            VpAction::Run | VpAction::Stay => false,
            VpAction::Step => true,
            VpAction::StepRange { start, end } => !(start.value()..end.value()).contains(&pc),
        };
        match (done, self.extent) {
            (true, _) => Some(VpCause::Stepped),
            (false, Extent::StepOver) => Some(VpCause::SteppedOver),
            (false, Extent::Whole) => None,
        }
    }

    /// Whether one entry is to follow the other for a range that goes on at this instruction.
    pub(super) fn ranges_over(&self, rip: Gva) -> bool {
        let VpAction::StepRange { start, end } = self.action else {
            return false;
        };
        self.extent == Extent::Whole && (start..end).contains(&rip)
    }

    /// These debug registers are not to be met by the next instruction.
    pub(super) fn pass(&mut self, registers: Hits) {
        self.passing |= registers;
    }

    /// The debug registers that are not to be met by the next instruction.
    pub(super) fn passing(&self) -> Hits {
        self.passing
    }

    /// Whether some debug register is not to be met by the next instruction.
    pub(super) fn is_passing(&self) -> bool {
        self.passing != 0
    }

    /// Whether no breakpoint is out of the way for the next instruction.
    pub(super) fn is_usual(&self) -> bool {
        self.passing == 0 && self.lifted == Lifted::No
    }

    /// The guest's own exception comes first. What was to be passed is not met after its handler either: that returns with RFLAGS.RF set.
    pub(super) fn diverted(&mut self) {
        self.passing = 0;
        self.moved = Moved::Yes;
    }

    /// The VP enters the guest. An entry that ends before its one instruction, which passes a breakpoint, has not moved the VP.
    pub(super) fn enters(&mut self) {
        if self.is_usual() {
            self.moved = Moved::Yes;
        }
    }

    /// Whether the VP may have executed something.
    pub(super) fn moved(&self) -> Moved {
        self.moved
    }

    /// What a step over `hlt` ends.
    pub(super) fn halted(&self) -> VpCause {
        match self.action {
            VpAction::Run => VpCause::SteppedOver,
            _ => VpCause::Stepped,
        }
    }
}

impl Vp {
    /// Decides how to start. `Err`: it is over before it began.
    pub(super) fn plot(&mut self, enter: &Enter) -> Result<Course, VpCause> {
        let course = |passing| Course {
            action: enter.action,
            extent: enter.extent,
            passing,
            lifted: Lifted::No,
            moved: Moved::No,
        };
        if self.life == Life::Halted {
            let mut course = course(0);
            return match self.halt(&mut course) {
                Some(cause) => Err(cause),
                // Kicked: the gate is shut, so the loop ends before it enters.
                None => Ok(course),
            };
        }
        if enter.action != VpAction::Run && self.waits_for_start() {
            // There is no instruction to step, and nobody may be there to start it.
            return Err(VpCause::Stepped);
        }
        if enter.extent == Extent::StepOver && self.waits() {
            // The instruction will be met when the VP goes on, which may need the others.
            return Err(VpCause::SteppedOver);
        }
        let passing = self
            .slot_to_pass(enter.start)
            .map_err(|err| self.crashed(&err))?;
        Ok(course(passing.map_or(0, |slot| 1 << slot)))
    }

    /// Gets the VP past the breakpoint byte it stands on, as far as that can be done before it enters. `Some`: the action ends with it.
    pub(super) fn go_over(&mut self, enter: &Enter, course: &mut Course) -> Option<VpCause> {
        let alone = enter.start == Start::Lift || enter.extent == Extent::StepOver;
        if enter.start == Start::CarryOut {
            return self.go_over_by_itself(course);
        }
        // One that waits meets the byte when it goes on, which may not be soon.
        if !alone || self.waits() {
            return None;
        }
        match self.lift() {
            Ok(()) => {
                course.lifted = Lifted::Yes;
                None
            }
            Err(err) => Some(self.crashed(&err)),
        }
    }

    /// What KVM is to be told for this part of the course.
    pub(super) fn debug_state(&self, course: &Course) -> DebugState {
        let mut state = DebugState {
            registers: self.debug_registers.without(course.passing),
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

    /// The debug register that waits for the instruction which the VP starts on, where the VP is to pass it.
    fn slot_to_pass(&mut self, start: Start) -> Result<Option<usize>, DebugError> {
        let executes = |slot: &Option<Slot>| slot.filter(|slot| slot.access() == Access::Execute);
        if start == Start::Retry || self.arms.slots.iter().find_map(executes).is_none() {
            return Ok(None);
        }
        let rip = self.vcpu.linear_rip()?;
        let here =
            |slot: &Option<Slot>| executes(slot).is_some_and(|slot| slot.address().value() == rip);
        Ok(self.arms.slots.iter().position(here))
    }
}
