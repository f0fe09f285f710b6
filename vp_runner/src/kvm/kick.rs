//! The signal that ends a `KVM_RUN`: its handler, and the part of a VP thread. `run_gate` has the protocol.
#![expect(
    unsafe_code,
    reason = "a signal handler writes to the kvm_run page of the thread it interrupts"
)]

use kvm_ioctls::VcpuFd;
use std::cell::Cell;
use std::io;
use std::ptr::null;
use std::ptr::null_mut;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use vmm_sys_util::signal::Killable;
use vmm_sys_util::signal::SIGRTMAX;
use vmm_sys_util::signal::SIGRTMIN;
use vmm_sys_util::signal::register_signal_handler;

/// The number of the real-time signal that ends a `KVM_RUN`. The default is the first real-time signal.
///
/// The runner installs its handler for the whole process and unblocks the signal on its own threads. Nothing else in the process may use the number. If the VMM
/// or one of its libraries uses the first real-time signal, choose another number for the runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KickSignal(libc::c_int);

/// The number is not that of a real-time signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{number} is no real-time signal: give a number from {first} to {last} (SIGRTMIN to SIGRTMAX)"
)]
pub struct BadKickSignal {
    number: i32,
    first: i32,
    last: i32,
}

impl Default for KickSignal {
    fn default() -> Self {
        Self(SIGRTMIN())
    }
}

impl KickSignal {
    /// A number from SIGRTMIN to SIGRTMAX.
    ///
    /// # Errors
    /// [`BadKickSignal`].
    pub fn new(number: i32) -> Result<Self, BadKickSignal> {
        let (first, last) = (SIGRTMIN(), SIGRTMAX());
        match (first..=last).contains(&number) {
            true => Ok(Self(number)),
            false => Err(BadKickSignal {
                number,
                first,
                last,
            }),
        }
    }

    /// The number of the signal, from `SIGRTMIN` to `SIGRTMAX`.
    pub fn number(self) -> i32 {
        self.0
    }

    /// Installs the handler, for the whole process.
    ///
    /// # Errors
    /// The error of `sigaction`.
    pub(crate) fn install(self) -> io::Result<()> {
        if !self.has(&[libc::SIG_DFL, libc::SIG_IGN, on_kick as *const () as usize]) {
            tracing::warn!(
                signal = self.0,
                "the signal had a handler, which the runner replaces: give `RunnerParams::kick_signal` a number that nothing else in this process uses"
            );
        }
        register_signal_handler(self.0, on_kick)
            .map_err(|err| io::Error::from_raw_os_error(err.errno()))
    }

    /// Whether the handler is still installed.
    pub(crate) fn is_installed(self) -> bool {
        self.has(&[on_kick as *const () as usize])
    }

    fn has(self, handlers: &[usize]) -> bool {
        let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
        // SAFETY: without a new action the call only fills `action` in.
        let result = unsafe { libc::sigaction(self.0, null(), action.as_mut_ptr()) };
        // SAFETY: it did.
        result == 0 && handlers.contains(&unsafe { action.assume_init() }.sa_sigaction)
    }

    /// Unblocks the signal on the calling thread.
    pub(crate) fn unblock(self) {
        if let Err(err) = vmm_sys_util::signal::unblock_signal(self.0) {
            tracing::error!(error = ?err, "the kick signal stays blocked on a VP thread");
        }
    }

    /// Sends the signal to a thread. The thread's identifier is valid as long as its handle exists, even if the thread has ended.
    pub(crate) fn send(self, thread: &JoinHandle<()>) {
        if let Err(err) = thread.kill(self.0) {
            // ESRCH: the thread has just ended, so it is not in the guest.
            tracing::debug!(error = %err, "a VP thread could not be signalled");
        }
    }
}

thread_local! {
    /// `kvm_run.immediate_exit` of this thread's vCPU, and null on every other thread. With constant initialisation and without a destructor, the signal handler
    /// reads this variable by a plain load.
    static IMMEDIATE_EXIT: Cell<*mut u8> = const { Cell::new(null_mut()) };
}

/// Async-signal-safe: one thread-local load and one atomic store.
extern "C" fn on_kick(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let flag = IMMEDIATE_EXIT.get();
    if !flag.is_null() {
        // SAFETY: `ThreadVcpu` set it to a byte of a mapped kvm_run page, and takes it back before the vCPU can be dropped. The byte is
        // shared with the kernel and otherwise written by this same thread only.
        let flag = unsafe { AtomicU8::from_ptr(flag) };
        flag.store(1, Ordering::Relaxed);
    }
}

/// A vCPU on the thread it belongs to: while this exists, the signal sets its `immediate_exit`.
#[derive(Debug)]
pub(crate) struct ThreadVcpu {
    fd: VcpuFd,
    /// This type must be dropped on the thread that created it.
    _not_send: std::marker::PhantomData<*const ()>,
}

impl ThreadVcpu {
    /// Binds the vCPU to the calling thread, which must not have another vCPU.
    pub(crate) fn new(mut fd: VcpuFd, signal: KickSignal) -> Self {
        let flag = &raw mut fd.get_kvm_run().immediate_exit;
        IMMEDIATE_EXIT.set(flag);
        signal.unblock();
        Self {
            fd,
            _not_send: std::marker::PhantomData,
        }
    }

    pub(crate) fn fd(&mut self) -> &mut VcpuFd {
        &mut self.fd
    }
}

impl Drop for ThreadVcpu {
    fn drop(&mut self) {
        IMMEDIATE_EXIT.set(null_mut());
    }
}

#[cfg(test)]
mod tests;
