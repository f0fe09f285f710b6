//! Waiting a moment awake before going to sleep.
//!
//! A client that steps through code most likely steps again as soon as it has seen the stop, and a step is over as soon as it has begun. Sleeping
//! until then costs two wake-ups of another core, each of which takes longer than the step does on a virtualised host. So who waits for something that
//! came soon the last time looks for it for a bounded time first. It yields at each look, so whoever else wants the core has it; and what does not
//! come soon costs one such time, and none from then on: a client that thinks, a guest that runs and an idle session cost nothing.

use std::num::NonZero;
use std::sync::OnceLock;
use std::time::Duration;
use std::time::Instant;

/// Longer than a client on this machine needs from one stop to the next command, and than a step takes, with KVM nested in an emulator too.
const BUDGET: Duration = Duration::from_millis(1);

/// Calls `poll` until it has something, for a bounded time. On one core it gives up at once; so it does in unit tests, where `shuttle` lets the other
/// threads go on, which it does not at a look.
pub(crate) fn awake<T>(poll: impl FnMut() -> Option<T>) -> Option<T> {
    match more_than_one_core() && !cfg!(test) {
        true => look_for(poll),
        false => None,
    }
}

fn look_for<T>(mut poll: impl FnMut() -> Option<T>) -> Option<T> {
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

/// Whether what is waited for again and again is worth being awake for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// It came soon the last time.
    Soon,
    /// It did not, or is waited for the first time.
    #[default]
    Whenever,
}

impl Expected {
    /// [`awake`], where it is expected soon.
    pub(crate) fn awake<T>(self, poll: impl FnMut() -> Option<T>) -> Option<T> {
        match self {
            Self::Soon => awake(poll),
            Self::Whenever => None,
        }
    }

    /// What to expect the next time of something that was waited for since then.
    pub(crate) fn after(since: Instant) -> Self {
        match since.elapsed() < BUDGET {
            true => Self::Soon,
            false => Self::Whenever,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_is_found_and_what_never_comes_is_given_up() {
        let mut looks = 0;
        let found = look_for(|| {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(found, Some(3));
        assert_eq!(look_for(|| None::<()>), None);
    }

    #[test]
    fn only_what_came_soon_is_expected_soon() {
        let now = Instant::now();
        let long_ago = now.checked_sub(BUDGET).expect("a clock that is older");
        assert_eq!(Expected::after(long_ago), Expected::Whenever);
        assert_eq!(Expected::after(now + BUDGET), Expected::Soon);
    }
}
