//! The sleep of a parked VP: until a command arrives, a signal arrives, or time has passed.
#![expect(unsafe_code, reason = "signal masks and ppoll")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::ptr::null;
use std::ptr::null_mut;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use vmm_sys_util::eventfd::EFD_CLOEXEC;
use vmm_sys_util::eventfd::EFD_NONBLOCK;
use vmm_sys_util::eventfd::EventFd;

/// What has ended a sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woken {
    /// [`Wake::wake`].
    Wake,
    /// A signal with a handler.
    Signal,
    /// The time is over.
    Timeout,
}

/// Signals that a fault of the thread itself raises. They are never blocked.
const FAULTS: [libc::c_int; 6] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGTRAP,
    libc::SIGABRT,
];

/// The calling thread's signals, held back from this value's creation on except during [`Wake::sleep`]. So no signal is missed between a look at what the
/// signal's handler may have changed and the sleep.
pub(crate) struct HeldSignals {
    before: libc::sigset_t,
}

impl HeldSignals {
    pub(crate) fn new() -> Self {
        let mut all = MaybeUninit::<libc::sigset_t>::uninit();
        let mut before = MaybeUninit::<libc::sigset_t>::zeroed();
        // SAFETY: `sigfillset` initialises `all`; the other calls read it, and write `before`, which all zeros have made valid already.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            for fault in FAULTS {
                libc::sigdelset(all.as_mut_ptr(), fault);
            }
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            let before = before.assume_init();
            Self { before }
        }
    }
}

impl Drop for HeldSignals {
    fn drop(&mut self) {
        // SAFETY: `before` is the mask that the thread had.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, null_mut()) };
    }
}

/// An event of one sleeper.
///
/// A sleeper without signals waits on a condition variable: a wake and the end of the sleep are one system call each. A sleeper with signals waits in `ppoll`, which exchanges
/// the signal mask, and then reads the event.
#[derive(Debug)]
pub(crate) struct Wake {
    state: Mutex<State>,
    woken: Condvar,
    event: EventFd,
}

#[derive(Debug, Default)]
struct State {
    /// A wake came that has ended no sleep yet.
    is_woken: bool,
    /// The sleeper is in `ppoll`.
    polls: bool,
}

impl Wake {
    /// # Errors
    /// The error of `eventfd`.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            state: Mutex::default(),
            woken: Condvar::new(),
            event: EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the present sleep, or the next one at once.
    pub(crate) fn wake(&self) {
        let mut state = self.state();
        let polls = state.polls;
        if std::mem::replace(&mut state.is_woken, true) {
            return;
        }
        drop(state);
        if !polls {
            self.woken.notify_one();
        } else if let Err(error) = self.event.write(1) {
            tracing::error!(%error, "a parked VP cannot be woken");
        }
    }

    /// Sleeps. With `signals`, their former mask is in effect during the sleep.
    pub(crate) fn sleep(&self, timeout: Option<Duration>, signals: Option<&HeldSignals>) -> Woken {
        match signals {
            None => self.wait(timeout),
            Some(signals) => self.poll(timeout, signals),
        }
    }

    fn wait(&self, timeout: Option<Duration>) -> Woken {
        let state = self.state();
        let sleeps = |state: &mut State| !state.is_woken;
        let mut state = match timeout {
            None => {
                let waited = self.woken.wait_while(state, sleeps);
                waited.unwrap_or_else(PoisonError::into_inner)
            }
            Some(timeout) => {
                let waited = self.woken.wait_timeout_while(state, timeout, sleeps);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        match std::mem::take(&mut state.is_woken) {
            true => Woken::Wake,
            false => Woken::Timeout,
        }
    }

    fn poll(&self, timeout: Option<Duration>, signals: &HeldSignals) -> Woken {
        {
            let mut state = self.state();
            if std::mem::take(&mut state.is_woken) {
                return Woken::Wake;
            }
            state.polls = true;
        }
        let ready = self.ready(timeout, signals);
        let mut state = self.state();
        state.polls = false;
        if ready < 0 {
            // The handler has run, and nothing else tells the VMM. A wake that came at the same time ends the next sleep.
            return Woken::Signal;
        }
        // A wake from now on finds no sleeper in `ppoll`. An earlier wake has written the event, or is about to. In that case the next sleep ends at once.
        if std::mem::take(&mut state.is_woken) || ready == 1 {
            // An error means that the event is not written yet, which does no harm.
            let _ = self.event.read();
            return Woken::Wake;
        }
        Woken::Timeout
    }

    /// The result of `ppoll` on the event.
    fn ready(&self, timeout: Option<Duration>, signals: &HeldSignals) -> libc::c_int {
        let mut poll = libc::pollfd {
            fd: self.event.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let time = timeout.map(|timeout| libc::timespec {
            tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let time = time.as_ref().map_or(null(), std::ptr::from_ref);
        // SAFETY: the arguments point to values that outlive the call, or are null where ppoll allows that.
        unsafe { libc::ppoll(&raw mut poll, 1, time, &raw const signals.before) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::OnceLock;
    use std::sync::mpsc;
    use std::thread;
    use vmm_sys_util::signal::register_signal_handler;

    extern "C" fn nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

    #[test]
    fn wakes_before_the_sleep_end_one_sleep() {
        let held = HeldSignals::new();
        for signals in [None, Some(&held)] {
            let wake = Wake::new().unwrap();
            wake.wake();
            wake.wake();
            assert_eq!(wake.sleep(None, signals), Woken::Wake);
            assert_eq!(wake.sleep(Some(Duration::ZERO), signals), Woken::Timeout);
        }
    }

    #[test]
    fn each_wake_ends_a_sleep_whichever_way_the_sleeper_waits() {
        const WAKES: usize = 2000;
        let wake = Arc::new(Wake::new().unwrap());
        let (slept, has_slept) = mpsc::channel();
        let sleeper = {
            let wake = wake.clone();
            thread::spawn(move || {
                let held = HeldSignals::new();
                for turn in 0..WAKES {
                    let signals = (turn % 3 > 0).then_some(&held);
                    let woken = wake.sleep(Some(Duration::from_secs(10)), signals);
                    slept.send(woken).unwrap();
                }
            })
        };
        for _ in 0..WAKES {
            wake.wake();
            assert_eq!(has_slept.recv().unwrap(), Woken::Wake);
            // A wake that was still writing its event ends one more sleep.
            if has_slept.try_recv().is_ok() {
                break;
            }
        }
        // Wakes the sleeper to its end.
        while !sleeper.is_finished() {
            wake.wake();
            thread::yield_now();
        }
        sleeper.join().unwrap();
    }

    #[test]
    fn a_signal_and_a_wake_at_the_same_time_are_both_told() {
        static WAKE: OnceLock<Wake> = OnceLock::new();
        extern "C" fn wakes(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
            // The interrupted thread is in `ppoll`, and holds no lock.
            WAKE.get().unwrap().wake();
        }
        let signal = libc::SIGRTMIN() + 10;
        register_signal_handler(signal, wakes).unwrap();
        let wake = WAKE.get_or_init(|| Wake::new().unwrap());
        thread::spawn(move || {
            let held = HeldSignals::new();
            // SAFETY: the handler runs in `ppoll` only, since the signal is held back.
            unsafe { libc::raise(signal) };
            assert_eq!(wake.sleep(None, Some(&held)), Woken::Signal);
            assert_eq!(wake.sleep(None, Some(&held)), Woken::Wake);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_signal_between_the_look_and_the_sleep_ends_the_sleep() {
        let signal = libc::SIGRTMIN() + 9;
        register_signal_handler(signal, nothing).unwrap();
        thread::spawn(move || {
            let wake = Wake::new().unwrap();
            let held = HeldSignals::new();
            // SAFETY: the handler does nothing.
            unsafe { libc::raise(signal) };
            assert_eq!(wake.sleep(None, Some(&held)), Woken::Signal);
            assert_eq!(
                wake.sleep(Some(Duration::ZERO), Some(&held)),
                Woken::Timeout,
                "the signal was delivered once"
            );
        })
        .join()
        .unwrap();
    }
}
