//! A guest that cannot continue while no debugger is attached: the guest ends, or stays stopped so that a debugger can attach.

use super::Output;
use super::Phase;
use super::RunState;
use super::Session;
use crate::control::guest_event::GuestEvent;
use vmm_core_defs::stop::DebugStopReason;

/// Which events keep the guest stopped while no debugger is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum KeepStopped {
    /// No event. Each is carried out.
    Nothing,
    /// Crashes. A triple fault resets the guest.
    Crashes,
    /// Crashes and triple faults.
    CrashesAndTripleFaults,
}

impl KeepStopped {
    pub(super) const fn includes(self, event: GuestEvent) -> bool {
        match event {
            GuestEvent::Crashed { .. } => !matches!(self, Self::Nothing),
            GuestEvent::TripleFault { .. } => matches!(self, Self::CrashesAndTripleFaults),
            GuestEvent::Reset { .. }
            | GuestEvent::PowerOff { .. }
            | GuestEvent::Panicked { .. } => false,
        }
    }
}

impl RunState {
    /// Whether the event keeps the guest stopped: no debugger is attached, and no debugger to which the event was reported has resumed the guest.
    pub(super) fn is_kept_stopped(&self, event: GuestEvent) -> bool {
        let debugged = matches!(self.session, Session::Attached(_));
        !debugged && self.keep_stopped.includes(event) && self.accepted_event != Some(event)
    }

    pub(super) fn stay_stopped(&mut self, event: GuestEvent) -> Vec<Output> {
        self.phase = Phase::Parked;
        vec![Output::KeptStopped(event)]
    }

    /// Reports the pending event to a debugger that attaches.
    pub(super) fn report_pending_event(&mut self) -> Option<DebugStopReason> {
        let reason = self.note_reported(self.pending_event?.reason());
        self.reported_event = self.pending_event;
        Some(reason)
    }
}
