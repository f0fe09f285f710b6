//! Which VPs enter the guest once their debug registers are programmed, and how each VP gets past a breakpoint byte at its RIP.

use super::Cause;
use super::Output;
use super::Outputs;
use super::Phase;
use super::Presence;
use super::Resume;
use super::RunState;
use super::Session;
use super::Vp;
use super::VpAtByte;
use super::VpState;
use super::vp_index;
use crate::control::at_breakpoint::AtBreakpoint;
use crate::control::at_breakpoint::FirstInstruction;
use crate::control::at_breakpoint::Others;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::VpAction;

impl Vp {
    /// The value that the VP is entered with. `None` if the VP stays parked.
    fn value_if_moving(&mut self) -> Option<&mut AtBreakpoint> {
        match &mut self.state {
            VpState::Parked(at)
                if self.plan != VpAction::Stay && self.presence == Presence::Here =>
            {
                Some(at)
            }
            VpState::Parked(_) | VpState::Entered | VpState::Kicked => None,
        }
    }
}

impl RunState {
    /// The debug registers of every VP and the breakpoint bytes are up to date (I5). `vps_at_bytes` are the VPs with a breakpoint byte at their RIP.
    ///
    /// # Errors
    /// [`IllegalInput`](super::IllegalInput).
    pub(crate) fn programmed(&mut self, vps_at_bytes: &[VpAtByte]) -> Outputs {
        self.only_in(Phase::Programming, "programmed")?;
        self.held = false;
        let moving = self.vps.iter_mut().filter_map(Vp::value_if_moving).count();
        let others = match moving {
            0 | 1 => Others::StayParked,
            _ => Others::Move,
        };
        for (index, vp) in self.vps.iter_mut().enumerate() {
            let on_byte = vps_at_bytes.iter().find(|on| on.vp == vp_index(index));
            if let Some(at) = vp.value_if_moving() {
                at.decide(on_byte.map(|on| on.byte), others);
            }
        }
        Ok(self.step_over_or_enter())
    }

    pub(super) fn step_over_or_enter(&mut self) -> Vec<Output> {
        if let Some(vp) = self.next_to_step_over() {
            self.phase = Phase::SteppingOver;
            return self.enter(vp).into_iter().collect();
        }
        self.phase = Phase::Running;
        let vps = (0..self.vps.len()).map(vp_index);
        vps.filter_map(|vp| self.enter(vp)).collect()
    }

    /// The next VP that executes the instruction under its byte with the other VPs stopped.
    fn next_to_step_over(&mut self) -> Option<VpIndex> {
        let steps_over = |vp: &mut Vp| {
            let first = vp.value_if_moving().map(|at| at.first());
            first == Some(FirstInstruction::OthersStopped)
        };
        self.vps.iter_mut().position(steps_over).map(vp_index)
    }

    pub(super) fn enter(&mut self, index: VpIndex) -> Option<Output> {
        let epoch = self.epoch;
        let vp = self.vps.get_mut(index.index() as usize)?;
        let at = *vp.value_if_moving()?;
        vp.state = VpState::Entered;
        Some(Output::Enter {
            vp: index,
            action: vp.plan,
            epoch,
            at,
        })
    }

    /// The VP that was to step over its byte is parked again, whether or not the VP has executed the instruction.
    pub(super) fn stepped_over(&mut self, cause: Option<Cause>) -> Vec<Output> {
        if let Some(hit) = cause.and_then(Cause::hit) {
            self.keep_hit(hit);
        }
        self.keep_ends_of_steps();
        if self.answering_hit().is_none() && self.goals.is_empty() && self.pending_event.is_none() {
            return self.step_over_or_enter();
        }
        // The next `programmed` decides again how each VP passes its byte.
        for vp in &mut self.vps {
            if let VpState::Parked(at) = &mut vp.state {
                at.clear_decision();
            }
        }
        self.phase = Phase::Stopping;
        self.decide_if_all_parked()
    }

    /// The debug registers of a VP could not be set. The guest stays parked, and the shell answers the open `Resume` with an error.
    ///
    /// # Errors
    /// [`IllegalInput`](super::IllegalInput).
    pub(crate) fn program_failed(&mut self) -> Outputs {
        self.only_in(Phase::Programming, "program_failed")?;
        self.phase = Phase::Parked;
        if let Session::Attached(open) = &mut self.session {
            *open = Resume::Answered;
        }
        Ok(Vec::new())
    }
}
