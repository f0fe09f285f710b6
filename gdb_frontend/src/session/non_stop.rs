//! Non-stop mode (GDB manual, node "Remote Non-Stop"): each thread is resumed and stops by itself. A `vCont` is answered at once, and stops come as
//! notifications.
//!
//! ```text
//!            threads_stopped                       first of the queue
//!   guest -------------------> queue of stops ----- %Stop:... ----------> client
//!                                   ^                                        |
//!                                   +--- vStopped: the next one, or OK <-----+
//! ```
//! The first stop in the queue was sent, and the client has not said yet that it has seen the stop.

use super::Core;
use super::Guest;
use super::Operation;
use super::pending::Pending;
use super::pending::Reply;
use super::stop_reply;
use super::threads::Threads;
use crate::command::ThreadSelector;
use crate::command::VCont;
use crate::command::VContAction;
use crate::framing::PacketWriter;
use crate::target::Resume;
use crate::target::ResumeAction;
use crate::target::Schedule;
use crate::target::Stop;
use crate::target::StopReason;
use crate::target::TargetError;
use crate::target::TargetOp;
use crate::target::Tid;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;

pub(super) const NEEDS_NON_STOP: &str = "vCont;t stops single threads, which needs non-stop mode; send QNonStop:1 while every thread is stopped, or interrupt the guest";

pub(super) const NO_COMMANDS: &str = "breakpoints print nothing by themselves in non-stop mode; use `set dprintf-style gdb`, or `set non-stop off` before the client connects";

/// The threads in non-stop mode.
#[derive(Debug)]
pub(super) struct NonStop {
    running: BTreeSet<Tid>,
    /// Why the stopped threads stopped. A thread that the client has stopped is missing.
    reasons: BTreeMap<Tid, StopReason>,
    /// Empty if the client has seen every stop.
    unseen: VecDeque<Unseen>,
}

/// A stop that the client has not seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unseen {
    /// Of this thread. Without a reason, the client has stopped the thread.
    Thread(Tid, Option<StopReason>),
    /// The guest has ended.
    End(StopReason),
}

impl NonStop {
    /// At the start of a session every thread is stopped. The client learns that this thread is, and takes the others for running: GDB (13 to 18) aborts if `?` lists more
    /// than one thread, and GDB 18 aborts if that thread has a reason. The others go on with the first resume.
    fn new(threads: &Threads, thread: Tid) -> Self {
        Self {
            running: threads.iter().filter(|other| *other != thread).collect(),
            reasons: BTreeMap::new(),
            unseen: VecDeque::new(),
        }
    }

    /// Threads that have come run, and threads that have gone do not.
    pub(super) fn set_threads(&mut self, before: &Threads, now: &Threads) {
        self.running.retain(|thread| now.contains(*thread));
        self.reasons.retain(|thread, _| now.contains(*thread));
        let new = now.iter().filter(|thread| !before.contains(*thread));
        self.running.extend(new);
    }

    /// The thread has stopped. Returns whether the client has to be notified. A thread that has not run is not stopped.
    fn stopped(&mut self, thread: Tid, reason: Option<StopReason>) -> bool {
        if !self.running.remove(&thread) {
            return false;
        }
        match reason {
            Some(reason) => self.reasons.insert(thread, reason),
            None => self.reasons.remove(&thread),
        };
        self.push(Unseen::Thread(thread, reason))
    }

    /// A thread runs, in the client's eyes, until the client has acknowledged its stop. A `vCont` in between was sent in ignorance of the stop.
    fn may_be_resumed(&self, thread: Tid) -> bool {
        let unseen = |stop: &Unseen| matches!(stop, Unseen::Thread(of, _) if *of == thread);
        !self.running.contains(&thread) && !self.unseen.iter().any(unseen)
    }

    fn push(&mut self, stop: Unseen) -> bool {
        self.unseen.push_back(stop);
        self.unseen.len() == 1
    }

    pub(super) fn end_is_unseen(&self) -> bool {
        matches!(self.unseen.back(), Some(Unseen::End(_)))
    }

    /// The client asks for all stops, whatever it has seen.
    fn show_again(&mut self, threads: &Threads) {
        let stopped = threads.iter().filter(|it| !self.running.contains(it));
        let reason = |thread| self.reasons.get(&thread).copied();
        self.unseen = stopped
            .map(|thread| Unseen::Thread(thread, reason(thread)))
            .collect();
    }
}

impl Core {
    /// `QNonStop`.
    pub(super) fn set_non_stop(&mut self, on: bool) {
        let stopped = on.then_some(self.stopped_thread());
        match &self.guest {
            Guest::Stopped(_) => self.ask(TargetOp::NonStop(stopped), Pending::NonStop(on)),
            Guest::NonStop(_) if on => self.ok(),
            Guest::NonStop(non_stop) if non_stop.running.is_empty() => {
                self.ask(TargetOp::NonStop(None), Pending::NonStop(false));
            }
            Guest::NonStop(_) | Guest::Running(_) => self.error(&TargetError {
                errno: 16,
                text: "threads are running; stop every thread before non-stop mode is changed"
                    .to_owned(),
            }),
        }
    }

    /// The thread that a client sees stopped at the start of non-stop mode.
    fn stopped_thread(&self) -> Tid {
        match &self.guest {
            Guest::Stopped(stop) => stop.thread.unwrap_or(self.interrupt_thread),
            Guest::Running(_) | Guest::NonStop(_) => self.current,
        }
    }

    /// Non-stop mode is on or off.
    pub(super) fn non_stop_is(&mut self, on: bool) {
        match (&self.guest, on) {
            (Guest::Stopped(_), true) => {
                let thread = self.stopped_thread();
                self.guest = Guest::NonStop(NonStop::new(&self.threads, thread));
            }
            (Guest::NonStop(non_stop), false) => {
                let first = non_stop.reasons.first_key_value();
                let (thread, reason) = first
                    .map_or((None, StopReason::Trap), |(thread, reason)| {
                        (Some(*thread), *reason)
                    });
                self.guest = Guest::Stopped(Stop { thread, reason });
            }
            _ => {}
        }
        self.ok();
    }

    /// Whether this thread runs by itself.
    pub(super) fn runs(&self, thread: Tid) -> bool {
        matches!(&self.guest, Guest::NonStop(non_stop) if non_stop.running.contains(&thread))
    }

    fn may_be_resumed(&self, thread: Tid) -> bool {
        matches!(&self.guest, Guest::NonStop(non_stop) if non_stop.may_be_resumed(thread))
    }

    pub(super) fn refuse_running_thread(&mut self, thread: Tid) {
        self.error(&TargetError {
            errno: 16,
            text: format!("thread {} is running; stop it first", thread.get()),
        });
    }

    /// `?`: "If non-stop mode is in effect [...] the server reports the first stopped thread", and the others after `vStopped`. `OK` if none is stopped.
    pub(super) fn list_stops(&mut self) {
        if let Guest::NonStop(non_stop) = &mut self.guest {
            non_stop.show_again(&self.threads);
            self.show_first_unseen();
        }
    }

    /// `vStopped`: the client has seen the first stop of the queue.
    pub(super) fn stop_seen(&mut self) {
        let seen = match &mut self.guest {
            Guest::NonStop(non_stop) => non_stop.unseen.pop_front(),
            Guest::Stopped(_) | Guest::Running(_) => None,
        };
        self.show_first_unseen();
        if let Some(Unseen::End(_)) = seen {
            self.close();
        }
    }

    /// Replies with the first stop that the client has not seen, or `OK`.
    fn show_first_unseen(&mut self) {
        let mut packet = PacketWriter::default();
        match self.write_first_unseen(&mut packet) {
            true => self.outbox.packet(packet.finish()),
            false => self.ok(),
        }
    }

    fn notify(&mut self) {
        let mut notification = PacketWriter::notification();
        notification.str("Stop:");
        if self.write_first_unseen(&mut notification) {
            self.outbox.notification(&notification.finish());
        }
    }

    fn write_first_unseen(&self, packet: &mut PacketWriter) -> bool {
        let first = match &self.guest {
            Guest::NonStop(non_stop) => non_stop.unseen.front(),
            Guest::Stopped(_) | Guest::Running(_) => None,
        };
        match first {
            None => false,
            Some(Unseen::Thread(thread, reason)) => {
                stop_reply::write_of_thread(*reason, *thread, self.client, packet);
                true
            }
            Some(Unseen::End(reason)) => stop_reply::write_ending(*reason, packet),
        }
    }

    /// The guest reports a stop.
    pub(super) fn threads_stopped(&mut self, stop: Stop) {
        // The client ends its session, and no thread stops for it.
        if let Operation::Out(Pending::Detach | Pending::Kill | Pending::KillWithReply) =
            self.operation
        {
            return;
        }
        let Guest::NonStop(non_stop) = &mut self.guest else {
            return;
        };
        let reason = stop.reason;
        let mut notify = false;
        match (reason, stop.thread) {
            (StopReason::Exited(_) | StopReason::Terminated(_), _) => {
                non_stop.running.clear();
                notify = non_stop.push(Unseen::End(reason));
            }
            (
                StopReason::Trap
                | StopReason::SoftwareBreakpoint
                | StopReason::HardwareBreakpoint
                | StopReason::Watchpoint { .. },
                Some(thread),
            ) => notify = non_stop.stopped(thread, Some(reason)),
            (_, named) => {
                let first = named.or_else(|| non_stop.running.first().copied());
                if let Some(first) = first {
                    notify |= non_stop.stopped(first, Some(reason));
                }
                for other in std::mem::take(&mut non_stop.running) {
                    non_stop.reasons.remove(&other);
                    notify |= non_stop.push(Unseen::Thread(other, None));
                }
            }
        }
        if notify {
            self.notify();
        }
    }

    /// `c` and `s` in non-stop mode: threads that run go on with what they do.
    pub(super) fn schedule_resume(&mut self, resume: &Resume) {
        let action = |thread| {
            let named = resume.actions.iter().find(|(named, _)| *named == thread);
            named.map_or(resume.others, |(_, action)| *action)
        };
        let stopped = self
            .threads
            .iter()
            .filter(|thread| self.may_be_resumed(*thread));
        let run = stopped
            .map(|thread| (thread, action(thread)))
            .filter(|(_, action)| *action != ResumeAction::Stay)
            .collect();
        self.schedule(
            Schedule {
                run,
                stop: Vec::new(),
                jump: resume.jump,
            },
            None,
            Reply::Ok,
        );
    }

    /// `vCont` in non-stop mode. The leftmost action that matches a thread applies to it; a thread that runs can only be stopped, and one that is stopped only be resumed.
    pub(super) fn schedule_vcont(&mut self, vcont: &VCont) {
        for (_, selector) in &vcont.actions {
            if self.existing(*selector).is_none() {
                return;
            }
        }
        let mut schedule = Schedule {
            run: Vec::new(),
            stop: Vec::new(),
            jump: None,
        };
        for thread in self.threads.iter() {
            let matches = |selector: &ThreadSelector| match selector {
                ThreadSelector::All => true,
                ThreadSelector::Any => thread == self.current,
                ThreadSelector::One(named) => *named == thread,
            };
            let mut actions = vcont.actions.iter();
            let action = actions.find(|(_, selector)| matches(selector));
            match action {
                Some((VContAction::Stop, _)) if self.runs(thread) => schedule.stop.push(thread),
                Some((VContAction::Resume(action), _)) if self.may_be_resumed(thread) => {
                    schedule.run.push((thread, *action));
                }
                _ => {}
            }
        }
        self.schedule(schedule, None, Reply::Ok);
    }

    /// Ctrl-C in non-stop mode, which stops one thread: the selected one if it runs.
    pub(super) fn stop_one_thread(&mut self, reply: Reply) {
        let Guest::NonStop(non_stop) = &self.guest else {
            return;
        };
        let first = non_stop.running.first().copied();
        let thread = match self.runs(self.current) {
            true => Some(self.current),
            false => first,
        };
        let schedule = Schedule {
            run: Vec::new(),
            stop: thread.into_iter().collect(),
            jump: None,
        };
        self.schedule(schedule, Some(StopReason::Interrupt), reply);
    }

    /// Carries a schedule out. `reason` is that of the threads it stops.
    fn schedule(&mut self, schedule: Schedule, reason: Option<StopReason>, reply: Reply) {
        let pending = Pending::Schedule {
            run: schedule.run.iter().map(|(thread, _)| *thread).collect(),
            stop: schedule.stop.clone(),
            reason,
            reply,
        };
        match (schedule.run.is_empty() && schedule.stop.is_empty(), reply) {
            (true, Reply::Ok) => self.ok(),
            (true, Reply::None) => {}
            (false, _) => self.ask(TargetOp::Schedule(schedule), pending),
        }
    }

    /// The schedule is carried out. A thread that has stopped by itself meanwhile has told so.
    pub(super) fn scheduled(&mut self, run: &[Tid], stop: &[Tid], reason: Option<StopReason>) {
        let Guest::NonStop(non_stop) = &mut self.guest else {
            return;
        };
        for thread in run {
            non_stop.reasons.remove(thread);
            non_stop.running.insert(*thread);
        }
        let mut notify = false;
        for thread in stop {
            notify |= non_stop.stopped(*thread, reason);
        }
        if notify {
            self.notify();
        }
    }
}
