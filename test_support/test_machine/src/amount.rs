//! The amount of repetitions in a test: the full amount on a machine's own KVM, less in the nested bed, and a given
//! time in a soak.

use std::time::Duration;
use std::time::Instant;

/// The variable with the seconds that each repeating test takes. `cargo xtask soak` sets it.
pub const SOAK_SECONDS: &str = "TRAPGATE_SOAK_SECONDS";

/// The maximum time for a test's repetitions: some ten times the time on an idle machine.
pub fn patience() -> Duration {
    Duration::from_secs(if is_nested() { 60 } else { 240 })
}

/// The goals of a repeating test.
#[derive(Debug, Clone, Copy)]
pub struct Amount {
    turns: u64,
    time: Duration,
    start: Instant,
}

impl Amount {
    /// `here` repetitions, or `nested` repetitions in the nested bed, where everything takes a hundred times as long. A
    /// soak adds a minimum time.
    pub fn turns(here: u64, nested: u64) -> Self {
        let turns = if is_nested() { nested } else { here };
        Self::new(turns, Duration::ZERO)
    }

    /// The time `here`, or the time `nested` in the nested bed. A soak sets its own time.
    pub fn time(here: Duration, nested: Duration) -> Self {
        Self::new(0, if is_nested() { nested } else { here })
    }

    fn new(turns: u64, time: Duration) -> Self {
        Self {
            turns,
            time: soak().unwrap_or(time),
            start: Instant::now(),
        }
    }

    /// Whether the test has to go on after `done` repetitions. If a machine is too busy to reach the goal, a skip is
    /// printed.
    pub fn is_left(&self, done: u64) -> bool {
        let passed = self.start.elapsed();
        if passed < self.time {
            return true;
        }
        let short = done < self.turns;
        let patience = patience();
        if short && passed > patience {
            println!(
                "SKIP: this machine is too busy for {} turns in {patience:?}: there were {done}",
                self.turns
            );
        }
        short && passed <= patience
    }
}

/// Whether the test runs in the bed of `cargo xtask nested`.
pub fn is_nested() -> bool {
    std::env::var_os("TRAPGATE_NESTED").is_some()
}

/// The time that each repeating test takes in a soak.
///
/// # Panics
/// The value is not a number. Otherwise a soak that does not soak would be taken for one that did.
pub fn soak() -> Option<Duration> {
    let value = std::env::var(SOAK_SECONDS).ok()?;
    let seconds = value
        .parse()
        .unwrap_or_else(|_| panic!("{SOAK_SECONDS}={value} is no number of seconds"));
    Some(Duration::from_secs(seconds))
}
