//! Waiting a moment awake before going to sleep.
//!
//! A VP that has just stepped most likely steps again as soon as the client has seen the stop. Sleeping until then costs a wake-up
//! of another core, which on a virtualised host takes longer than the step does. So its thread looks for the next command for a
//! bounded time first. It yields at each look, so whoever else wants the core has it; and nothing else waits like this: a VP that
//! met a breakpoint, a stopped guest and an idle session cost nothing.

use std::num::NonZero;
use std::sync::OnceLock;
use std::time::Duration;
use std::time::Instant;

/// Longer than a client on this machine needs from one stop to the next step, and no longer than two wake-ups take.
const BUDGET: Duration = Duration::from_micros(100);

/// Calls `poll` until it has something, for a bounded time. On one core it gives up at once.
pub(crate) fn awake<T>(mut poll: impl FnMut() -> Option<T>) -> Option<T> {
    if !more_than_one_core() {
        return None;
    }
    let end = Instant::now() + BUDGET;
    loop {
        match poll() {
            None if Instant::now() < end => std::thread::yield_now(),
            found => return found,
        }
    }
}

fn more_than_one_core() -> bool {
    static MORE: OnceLock<bool> = OnceLock::new();
    *MORE.get_or_init(|| std::thread::available_parallelism().map_or(1, NonZero::get) > 1)
}
