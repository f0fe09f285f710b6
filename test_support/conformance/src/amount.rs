//! How much a repeating test does: the full amount on a machine's own KVM, less in the nested bed, as long as asked for in a soak.

use std::time::Duration;
use std::time::Instant;

/// Seconds that each repeating test is to take, set by `cargo xtask soak`.
pub const SOAK_SECONDS: &str = "TRAPGATE_SOAK_SECONDS";

/// How long a test may take for its turns: some ten times what they take on a quiet machine.
pub fn patience() -> Duration {
    Duration::from_secs(if is_nested() { 60 } else { 240 })
}

/// What a repeating test has to reach before it may end.
#[derive(Debug, Clone, Copy)]
pub struct Amount {
    turns: u64,
    time: Duration,
    start: Instant,
}

impl Amount {
    /// So many turns here, and so many in the nested bed, where everything takes a hundred times as long. A soak adds time and takes nothing away.
    pub fn turns(here: u64, nested: u64) -> Self {
        let turns = if is_nested() { nested } else { here };
        Self::new(turns, Duration::ZERO)
    }

    /// So long here, and so long in the nested bed. In a soak, what that asks for.
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

    /// Whether there is more to do after so many turns. A machine that is too busy for them is told of, as a skip.
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

/// Whether this is the bed of `cargo xtask nested`.
pub fn is_nested() -> bool {
    std::env::var_os("TRAPGATE_NESTED").is_some()
}

/// How long each repeating test is to take, in a soak.
///
/// # Panics
/// On a value that is no number: a soak that does not soak would pass for one that did.
pub fn soak() -> Option<Duration> {
    let value = std::env::var(SOAK_SECONDS).ok()?;
    let seconds = value
        .parse()
        .unwrap_or_else(|_| panic!("{SOAK_SECONDS}={value} is no number of seconds"));
    Some(Duration::from_secs(seconds))
}
