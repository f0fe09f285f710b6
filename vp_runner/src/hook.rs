//! The hook at `KVM_RUN` of one vCPU: what comes before each `KVM_RUN` and after it. The caller is a run loop: of the VMM ([`embed`](crate::embed)) or of a thread of
//! this crate ([`vp_thread`](crate::vp_thread)).
//!
//! While the VP is parked, the hook answers the controller's calls, since vCPU ioctls belong to the thread of the vCPU. The VMM comes first: a parked VP gives its
//! thread back as soon as the VMM wants the thread (I11).

pub(crate) mod around;
mod away;
pub(crate) mod link;
pub(crate) mod mailbox;
mod messages;
pub(crate) mod on_thread;
mod parked;
pub(crate) mod seat;
#[cfg(test)]
mod tests;
mod wait;

use crate::arch::GuestRun;
use crate::arch::Turn;
use crate::arch::Vp;
use crate::arch::VpContext;
use crate::control::enter::Debugger;
use crate::control::enter::Enter;
use crate::control::enter::Snapshot;
use crate::control::enter::VpParked;
use crate::control::exit::Exit;
use crate::control::guest_event::GuestEvent;
use crate::control::run_gate::RunGate;
use crate::kvm::exit_decode::Exits;
use crate::kvm::hooked_vcpu::HookedVcpu;
use crate::kvm::immediate_exit;
use crate::kvm::vcpu::KvmVcpu;
use crate::kvm::wake::HeldSignals;
use crate::machine::Machine;
use crate::sync::awake::Busy;
use crate::sync::awake::Expected;
use crate::sync::thread;
use mailbox::Mailbox;
pub(crate) use messages::Command;
pub(crate) use messages::NewVp;
pub(crate) use messages::VpEvent;
pub(crate) use parked::Call;
pub(crate) use parked::ParkedVp;
use std::sync::Arc;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::addr::VpIndex;

/// What the run loop does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Before {
    /// Run the vCPU.
    Enter,
    /// Do not run the vCPU. Act as if `KVM_RUN` had returned `EINTR`.
    Interrupted,
    /// Handle the exit for which [`After::Hold`] was the answer.
    Deliver,
}

/// What the run loop does with an exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// Handle the exit.
    Handle,
    /// Nothing. The exit was the debugger's.
    Again,
    /// Keep the exit. A debugger sees it first.
    Hold,
}

/// One VP with its hook. Bound to the thread of the vCPU.
pub(crate) struct HookedVp<V: HookedVcpu = KvmVcpu> {
    vp: Vp<V>,
    index: VpIndex,
    gate: Arc<RunGate>,
    mailbox: Arc<Mailbox>,
    events: mesh::Sender<VpEvent>,
    exits: Exits,
    /// Powers the vCPU on. `None` if the VMM does this itself.
    machine: Option<Arc<dyn Machine>>,
    state: State,
    passing: Passing,
    last_run: LastRun,
    exit: KeptExit,
    /// When the next command is expected. `None` after a stop that another VP caused: the client looks at that VP first, so this thread does not spin.
    next: Option<Expected>,
    /// The address at which the VP stood when the VMM got the thread of the parked VP.
    left_at: Option<Gva>,
    registers: Registers,
    vmm: Vmm,
}

/// Whether the VMM looks for work before the VP waits again or enters the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Vmm {
    /// The VMM has looked since the last signal.
    HasLooked,
    /// A signal has arrived that may be the VMM's, and a command of the controller came first.
    IsToLook,
}

/// Who may have changed the registers of the vCPU since the last look at them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Registers {
    /// Only this crate and the guest.
    Known,
    /// The VMM as well.
    MaybeChanged,
}

#[expect(
    clippy::large_enum_variant,
    reason = "there is one value for each VP, and a step makes no allocation"
)]
enum State {
    Parked,
    Running {
        run: GuestRun,
        snapshot: Snapshot,
        debugger: Debugger,
        _busy: Busy,
    },
    /// The controller has ended.
    Released,
}

/// Whether entries and exits need no work: nothing steps, no breakpoint is armed, and nobody has kicked the VP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passing {
    Yes,
    No,
}

/// How the last `KVM_RUN` ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LastRun {
    /// With an exit that the next entry may have to complete.
    Exit,
    /// With an error, or there was none.
    Nothing,
}

/// Whether the run loop keeps an exit for a debugger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeptExit {
    None,
    Kept,
}

/// What a hook needs besides its vCPU and its [`VpContext`].
pub(crate) struct HookParts {
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) events: mesh::Sender<VpEvent>,
    pub(crate) exits: Exits,
    pub(crate) machine: Option<Arc<dyn Machine>>,
}

impl<V: HookedVcpu> HookedVp<V> {
    /// The hook of a parked VP, on the thread of the vCPU.
    pub(crate) fn new(vcpu: V, context: VpContext, parts: HookParts) -> Self {
        let HookParts {
            mailbox,
            events,
            exits,
            machine,
        } = parts;
        Self {
            index: context.index,
            gate: context.gate.clone(),
            vp: Vp::new(vcpu, context),
            mailbox,
            events,
            exits,
            machine,
            state: State::Parked,
            passing: Passing::No,
            last_run: LastRun::Nothing,
            exit: KeptExit::None,
            next: None,
            left_at: None,
            // The VMM may write registers before its thread comes.
            registers: match exits {
                Exits::GoToVmm => Registers::MaybeChanged,
                Exits::AreFailures => Registers::Known,
            },
            vmm: Vmm::HasLooked,
        }
    }

    /// The vCPU.
    pub(crate) fn vcpu(&mut self) -> &mut V {
        self.vp.vcpu()
    }

    /// Whether the last exit is complete, so that the VMM may keep the vCPU as it is.
    pub(crate) fn is_whole(&self) -> bool {
        self.last_run == LastRun::Nothing
    }

    /// Whether the controller has ended.
    pub(crate) fn is_released(&self) -> bool {
        matches!(self.state, State::Released)
    }

    /// Comes before each `KVM_RUN`. Parks the VP here while a debugger stops the guest.
    ///
    /// Without a debugger this is one atomic load.
    #[inline]
    pub(crate) fn before_entry(&mut self) -> Before {
        match self.passing == Passing::Yes && !self.gate.is_kicked() {
            true => Before::Enter,
            false => self.prepare_entry(),
        }
    }

    fn prepare_entry(&mut self) -> Before {
        if std::mem::replace(&mut self.registers, Registers::Known) == Registers::MaybeChanged {
            self.vp.vcpu().vmm_had_vcpu();
            self.vp.forget_registers();
        }
        let before = self.next_entry();
        if before != Before::Enter {
            self.vmm = Vmm::HasLooked;
            self.vmm_gets_vcpu();
        }
        before
    }

    fn vmm_gets_vcpu(&mut self) {
        if self.exits == Exits::GoToVmm {
            self.registers = Registers::MaybeChanged;
        }
    }

    fn next_entry(&mut self) -> Before {
        // The VMM may have set the flag too, since it looked for work the last time. So it looks again.
        if immediate_exit::clear() {
            return Before::Interrupted;
        }
        self.stop_passing();
        let mut signals: Option<HeldSignals> = None;
        loop {
            if let (State::Parked, None) = (&self.state, &signals) {
                signals = self.hold_signals();
            }
            match &mut self.state {
                State::Running { .. } | State::Released if self.vmm == Vmm::IsToLook => {
                    return Before::Interrupted;
                }
                State::Released => return self.deliver_or(Before::Enter),
                State::Parked => match self.wait_for_command(signals.as_ref()) {
                    Some(Command::Enter(enter)) => {
                        signals = None;
                        self.begin(&enter);
                        if self.exit == KeptExit::Kept {
                            return self.deliver_or(Before::Enter);
                        }
                    }
                    Some(Command::Call(call) | Command::Change(call)) => call(self),
                    Some(Command::Exit) => self.release(),
                    None => return Before::Interrupted,
                },
                State::Running { run, snapshot, .. } => match self.vp.before_run(run) {
                    Turn::Run => {
                        self.passing = match self.vp.is_plain(run) {
                            true => Passing::Yes,
                            false => Passing::No,
                        };
                        self.vp.vcpu().enters();
                        return Before::Enter;
                    }
                    Turn::WaitForKick => self.wait_for_kick(),
                    Turn::Parked(parked) => {
                        let snapshot = *snapshot;
                        self.state = State::Parked;
                        self.report(parked, snapshot);
                    }
                },
            }
        }
    }

    /// The debugger has seen the exit that the run loop keeps, if there is one.
    fn deliver_or(&mut self, otherwise: Before) -> Before {
        if let State::Released = self.state {
            self.passing = Passing::Yes;
        }
        match std::mem::replace(&mut self.exit, KeptExit::None) {
            KeptExit::Kept => Before::Deliver,
            KeptExit::None => otherwise,
        }
    }

    /// The VP was kicked while entries and exits passed without work. The last exit may still have to be completed.
    fn stop_passing(&mut self) {
        if std::mem::replace(&mut self.passing, Passing::No) == Passing::Yes
            && let State::Running { run, .. } = &mut self.state
        {
            let exit = match self.last_run {
                LastRun::Exit => Exit::Device,
                LastRun::Nothing => Exit::Interrupted,
            };
            self.vp.after_run(exit, run);
        }
    }

    /// Comes after each `KVM_RUN`, with its error number if it failed.
    #[inline]
    pub(crate) fn after_exit(&mut self, result: Result<(), i32>) -> After {
        self.last_run = match result {
            Ok(()) if self.exits == Exits::GoToVmm && self.vp.vcpu().is_complete() => {
                LastRun::Nothing
            }
            Ok(()) => LastRun::Exit,
            Err(_) => {
                // The flag may have hidden one that the VMM set at the same time. The VMM sees the error, and looks for work.
                immediate_exit::clear();
                LastRun::Nothing
            }
        };
        if self.passing == Passing::Yes && !self.is_stop_for_debugger(result) {
            self.vmm_gets_vcpu();
            return After::Handle;
        }
        let after = self.handle_exit(result);
        if after != After::Again {
            self.vmm_gets_vcpu();
        }
        after
    }

    /// Whether a debugger is attached that may stop for this exit.
    fn is_stop_for_debugger(&mut self, result: Result<(), i32>) -> bool {
        let debugger = match &self.state {
            State::Running { debugger, .. } => *debugger,
            State::Parked | State::Released => Debugger::Absent,
        };
        // A runner's own thread passes nothing on to a VMM, so all of its events count.
        (debugger == Debugger::Present || self.exits == Exits::AreFailures)
            && match result {
                Ok(()) => self.exits == Exits::AreFailures || self.vp.vcpu().may_be_stop(),
                Err(errno) => !matches!(errno, libc::EINTR | libc::EAGAIN),
            }
    }

    fn handle_exit(&mut self, result: Result<(), i32>) -> After {
        let State::Running { run, debugger, .. } = &mut self.state else {
            return After::Handle;
        };
        self.passing = Passing::No;
        let exit = self.vp.vcpu().left(result, self.exits);
        self.vp.after_run(exit, run);
        match (exit, self.exits, debugger) {
            (Exit::Debug(_), _, _) => After::Again,
            (Exit::Device | Exit::Interrupted | Exit::Nothing, _, _) => After::Handle,
            (_, Exits::AreFailures, _) => After::Again,
            (_, Exits::GoToVmm, _) if !self.vp.ends_by_guest_event(run) => After::Again,
            (_, Exits::GoToVmm, Debugger::Present) => {
                self.exit = KeptExit::Kept;
                After::Hold
            }
            (_, Exits::GoToVmm, Debugger::Absent) => After::Handle,
        }
    }

    /// The devices that served the last exit ask for this event.
    pub(crate) fn guest_event(&mut self, event: GuestEvent) {
        self.stop_passing();
        if let State::Running { run, .. } = &mut self.state {
            self.vp.guest_event(event, run);
        }
    }

    fn begin(&mut self, enter: &Enter) {
        self.state = State::Running {
            run: self.vp.begin(enter),
            snapshot: enter.snapshot,
            debugger: enter.debugger,
            _busy: Busy::new(),
        };
    }

    /// The VP has parked.
    fn report(&mut self, parked: VpParked, snapshot: Snapshot) {
        self.last_run = LastRun::Nothing;
        self.events.send(VpEvent::Parked(parked));
        self.next = parked.cause.map(|_| self.next.unwrap_or_default());
        if snapshot == Snapshot::Ahead && self.mailbox.is_empty() {
            self.read_ahead();
        }
    }

    /// Reads the registers that the client will most likely ask for, once the stop is on its way.
    fn read_ahead(&mut self) {
        if let Err(err) = self.vp.read_registers() {
            tracing::debug!(error = %err, "registers could not be read ahead");
        }
    }

    /// The controller has ended: no trace of the debugger remains on this VP (I6).
    fn release(&mut self) {
        self.state = State::Released;
        if self.exits == Exits::GoToVmm
            && let Err(err) = self.vp.set_stops(crate::control::enter::StopSet::default())
        {
            let vp = self.index;
            tracing::error!(%vp, error = %err, "debug registers could not be taken off a VP");
        }
        self.gate.open();
        self.passing = match self.exit {
            KeptExit::None => Passing::Yes,
            KeptExit::Kept => Passing::No,
        };
    }
}

impl<V: HookedVcpu> Drop for HookedVp<V> {
    fn drop(&mut self) {
        self.mailbox.close();
        match thread::panicking() {
            true => self.events.send(VpEvent::Died(self.index)),
            false => self.events.send(VpEvent::Left(self.index)),
        }
    }
}
