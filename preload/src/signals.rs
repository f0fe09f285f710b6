//! The signals of the VMM's threads.

use nix::sys::signal::SigSet;
use nix::sys::signal::SigmaskHow;
use nix::sys::signal::Signal;
use nix::sys::signal::pthread_sigmask;

/// Signals that a fault of the thread itself raises. Linux ends the process if such a signal is blocked. The access to guest memory that the VMM has cut off is such
/// a fault, which has a handler.
const FAULTS: [Signal; 6] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGILL,
    Signal::SIGFPE,
    Signal::SIGTRAP,
    Signal::SIGABRT,
];

/// Calls the function while no signal but those of faults is delivered to this thread. Threads that the function starts get no other signals either: the VMM's signals
/// are for its own threads.
pub(crate) fn without_signals<R>(act: impl FnOnce() -> R) -> R {
    let mut before = SigSet::empty();
    let mut signals = SigSet::all();
    for fault in FAULTS {
        signals.remove(fault);
    }
    let blocked = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&signals), Some(&mut before));
    let result = act();
    if blocked.is_ok() {
        // The mask is the one that the kernel has just returned.
        let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocked() -> SigSet {
        let mut set = SigSet::empty();
        pthread_sigmask(SigmaskHow::SIG_BLOCK, None, Some(&mut set)).expect("readable");
        set
    }

    /// A handler that runs while a lock is held could wait for its own thread.
    #[test]
    fn no_signal_arrives_meanwhile_nor_at_a_thread_that_is_started_then() {
        let before = blocked();
        assert!(!before.contains(Signal::SIGUSR1));
        let (inside, thread) = without_signals(|| (blocked(), std::thread::spawn(blocked)));
        assert!(inside.contains(Signal::SIGUSR1));
        let thread = thread.join().expect("no panic");
        assert!(thread.contains(Signal::SIGUSR1));
        assert!(!thread.contains(Signal::SIGBUS));
        assert_eq!(blocked(), before);
    }
}
