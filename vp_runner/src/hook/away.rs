//! What a VP does while the VMM has its thread: it parks when it is kicked, and answers the controller. On the thread of the controller, or on the VP's own thread as it
//! leaves.

use super::Command;
use super::HookedVp;
use super::Passing;
use super::State;
use super::VpEvent;
use crate::arch::Turn;
use crate::control::exit::Exit;
use crate::kvm::hooked_vcpu::HookedVcpu;

impl<V: HookedVcpu> HookedVp<V> {
    /// Serves the commands and the kick, as far as they need no guest.
    pub(super) fn serve_away(&mut self) {
        if self.mailbox.is_empty() && !self.gate.is_kicked() {
            return;
        }
        // The VMM may change registers at any time.
        self.vp.vcpu().vmm_had_vcpu();
        self.vp.forget_registers();
        self.tell_if_moved();
        loop {
            let is_kicked = self.gate.is_kicked();
            match &mut self.state {
                State::Parked => match self.mailbox.take_away(is_kicked) {
                    Some(Command::Call(call) | Command::Change(call)) => call(self),
                    Some(Command::Enter(enter)) => self.begin(&enter),
                    Some(Command::Exit) => self.release(),
                    None => return,
                },
                State::Running { .. } if is_kicked => self.park_away(),
                State::Running { .. } | State::Released => return,
            }
        }
    }

    /// The VP is kicked, and parks where it is.
    fn park_away(&mut self) {
        self.stop_passing();
        let State::Running { run, snapshot, .. } = &mut self.state else {
            return;
        };
        match self.vp.before_no_run(run) {
            Turn::Parked(parked) => {
                let snapshot = *snapshot;
                self.state = State::Parked;
                self.left_at = self.vp.leave_to_vmm();
                self.mailbox.hand_over();
                self.report(parked, snapshot);
            }
            // Not for a VP that is kicked. The guest has not run.
            Turn::Run => {
                self.passing = Passing::No;
                self.vp.after_run(Exit::Interrupted, run);
            }
            Turn::WaitForKick => {}
        }
    }

    /// The VMM may have moved the VP since the last look.
    fn tell_if_moved(&mut self) {
        if let (State::Parked, Some(left_at)) = (&self.state, self.left_at) {
            let now = self.vp.come_back();
            if now != Some(left_at) {
                self.left_at = now;
                self.events.send(VpEvent::MovedByVmm(self.index));
            }
        }
    }
}
