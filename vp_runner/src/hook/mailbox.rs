//! The commands for one VP, and who has the thread of the VP: this crate, the VMM, or nobody.

use super::messages::Command;
use crate::kvm::wake::HeldSignals;
use crate::kvm::wake::Wake;
use crate::kvm::wake::Woken;
use crate::sync::Condvar;
use crate::sync::Mutex;
use crate::sync::MutexGuard;
use crate::sync::atomic::AtomicBool;
use crate::sync::atomic::Ordering;
use std::collections::VecDeque;
use std::io;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

/// Who has the thread of a VP that is not in the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    /// This crate. Calls with the parked VP are served.
    Runner,
    /// The VMM. The VP cannot enter the guest before the VMM calls this crate again, and its registers may be the VMM's.
    Vmm,
    /// Nobody: the VP has gone.
    Nobody,
}

/// Why a command was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// The VP has gone.
    Gone,
    /// The VMM has the thread of the VP, and this is a change of the VP.
    HeldByVmm,
}

/// See the module.
pub(crate) struct Mailbox {
    state: Mutex<State>,
    /// Whether there are commands. A hint for the thread that polls: `state` is what counts.
    filled: AtomicBool,
    wake: Wake,
    arrived: Condvar,
}

/// How long a change waits for a thread that the VMM has. After each signal a parked VP gives its thread to the VMM for some microseconds, so that the VMM can look for
/// work. A VMM that has paused the VM keeps the thread.
const MOMENT: Duration = Duration::from_millis(50);

struct State {
    commands: VecDeque<Command>,
    holder: Holder,
    /// Since when the VMM has the thread, if the VMM has it.
    held_since: Instant,
    sleeping: bool,
}

impl State {
    fn is_held_by_vmm(&self) -> bool {
        self.holder == Holder::Vmm
    }
}

impl Mailbox {
    /// # Errors
    /// The error of the host, which has no file descriptor left.
    pub(crate) fn new(holder: Holder) -> io::Result<Self> {
        Ok(Self {
            state: Mutex::new(State {
                commands: VecDeque::new(),
                holder,
                held_since: Instant::now(),
                sleeping: false,
            }),
            filled: AtomicBool::new(false),
            wake: Wake::new()?,
            arrived: Condvar::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a command. A change waits for a moment for the VMM to give the thread back.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub(crate) fn send(&self, command: Command) -> Result<(), NotTaken> {
        let mut state = self.state();
        if let Command::Change(_) = command {
            state = self.wait_a_moment(state);
        }
        match (state.holder, &command) {
            (Holder::Nobody, _) => return Err(NotTaken::Gone),
            (Holder::Vmm, Command::Change(_)) => return Err(NotTaken::HeldByVmm),
            (Holder::Vmm | Holder::Runner, _) => {}
        }
        state.commands.push_back(command);
        self.filled.store(true, Ordering::Release);
        let sleeping = state.sleeping;
        drop(state);
        if sleeping {
            self.wake.wake();
        }
        Ok(())
    }

    /// Wakes the thread if it sleeps, because its gate has changed.
    pub(crate) fn wake(&self) {
        let sleeping = self.state().sleeping;
        if sleeping {
            self.wake.wake();
        }
    }

    /// The next command, if there is one.
    pub(crate) fn take(&self) -> Option<Command> {
        if !self.filled.load(Ordering::Acquire) {
            return None;
        }
        let mut state = self.state();
        let command = state.commands.pop_front();
        self.filled
            .store(!state.commands.is_empty(), Ordering::Release);
        command
    }

    /// The next command that needs no thread. A command to enter is one if the VP is kicked, and parks at once.
    pub(crate) fn take_away(&self, is_kicked: bool) -> Option<Command> {
        let mut state = self.state();
        match state.commands.front()? {
            Command::Enter(_) if !is_kicked => None,
            _ => {
                let command = state.commands.pop_front();
                self.filled
                    .store(!state.commands.is_empty(), Ordering::Release);
                command
            }
        }
    }

    /// The VMM gets the thread, and the controller may serve commands meanwhile.
    pub(crate) fn hand_over(&self) {
        let mut state = self.state();
        if !state.is_held_by_vmm() {
            (state.holder, state.held_since) = (Holder::Vmm, Instant::now());
        }
    }

    /// Whether there is no command.
    pub(crate) fn is_empty(&self) -> bool {
        !self.filled.load(Ordering::Acquire)
    }

    /// The thread is this crate's again.
    pub(crate) fn arrive(&self) {
        let before = std::mem::replace(&mut self.state().holder, Holder::Runner);
        // A notification is a system call, and each step of a guest comes here.
        if before == Holder::Vmm {
            self.arrived.notify_all();
        }
    }

    /// Gives the thread to the VMM. Returns a command instead if one has arrived.
    pub(crate) fn leave(&self) -> Option<Command> {
        let mut state = self.state();
        let command = state.commands.pop_front();
        match &command {
            Some(_) => self
                .filled
                .store(!state.commands.is_empty(), Ordering::Release),
            None => (state.holder, state.held_since) = (Holder::Vmm, Instant::now()),
        }
        command
    }

    /// The VP goes away. Commands that were not carried out are dropped, which their senders notice.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.holder = Holder::Nobody;
        let commands = std::mem::take(&mut state.commands);
        drop(state);
        self.arrived.notify_all();
        drop(commands);
    }

    /// Waits until the VMM gives the thread back, but no longer than a moment after the VMM got it.
    fn wait_a_moment<'a>(&'a self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let held = |state: &mut State| state.is_held_by_vmm();
        let left = MOMENT.saturating_sub(state.held_since.elapsed());
        let waited = self.arrived.wait_timeout_while(state, left, held);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Whether the VMM has the thread, and not only for a moment.
    pub(crate) fn is_kept_by_vmm(&self) -> bool {
        self.wait_a_moment(self.state()).is_held_by_vmm()
    }

    /// Whether the VMM has the thread.
    pub(crate) fn is_held_by_vmm(&self) -> bool {
        self.state().is_held_by_vmm()
    }

    /// Whether the VP has gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.state().holder == Holder::Nobody
    }

    /// Sleeps until there is a command, `is_over` holds after a wake, a signal arrives, or time has passed.
    pub(crate) fn sleep(
        &self,
        timeout: Option<Duration>,
        signals: Option<&HeldSignals>,
        is_over: impl Fn() -> bool,
    ) -> Woken {
        {
            let mut state = self.state();
            if !state.commands.is_empty() {
                return Woken::Wake;
            }
            state.sleeping = true;
        }
        // The other side changes the gate first and looks at `sleeping` then.
        let woken = match is_over() {
            true => Woken::Wake,
            false => self.wake.sleep(timeout, signals),
        };
        self.state().sleeping = false;
        woken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::check;
    use crate::sync::mpsc;
    use crate::sync::thread;
    use std::sync::Arc;

    fn call() -> Command {
        Command::Call(Box::new(|_| {}))
    }

    fn change() -> Command {
        Command::Change(Box::new(|_| {}))
    }

    #[test]
    fn a_change_is_refused_while_the_vmm_has_the_thread_and_other_commands_wait() {
        check(|| {
            let mailbox = Mailbox::new(Holder::Runner).unwrap();
            assert!(mailbox.leave().is_none());
            assert_eq!(mailbox.send(change()), Err(NotTaken::HeldByVmm));
            assert_eq!(mailbox.send(call()), Ok(()));
            assert_eq!(mailbox.send(Command::Exit), Ok(()));
            mailbox.arrive();
            assert!(matches!(mailbox.take(), Some(Command::Call(_))));
            assert!(matches!(mailbox.take(), Some(Command::Exit)));
            assert!(mailbox.take().is_none());
        });
    }

    /// `shuttle` has no time.
    #[cfg(not(shuttle))]
    #[test]
    fn a_change_waits_for_a_thread_that_the_vmm_has_for_a_moment() {
        let mailbox = Arc::new(Mailbox::new(Holder::Vmm).unwrap());
        let sender = mailbox.clone();
        let thread = thread::spawn(move || sender.send(change()));
        mailbox.arrive();
        assert_eq!(thread.join().unwrap(), Ok(()));
    }

    /// `shuttle` has no time.
    #[cfg(not(shuttle))]
    #[test]
    fn a_change_waits_a_moment_for_a_thread_that_does_not_come() {
        let mailbox = Mailbox::new(Holder::Runner).unwrap();
        let before = Instant::now();
        assert!(mailbox.leave().is_none());
        assert_eq!(mailbox.send(change()), Err(NotTaken::HeldByVmm));
        assert!(before.elapsed() >= MOMENT);
    }

    #[test]
    fn the_holder_is_known() {
        check(|| {
            let mailbox = Mailbox::new(Holder::Runner).unwrap();
            let holders = || {
                [
                    mailbox.is_held_by_vmm(),
                    mailbox.is_kept_by_vmm(),
                    mailbox.is_closed(),
                ]
            };
            assert_eq!(holders(), [false, false, false]);
            assert!(mailbox.leave().is_none());
            assert_eq!(holders(), [true, true, false]);
            mailbox.arrive();
            assert_eq!(holders(), [false, false, false]);
            mailbox.hand_over();
            assert_eq!(holders(), [true, true, false]);
            mailbox.close();
            assert_eq!(holders(), [false, false, true]);
        });
    }

    #[test]
    fn each_way_to_take_a_command_sees_whether_it_was_the_last() {
        check(|| {
            let takes: [fn(&Mailbox) -> Option<Command>; 3] = [
                Mailbox::take,
                |mailbox| mailbox.take_away(false),
                Mailbox::leave,
            ];
            for take in takes {
                let mailbox = Mailbox::new(Holder::Runner).unwrap();
                assert!(mailbox.is_empty());
                mailbox.send(call()).unwrap();
                mailbox.send(Command::Exit).unwrap();
                assert!(matches!(take(&mailbox), Some(Command::Call(_))));
                assert!(!mailbox.is_empty());
                assert!(matches!(take(&mailbox), Some(Command::Exit)));
                assert!(mailbox.is_empty());
                assert!(take(&mailbox).is_none());
            }
        });
    }

    #[test]
    fn a_sleeper_wakes_when_its_gate_has_changed() {
        check(|| {
            let mailbox = Arc::new(Mailbox::new(Holder::Runner).unwrap());
            let is_over = Arc::new(AtomicBool::new(false));
            let (waker, over) = (mailbox.clone(), is_over.clone());
            let (send, sleeps) = mpsc::channel();
            let thread = thread::spawn(move || {
                sleeps.recv().unwrap();
                over.store(true, Ordering::Release);
                waker.wake();
            });
            let is_over = || {
                let is = is_over.load(Ordering::Acquire);
                // `sleep` has looked for the last time.
                send.send(()).unwrap();
                is
            };
            // In `shuttle`, a sleep for ever is a failure, and the end of a timeout is at any time.
            let timeout = cfg!(not(shuttle)).then_some(Duration::from_secs(10));
            let woken = mailbox.sleep(timeout, None, is_over);
            assert_eq!(woken, Woken::Wake);
            thread.join().unwrap();
        });
    }

    #[test]
    fn the_thread_does_not_leave_before_it_has_served_the_last_call() {
        check(|| {
            let mailbox = Mailbox::new(Holder::Runner).unwrap();
            mailbox.send(call()).unwrap();
            assert!(matches!(mailbox.leave(), Some(Command::Call(_))));
            assert!(mailbox.leave().is_none());
            assert_eq!(mailbox.send(change()), Err(NotTaken::HeldByVmm));
        });
    }

    #[test]
    fn a_vp_that_has_gone_takes_nothing_and_drops_what_it_has() {
        check(|| {
            let mailbox = Mailbox::new(Holder::Runner).unwrap();
            let (send, receive) = mpsc::channel::<()>();
            let holds = Command::Call(Box::new(move |_| drop(send)));
            mailbox.send(holds).unwrap();
            mailbox.close();
            assert!(receive.recv().is_err());
            assert_eq!(mailbox.send(Command::Exit), Err(NotTaken::Gone));
        });
    }

    #[test]
    fn a_sleeper_wakes_for_each_command() {
        check(|| {
            let mailbox = Arc::new(Mailbox::new(Holder::Runner).unwrap());
            let sender = mailbox.clone();
            let thread = thread::spawn(move || {
                for _ in 0..1000 {
                    sender.send(call()).unwrap();
                }
                sender.send(Command::Exit).unwrap();
            });
            let mut calls = 0;
            loop {
                match mailbox.take() {
                    Some(Command::Exit) => break,
                    Some(_) => calls += 1,
                    None => assert_eq!(mailbox.sleep(None, None, || false), Woken::Wake),
                }
            }
            thread.join().unwrap();
            assert_eq!(calls, 1000);
        });
    }
}
