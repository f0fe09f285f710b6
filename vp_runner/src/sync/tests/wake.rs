//! The sleep of a parked VP, with the contract of `kvm::wake`. A sleep without a timeout that no thread ends is a deadlock, which `shuttle` reports.

use super::signals;
use super::signals::a_signal_may_arrive;
use shuttle::rand::Rng as _;
use shuttle::rand::thread_rng;
use shuttle::sync::Mutex;
use shuttle::sync::atomic::AtomicBool;
use shuttle::sync::atomic::Ordering;
use shuttle::thread;
use std::io;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woken {
    Wake,
    Signal,
    Timeout,
}

pub(crate) struct HeldSignals(());

impl HeldSignals {
    pub(crate) fn new() -> Self {
        a_signal_may_arrive();
        signals::hold(true);
        Self(())
    }
}

impl Drop for HeldSignals {
    fn drop(&mut self) {
        if !thread::panicking() {
            signals::hold(false);
            a_signal_may_arrive();
        }
    }
}

#[derive(Debug)]
pub(crate) struct Wake {
    event: AtomicBool,
    sleeper: Mutex<Option<thread::Thread>>,
}

impl Wake {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            event: AtomicBool::new(false),
            sleeper: Mutex::new(None),
        })
    }

    pub(crate) fn wake(&self) {
        self.event.store(true, Ordering::SeqCst);
        let sleeper = self.sleeper.lock().unwrap().clone();
        if let Some(sleeper) = sleeper {
            sleeper.unpark();
        }
    }

    /// Has the contract of `ppoll`: an event that is pending comes before a signal, and a signal that was blocked before ends the sleep.
    pub(crate) fn sleep(&self, timeout: Option<Duration>, held: Option<&HeldSignals>) -> Woken {
        if held.is_none() && thread_rng().gen_bool(0.5) {
            // A signal that comes just before the sleep does not end it.
            a_signal_may_arrive();
        }
        *self.sleeper.lock().unwrap() = Some(thread::current());
        loop {
            if self.event.swap(false, Ordering::SeqCst) {
                return Woken::Wake;
            }
            if signals::deliver() {
                return Woken::Signal;
            }
            match timeout {
                None => thread::park(),
                Some(_) if thread_rng().gen_bool(0.1) => return Woken::Timeout,
                Some(_) => thread::yield_now(),
            }
        }
    }
}
