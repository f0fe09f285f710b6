//! SIGINT, SIGTERM and SIGHUP as a request to end, SIGUSR1 as a request to throw the debugger out.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::thread;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::signal::register_signal_handler;

const END: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];
const EVICT: libc::c_int = libc::SIGUSR1;

/// What the handler wakes. Set before the handler is.
static WAKE: OnceLock<EventFd> = OnceLock::new();
/// The last signal that arrived and asks for the end; 0 for none.
static ARRIVED: AtomicI32 = AtomicI32::new(0);
/// How many of these nobody has seen to.
static ENDS: AtomicU32 = AtomicU32::new(0);
/// Whether a request to throw the debugger out has been seen to by nobody.
static EVICTION: AtomicBool = AtomicBool::new(false);

/// Only what POSIX allows in a signal handler: atomic stores and `write`.
extern "C" fn note(signal: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    match signal {
        EVICT => EVICTION.store(true, Ordering::SeqCst),
        _ => {
            ARRIVED.store(signal, Ordering::SeqCst);
            ENDS.fetch_add(1, Ordering::SeqCst);
        }
    }
    if let Some(wake) = WAKE.get() {
        // It fails when 2^64 signals are waiting: then it is awake.
        let _ = wake.write(1);
    }
}

/// The signals, noted from now on and not acted upon yet.
pub(crate) struct Signals {
    noted: EventFd,
}

impl Signals {
    /// Has the signals noted. Once in a process.
    pub(crate) fn note() -> io::Result<Self> {
        let wake = EventFd::new(libc::EFD_CLOEXEC)?;
        let noted = wake.try_clone()?;
        if WAKE.set(wake).is_err() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "signals are noted already",
            ));
        }
        for signal in END.into_iter().chain([EVICT]) {
            register_signal_handler(signal, note).map_err(io::Error::from)?;
        }
        Ok(Self { noted })
    }

    /// Calls `first` at the first signal that asks for the end, which may have been noted before, and `again` at each later one, and `evict`
    /// where the debugger is to be thrown out, on a thread of its own.
    pub(crate) fn watch(
        self,
        first: impl FnOnce() + Send + 'static,
        again: impl Fn(libc::c_int) + Send + 'static,
        evict: impl Fn() + Send + 'static,
    ) -> io::Result<()> {
        let run = move || {
            let mut first = Some(first);
            // One wake-up may stand for several signals.
            while self.is_awake() {
                if EVICTION.swap(false, Ordering::SeqCst) {
                    evict();
                }
                for _ in 0..ENDS.swap(0, Ordering::SeqCst) {
                    match first.take() {
                        Some(first) => first(),
                        None => again(arrived()),
                    }
                }
            }
        };
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(run)
            .map(drop)
    }
}

impl Signals {
    /// Waits for a signal. The one that comes may interrupt this thread itself.
    fn is_awake(&self) -> bool {
        match self.noted.read() {
            Ok(_) => true,
            Err(error) => error.kind() == io::ErrorKind::Interrupted,
        }
    }
}

/// Counts the terminal's interrupt key as SIGINT, which raw mode keeps it from being.
pub(crate) fn note_key() {
    ARRIVED.store(libc::SIGINT, Ordering::SeqCst);
}

/// The last such signal, or 0.
pub(crate) fn arrived() -> libc::c_int {
    ARRIVED.load(Ordering::SeqCst)
}
