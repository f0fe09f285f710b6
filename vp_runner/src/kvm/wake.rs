//! The sleep of a parked VP: until a command arrives, a signal arrives, or time has passed.
#![expect(unsafe_code, reason = "signal masks and ppoll")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::ptr::null;
use std::ptr::null_mut;
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
#[derive(Debug)]
pub(crate) struct Wake {
    event: EventFd,
}

impl Wake {
    /// # Errors
    /// The error of `eventfd`.
    pub(crate) fn new() -> io::Result<Self> {
        let event = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?;
        Ok(Self { event })
    }

    /// Ends the present sleep, or the next one at once.
    pub(crate) fn wake(&self) {
        if let Err(error) = self.event.write(1) {
            tracing::error!(%error, "a parked VP cannot be woken");
        }
    }

    /// Sleeps. With `signals`, their former mask is in effect during the sleep.
    pub(crate) fn sleep(&self, timeout: Option<Duration>, signals: Option<&HeldSignals>) -> Woken {
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
        let mask = signals.map_or(null(), |signals| &raw const signals.before);
        // SAFETY: the arguments point to values that outlive the call, or are null where ppoll allows that.
        let ready = unsafe { libc::ppoll(&raw mut poll, 1, time, mask) };
        match ready {
            0 => Woken::Timeout,
            1 => {
                // An error means that the event was taken already, which does no harm.
                let _ = self.event.read();
                Woken::Wake
            }
            _ => Woken::Signal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use vmm_sys_util::signal::register_signal_handler;

    extern "C" fn nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

    #[test]
    fn a_wake_before_the_sleep_ends_the_sleep() {
        let wake = Wake::new().unwrap();
        wake.wake();
        assert_eq!(wake.sleep(None, None), Woken::Wake);
        assert_eq!(wake.sleep(Some(Duration::ZERO), None), Woken::Timeout);
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
