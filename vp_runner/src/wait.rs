//! Waiting a moment awake before going to sleep.
//!
//! Waking a thread on another core costs about 20 us, far more than a step does. So the controller, having just started a
//! step, looks for its end for a bounded time before it sleeps. Nothing else spins: a VP that runs, a stopped guest and an idle session cost
//! nothing. On one core there is nothing to gain, and no spinning at all.

use std::num::NonZero;
use std::sync::OnceLock;
use std::time::Duration;
use std::time::Instant;

/// Several times what a step takes and about what sleeping and being woken costs.
const BUDGET: Duration = Duration::from_micros(60);

/// Calls `poll` until it has something, for a bounded time.
pub(crate) fn spin<T>(mut poll: impl FnMut() -> Option<T>) -> Option<T> {
    if let Some(value) = poll() {
        return Some(value);
    }
    if !more_than_one_core() {
        return None;
    }
    let end = Instant::now() + BUDGET;
    while Instant::now() < end {
        if let Some(value) = poll() {
            return Some(value);
        }
        std::hint::spin_loop();
    }
    None
}

fn more_than_one_core() -> bool {
    static MORE: OnceLock<bool> = OnceLock::new();
    *MORE.get_or_init(|| std::thread::available_parallelism().map_or(1, NonZero::get) > 1)
}
