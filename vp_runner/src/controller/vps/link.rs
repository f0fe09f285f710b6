//! The connection to the thread of a VP.

use super::VpShared;
use crate::arch::VpContext;
use crate::control::run_gate::Kick;
use crate::kvm::kick::KickSignal;
use crate::kvm::kick::ThreadVcpu;
use crate::kvm::vcpu::KvmVcpu;
use crate::vp_thread;
use crate::vp_thread::Command;
use crate::vp_thread::RunLoop;
use crate::vp_thread::VpEvent;
use kvm_ioctls::VcpuFd;
use pal_async::awake::awake;
use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::thread::JoinHandle;
use vmm_core_defs::addr::VpIndex;

/// The connection to the thread of a VP.
pub(in crate::controller) trait VpLink: Send + Sync {
    /// Sends a command. The thread serves commands in order.
    ///
    /// # Errors
    /// [`ThreadGone`].
    fn command(&self, command: Command) -> Result<(), ThreadGone>;

    /// Spins until `is_done`, but no longer than a sleep and a wake-up would take. A parked VP answers a call within microseconds.
    fn wait_briefly(&self, is_done: &mut dyn FnMut() -> bool);

    /// Carries out a kick that is set at the VP's gate: a VP in the guest leaves the guest, and a VP that waits in user space checks its gate.
    fn kick(&self, kick: Kick);

    /// Repeats a kick that is overdue. The VMM may have replaced the signal handler.
    fn kick_again(&self) {
        self.kick(Kick::Signal);
    }

    /// Waits for the end of the thread, which has got [`Command::Exit`].
    fn join(&mut self);
}

/// The thread has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::controller) struct ThreadGone;

/// The connection to a VP thread on KVM.
pub(super) struct KvmThread {
    commands: mpsc::Sender<Command>,
    thread: Option<JoinHandle<()>>,
    signal: KickSignal,
}

impl KvmThread {
    pub(super) fn start(
        fd: VcpuFd,
        shared: &VpShared,
        context: VpContext,
        events: mesh::Sender<VpEvent>,
    ) -> io::Result<Self> {
        let (commands, receiver) = mpsc::channel();
        let index = context.index;
        let (features, signal) = (shared.features, shared.kick_signal);
        let vm = Arc::clone(&shared.vm);
        let machine = Arc::clone(&shared.machine);
        let run = move || {
            let _notice = PanicNotice(index, events.clone());
            let vcpu = KvmVcpu::new(ThreadVcpu::new(fd, signal), vm, features);
            let run_loop = RunLoop::new(vcpu, context, machine);
            vp_thread::VpThread::new(run_loop, receiver, events).serve();
        };
        let name = format!("vp{}", index.index());
        let thread = thread::Builder::new().name(name).spawn(run)?;
        Ok(Self {
            commands,
            thread: Some(thread),
            signal,
        })
    }
}

impl VpLink for KvmThread {
    fn command(&self, command: Command) -> Result<(), ThreadGone> {
        self.commands.send(command).map_err(|_| ThreadGone)
    }

    fn wait_briefly(&self, is_done: &mut dyn FnMut() -> bool) {
        awake(|| is_done().then_some(()));
    }

    fn kick(&self, kick: Kick) {
        let Some(thread) = &self.thread else {
            return;
        };
        if kick == Kick::Signal {
            self.signal.send(thread);
        }
        // The VP may be asleep in user space, because its guest has halted.
        thread.thread().unpark();
    }

    fn kick_again(&self) {
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
        self.kick(Kick::Signal);
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a VP thread panicked");
        }
    }
}

/// Sends [`VpEvent::Died`] if the VP thread ends by a panic in the VMM's code, so that the controller does not wait for the VP.
struct PanicNotice(VpIndex, mesh::Sender<VpEvent>);

impl Drop for PanicNotice {
    fn drop(&mut self) {
        if thread::panicking() {
            self.1.send(VpEvent::Died(self.0));
        }
    }
}
