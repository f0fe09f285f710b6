//! Whether a worker is alive: it is asked for its state again and again.

use super::lost::Lost;
use crate::process::control::ToWorker;
use pal_async::timer::Instant;
use std::time::Duration;

/// The time from the start of a process to its first message. A busy machine needs a part of it.
pub(super) const START_TIME: Duration = Duration::from_secs(10);

/// The time between an answer of the worker and the next question.
const PAUSE_BETWEEN_BEATS: Duration = Duration::from_secs(2);

/// The time for an answer.
const BEAT_TIME: Duration = Duration::from_millis(2500);

/// The number of times in a row that a worker may need longer than [`BEAT_TIME`]. The first time may be the VMM's own: it was stopped (Ctrl-Z) and its clock went on.
const MISSED_BEATS: u32 = 2;

/// Whether the worker is alive.
#[derive(Debug)]
pub(super) struct Beat {
    pub(super) ready: bool,
    /// The number of the last question.
    last: u64,
    /// The question without an answer.
    pub(super) asked: Option<u64>,
    missed: u32,
    /// When the next question is due, or the answer is late.
    pub(super) deadline: Instant,
}

impl Beat {
    pub(super) fn new() -> Self {
        Self {
            ready: false,
            last: 0,
            asked: None,
            missed: 0,
            deadline: Instant::now() + START_TIME,
        }
    }

    pub(super) fn ready(&mut self) {
        self.ready = true;
        self.deadline = Instant::now() + PAUSE_BETWEEN_BEATS;
    }

    pub(super) fn ask(&mut self) -> ToWorker {
        self.last += 1;
        self.asked = Some(self.last);
        self.deadline = Instant::now() + BEAT_TIME;
        ToWorker::Inspect(self.last)
    }

    pub(super) fn answered(&mut self) {
        self.asked = None;
        self.missed = 0;
        self.deadline = Instant::now() + PAUSE_BETWEEN_BEATS;
    }

    /// The question that is due, or the verdict.
    pub(super) fn time_is_up(&mut self) -> Result<Option<ToWorker>, Lost> {
        if !self.ready {
            return Err(Lost::NotReady);
        }
        if self.asked.is_none() {
            return Ok(Some(self.ask()));
        }
        self.missed += 1;
        if self.missed >= MISSED_BEATS {
            return Err(Lost::Silent);
        }
        self.deadline = Instant::now() + BEAT_TIME;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_silent_after_two_missed_answers_and_not_after_one() {
        let mut beat = Beat::new();
        beat.ready();
        assert!(matches!(beat.time_is_up(), Ok(Some(ToWorker::Inspect(1)))));
        assert!(matches!(beat.time_is_up(), Ok(None)));
        beat.answered();
        assert!(matches!(beat.time_is_up(), Ok(Some(ToWorker::Inspect(2)))));
        assert!(matches!(beat.time_is_up(), Ok(None)));
        assert!(matches!(beat.time_is_up(), Err(Lost::Silent)));
    }

    #[test]
    fn a_worker_that_is_never_ready_is_given_up() {
        assert!(matches!(Beat::new().time_is_up(), Err(Lost::NotReady)));
    }
}
