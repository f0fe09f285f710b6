//! The two forms of the hook of a VMM's vCPU: around the function that makes the `KVM_RUN`, and as a call before it and a call after it.

use super::After;
use super::Before;
use super::HookedVp;
use super::on_thread::OnThread;
use super::seat::Seat;
use crate::kvm::hooked_vcpu::HookedVcpu;
use crate::kvm::kick::Kick;
use std::io;
use std::sync::Arc;

/// See the module. Bound to the thread of the vCPU.
pub(crate) struct Around<V: HookedVcpu> {
    _thread: OnThread,
    seat: Arc<Seat<V>>,
    /// `None`: the hook is in its seat.
    here: Option<Box<HookedVp<V>>>,
    /// The result of the exit that is held, for [`run`](Self::run).
    held: io::Result<()>,
}

impl<V: HookedVcpu> Around<V> {
    /// Makes the calling thread the VP's.
    ///
    /// # Errors
    /// The error of the host.
    pub(crate) fn new(seat: Arc<Seat<V>>, kick: Arc<dyn Kick>) -> io::Result<Self> {
        Ok(Self {
            _thread: seat.bind(kick)?,
            seat,
            here: None,
            held: Ok(()),
        })
    }

    fn vp(&mut self) -> &mut HookedVp<V> {
        let seat = &self.seat;
        self.here
            .get_or_insert_with(|| seat.take().expect("it is in one of the two places"))
    }

    /// The VMM gets the thread for as long as it likes.
    fn leave(&mut self) {
        if let Some(vp) = self.here.take_if(|vp| vp.is_whole()) {
            self.seat.put(vp);
        }
    }

    /// See [`VpHook::run`](crate::embed::VpHook::run).
    #[inline]
    pub(crate) fn run(&mut self, mut kvm_run: impl FnMut() -> io::Result<()>) -> io::Result<()> {
        loop {
            match self.before_entry() {
                Before::Enter => {}
                Before::Interrupted => return Err(io::Error::from_raw_os_error(libc::EINTR)),
                Before::Deliver => return std::mem::replace(&mut self.held, Ok(())),
            }
            let result = kvm_run();
            match self.after_exit(&result) {
                After::Handle => return result,
                After::Again => {}
                After::Hold => self.held = result,
            }
        }
    }

    /// See [`VpHook::before_entry`](crate::embed::VpHook::before_entry).
    #[inline]
    pub(crate) fn before_entry(&mut self) -> Before {
        let before = self.vp().before_entry();
        if before != Before::Enter {
            self.leave();
        }
        before
    }

    /// See [`VpHook::after_exit`](crate::embed::VpHook::after_exit).
    #[inline]
    pub(crate) fn after_exit(&mut self, result: &io::Result<()>) -> After {
        let result = match result {
            Ok(()) => Ok(()),
            Err(error) => Err(error.raw_os_error().unwrap_or(libc::EIO)),
        };
        let after = self.vp().after_exit(result);
        if after == After::Handle {
            self.leave();
        }
        after
    }
}

impl<V: HookedVcpu> Drop for Around<V> {
    fn drop(&mut self) {
        // The vCPU goes away on its own thread.
        drop(self.here.take().or_else(|| self.seat.take()));
    }
}
