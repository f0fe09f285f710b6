//! The connection of the controller to one VP.

use super::Command;
use super::mailbox::Mailbox;
pub(crate) use super::mailbox::NotTaken;
use super::seat::Away;
use crate::control::run_gate::Kick as Kicked;
use crate::kvm::kick::Kick;
use crate::sync::awake::awake;
use crate::sync::thread::JoinHandle;
use std::sync::Arc;
use vmm_core_defs::addr::VpIndex;

/// The connection of the controller to one VP.
pub(crate) trait VpLink: Send + Sync {
    /// Sends a command. The VP serves commands in order.
    ///
    /// # Errors
    /// [`NotTaken`].
    fn command(&self, command: Command) -> Result<(), NotTaken>;

    /// Whether the VMM has the thread of the VP, and may move the VP.
    fn is_held_by_vmm(&self) -> bool {
        false
    }

    /// Whether the VMM has the thread of the VP for more than a moment.
    fn is_kept_by_vmm(&self) -> bool {
        false
    }

    /// Spins until `is_done`, but no longer than a sleep and a wake-up would take. A parked VP answers a call within microseconds.
    fn wait_briefly(&self, is_done: &mut dyn FnMut() -> bool);

    /// Carries out a kick that is set at the VP's gate: a VP in the guest leaves the guest, and a VP that waits in user space checks its gate.
    fn kick(&self, kick: Kicked);

    /// Repeats a kick that is overdue. The VMM may have replaced the signal handler.
    fn kick_again(&self) {
        self.kick(Kicked::Signal);
    }

    /// Waits for the end of a thread of this crate, which has got [`Command::Exit`].
    fn join(&mut self);
}

/// The connection to a VP with a hook.
pub(crate) struct HookLink {
    pub(crate) vp: VpIndex,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) kick: Arc<dyn Kick>,
    /// Where the hook is while the VMM has the thread of the VP. `None`: the thread is this crate's.
    pub(crate) away: Option<Arc<dyn Away>>,
    /// The thread, if it is one of this crate.
    pub(crate) thread: Option<JoinHandle<()>>,
}

impl HookLink {
    fn serve_away(&self) {
        if let Some(away) = &self.away {
            away.serve();
        }
    }
}

impl Drop for HookLink {
    /// The controller has ended, or has never learned of the VP.
    fn drop(&mut self) {
        // The command is not taken if the VP has gone.
        let _ = self.command(Command::Exit);
    }
}

impl VpLink for HookLink {
    fn command(&self, command: Command) -> Result<(), NotTaken> {
        self.mailbox.send(command)?;
        self.serve_away();
        Ok(())
    }

    fn is_held_by_vmm(&self) -> bool {
        self.mailbox.is_held_by_vmm()
    }

    fn is_kept_by_vmm(&self) -> bool {
        self.mailbox.is_kept_by_vmm()
    }

    fn wait_briefly(&self, is_done: &mut dyn FnMut() -> bool) {
        awake(|| is_done().then_some(()));
    }

    fn kick(&self, kick: Kicked) {
        self.serve_away();
        if kick == Kicked::Signal {
            self.kick.kick(self.vp);
        }
        // The VP may be asleep in user space, because its guest has halted.
        self.mailbox.wake();
    }

    fn kick_again(&self) {
        self.kick.kick_again(self.vp);
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a VP thread panicked");
        }
    }
}
