//! SIGINT, SIGTERM and SIGHUP as a request to end.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering;
use std::thread;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::signal::register_signal_handler;

const SIGNALS: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// What the handler wakes. Set before the handler is.
static WAKE: OnceLock<EventFd> = OnceLock::new();
/// The last signal that arrived; 0 for none.
static ARRIVED: AtomicI32 = AtomicI32::new(0);

/// Only what POSIX allows in a signal handler: an atomic store and `write`.
extern "C" fn note(signal: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    ARRIVED.store(signal, Ordering::SeqCst);
    if let Some(wake) = WAKE.get() {
        // It fails when 2^64 signals are waiting: then it is awake.
        let _ = wake.write(1);
    }
}

/// The signals, noted from now on and not acted upon yet.
pub struct Signals {
    noted: EventFd,
}

impl Signals {
    /// Has the signals noted. Once in a process.
    pub fn note() -> io::Result<Self> {
        let wake = EventFd::new(libc::EFD_CLOEXEC)?;
        let noted = wake.try_clone()?;
        if WAKE.set(wake).is_err() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "signals are noted already",
            ));
        }
        for signal in SIGNALS {
            register_signal_handler(signal, note).map_err(io::Error::from)?;
        }
        Ok(Self { noted })
    }

    /// Calls `first` at the first signal, which may have been noted before, and `again` at each later one, on a thread of its own.
    pub fn watch(
        self,
        first: impl FnOnce() + Send + 'static,
        again: impl Fn(libc::c_int) + Send + 'static,
    ) -> io::Result<()> {
        let run = move || {
            let mut first = Some(first);
            while self.noted.read().is_ok() {
                match first.take() {
                    Some(first) => first(),
                    None => again(arrived()),
                }
            }
        };
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(run)
            .map(drop)
    }
}

/// Counts the terminal's interrupt key as SIGINT, which raw mode keeps it from being.
pub fn note_key() {
    ARRIVED.store(libc::SIGINT, Ordering::SeqCst);
}

/// The last such signal, or 0.
pub fn arrived() -> libc::c_int {
    ARRIVED.load(Ordering::SeqCst)
}
