//! What a build without a model checker uses.

#[cfg(loom)]
pub(crate) use loom::sync::atomic;
pub(crate) use pal_async::awake;
pub(crate) use std::sync::Condvar;
pub(crate) use std::sync::Mutex;
pub(crate) use std::sync::MutexGuard;
#[cfg(not(loom))]
pub(crate) use std::sync::atomic;
#[cfg(test)]
pub(crate) use std::sync::mpsc;
pub(crate) use std::thread;
pub(crate) use std::thread_local;

use std::sync::atomic::Ordering;
use std::sync::atomic::compiler_fence;

/// A signal's handler may run here, so the compiler keeps the order of what it changes and reads.
pub(crate) fn a_signal_may_arrive() {
    compiler_fence(Ordering::SeqCst);
}

/// Runs a unit test of code with these locks and threads.
#[cfg(test)]
pub(crate) fn check(test: impl Fn() + Send + Sync + 'static) {
    test();
}
