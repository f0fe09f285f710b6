//! When the runner reports a pause to the guest: before every run after a stop, if the guest uses kvmclock.
//!
//! A Linux guest's soft-lockup watchdog (20 s by default) and similar watchdogs excuse a pause that the hypervisor reports (KVM api.rst, `KVM_KVMCLOCK_CTRL`).
//! Without kvmclock the report fails. The guest may turn kvmclock on at any time, so the runner tries again after [`TRY_AGAIN`] of pauses.

use std::time::Duration;
use std::time::Instant;

/// A hundredth of the time that the strictest watchdog allows, 10 s.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// The pause that was not reported to the guest yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct PauseNotice {
    clock: GuestClock,
    /// The pauses that were not reported, without the present one.
    untold: Duration,
    stands_since: Option<Instant>,
}

/// Whether the guest uses kvmclock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum GuestClock {
    /// It may use kvmclock.
    #[default]
    Possible,
    /// It did not at the last try.
    Missing,
}

impl PauseNotice {
    /// The VP has left the guest.
    pub(super) fn stands(&mut self, now: Instant) {
        self.pause_ends(now);
        self.stands_since = Some(now);
    }

    /// The VP is about to run. Returns whether to report the pause.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        self.pause_ends(now);
        match self.clock {
            GuestClock::Possible => !self.untold.is_zero(),
            GuestClock::Missing => self.untold >= TRY_AGAIN,
        }
    }

    /// The runner tried to report the pause. `told`: the guest uses kvmclock.
    pub(super) fn done(&mut self, told: bool) {
        self.untold = Duration::ZERO;
        self.clock = match told {
            true => GuestClock::Possible,
            false => GuestClock::Missing,
        };
    }

    fn pause_ends(&mut self, now: Instant) {
        if let Some(since) = self.stands_since.take() {
            let stood = now.saturating_duration_since(since);
            self.untold += stood.max(Duration::from_nanos(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn every_stop_is_told_of_once() {
        let start = Instant::now();
        let mut notice = PauseNotice::default();
        assert!(!notice.is_due(start), "it has not run yet");
        for _ in 0..3 {
            notice.stands(start);
            assert!(notice.is_due(start));
            notice.done(true);
            assert!(!notice.is_due(start + MS));
        }
        // Steps in between, which are not told.
        notice.stands(start);
        notice.stands(start + MS);
        assert!(notice.is_due(start + MS));
    }

    #[test]
    fn a_guest_without_a_clock_is_tried_again_when_pauses_add_up() {
        let start = Instant::now();
        let mut notice = PauseNotice::default();
        let mut tries = 0;
        for _ in 0..1001 {
            notice.stands(start);
            if notice.is_due(start + MS) {
                tries += 1;
                notice.done(false);
            }
        }
        assert_eq!(tries, 11, "the first, and one for each 100 ms");
    }
}
