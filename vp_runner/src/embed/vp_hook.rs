//! The hook around `KVM_RUN`.

use crate::hook::After;
use crate::hook::Before;
use crate::hook::around::Around;
use crate::hook::seat::Seat;
use crate::kvm::kick::Kick;
use crate::kvm::vcpu::KvmVcpu;
use std::io;
use std::sync::Arc;

/// What the VMM does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BeforeEntry {
    /// Make the `KVM_RUN`, and pass its result to [`VpHook::after_exit`].
    Enter,
    /// Make no `KVM_RUN`. Act as if it had returned `EINTR`.
    Interrupted,
    /// Handle the exit for which [`AfterExit::Hold`] was the answer. `kvm_run` is as that exit left it.
    Deliver,
}

/// What the VMM does with an exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterExit {
    /// Handle the exit.
    Handle,
    /// Nothing: the exit was the debugger's. Call [`VpHook::before_entry`] again.
    Again,
    /// Nothing yet: a debugger sees the exit first. Call [`VpHook::before_entry`] until it answers [`BeforeEntry::Deliver`].
    Hold,
}

/// The hook of one vCPU. Bound to the thread of the vCPU. Dropping the hook takes the vCPU off the debugger.
pub struct VpHook {
    around: Around<KvmVcpu>,
}

impl VpHook {
    pub(super) fn new(seat: Arc<Seat<KvmVcpu>>, kick: Arc<dyn Kick>) -> io::Result<Self> {
        let around = Around::new(seat, kick)?;
        Ok(Self { around })
    }

    /// Runs the vCPU by `kvm_run`, which makes the `KVM_RUN` and returns the error of the host. Returns when there is an exit or an error for the VMM to handle,
    /// unchanged: `kvm_run` is as KVM left it. Parks the VP inside while a debugger stops the guest.
    ///
    /// The function may serve the devices as well, where the exit borrows the vCPU (as `VcpuExit` of kvm-ioctls does). It is called for each `KVM_RUN`, so it must do
    /// nothing for `KVM_EXIT_DEBUG`, and leave the end of the guest to the caller of `run`.
    ///
    /// # Errors
    /// The error of `kvm_run`. `EINTR` also if the VMM wants its thread while the VP is parked.
    #[inline]
    pub fn run(&mut self, kvm_run: impl FnMut() -> io::Result<()>) -> io::Result<()> {
        self.around.run(kvm_run)
    }

    /// Comes before each `KVM_RUN`, outside any lock that another thread of the VMM waits for. Parks the VP inside while a debugger stops the guest.
    #[inline]
    pub fn before_entry(&mut self) -> BeforeEntry {
        match self.around.before_entry() {
            Before::Enter => BeforeEntry::Enter,
            Before::Interrupted => BeforeEntry::Interrupted,
            Before::Deliver => BeforeEntry::Deliver,
        }
    }

    /// Comes after each `KVM_RUN`, with its result, before the VMM looks at the exit.
    #[inline]
    pub fn after_exit(&mut self, result: &io::Result<()>) -> AfterExit {
        match self.around.after_exit(result) {
            After::Handle => AfterExit::Handle,
            After::Again => AfterExit::Again,
            After::Hold => AfterExit::Hold,
        }
    }
}
