//! Who owns the machine, and what follows from that for a debugger.

use super::held_events::HeldEvents;
use crate::runner::RunnerExit;
use vmm_core_defs::stop::StopOn;

/// Who owns the machine.
pub(crate) enum Owner {
    /// This crate: it resets and ends the machine.
    Runner,
    /// The VMM, whose run loops run the vCPUs.
    Vmm(HeldEvents),
}

impl Owner {
    /// The end of the guest as a debugger is told of it.
    pub(super) const fn end_for_debugger(&self, end: RunnerExit) -> RunnerExit {
        match (self, end) {
            (Self::Vmm(_), RunnerExit::Stopped) => RunnerExit::Released,
            (_, end) => end,
        }
    }

    /// Those of these events that can be stops.
    pub(super) fn limit(&self, set: StopOn) -> StopOn {
        match self {
            Self::Runner => set,
            Self::Vmm(events) => set.intersection(events.announced()),
        }
    }
}
