//! Spins for a bounded time before a thread goes to sleep.
//!
//! A client that steps through code usually steps again at once, and a step takes microseconds. A sleep costs two wake-ups of another core, each of which takes longer than
//! the step on a virtualised host. So a thread that waits for an event that came soon the last time polls for a bounded time first. It yields after each poll, so other threads get
//! the core. An event that does not come soon costs this time once: a client that thinks, a guest that runs and an idle session cost nothing.
//!
//! A thread that yields to a busy thread waits longer than a thread that sleeps and is woken. So no thread stays awake while the [`Busy`] threads of this process
//! use all cores.

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

/// The number of [`Busy`] threads of this process.
///
/// The count belongs to the process and not to a VM, because the VMs of a process share the cores of the host. It was compared with a count for each VM: a step, while another VM ran
/// a vCPU on each core (`rpc_step` of vp_runner, emulating KVM, 2 cores, other work on the machine, five runs each in turns). With this count the medians of the runs were
/// 40 to 78 us. With a count for each VM they were 32 us in three runs and 102 us in one, and one run did not end within ten minutes.
static BUSY: AtomicUsize = AtomicUsize::new(0);

/// A thread that keeps a core busy, until this is dropped.
#[derive(Debug)]
pub struct Busy(());

impl Busy {
    /// Counts the calling thread as busy.
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

/// Calls `poll` until it returns a value, for a bounded time. Gives up at once if there is only one core, or busy threads use all cores.
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

/// Whether a repeated wait begins with polling.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// The event came soon the last time.
    Soon,
    /// The event did not come soon, or this is the first wait.
    #[default]
    Whenever,
}

impl Expected {
    /// Calls [`awake`] if the event is expected soon.
    pub fn awake<T>(self, poll: impl FnMut() -> Option<T>) -> Option<T> {
        match self {
            Self::Soon => awake(poll),
            Self::Whenever => None,
        }
    }

    /// The expectation for the next wait, after a wait that began at `since`.
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
