//! The two forms of the hook of a VMM's vCPU: around the function that makes the `KVM_RUN`, and as a call before it and a call after it.

use super::After;
use super::Before;
use super::HookedVp;
use crate::kvm::hooked_vcpu::HookedVcpu;
use std::io;

/// See the module.
pub(crate) struct Around<V: HookedVcpu> {
    vp: HookedVp<V>,
    /// The result of the exit that is held, for [`run`](Self::run).
    held: io::Result<()>,
}

impl<V: HookedVcpu> Around<V> {
    pub(crate) fn new(vp: HookedVp<V>) -> Self {
        let held = Ok(());
        Self { vp, held }
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
        self.vp.before_entry()
    }

    /// See [`VpHook::after_exit`](crate::embed::VpHook::after_exit).
    #[inline]
    pub(crate) fn after_exit(&mut self, result: &io::Result<()>) -> After {
        let result = match result {
            Ok(()) => Ok(()),
            Err(error) => Err(error.raw_os_error().unwrap_or(libc::EIO)),
        };
        self.vp.after_exit(result)
    }
}
