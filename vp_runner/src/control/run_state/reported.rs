//! Which stops were reported to the client, for each VP, and whether the VP may therefore pass a breakpoint at its RIP (I7, I8).

use super::Phase;
use super::RunState;
use super::VpState;
use super::messages::Hit;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::VpAction;
use vmm_core_defs::stop::DebugStopReason;

impl RunState {
    /// Removes a hit from the queue and marks it as reported, with the stop reason `now`.
    pub(super) fn take_hit(
        &mut self,
        position: usize,
        now: DebugStopReason,
    ) -> Option<DebugStopReason> {
        if let Hit::Guest(event) = self.hits.remove(position)? {
            self.set_pending_event(event);
            // Another event may have been pending already.
            if self.pending_event == Some(event) {
                self.reported_event = self.pending_event;
            }
        }
        Some(self.note_reported(now))
    }

    /// Marks this stop as reported.
    pub(super) fn note_reported(&mut self, reason: DebugStopReason) -> DebugStopReason {
        let vp = reason
            .vp()
            .and_then(|vp| self.vps.get_mut(vp.index() as usize));
        if let Some(vp) = vp {
            if let VpState::Parked(at) = &mut vp.state {
                at.reported();
            }
            vp.reported = Some(reason);
        }
        reason
    }

    /// The client has written RIP of a parked VP, perhaps with the same value. The VP meets a breakpoint at this RIP (I8). A breakpoint hit of the VP
    /// that is not reported yet is dropped, since the hit belongs to the former RIP.
    pub(crate) fn rip_written(&mut self, index: VpIndex) {
        if let Some(VpState::Parked(at)) = self.state_of(index) {
            at.forget();
        }
        self.hits.retain(|hit| {
            let reason = hit.reason();
            let is_breakpoint = matches!(reason, DebugStopReason::Breakpoint { .. });
            !is_breakpoint || reason.vp() != Some(index)
        });
    }

    /// The client asks why this VP stopped. `None` if the VP was only stopped with the others, or if the last resume did not run the VP. A hit of the VP
    /// that was not reported yet (I7) counts as reported from now on. A hit of a VP that the last resume did not run is not reported here, because a client
    /// may ignore the reason of such a VP, and the hit would be lost. `still_hit` is that of [`Self::resume`].
    ///
    /// # Errors
    /// [`DebugError::NotAttached`], [`DebugError::NotStopped`].
    pub(crate) fn report_reason_of(
        &mut self,
        index: VpIndex,
        still_hit: impl Fn(DebugStopReason) -> Option<DebugStopReason>,
    ) -> Result<Option<DebugStopReason>, DebugError> {
        self.check_stopped()?;
        let Some(vp) = self.vps.get(index.index() as usize) else {
            return Ok(None);
        };
        if vp.reported.is_some() {
            return Ok(vp.reported);
        }
        if vp.plan == VpAction::Stay {
            return Ok(None);
        }
        let kept = |hit: &Hit| hit.reason().vp() == Some(index);
        let Some(position) = self.hits.iter().position(kept) else {
            return Ok(None);
        };
        let reason = match self.hits[position] {
            Hit::Debug(reason) => still_hit(reason),
            hit => Some(hit.reason()),
        };
        Ok(reason.and_then(|now| self.take_hit(position, now)))
    }

    /// For a VP for which [`Self::report_reason_of`] returned `None`: the VP was stopped with the others, and `breakpoint` is at its RIP. The breakpoint counts
    /// as hit and reported, so the VP passes it. Otherwise some clients would silently step the VP past this breakpoint.
    ///
    /// `None` if the breakpoint is not reported now.
    pub(crate) fn report_breakpoint_ahead(
        &mut self,
        index: VpIndex,
        breakpoint: Breakpoint,
    ) -> Option<DebugStopReason> {
        let vp = self.vps.get(index.index() as usize)?;
        let unreported = match vp.state {
            VpState::Parked(at) => vp.reported.is_none() && !at.may_pass(),
            VpState::Entered | VpState::Kicked => false,
        };
        if self.phase != Phase::Parked || vp.plan == VpAction::Stay || !unreported {
            return None;
        }
        let vp = index;
        Some(self.note_reported(DebugStopReason::Breakpoint { vp, breakpoint }))
    }
}
