//! The pause before the next worker.

use std::time::Duration;

/// A worker that lived this long has not failed again and again.
const LONG_LIFE: Duration = Duration::from_secs(10);

/// The pauses before a worker is started again, from the second failure in a row.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The pause after a worker that has lived for `life`, if the pause before that worker was `last`.
pub(super) fn next_pause(last: Duration, life: Duration) -> Duration {
    match (life >= LONG_LIFE, last) {
        (true, _) => Duration::ZERO,
        (false, Duration::ZERO) => FIRST_PAUSE,
        (false, last) => (last * 2).min(LONGEST_PAUSE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_dies_at_once_is_started_again_ever_later_and_one_that_lived_at_once() {
        let short = Duration::from_millis(1);
        let mut pause = Duration::ZERO;
        let mut all = Vec::new();
        for _ in 0..10 {
            pause = next_pause(pause, short);
            all.push(pause);
        }
        assert_eq!(all[0], FIRST_PAUSE);
        assert!(all.is_sorted() && all[9] == LONGEST_PAUSE, "{all:?}");
        assert_eq!(next_pause(pause, LONG_LIFE), Duration::ZERO);
    }
}
