//! The locks, atomics and threads of the build for `shuttle`, whose scheduler decides at each operation which thread goes on.
//!
//! A timeout may be over at any time. A signal is delivered to its thread at the places in the code where one may arrive, and while the thread sleeps; see [`signals`].

pub(crate) mod awake;
pub(crate) mod signals;
pub(crate) mod wake;

pub(crate) use shuttle::sync::Mutex;
pub(crate) use shuttle::sync::MutexGuard;
pub(crate) use shuttle::sync::atomic;
pub(crate) use shuttle::sync::mpsc;
pub(crate) use shuttle::thread;
pub(crate) use shuttle::thread_local;
pub(crate) use signals::a_signal_may_arrive;

use atomic::AtomicBool;
use atomic::Ordering;
use shuttle::rand::Rng as _;
use shuttle::rand::thread_rng;
use shuttle::scheduler::RandomScheduler;
use std::sync::Arc;
use std::sync::LockResult;
use std::time::Duration;

/// Runs a unit test of code with these locks and threads, under some random schedules.
pub(crate) fn check(test: impl Fn() + Send + Sync + 'static) {
    let mut config = shuttle::Config::new();
    config.max_steps = shuttle::MaxSteps::FailAfter(100_000);
    shuttle::Runner::new(RandomScheduler::new(100), config).run(test);
}

/// A condition variable whose timeouts end at any time. The condition variable of `shuttle` has no timeouts.
#[derive(Debug)]
pub(crate) struct Condvar(Arc<shuttle::sync::Condvar>);

/// Whether the time was over.
pub(crate) struct TimedOut;

impl Condvar {
    pub(crate) fn new() -> Self {
        Self(Arc::new(shuttle::sync::Condvar::new()))
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }

    pub(crate) fn wait_timeout_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        _: Duration,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<(MutexGuard<'a, T>, TimedOut)> {
        if !condition(&mut guard) {
            return Ok((guard, TimedOut));
        }
        let [over, done] = [false; 2].map(|is| Arc::new(AtomicBool::new(is)));
        let clock = thread::spawn({
            let (condvar, over, done) = (self.0.clone(), over.clone(), done.clone());
            move || {
                for _ in 0..thread_rng().gen_range(0..50) {
                    thread::yield_now();
                }
                over.store(true, Ordering::SeqCst);
                // The waiting thread may not wait yet.
                while !done.load(Ordering::SeqCst) {
                    condvar.notify_all();
                    thread::yield_now();
                }
            }
        });
        while condition(&mut guard) && !over.load(Ordering::SeqCst) {
            guard = self
                .0
                .wait(guard)
                .expect("a test does not go on after a panic");
        }
        done.store(true, Ordering::SeqCst);
        clock.join().expect("the clock does not panic");
        Ok((guard, TimedOut))
    }
}
