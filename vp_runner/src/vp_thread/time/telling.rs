//! When a guest is told that it stood still: before every run after a stop, where it has a clock to be told by.
//!
//! A Linux guest's soft-lockup watchdog (20 s by default) and its like excuse a pause that the hypervisor tells of (KVM api.rst, `KVM_KVMCLOCK_CTRL`).
//! A guest without kvmclock cannot be told. It may turn one on at any time, so it is tried again when it has stood for long enough to matter.

use std::time::Duration;
use std::time::Instant;

/// A hundredth of what the strictest watchdog allows.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// What the guest has not been told yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Telling {
    listener: Listener,
    /// For how long it stood before it last ran.
    untold: Duration,
    stands_since: Option<Instant>,
}

/// Whether there is somebody to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Listener {
    #[default]
    There,
    /// There was none at the last try.
    Missing,
}

impl Telling {
    /// The VP has left the guest.
    pub(super) fn stands(&mut self, now: Instant) {
        self.pause_ends(now);
        self.stands_since = Some(now);
    }

    /// The VP is about to run: whether to tell its guest.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        self.pause_ends(now);
        match self.listener {
            Listener::There => !self.untold.is_zero(),
            Listener::Missing => self.untold >= TRY_AGAIN,
        }
    }

    /// It was tried, and `told` says whether somebody was there.
    pub(super) fn done(&mut self, told: bool) {
        self.untold = Duration::ZERO;
        self.listener = match told {
            true => Listener::There,
            false => Listener::Missing,
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
        let mut telling = Telling::default();
        assert!(!telling.is_due(start), "it has not run yet");
        for _ in 0..3 {
            telling.stands(start);
            assert!(telling.is_due(start));
            telling.done(true);
            assert!(!telling.is_due(start + MS));
        }
        // Steps in between, which are not told.
        telling.stands(start);
        telling.stands(start + MS);
        assert!(telling.is_due(start + MS));
    }

    #[test]
    fn a_guest_without_a_clock_is_tried_again_when_pauses_add_up() {
        let start = Instant::now();
        let mut telling = Telling::default();
        let mut tries = 0;
        for _ in 0..1001 {
            telling.stands(start);
            if telling.is_due(start + MS) {
                tries += 1;
                telling.done(false);
            }
        }
        assert_eq!(tries, 11, "the first, and one for each 100 ms");
    }
}
