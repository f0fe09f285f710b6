//! The signal that ends a `KVM_RUN`: its handler, and how a VP thread takes part. The protocol around it is `run_gate`'s.
#![expect(
    unsafe_code,
    reason = "a signal handler writes to the kvm_run page of the thread it interrupts"
)]

use kvm_ioctls::VcpuFd;
use std::cell::Cell;
use std::io;
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use vmm_sys_util::signal::Killable;
use vmm_sys_util::signal::SIGRTMIN;
use vmm_sys_util::signal::register_signal_handler;

thread_local! {
    /// `kvm_run.immediate_exit` of this thread's vCPU; null on every other thread. Constant initialisation and no destructor make it
    /// a plain load for the signal handler.
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

/// Installs the handler, once for the process.
///
/// # Errors
/// What `sigaction` said.
pub(crate) fn install() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    INSTALLED
        .get_or_init(|| register_signal_handler(SIGRTMIN(), on_kick).map_err(|err| err.errno()))
        .map_err(io::Error::from_raw_os_error)
}

/// Sends the signal. The thread exists, dead or alive, as long as its handle does.
pub(crate) fn signal(thread: &JoinHandle<()>) {
    if let Err(err) = thread.kill(SIGRTMIN()) {
        // ESRCH: it has just ended, which is as good as kicked.
        tracing::debug!(error = %err, "a VP thread could not be signalled");
    }
}

/// A vCPU on the thread it belongs to: while this exists, the signal sets its `immediate_exit`.
#[derive(Debug)]
pub(crate) struct ThreadVcpu {
    fd: VcpuFd,
    /// It must be dropped on the thread that made it.
    _not_send: std::marker::PhantomData<*const ()>,
}

impl ThreadVcpu {
    /// Binds the vCPU to the calling thread, which has no other.
    pub(crate) fn new(mut fd: VcpuFd) -> Self {
        let flag = &raw mut fd.get_kvm_run().immediate_exit;
        IMMEDIATE_EXIT.set(flag);
        if let Err(err) = vmm_sys_util::signal::unblock_signal(SIGRTMIN()) {
            tracing::error!(error = ?err, "the kick signal stays blocked on a VP thread");
        }
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
