//! From programmed debug registers into the guest: who enters, and how each VP gets past the breakpoint byte it stands on.

use super::Cause;
use super::OnByte;
use super::Output;
use super::Outputs;
use super::Phase;
use super::Resume;
use super::RunState;
use super::Session;
use super::Vp;
use super::VpState;
use super::vp_index;
use crate::control::at_breakpoint::AtBreakpoint;
use crate::control::at_breakpoint::FirstInstruction;
use crate::control::at_breakpoint::Others;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::VpAction;

impl Vp {
    /// What a VP that is to move is entered with.
    fn entered_with(&mut self) -> Option<&mut AtBreakpoint> {
        match &mut self.state {
            VpState::Parked(at) if self.plan != VpAction::Stay => Some(at),
            VpState::Parked(_) | VpState::Entered | VpState::Kicked => None,
        }
    }
}

impl RunState {
    /// The debug registers of every VP and the breakpoint bytes are up to date (I5). `on_bytes` are the VPs that stand on such a byte.
    ///
    /// # Errors
    /// [`IllegalInput`](super::IllegalInput).
    pub(crate) fn programmed(&mut self, on_bytes: &[OnByte]) -> Outputs {
        self.only_in(Phase::Programming, "programmed")?;
        self.held = false;
        let moving = self.vps.iter_mut().filter_map(Vp::entered_with).count();
        let others = match moving {
            0 | 1 => Others::StayParked,
            _ => Others::Move,
        };
        for (index, vp) in self.vps.iter_mut().enumerate() {
            let on_byte = on_bytes.iter().find(|on| on.vp == vp_index(index));
            if let Some(at) = vp.entered_with() {
                at.decide(on_byte.map(|on| on.byte), others);
            }
        }
        Ok(self.step_over_or_enter())
    }

    fn step_over_or_enter(&mut self) -> Vec<Output> {
        if let Some(vp) = self.next_alone() {
            self.phase = Phase::SteppingOver;
            return self.enter(vp).into_iter().collect();
        }
        self.phase = Phase::Running;
        let vps = (0..self.vps.len()).map(vp_index);
        vps.filter_map(|vp| self.enter(vp)).collect()
    }

    /// The next VP that executes the instruction under its byte with the others stopped.
    fn next_alone(&mut self) -> Option<VpIndex> {
        let alone = |vp: &mut Vp| {
            let first = vp.entered_with().map(|at| at.first());
            first == Some(FirstInstruction::OthersStopped)
        };
        self.vps.iter_mut().position(alone).map(vp_index)
    }

    fn enter(&mut self, index: VpIndex) -> Option<Output> {
        let epoch = self.epoch;
        let vp = self.vps.get_mut(index.index() as usize)?;
        let at = *vp.entered_with()?;
        vp.state = VpState::Entered;
        Some(Output::Enter {
            vp: index,
            action: vp.plan,
            epoch,
            at,
        })
    }

    /// The VP that stepped over is parked again, with or without having done it.
    pub(super) fn stepped_over(&mut self, cause: Option<Cause>) -> Vec<Output> {
        if let Some(hit) = cause.and_then(Cause::hit) {
            self.note(hit);
        }
        if self.answer().is_none() && self.wants.is_empty() && self.owed.is_none() {
            return self.step_over_or_enter();
        }
        // Who passes which byte is decided anew.
        for vp in &mut self.vps {
            if let VpState::Parked(at) = &mut vp.state {
                at.undecided();
            }
        }
        self.phase = Phase::Stopping;
        self.settle_if_parked()
    }

    /// A VP refused its debug registers: the guest stays parked, and the shell answers the open `Resume` with an error.
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
