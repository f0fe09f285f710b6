//! One client's session, from its first packet to the guest's detachment.
//!
//! ```text
//!  Session::run:  attach -> serve ---+--- client gone, D, k, error, told to end, VM gone ---> Ending
//!                    |               ^                                                          |
//!                    +-- refused ----+                                        Ending::end: await Detach
//! ```

use crate::connection::Connection;
use crate::connection::Incoming;
use crate::connection::Outgoing;
use crate::connection::Written;
use crate::deadline::CallError;
use crate::deadline::Deadline;
use crate::lobby::Visitor;
use crate::operation::Guest;
use crate::operation::Outcome;
use crate::stop_reply::ending;
use crate::stop_reply::explanation;
use crate::stop_reply::stop_reply;
use crate::vm::AttachedVm;
use crate::vm::PendingStop;
use crate::vm::Resumed;
use futures::FutureExt;
use futures::future;
use futures::future::FusedFuture;
use futures::select_biased;
use gdb_frontend::session::Action;
use gdb_frontend::target::EndSignal;
use gdb_frontend::target::Stop;
use gdb_frontend::target::StopReason;
use gdb_frontend::target::TargetInfo;
use gdb_frontend::target::TargetOp;
use mesh::OneshotReceiver;
use mesh::RecvError;
use mesh::Sender;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use thiserror::Error;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::DebugMessage;
use vmm_core_defs::debug_rpc::DetachAction;
use vmm_core_defs::stop::GuestEnd;
use vmm_core_defs::stop::StopEvent;

/// Why a session ended.
#[derive(Debug, Error)]
pub(crate) enum SessionEnd {
    #[error("the debugger closed the connection")]
    ClientGone,
    #[error("the connection to the debugger was lost: {0}")]
    Lost(#[from] io::Error),
    #[error("the debugger did not read its replies")]
    NotReading,
    #[error("the debugger ended the session")]
    Finished,
    #[error("the debug server was stopped")]
    Stopped,
    #[error("the debugger was evicted")]
    Evicted,
    #[error("the debugger cannot attach: {0}")]
    NotAttached(CallError),
    #[error("the VM is gone")]
    VmGone,
}

impl SessionEnd {
    /// The end of a session that was told to end. A server that is gone has stopped.
    fn of(told: Result<Told, RecvError>) -> Self {
        match told {
            Ok(Told::Evict) => Self::Evicted,
            Ok(Told::Stop) | Err(RecvError::Closed) => Self::Stopped,
        }
    }
}

/// What a session is told from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// The server stops: end once the client has been sent what is left.
    Stop,
    /// The operator throws the client out, which may not read any more: end at once.
    Evict,
}

/// How a session looks from outside.
#[derive(Debug, Clone, Default)]
pub(crate) struct Leaving(Arc<AtomicBool>);

impl Leaving {
    /// Whether the client sends nothing more: its session ends by itself, in bounded time.
    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A client and its guest.
pub(crate) struct Session {
    guest: Box<Guest>,
    link: Link,
    deadline: Deadline,
}

/// A session whose client is done with. The guest may not know yet.
pub(crate) struct Ending {
    guest: Option<Box<Guest>>,
    why: SessionEnd,
    /// A client that has to be told why there is no session.
    pub(crate) turned_away: Option<Connection>,
}

impl Ending {
    /// Why it ended.
    pub(crate) fn why(&self) -> &SessionEnd {
        &self.why
    }

    /// The one way every session ends: the guest is detached before anybody else is served. The connection is closed by now.
    pub(crate) async fn end(self) -> SessionEnd {
        if let Some(mut guest) = self.guest
            && let Err(error) = guest.vm.lose().await
            // A guest that has ended has nothing left to detach from.
            && !error.is_end()
        {
            tracing::warn!(%error, "the VM did not confirm that the debugger was detached");
        }
        self.why
    }
}

impl Session {
    /// Serves a client until it goes away or `told` resolves.
    ///
    /// Dropping the future detaches from the guest without waiting.
    pub(crate) async fn run(
        visitor: Visitor,
        requests: Sender<DebugMessage>,
        deadline: Deadline,
        on_disconnect: DetachAction,
        dump_folder: Option<PathBuf>,
        mut told: OneshotReceiver<Told>,
        leaving: Leaving,
    ) -> Ending {
        let attach = AttachedVm::attach(requests, deadline.clone(), on_disconnect);
        let mut attach = pin!(attach.fuse());
        // race
        let attached = select_biased! {
            told = told => {
                // The VM may have attached already, and is to be detached before the next client attaches.
                let attached = attach.await.ok();
                let guest = attached.map(|(vm, info)| Box::new(Guest::new(vm, info, None)));
                return Ending { guest, why: SessionEnd::of(told), turned_away: None };
            }
            attached = attach => attached,
        };
        let (vm, info) = match attached {
            Ok(attached) => attached,
            Err(error) => {
                let why = SessionEnd::NotAttached(error);
                return Ending {
                    guest: None,
                    why,
                    turned_away: Some(visitor.connection),
                };
            }
        };
        let guest = Box::new(Guest::new(vm, info, dump_folder));
        let target = TargetInfo {
            thread_count: guest.info.vp_count,
            layout: guest.layout,
            stop: stop_reply(&guest.info.stop.reason),
            explanation: explanation(&guest.info.stop.reason)
                .map(|text| format!("When this debugger attached: {text}")),
        };
        let Connection { incoming, outgoing } = visitor.connection;
        let link = Link {
            incoming,
            outgoing,
            frontend: visitor.opening.into_session(target),
            told,
            running: None,
            end_of_stream: false,
            leaving,
        };
        let mut session = Self {
            guest,
            link,
            deadline,
        };
        let why = session.serve().await;
        Ending {
            guest: Some(session.guest),
            why,
            turned_away: None,
        }
    }

    async fn serve(&mut self) -> SessionEnd {
        loop {
            let result = match self.link.next_step() {
                Step::CarryOut(op) => self.carry_out(op).await,
                Step::Wait => self.wait().await,
                Step::Close => self.drain().await.and(Err(SessionEnd::Finished)),
            };
            match result {
                Ok(()) => {}
                Err(SessionEnd::Stopped) => {
                    // How the guest ended may be on its way to the client.
                    return self.drain().await.err().unwrap_or(SessionEnd::Stopped);
                }
                Err(end) => return end,
            }
        }
    }

    async fn carry_out(&mut self, op: TargetOp) -> Result<(), SessionEnd> {
        let outcome = {
            let mut op = pin!(self.guest.carry_out(op).fuse());
            loop {
                if let Some(outcome) = self.link.turn(op.as_mut()).await? {
                    break outcome;
                }
            }
        };
        self.link.complete(outcome);
        Ok(())
    }

    async fn wait(&mut self) -> Result<(), SessionEnd> {
        // The answer to a resume that is out tells the client first.
        if self.guest.vm.is_gone() && self.link.running.is_none() {
            self.drain().await?;
            return Err(SessionEnd::VmGone);
        }
        if self.link.end_of_stream {
            // What was asked has been answered, and nobody is left to see the guest stop.
            self.drain().await?;
            return Err(SessionEnd::ClientGone);
        }
        self.link.turn(pin!(future::pending())).await.map(drop)
    }

    /// Sends what is left to send, to a client that may not care.
    async fn drain(&mut self) -> Result<(), SessionEnd> {
        let mut result = Ok(Written::Stuck);
        let flush = async { result = self.link.outgoing.flush().await };
        self.deadline.limit(flush).await;
        match result? {
            Written::All => Ok(()),
            Written::Stuck => Err(SessionEnd::NotReading),
        }
    }
}

/// The client's side of a session: everything but the guest.
struct Link {
    incoming: Incoming,
    outgoing: Outgoing,
    frontend: gdb_frontend::session::Session,
    told: OneshotReceiver<Told>,
    /// The answer to the `Resume` that is out. It stays here until it comes, whatever the client sends meanwhile.
    running: Option<PendingStop>,
    /// The client sends nothing more. It may still read.
    end_of_stream: bool,
    leaving: Leaving,
}

/// What a session does next.
enum Step {
    CarryOut(TargetOp),
    Wait,
    Close,
}

impl Link {
    fn next_step(&mut self) -> Step {
        while !self.outgoing.is_full() {
            match self.frontend.poll_action() {
                Some(Action::Send(bytes)) => self.outgoing.queue(bytes),
                Some(Action::Target(op)) => return Step::CarryOut(op),
                Some(Action::Close) => return Step::Close,
                None => break,
            }
        }
        Step::Wait
    }

    /// Moves the session on by one event. The output of `op` where that was it. Cancel safe.
    async fn turn<F>(&mut self, mut op: Pin<&mut F>) -> Result<Option<Outcome>, SessionEnd>
    where
        F: FusedFuture<Output = Outcome>,
    {
        enum Event<'a> {
            Told(Result<Told, RecvError>),
            Completed(Outcome),
            Written(io::Result<Written>),
            Stopped(Result<StopEvent, CallError>),
            Read(io::Result<&'a [u8]>),
        }
        let may_read = !self.end_of_stream && self.frontend.wants_input();
        // merge; what the VM has answered goes first, since the answer may be that there is no VM any more, after which the session is told to stop
        let event = select_biased! {
            outcome = op => Event::Completed(outcome),
            stop = pin!(next_stop(&mut self.running).fuse()) => Event::Stopped(stop),
            told = &mut self.told => Event::Told(told),
            written = pin!(flush(&mut self.outgoing).fuse()) => Event::Written(written),
            read = pin!(read_if(may_read, &mut self.incoming).fuse()) => Event::Read(read),
        };
        match event {
            Event::Told(told) => return Err(SessionEnd::of(told)),
            Event::Completed(outcome) => return Ok(Some(outcome)),
            Event::Written(Ok(Written::All)) => {}
            Event::Written(Ok(Written::Stuck)) => return Err(SessionEnd::NotReading),
            Event::Written(Err(error)) => return Err(error.into()),
            Event::Stopped(stop) => self.stopped(stop),
            Event::Read(Ok([])) => self.ends(),
            Event::Read(Ok(bytes)) => self.frontend.push(bytes),
            Event::Read(Err(error)) => return Err(error.into()),
        }
        Ok(None)
    }

    /// The client sends nothing more.
    fn ends(&mut self) {
        self.end_of_stream = true;
        self.leaving.set();
    }

    fn complete(&mut self, outcome: Outcome) {
        self.frontend.complete(outcome.reply);
        match outcome.resumed {
            Some(Resumed::Running(stop)) => self.running = Some(stop),
            Some(Resumed::Over(over)) => self.stopped(over),
            None => {}
        }
    }

    fn stopped(&mut self, stop: Result<StopEvent, CallError>) {
        self.running = None;
        match stop {
            Ok(event) => self.frontend.stopped(
                stop_reply(&event.reason),
                explanation(&event.reason).as_deref(),
            ),
            Err(CallError::Refused(DebugError::Ended { how })) => {
                let text = match how {
                    GuestEnd::PowerOff => None,
                    _ => Some(format!("The guest has ended: {how}.\n")),
                };
                self.frontend.stopped(ending(&how), text.as_deref());
            }
            // The client has been told that the guest runs. The only way to tell it otherwise is a stop.
            Err(error) => {
                let reason = match error.is_end() {
                    true => StopReason::Terminated(EndSignal::Kill),
                    false => StopReason::Crashed,
                };
                let thread = None;
                let stop = Stop { thread, reason };
                self.frontend
                    .stopped(stop, Some(&format!("The guest no longer runs: {error}.\n")));
            }
        }
    }
}

/// Writes what is queued, if anything is. Cancel safe.
async fn flush(outgoing: &mut Outgoing) -> io::Result<Written> {
    if outgoing.is_empty() {
        std::future::pending::<()>().await;
    }
    outgoing.flush().await
}

/// The answer to the resume that is out, if one is. Cancel safe.
async fn next_stop(running: &mut Option<PendingStop>) -> Result<StopEvent, CallError> {
    match running {
        Some(pending) => Ok(pending.await?),
        None => std::future::pending().await,
    }
}

/// The next bytes, if any are wanted. Cancel safe.
async fn read_if(wanted: bool, incoming: &mut Incoming) -> io::Result<&[u8]> {
    if !wanted {
        std::future::pending::<()>().await;
    }
    incoming.read().await
}
