//! Where the hook of a VP is while the VMM has the thread of the VP. The controller can then do with the VP what needs no guest: park it, look at it and detach from it. A
//! guest that the VMM has paused is debugged in this way.
//!
//! The VP is whole while its hook is here: the last exit is complete, so the registers are up to date. Calls on the vCPU from another thread do not wait then, because no
//! `KVM_RUN` is in progress, and none begins before the thread of the VP has taken the hook.

use super::HookedVp;
use super::on_thread::OnThread;
use crate::kvm::hooked_vcpu::HookedVcpu;
use crate::kvm::kick::Kick;
use crate::sync::Mutex;
use crate::sync::MutexGuard;
use crate::sync::atomic::AtomicBool;
use crate::sync::atomic::Ordering;
use std::io;
use std::sync::Arc;
use std::sync::PoisonError;

/// See the module.
pub(crate) struct Seat<V: HookedVcpu> {
    vp: Mutex<Option<Box<HookedVp<V>>>>,
    has_thread: AtomicBool,
}

/// The seat as the controller sees it.
pub(crate) trait Away: Send + Sync {
    /// Serves the commands and the kick of the VP as far as they need no guest, if the hook is here. Otherwise the thread of the VP serves them.
    fn serve(&self);
}

impl<V: HookedVcpu> Seat<V> {
    /// With the hook of a VP whose thread has not come yet.
    pub(crate) fn new(vp: HookedVp<V>) -> Self {
        Self {
            vp: Mutex::new(Some(Box::new(vp))),
            has_thread: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Box<HookedVp<V>>>> {
        self.vp.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The calling thread becomes the VP's, for good.
    ///
    /// # Errors
    /// The error of the host, and [`io::ErrorKind::AlreadyExists`] if the VP has a thread.
    pub(super) fn bind(&self, kick: Arc<dyn Kick>) -> io::Result<OnThread> {
        let exists = || io::Error::from(io::ErrorKind::AlreadyExists);
        if self.has_thread.swap(true, Ordering::AcqRel) {
            return Err(exists());
        }
        let thread = self.with(|vp| OnThread::new(vp, kick));
        let thread = thread.unwrap_or_else(|| Err(exists()));
        self.has_thread.store(thread.is_ok(), Ordering::Release);
        thread
    }

    /// The thread of the VP gives the hook away, because the VMM gets the thread. Commands that came before are served.
    pub(super) fn put(&self, mut vp: Box<HookedVp<V>>) {
        let mut here = self.lock();
        // The controller sends first and looks for the hook then. So one of the two sees the other.
        vp.serve_away();
        *here = Some(vp);
    }

    /// The thread of the VP takes the hook. `None`: the thread has it already.
    pub(super) fn take(&self) -> Option<Box<HookedVp<V>>> {
        self.lock().take()
    }

    /// Does this with the hook, if it is here.
    fn with<R>(&self, call: impl FnOnce(&mut HookedVp<V>) -> R) -> Option<R> {
        self.lock().as_mut().map(|vp| call(vp))
    }
}

impl<V: HookedVcpu> Away for Seat<V> {
    fn serve(&self) {
        self.with(HookedVp::serve_away);
    }
}
