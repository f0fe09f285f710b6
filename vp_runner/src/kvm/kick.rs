//! The signal that ends a `KVM_RUN`: its handler, and the part of a VP thread. `run_gate` has the protocol.
#![expect(unsafe_code, reason = "sigaction and tgkill")]

use super::immediate_exit::on_kick_signal;
use std::collections::HashMap;
use std::io;
use std::ptr::null;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use vmm_core_defs::addr::VpIndex;
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

    /// Sends the signal to a thread of this process.
    fn send(self, thread: libc::pid_t) {
        // SAFETY: the call has no arguments in memory. A thread that has ended takes itself out of `SignalKick::threads` before.
        let sent = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, self.0) };
        if sent != 0 {
            let error = io::Error::last_os_error();
            tracing::debug!(%error, "a VP thread could not be signalled");
        }
    }
}

/// How a vCPU is brought out of `KVM_RUN`. [`SignalKick`] is the ready implementation.
///
/// A VMM implements this trait itself if its vCPUs wait elsewhere than in `KVM_RUN`, such as in an interrupt controller in user space, or if a signal of its own
/// is to be used. The handler of such a signal calls [`on_kick_signal`].
pub trait Kick: Send + Sync + 'static {
    /// A vCPU registers. Called on the thread of the vCPU.
    ///
    /// # Errors
    /// The error of the host. The vCPU does not register then.
    fn register(&self, vp: VpIndex) -> io::Result<()>;

    /// The vCPU goes away. Called on the thread of the vCPU. No kick of the vCPU follows.
    fn unregister(&self, vp: VpIndex);

    /// Ends the vCPU's `KVM_RUN`: one that is in progress returns `EINTR`, and so does the next one if the vCPU is about to enter. Called on any thread.
    fn kick(&self, vp: VpIndex);

    /// Repeats a kick that has had no effect for 200 ms or more.
    fn kick_again(&self, vp: VpIndex) {
        self.kick(vp);
    }
}

/// A kick by a real-time signal.
#[derive(Debug)]
pub struct SignalKick {
    signal: KickSignal,
    threads: Mutex<HashMap<VpIndex, libc::pid_t>>,
}

impl SignalKick {
    /// A kick by this signal. The handler is installed when the first vCPU registers.
    pub fn new(signal: KickSignal) -> Self {
        let threads = Mutex::default();
        Self { signal, threads }
    }

    /// Kicks of this vCPU go to the calling thread, whose mask lets the signal through from now on.
    pub(crate) fn enlist(&self, vp: VpIndex) {
        self.signal.unblock();
        // SAFETY: the call has no arguments and does not fail.
        let thread = unsafe { libc::gettid() };
        self.threads().insert(vp, thread);
    }

    fn threads(&self) -> MutexGuard<'_, HashMap<VpIndex, libc::pid_t>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for SignalKick {
    fn default() -> Self {
        Self::new(KickSignal::default())
    }
}

impl Kick for SignalKick {
    fn register(&self, vp: VpIndex) -> io::Result<()> {
        if !self.signal.is_installed() {
            self.signal.install()?;
        }
        self.enlist(vp);
        Ok(())
    }

    fn unregister(&self, vp: VpIndex) {
        self.threads().remove(&vp);
    }

    fn kick(&self, vp: VpIndex) {
        if let Some(thread) = self.threads().get(&vp) {
            self.signal.send(*thread);
        }
    }

    fn kick_again(&self, vp: VpIndex) {
        if !self.signal.is_installed() {
            tracing::warn!(
                signal = self.signal.number(),
                "another handler has taken the place of the runner's, which is installed again: give `RunnerParams::kick_signal` a number that nothing else in \
                 this process uses"
            );
            if let Err(error) = self.signal.install() {
                tracing::error!(%error, "the handler of the kick signal");
            }
        }
        self.kick(vp);
    }
}

extern "C" fn on_kick(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    on_kick_signal();
}

#[cfg(test)]
mod tests;
