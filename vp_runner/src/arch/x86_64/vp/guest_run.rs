//! A run of the guest on one VP, from the controller's command until the VP parks. It takes as many `KVM_RUN`s as the guest has exits.
//!
//! This module decides about everything around a `KVM_RUN` and makes none: the caller runs the vCPU when [`Vp::before_run`] says so, and passes the exit to
//! [`Vp::after_run`]. `enter` holds the parts.

use super::Vp;
use super::stepping::FastPath;
use super::stepping::ResumeFlag;
use super::vcpu::Vcpu;
use crate::arch::x86_64::dr7::Slots;
use crate::arch::x86_64::stop_cause::SingleStepping;
use crate::control::enter::Enter;
use crate::control::enter::Int3Exits;
use crate::control::enter::VpParked;
use crate::control::entry::Entry;
use crate::control::exit::Exit;
use crate::control::guest_event::GuestEvent;
use crate::control::run_state::Cause;
use vmm_core_defs::addr::Gva;

/// See the module.
#[derive(Debug)]
pub(crate) struct GuestRun {
    pub(super) enter: Enter,
    pub(super) entry: Entry,
    /// The instruction that the last `KVM_RUN` was to step, if it was to step one.
    pub(super) from: Option<Gva>,
    pub(super) next: Next,
}

/// What the caller has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Run the vCPU, and pass the exit to [`Vp::after_run`].
    Run,
    /// Wait until the VP is kicked, then call [`Vp::before_run`] again: the guest has halted, and no interrupt of the hypervisor can wake it.
    WaitForKick,
    /// The run is over.
    Parked(VpParked),
}

/// What comes next in a run of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// The VP enters the guest.
    Enter { pending: Pending, path: FastPath },
    /// KVM completes the device access of the last exit, and no other instruction is executed (I2).
    Complete {
        /// What stops the VP, of the exits so far.
        found: Option<Cause>,
        after: AfterCompletion,
    },
    /// The VP waits for a kick, and then parks.
    WaitForKick,
    /// The VP parks with this cause. `None`: it was kicked.
    Park(Option<Cause>),
}

/// Whether KVM is still to complete the device access of the last exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pending {
    Access,
    Nothing,
}

/// What follows when a device access has been completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterCompletion {
    /// RIP tells whether the step from this instruction is done: a repeated string instruction may not be. Some KVMs forget the step when the instruction accesses a
    /// device, and would execute the next instruction too.
    Step {
        from: Option<Gva>,
        resume_flag: ResumeFlag,
    },
    /// The VP was not let into the guest. It parks with this cause unless the completion has brought another.
    Park(Option<Cause>),
}

impl Next {
    /// The next entry, with debug state and registers prepared anew.
    pub(super) fn enter(pending: Pending) -> Self {
        let path = FastPath::Done;
        Self::Enter { pending, path }
    }
}

impl<V: Vcpu> Vp<V> {
    /// Begins a run of the guest.
    pub(crate) fn begin(&mut self, enter: &Enter) -> GuestRun {
        self.let_time_pass(enter);
        let mut run = GuestRun {
            enter: *enter,
            entry: Entry::new(self.index, enter.action, enter.at, 0),
            from: None,
            next: Next::enter(Pending::Nothing),
        };
        if let Some(next) = self.first(&mut run) {
            run.next = next;
        }
        run
    }

    /// Prepares the next `KVM_RUN`, or parks the VP.
    pub(crate) fn before_run(&mut self, run: &mut GuestRun) -> Turn {
        loop {
            run.next = match run.next {
                Next::Enter { pending, path } => match self.prepare_entry(pending, path, run) {
                    None => return Turn::Run,
                    Some(next) => next,
                },
                Next::Complete { .. } => {
                    self.cpu.vcpu.set_immediate_exit(true);
                    return Turn::Run;
                }
                Next::WaitForKick if !self.gate.is_kicked() => return Turn::WaitForKick,
                Next::WaitForKick => self.completed(None, AfterCompletion::Park(None), run),
                Next::Park(cause) => return Turn::Parked(self.park(cause, run)),
            }
        }
    }

    /// As [`before_run`](Self::before_run), for a VP that is kicked and whose last exit is complete: parks without setting any debug state.
    pub(crate) fn before_no_run(&mut self, run: &mut GuestRun) -> Turn {
        if let Next::Enter { .. } = run.next {
            run.next = self.kept_out(Pending::Nothing, run);
        }
        self.before_run(run)
    }

    /// Whether the next `KVM_RUN` and those after it need no work before and after them: nothing steps, no breakpoint is armed, and the guest gets no exception.
    pub(crate) fn is_plain(&self, run: &GuestRun) -> bool {
        let stops = &run.enter.stops;
        matches!(run.next, Next::Enter { .. })
            && run.entry.stepping() == SingleStepping::Off
            && stops.slots == Slots::default()
            && stops.int3_exits == Int3Exits::Off
            && self.lifted.is_empty()
            && !self.debugging.gives_breakpoint()
    }

    /// The vCPU has run, and has left the guest with this exit.
    ///
    /// The devices serve an [`Exit::Device`] after this call. If they ask for an event, [`guest_event`](Self::guest_event) is called next.
    pub(crate) fn after_run(&mut self, exit: Exit, run: &mut GuestRun) {
        run.next = match run.next {
            Next::Enter { .. } => {
                self.gate.leave();
                self.left_guest(exit, run)
            }
            Next::Complete { found, after } => {
                let found = found.or(self.cause_of(exit, &mut run.entry));
                match pending(exit) {
                    Pending::Access => Next::Complete { found, after },
                    Pending::Nothing => self.completed(found, after, run),
                }
            }
            next @ (Next::WaitForKick | Next::Park(_)) => next,
        };
    }

    /// Whether the run ends with an event of the guest, such as a triple fault. An exit that is a breakpoint of ours is none, although some KVMs report it as a failure.
    pub(crate) fn ends_by_guest_event(&self, run: &GuestRun) -> bool {
        matches!(
            run.next,
            Next::Park(Some(Cause::Guest(_)))
                | Next::Complete {
                    found: Some(Cause::Guest(_)),
                    ..
                }
        )
    }

    /// The devices that served the last exit ask for this event.
    pub(crate) fn guest_event(&mut self, event: GuestEvent, run: &mut GuestRun) {
        let event = Cause::Guest(event);
        run.next = match run.next {
            Next::Enter { .. } => Next::Complete {
                found: Some(event),
                after: AfterCompletion::Park(None),
            },
            Next::Complete { found, after } => Next::Complete {
                found: found.or(Some(event)),
                after,
            },
            next @ (Next::WaitForKick | Next::Park(_)) => next,
        };
    }

    /// The device access is completed, or there was none to complete.
    pub(super) fn completed(
        &mut self,
        found: Option<Cause>,
        after: AfterCompletion,
        run: &mut GuestRun,
    ) -> Next {
        match after {
            AfterCompletion::Step { from, resume_flag } => {
                // Also with an event: the instruction counts as a step.
                let stepped = self.end_of_access_step(from, &mut run.entry);
                let cause = found.or(stepped);
                self.conclude(cause, Pending::Nothing, resume_flag, run)
            }
            AfterCompletion::Park(cause) => {
                self.cpu.forget_events();
                Next::Park(found.or(cause).map(|cause| self.ended_by(cause, run)))
            }
        }
    }
}

/// Whether the exit leaves an access to be completed.
pub(super) fn pending(exit: Exit) -> Pending {
    match exit {
        Exit::Device => Pending::Access,
        Exit::Debug(_)
        | Exit::Halted
        | Exit::Shutdown(_)
        | Exit::SystemReset
        | Exit::SystemPowerOff
        | Exit::SystemCrash
        | Exit::Interrupted
        | Exit::Nothing
        | Exit::Failed(_) => Pending::Nothing,
    }
}
