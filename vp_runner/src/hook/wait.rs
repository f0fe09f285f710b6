//! How a parked VP waits for the controller, and gives its thread back to the VMM.

use super::Command;
use super::HookedVp;
use super::Vmm;
use super::VpEvent;
use super::mailbox::Mailbox;
use crate::arch::HOLD_AFTER;
use crate::kvm::exit_decode::Exits;
use crate::kvm::hooked_vcpu::HookedVcpu;
use crate::kvm::immediate_exit;
use crate::kvm::wake::HeldSignals;
use crate::kvm::wake::Woken;
use crate::sync::awake::Expected;
use std::time::Instant;

/// What a look at the mailbox has shown.
enum Seen {
    Command(Command),
    WantedByVmm,
}

impl<V: HookedVcpu> HookedVp<V> {
    /// Holds the thread's signals back while the VP is parked. Where the VMM has the thread at other times, its signals must not be missed.
    pub(super) fn hold_signals(&self) -> Option<HeldSignals> {
        (self.exits == Exits::GoToVmm).then(HeldSignals::new)
    }

    /// Waits for the next command. `None`: the VMM wants the thread. Holds the guest's timers if no command comes for a while.
    pub(super) fn wait_for_command(&mut self, signals: Option<&HeldSignals>) -> Option<Command> {
        self.arrive();
        // A late kick may hide a flag that the VMM has set.
        if signals.is_some() && immediate_exit::clear() {
            self.vmm = Vmm::IsToLook;
        }
        if self.vmm == Vmm::IsToLook {
            return self.leave();
        }
        let since = Instant::now();
        let soon = self.next;
        let mailbox = &self.mailbox;
        let look = || match mailbox.take() {
            Some(command) => Some(Seen::Command(command)),
            None => immediate_exit::is_wanted_by_vmm().then_some(Seen::WantedByVmm),
        };
        let seen = soon.and_then(|next| next.awake(look));
        let command = match seen {
            Some(Seen::Command(command)) => Some(command),
            Some(Seen::WantedByVmm) => self.leave(),
            None => self.sleep(signals),
        };
        self.next = self.next.map(|_| Expected::after(since));
        command
    }

    fn sleep(&mut self, signals: Option<&HeldSignals>) -> Option<Command> {
        let mut timeout = (!self.vp.holds_timers()).then_some(HOLD_AFTER);
        loop {
            if let Some(command) = self.mailbox.take() {
                return Some(command);
            }
            if immediate_exit::is_wanted_by_vmm() {
                return self.leave();
            }
            match self.mailbox.sleep(timeout, signals, || false) {
                Woken::Wake => {}
                Woken::Signal if signals.is_some() => {
                    self.vmm = Vmm::IsToLook;
                    return self.leave();
                }
                // The kick of a thread of this crate. There is a command soon, or the kick was late.
                Woken::Signal => {}
                Woken::Timeout => {
                    self.vp.hold_timers();
                    timeout = None;
                }
            }
        }
    }

    /// Gives the thread to the VMM, without a step flag or a debug register of ours on the vCPU. Returns a command instead if there is one.
    fn leave(&mut self) -> Option<Command> {
        let command = self.mailbox.leave();
        if command.is_none() {
            self.left_at = self.vp.leave_to_vmm();
        }
        command
    }

    /// The thread is back from the VMM, and waits for a command. Before it waits, the VMM may get the thread again.
    fn arrive(&mut self) {
        if let Some(left_at) = self.left_at.take()
            && self.vp.come_back() != Some(left_at)
        {
            self.events.send(VpEvent::MovedByVmm(self.index));
        }
        self.mailbox.arrive();
    }

    /// Waits until the VP is kicked: the guest has halted, and no interrupt of the hypervisor can wake it.
    pub(super) fn wait_for_kick(&self) {
        let mailbox: &Mailbox = &self.mailbox;
        while !self.gate.is_kicked() {
            mailbox.sleep(None, None, || self.gate.is_kicked());
        }
    }
}
