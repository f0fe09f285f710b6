//! SIGINT, SIGTERM and SIGHUP end the program; SIGUSR1 evicts the debugger.

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

/// The event that wakes the watching thread. It is set before the handler is installed.
static WAKE: OnceLock<EventFd> = OnceLock::new();
/// The last signal that asks for the end; 0 if there was none.
static ARRIVED: AtomicI32 = AtomicI32::new(0);
/// The number of such signals that were not handled yet.
static ENDS: AtomicU32 = AtomicU32::new(0);
/// Whether there is a request to evict the debugger that was not handled yet.
static EVICTION: AtomicBool = AtomicBool::new(false);

/// Uses only operations that POSIX allows in a signal handler: atomic stores and `write`.
extern "C" fn note(signal: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    match signal {
        EVICT => EVICTION.store(true, Ordering::SeqCst),
        _ => {
            ARRIVED.store(signal, Ordering::SeqCst);
            ENDS.fetch_add(1, Ordering::SeqCst);
        }
    }
    if let Some(wake) = WAKE.get() {
        // The write fails if 2^64 signals are pending. Then the thread is already awake.
        let _ = wake.write(1);
    }
}

/// The signals. They are recorded from now on and handled by [`Signals::watch`].
pub(crate) struct Signals {
    noted: EventFd,
}

impl Signals {
    /// Installs the handler. Once per process.
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

    /// Starts a thread that calls `first` at the first signal that asks for the end (which may have come before),
    /// `again` at each later one, and `evict` at a request to evict the debugger.
    pub(crate) fn watch(
        self,
        first: impl FnOnce() + Send + 'static,
        again: impl Fn(libc::c_int) + Send + 'static,
        evict: impl Fn() + Send + 'static,
    ) -> io::Result<()> {
        let run = move || {
            let mut first = Some(first);
            // One wake-up may mean several signals.
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
    /// Waits for a signal. The signal may interrupt this thread itself.
    fn is_awake(&self) -> bool {
        match self.noted.read() {
            Ok(_) => true,
            Err(error) => error.kind() == io::ErrorKind::Interrupted,
        }
    }
}

/// Records the terminal's interrupt key as SIGINT. In raw mode the terminal does not send this signal.
pub(crate) fn note_key() {
    ARRIVED.store(libc::SIGINT, Ordering::SeqCst);
}

/// The last signal that asks for the end, or 0.
pub(crate) fn arrived() -> libc::c_int {
    ARRIVED.load(Ordering::SeqCst)
}
