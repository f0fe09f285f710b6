//! The age of a request that has no answer yet, and the time of its next check.

use std::time::Duration;
use std::time::Instant;

/// A request that waits for its answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unanswered {
    since: Instant,
    /// The time after `since` at which the request is overdue (again).
    next: Duration,
}

impl Unanswered {
    /// A request that was made at `now`, and is overdue after `soon`.
    pub(super) fn new(now: Instant, soon: Duration) -> Self {
        Self {
            since: now,
            next: soon,
        }
    }

    /// The age of the request, if the request has become overdue or its age has doubled since then. `None` otherwise.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<Duration> {
        let waited = now.saturating_duration_since(self.since);
        if waited < self.next {
            return None;
        }
        self.next = waited * 2;
        Some(waited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_overdue_after_a_while_and_whenever_that_has_doubled() {
        let start = Instant::now();
        let mut kick = Unanswered::new(start, Duration::from_millis(200));
        let times = (0..40).map(|n| Duration::from_millis(100 * n));
        let overdue: Vec<_> = times
            .filter_map(|time| kick.overdue(start + time))
            .collect();
        let wanted = [200, 400, 800, 1600, 3200].map(Duration::from_millis);
        assert_eq!(overdue, wanted);
    }
}
