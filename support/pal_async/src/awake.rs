//! Waiting a moment awake before going to sleep.
//!
//! A client that steps through code most likely steps again as soon as it has seen the stop, and a step is over as soon as it has begun. Sleeping
//! until then costs two wake-ups of another core, each of which takes longer than the step does on a virtualised host. So who waits for something that
//! came soon the last time looks for it for a bounded time first. It yields at each look, so whoever else wants the core has it; and what does not
//! come soon costs one such time, and none from then on: a client that thinks, a guest that runs and an idle session cost nothing.
//!
//! Who yields to a thread that has much to do waits longer than who sleeps and is woken. So nobody stays awake where threads of this process that say so
//! ([`Busy`]) leave no core over.

use std::num::NonZero;
use std::sync::OnceLock;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

/// Longer than a client on this machine needs from one stop to the next command, and than a step takes, with KVM nested in an emulator too.
///
/// Without it, a step over the protocol took more than 100 us in 5 of 12 runs, and a read of registers more than 60 us in 4 of 12. The medians of the
/// runs, 71 us and 22 us, did not differ (emulating KVM, 2 cores).
const BUDGET: Duration = Duration::from_millis(1);

static BUSY: AtomicUsize = AtomicUsize::new(0);

/// A thread that keeps a core busy, until this is dropped.
#[derive(Debug)]
pub struct Busy(());

impl Busy {
    /// From now on.
    #[expect(clippy::new_without_default, reason = "it is counted")]
    pub fn new() -> Self {
        BUSY.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        BUSY.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Calls `poll` until it has something, for a bounded time. On one core, or where busy threads have all of them, it gives up at once.
pub fn awake<T>(poll: impl FnMut() -> Option<T>) -> Option<T> {
    match is_worth_it(cores(), BUSY.load(Ordering::Relaxed)) {
        true => look_for(BUDGET, poll),
        false => None,
    }
}

fn is_worth_it(cores: usize, busy: usize) -> bool {
    cores > 1 && busy < cores
}

fn look_for<T>(budget: Duration, mut poll: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + budget;
    loop {
        match poll() {
            None if Instant::now() < end => std::thread::yield_now(),
            found => return found,
        }
    }
}

fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, NonZero::get))
}

/// Whether what is waited for again and again is worth being awake for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// It came soon the last time.
    Soon,
    /// It did not, or is waited for the first time.
    #[default]
    Whenever,
}

impl Expected {
    /// [`awake`], where it is expected soon.
    pub fn awake<T>(self, poll: impl FnMut() -> Option<T>) -> Option<T> {
        match self {
            Self::Soon => awake(poll),
            Self::Whenever => None,
        }
    }

    /// What to expect the next time of something that was waited for since then.
    pub fn after(since: Instant) -> Self {
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
        let long = Duration::from_secs(3600);
        let found = look_for(long, || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(found, Some(3));
        assert_eq!(look_for(BUDGET, || None::<()>), None);
    }

    #[test]
    fn nobody_stays_awake_without_a_core_to_spare() {
        assert!(!is_worth_it(1, 0));
        assert!(is_worth_it(2, 1));
        assert!(!is_worth_it(2, 2));
        let before = BUSY.load(Ordering::Relaxed);
        let busy = [Busy::new(), Busy::new()];
        assert_eq!(BUSY.load(Ordering::Relaxed), before + 2);
        drop(busy);
        assert_eq!(BUSY.load(Ordering::Relaxed), before);
    }

    #[test]
    fn only_what_came_soon_is_expected_soon() {
        let now = Instant::now();
        let long_ago = now.checked_sub(BUDGET).expect("a clock that is older");
        assert_eq!(Expected::after(long_ago), Expected::Whenever);
        assert_eq!(Expected::after(now + BUDGET), Expected::Soon);
    }
}
