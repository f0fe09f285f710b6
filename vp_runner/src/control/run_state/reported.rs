//! Which stops the client knows of: what it was told of each VP, and whether the VP may pass a breakpoint where it stands (I7, I8).

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
    /// Takes a hit from the queue and notes that the client is told of it. `now` is the reason that the client is given.
    pub(super) fn take_hit(
        &mut self,
        position: usize,
        now: DebugStopReason,
    ) -> Option<DebugStopReason> {
        if let Hit::Guest(event) = self.hits.remove(position)? {
            self.owe(event);
            // Where something was owed already, this adds nothing.
            if self.owed == Some(event) {
                self.shown = self.owed;
            }
        }
        Some(self.reported(now))
    }

    /// Notes that the client is told of this stop.
    pub(super) fn reported(&mut self, reason: DebugStopReason) -> DebugStopReason {
        let vp = reason
            .vp()
            .and_then(|vp| self.vps.get_mut(vp.index() as usize));
        if let Some(vp) = vp {
            if let VpState::Parked(at) = &mut vp.state {
                at.reported();
            }
            vp.told = Some(reason);
        }
        reason
    }

    /// The client has set RIP of a parked VP, perhaps to the same value. The VP meets a breakpoint at this RIP (I8). A kept breakpoint hit of the VP
    /// is dropped, since the hit belongs to the former RIP.
    pub(crate) fn redirected(&mut self, index: VpIndex) {
        if let Some(VpState::Parked(at)) = self.state_of(index) {
            at.forget();
        }
        self.hits.retain(|hit| {
            let reason = hit.reason();
            let is_breakpoint = matches!(reason, DebugStopReason::Breakpoint { .. });
            !is_breakpoint || reason.vp() != Some(index)
        });
    }

    /// Why this VP stopped; `None` where the VP was only stopped with the others, or not let go by the last resume. A kept hit (I7) of a VP that was
    /// let go counts as reported from now on. A client may ignore the reason of a VP that the client did not resume, so a hit told then would be lost.
    /// `still_hit` is that of [`Self::resume`].
    ///
    /// # Errors
    /// [`DebugError::NotAttached`], [`DebugError::NotStopped`].
    pub(crate) fn tell(
        &mut self,
        index: VpIndex,
        still_hit: impl Fn(DebugStopReason) -> Option<DebugStopReason>,
    ) -> Result<Option<DebugStopReason>, DebugError> {
        self.check_stopped()?;
        let Some(vp) = self.vps.get(index.index() as usize) else {
            return Ok(None);
        };
        if vp.told.is_some() {
            return Ok(vp.told);
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

    /// Where [`Self::tell`] knows no reason: the VP is about to execute the instruction at `breakpoint`, and was stopped with the others just before it.
    /// The breakpoint counts as met and reported, so the VP passes it. Some clients silently step a VP past a breakpoint at which the VP stands without a
    /// reason.
    ///
    /// `None` where the VP is to meet this breakpoint at its next resume all the same.
    pub(crate) fn tell_standing(
        &mut self,
        index: VpIndex,
        breakpoint: Breakpoint,
    ) -> Option<DebugStopReason> {
        let vp = self.vps.get(index.index() as usize)?;
        let untold = match vp.state {
            VpState::Parked(at) => vp.told.is_none() && !at.may_pass(),
            VpState::Entered | VpState::Kicked => false,
        };
        if self.phase != Phase::Parked || vp.plan == VpAction::Stay || !untold {
            return None;
        }
        let vp = index;
        Some(self.reported(DebugStopReason::Breakpoint { vp, breakpoint }))
    }
}
