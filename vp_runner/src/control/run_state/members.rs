//! VPs that come and go while the machine exists, and events that no VP has caused.

use super::Hit;
use super::Outputs;
use super::Phase;
use super::RunState;
use super::Vp;
use super::VpState;
use crate::control::at_breakpoint::AtBreakpoint;
use crate::control::guest_event::GuestEvent;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::VpAction;
use vmm_core_defs::stop::StopOn;

/// Whether the vCPU of a VP exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Presence {
    Here,
    /// The vCPU has gone, or has not come yet. The VP counts as parked, and does not run.
    Gone,
}

impl Vp {
    /// A VP whose vCPU has just been added.
    pub(super) const NEW: Self = Self {
        state: VpState::Parked(AtBreakpoint::NEW),
        plan: VpAction::Run,
        done: false,
        reported: None,
        presence: Presence::Here,
    };

    /// A VP without a vCPU.
    const ABSENT: Self = Self {
        presence: Presence::Gone,
        ..Self::NEW
    };
}

impl RunState {
    /// A vCPU has been added, or one that had gone is back. vCPUs with smaller indexes may come later. The VP is parked. It runs at once if the guest runs.
    ///
    /// # Errors
    /// [`IllegalInput`](super::IllegalInput).
    pub(crate) fn join(&mut self, index: VpIndex) -> Outputs {
        self.expect_idle_shell("join")?;
        let position = index.index() as usize;
        while self.vps.len() <= position {
            self.vps.push(Vp::ABSENT);
        }
        match self.vps[position].presence {
            Presence::Gone => self.vps[position] = Vp::NEW,
            Presence::Here => return Err(self.illegal("a VP that is here already").into()),
        }
        Ok(match self.phase {
            Phase::Running => self.enter(index).into_iter().collect(),
            _ => Vec::new(),
        })
    }

    /// The vCPU has gone, and is not in the guest. Its stops count no longer.
    ///
    /// # Errors
    /// [`IllegalInput`](super::IllegalInput).
    pub(crate) fn leave(&mut self, index: VpIndex) -> Outputs {
        self.expect_idle_shell("leave")?;
        let Some(vp) = self.vps.get_mut(index.index() as usize) else {
            return Err(self.illegal("an unknown VP leaves").into());
        };
        let was_entered = !matches!(vp.state, VpState::Parked(_));
        *vp = Vp::ABSENT;
        self.hits.retain(|hit| hit.reason().vp() != Some(index));
        Ok(match self.phase {
            Phase::SteppingOver if was_entered => self.stepped_over(None),
            Phase::Stopping => self.decide_if_all_parked(),
            _ => Vec::new(),
        })
    }

    /// A device has caused an event that a debugger asked for. The guest stops.
    ///
    /// # Errors
    /// [`IllegalInput`](super::IllegalInput).
    pub(crate) fn device_event(&mut self, event: GuestEvent) -> Outputs {
        self.expect_idle_shell("device_event")?;
        self.keep_hit(Hit::Guest(event));
        let mut outputs = self.kick_all();
        match self.phase {
            // The next resume reports the event, or the next run carries it out.
            Phase::Parked | Phase::SteppingOver => {}
            _ => {
                self.phase = Phase::Stopping;
                outputs.extend(self.decide_if_all_parked());
            }
        }
        Ok(outputs)
    }

    /// Which guest events are stops. `None` if no debugger is attached.
    pub(crate) fn stops_of_debugger(&self) -> Option<StopOn> {
        self.attached().is_ok().then_some(self.stop_on)
    }
}

#[cfg(test)]
mod tests;
