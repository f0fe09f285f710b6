//! The steps that the VPs have made of those that the client has asked for. The plan is issued again after each park that is not reported, so the steps
//! that a VP has made are taken from its plan.

use super::Hit;
use super::Resume;
use super::RunState;
use super::Session;
use super::vp_index;
use std::num::NonZeroU64;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::VpAction;
use vmm_core_defs::stop::DebugStopReason;

impl RunState {
    /// The number of instructions that VPs have executed by [`VpAction::StepN`] since the last resume. `None` if the resume has no such action.
    pub(crate) fn steps(&self) -> Option<u64> {
        self.steps
    }

    /// The client resumes the guest with this plan.
    pub(super) fn begin_steps(&mut self, plan: &[VpAction]) {
        let counts = |action: &VpAction| matches!(action, VpAction::StepN { .. });
        self.steps = plan.iter().any(counts).then_some(0);
    }

    /// The VP has parked, and has made this many steps since its entry.
    pub(super) fn take_steps(&mut self, index: VpIndex, made: u64) {
        let Some(vp) = self.vps.get_mut(index.index() as usize) else {
            return;
        };
        match vp.plan {
            VpAction::Step => vp.done = made > 0,
            VpAction::StepN { count } => {
                self.steps = self.steps.map(|steps| steps.saturating_add(made));
                match NonZeroU64::new(count.get().saturating_sub(made)) {
                    Some(count) => vp.plan = VpAction::StepN { count },
                    None => vp.done = true,
                }
            }
            _ => {}
        }
    }

    /// A VP that has made its last step does not run on, also if the VP parked for a reason that is not reported: a guest event that is no stop, or a watchpoint
    /// that is gone.
    pub(super) fn keep_ends_of_steps(&mut self) {
        if self.session != Session::Attached(Resume::Open) {
            return;
        }
        for (index, vp) in self.vps.iter().enumerate() {
            let vp_index = vp_index(index);
            let has_hit = |hit: &Hit| hit.reason().vp() == Some(vp_index);
            if vp.done && !self.hits.iter().any(has_hit) {
                let end = DebugStopReason::SingleStep { vp: vp_index };
                self.hits.push_back(Hit::Debug(end));
            }
        }
    }
}
