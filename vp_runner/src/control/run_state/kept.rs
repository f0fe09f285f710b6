//! A guest that cannot go on and that nobody debugs: it ends, or is kept, stopped, for a debugger to attach.

use super::Output;
use super::Phase;
use super::RunState;
use super::Session;
use crate::control::guest_event::GuestEvent;
use vmm_core_defs::stop::DebugStopReason;

/// Which events keep a guest stopped that nobody debugs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Keeps {
    /// None: each is acted upon.
    Nothing,
    /// Crashes. A triple fault is a reset.
    Crashes,
    /// Crashes and triple faults.
    CrashesAndTripleFaults,
}

impl Keeps {
    pub(super) const fn covers(self, event: GuestEvent) -> bool {
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
    /// Nobody debugs the guest, and no debugger that was told of the event has let the guest go.
    pub(super) fn is_kept(&self, event: GuestEvent) -> bool {
        let debugged = matches!(self.session, Session::Attached(_));
        !debugged && self.keeps.covers(event) && self.let_go != Some(event)
    }

    pub(super) fn keep(&mut self, event: GuestEvent) -> Vec<Output> {
        self.phase = Phase::Parked;
        vec![Output::Kept(event)]
    }

    /// A debugger that attaches is told of what the guest had asked for, or died of.
    pub(super) fn tell_owed(&mut self) -> Option<DebugStopReason> {
        let reason = self.reported(self.owed?.reason());
        self.shown = self.owed;
        Some(reason)
    }
}
