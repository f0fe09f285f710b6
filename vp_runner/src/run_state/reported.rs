//! Which stops the client knows of: what it was told of each VP, and whether the VP may pass a breakpoint where it stands (I7, I8).

use super::Cause;
use super::RunState;
use super::Start;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::stop::DebugStopReason;

/// Whether a stop was reported that named this VP at its present RIP (I8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Known {
    /// A breakpoint there is passed.
    Reported,
    /// A breakpoint there is yet to be met.
    Unreported,
}

impl Known {
    pub(super) const fn start(self) -> Start {
        match self {
            Self::Reported => Start::Past,
            Self::Unreported => Start::Retry,
        }
    }
}

impl RunState {
    /// Takes a hit that the client is told of, as what it is now.
    pub(super) fn take_hit(
        &mut self,
        position: usize,
        now: DebugStopReason,
    ) -> Option<DebugStopReason> {
        if let Cause::Guest(event) = self.hits.remove(position)? {
            self.owe(event);
        }
        let vp = now
            .vp()
            .and_then(|vp| self.vps.get_mut(vp.index() as usize));
        if let Some(vp) = vp {
            vp.known = Known::Reported;
            vp.told = Some(now);
        }
        Some(now)
    }

    /// The client has set RIP of a parked VP, perhaps to the value that it had: a breakpoint there is yet to be met (I8), and one that the VP had met
    /// where it stood before is not told of.
    pub fn redirected(&mut self, index: VpIndex) {
        if let Some(vp) = self.vps.get_mut(index.index() as usize) {
            vp.known = Known::Unreported;
        }
        self.hits.retain(|hit| {
            let reason = hit.reason();
            let is_breakpoint = matches!(reason, DebugStopReason::Breakpoint { .. });
            !is_breakpoint || reason.vp() != Some(index)
        });
    }

    /// Why this VP stands still, where that is a reason of its own. A hit that was kept back (I7) is told with it, and is not told again.
    /// `still_hit` is that of [`Self::resume`].
    ///
    /// # Errors
    /// [`DebugError::NotAttached`], [`DebugError::NotStopped`].
    pub fn tell(
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
        let kept = |hit: &Cause| hit.reason().vp() == Some(index);
        let Some(position) = self.hits.iter().position(kept) else {
            return Ok(None);
        };
        let reason = match self.hits[position] {
            Cause::Debug(reason) => still_hit(reason),
            hit => Some(hit.reason()),
        };
        Ok(reason.and_then(|now| self.take_hit(position, now)))
    }
}
