//! The session of one client, from its first packet to the detach of the guest.
//!
//! ```text
//!  Session::run:  attach -> serve ---+--- client gone, D, k, error, end requested, VM gone ---> Ending
//!                    |               ^                                                            |
//!                    +-- refused ----+                                          Ending::end: await Detach
//! ```

use crate::connection::Connection;
use crate::connection::Incoming;
use crate::connection::Outgoing;
use crate::connection::Written;
use crate::deadline::CallError;
use crate::deadline::Deadline;
use crate::non_stop::NonStop;
use crate::operation::Guest;
use crate::operation::Outcome;
use crate::output::Output;
use crate::parameters::SessionSettings;
use crate::pending_clients::ReadyClient;
use crate::progress::Beat;
use crate::session_log::SessionLog;
use crate::statistics::Statistics;
use crate::statistics::StopCause;
use crate::stop_reply::ending;
use crate::stop_reply::explanation;
use crate::stop_reply::stop_reply;
use crate::stop_reply::thread_of;
use crate::symbol_file::SymbolFile;
use crate::vm::AttachedVm;
use crate::vm::PendingStop;
use crate::vm::Resumed;
use futures::FutureExt;
use futures::future;
use futures::future::FusedFuture;
use futures::select_biased;
use gdb_frontend::PacketCounts;
use gdb_frontend::session::Action;
use gdb_frontend::target::EndSignal;
use gdb_frontend::target::Stop;
use gdb_frontend::target::StopReason;
use gdb_frontend::target::TargetInfo;
use gdb_frontend::target::TargetOp;
use gdb_frontend::target::Tid;
use mesh::OneshotReceiver;
use mesh::RecvError;
use std::io;
use std::pin::Pin;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use thiserror::Error;
use tracing::Instrument as _;
use tracing::Span;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::stop::DebugStopReason;
use vmm_core_defs::stop::GuestEnd;
use vmm_core_defs::stop::StopEvent;
use vmm_core_defs::target::Target;
use vmm_core_defs::vp_set::VpSet;

/// The reason why a session ended.
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
    /// The end of a session that was asked to end. If the server has dropped the sender, it has stopped.
    fn of(end_requested: Result<EndRequest, RecvError>) -> Self {
        match end_requested {
            Ok(EndRequest::Evict) => Self::Evicted,
            Ok(EndRequest::Stop) | Err(RecvError::Closed) => Self::Stopped,
        }
    }
}

/// A request from outside to end a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndRequest {
    /// The server stops. The session ends after the unsent bytes were sent to the client.
    Stop,
    /// The operator evicts the client. The client may not read any more, so the session ends at once.
    Evict,
}

/// Whether the client will send more, as the server sees it.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClientDone(Arc<AtomicBool>);

impl ClientDone {
    /// Whether the client has closed its direction of the connection. Then the session ends by itself in bounded time.
    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How a session comes to its end.
pub(crate) struct Ends {
    /// The session is told to end.
    pub(crate) requested: OneshotReceiver<EndRequest>,
    /// Set by the session.
    pub(crate) client_done: ClientDone,
}

/// A client and its guest.
pub(crate) struct Session {
    pub(crate) guest: Box<Guest>,
    pub(crate) link: Link,
    pub(crate) deadline: Deadline,
}

/// A session that serves its client no longer. The guest may still be attached.
pub(crate) struct Ending {
    guest: Option<Box<Guest>>,
    why: SessionEnd,
    log: SessionLog,
    /// The connection of a client that was refused; the client still has to get the reason.
    pub(crate) refused: Option<Connection>,
}

impl Ending {
    /// The reason why the session ended.
    pub(crate) fn why(&self) -> &SessionEnd {
        &self.why
    }

    /// The only way in which a session ends: the guest is detached before another client is served. The connection is
    /// already closed.
    pub(crate) async fn end(self) -> SessionEnd {
        if let Some(mut guest) = self.guest
            && let Err(error) = guest.vm.detach_lost().await
            // A guest that has ended cannot be detached.
            && !error.is_end()
        {
            self.log.warn(
                || tracing::warn!(%error, "the VM did not confirm that the debugger was detached"),
            );
        }
        self.why
    }
}

impl Session {
    /// Serves a client until the client goes away or the session is told to end.
    ///
    /// Dropping the future detaches from the guest without waiting.
    pub(crate) async fn run(
        client: ReadyClient,
        requests: Target,
        statistics: Statistics,
        deadline: Deadline,
        settings: SessionSettings,
        ends: Ends,
        log: SessionLog,
    ) -> Ending {
        let Ends {
            requested: mut end_requested,
            client_done,
        } = ends;
        let attach = AttachedVm::attach(
            requests,
            deadline.clone(),
            settings.on_disconnect,
            statistics.clone(),
        );
        let mut attach = pin!(attach.fuse());
        // race
        let attached = select_biased! {
            end_requested = end_requested => {
                // The VM may have attached already. It has to be detached before the next client attaches.
                let attached = attach.await.ok();
                let guest = attached.map(|(vm, info)| Box::new(Guest::new(vm, info, None, log.clone())));
                return Ending { guest, why: SessionEnd::of(end_requested), log, refused: None };
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
                    log,
                    refused: Some(client.connection),
                };
            }
        };
        let mut guest = Box::new(Guest::new(vm, info, settings.dump_folder, log.clone()));
        guest.symbols = settings.symbols;
        let target = TargetInfo {
            threads: threads(&guest.vps),
            layout: guest.layout,
            stop: stop_reply(&guest.info.stop.reason),
            explanation: explanation(&guest.info.stop.reason)
                .map(|text| format!("When this debugger attached: {text}")),
            symbols: guest.symbols.as_ref().map(SymbolFile::for_client),
        };
        let Connection { incoming, outgoing } = client.connection;
        let link = Link {
            incoming,
            outgoing,
            frontend: client.first_packet.into_session(target),
            end_requested,
            running: None,
            output: Output::None,
            non_stop: None,
            stop: stop_span(&guest.info.stop),
            statistics,
            vps: guest.vps.clone(),
            end_of_stream: false,
            client_done,
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
            log,
            refused: None,
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
                    // The text that says how the guest ended may be unsent.
                    return self.drain().await.err().unwrap_or(SessionEnd::Stopped);
                }
                Err(end) => return end,
            }
        }
    }

    async fn carry_out(&mut self, op: TargetOp) -> Result<(), SessionEnd> {
        let Some(op) = self.prepare(op).await? else {
            return Ok(());
        };
        let beat = Beat::of(&op, &self.guest.progress);
        let only_for_client = !matches!(beat, Beat::None);
        self.guest.vps.clone_from(&self.link.vps);
        let outcome = {
            // The operation is pinned first: its future is large, and each wrapper would move the future.
            let op = pin!(self.guest.carry_out(op));
            let mut op = op.instrument(self.link.stop.clone()).fuse();
            loop {
                if only_for_client && self.link.end_of_stream {
                    // It may take minutes for a large guest, and would keep the guest stopped and the next client out.
                    return Err(SessionEnd::ClientGone);
                }
                let turn = self.link.turn(Pin::new(&mut op));
                let turned = match only_for_client {
                    true => self.deadline.within(Beat::INTERVAL, turn).await,
                    false => Some(turn.await),
                };
                match turned {
                    Some(turned) => {
                        if let Some(outcome) = turned? {
                            break outcome;
                        }
                    }
                    None => self.link.beat(&beat),
                }
            }
        };
        if outcome.resumed.is_some() && self.guest.may_print() {
            self.link.output = Output::NotAsked { stop: None };
        }
        self.link.complete(outcome);
        Ok(())
    }

    async fn wait(&mut self) -> Result<(), SessionEnd> {
        self.run_the_others().await;
        // A client that reads slowly makes the VM keep the text, which has a limit there.
        if self.link.outgoing.is_empty() {
            self.link.output.ask(|| self.guest.vm.output());
        }
        // While a resume is pending, its answer tells the client that the guest is gone.
        if self.guest.vm.is_gone() && self.link.running.is_none() && !self.link.output.is_expected()
        {
            self.drain().await?;
            return Err(SessionEnd::VmGone);
        }
        if self.link.end_of_stream {
            // All requests are answered, and no client is left that waits for a stop.
            self.drain().await?;
            return Err(SessionEnd::ClientGone);
        }
        self.link.turn(pin!(future::pending())).await.map(drop)
    }

    /// Sends the unsent bytes, within the deadline.
    async fn drain(&mut self) -> Result<(), SessionEnd> {
        let mut result = Ok(Written::Stuck);
        let flush = async { result = self.link.outgoing.flush().await };
        self.deadline.limit(flush).await;
        match result? {
            Written::All => {
                self.let_end_be_seen().await;
                Ok(())
            }
            Written::Stuck => Err(SessionEnd::NotReading),
        }
    }
}

/// The client's side of a session: everything but the guest.
pub(crate) struct Link {
    pub(crate) incoming: Incoming,
    pub(crate) outgoing: Outgoing,
    pub(crate) frontend: gdb_frontend::session::Session,
    end_requested: OneshotReceiver<EndRequest>,
    /// The pending answer to a `Resume`. It stays here until the answer comes, whatever the client sends meanwhile.
    running: Option<PendingStop>,
    output: Output,
    /// The present stop in the log. It contains the requests that are made during the stop.
    stop: Span,
    statistics: Statistics,
    /// Present in non-stop mode.
    pub(crate) non_stop: Option<NonStop>,
    /// The VPs at the last stop.
    pub(crate) vps: VpSet,
    /// Whether the client has closed its direction of the connection. It may still read.
    end_of_stream: bool,
    client_done: ClientDone,
}

/// The next step of a session.
enum Step {
    CarryOut(TargetOp),
    Wait,
    Close,
}

impl Link {
    fn next_step(&mut self) -> Step {
        let step = self.next_action();
        let PacketCounts { received, sent } = self.frontend.take_packet_counts();
        self.statistics.packets(received, sent);
        step
    }

    fn next_action(&mut self) -> Step {
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

    /// Handles one event of the session. Returns the output of `op` if `op` has completed. Cancel safe.
    pub(crate) async fn turn<F>(
        &mut self,
        mut op: Pin<&mut F>,
    ) -> Result<Option<Outcome>, SessionEnd>
    where
        F: FusedFuture<Output = Outcome>,
    {
        enum Event<'a> {
            EndRequest(Result<EndRequest, RecvError>),
            Completed(Outcome),
            Written(io::Result<Written>),
            Printed(Result<Vec<u8>, CallError>),
            Stopped(Result<StopEvent, CallError>),
            Read(io::Result<&'a [u8]>),
        }
        let may_read = !self.end_of_stream && self.frontend.wants_input();
        // Answers of the VM come first: an answer may say that the VM is gone, and after that the session is asked to
        // stop.
        // merge
        let event = select_biased! {
            outcome = op => Event::Completed(outcome),
            printed = pin!(self.output.next().fuse()) => Event::Printed(printed),
            stop = pin!(next_stop(&mut self.running).fuse()) => Event::Stopped(stop),
            end_requested = &mut self.end_requested => Event::EndRequest(end_requested),
            written = pin!(flush(&mut self.outgoing).fuse()) => Event::Written(written),
            read = pin!(read_if(may_read, &mut self.incoming).fuse()) => Event::Read(read),
        };
        match event {
            Event::EndRequest(end_requested) => return Err(SessionEnd::of(end_requested)),
            Event::Completed(outcome) => return Ok(Some(outcome)),
            Event::Written(Ok(Written::All)) => {}
            Event::Written(Ok(Written::Stuck)) => return Err(SessionEnd::NotReading),
            Event::Written(Err(error)) => return Err(error.into()),
            Event::Printed(printed) => self.printed(printed),
            Event::Stopped(stop) => self.comes_to_stop(stop),
            Event::Read(Ok([])) => self.ends(),
            Event::Read(Ok(bytes)) => self.frontend.push(bytes),
            Event::Read(Err(error)) => return Err(error.into()),
        }
        Ok(None)
    }

    /// An operation has taken [`Beat::INTERVAL`] longer. A client that has not read the last sign of life needs no other.
    fn beat(&mut self, beat: &Beat) {
        if !self.outgoing.is_empty() {
            return;
        }
        match beat {
            Beat::None => {}
            Beat::Plus => self.outgoing.queue(b"+".to_vec()),
            Beat::Progress(progress) => {
                let bytes = self.frontend.show_progress(&progress.line());
                self.outgoing.queue(bytes);
            }
        }
    }

    /// The client has closed its direction of the connection.
    fn ends(&mut self) {
        self.end_of_stream = true;
        self.client_done.set();
    }

    pub(crate) fn complete(&mut self, outcome: Outcome) {
        self.frontend.complete(outcome.reply);
        if let Some(resumed) = outcome.resumed {
            self.resumed(resumed);
        }
    }

    pub(crate) fn resumed(&mut self, resumed: Resumed) {
        match resumed {
            Resumed::Running(stop) => {
                self.running = Some(stop);
                self.stop = Span::none();
            }
            Resumed::Over(over) => self.comes_to_stop(over),
        }
    }

    /// Whether the guest runs, as far as the session knows.
    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    fn printed(&mut self, printed: Result<Vec<u8>, CallError>) {
        if let Ok(text) = &printed
            && !text.is_empty()
        {
            self.frontend.print(text);
            let text = String::from_utf8_lossy(text);
            tracing::debug!(target: "dprintf", text = text.trim_end());
        }
        if let Some(stop) = self.output.answered(printed.is_ok()) {
            self.stopped(stop);
        }
    }

    /// The stop is reported when the client has what was printed before.
    fn comes_to_stop(&mut self, stop: Result<StopEvent, CallError>) {
        self.running = None;
        if let Some(stop) = self.output.hold(stop) {
            self.stopped(stop);
        }
    }

    /// Reports a stop for this reason.
    pub(crate) fn stopped_for(&mut self, reason: &DebugStopReason) {
        if let Some(non_stop) = &mut self.non_stop
            && !non_stop.stopped(reason)
        {
            return;
        }
        let text = explanation(reason);
        self.frontend.stopped(stop_reply(reason), text.as_deref());
    }

    fn no_vp_runs(&mut self) {
        if let Some(non_stop) = &mut self.non_stop {
            non_stop.ended();
        }
    }

    fn stopped(&mut self, stop: Result<StopEvent, CallError>) {
        match stop {
            Ok(event) => {
                // In non-stop mode the server stops the VM for itself.
                if self.non_stop.is_none() || event.reason != DebugStopReason::Break {
                    self.statistics.stopped(&event.reason);
                }
                self.stop = stop_span(&event);
                if event.vps != self.vps {
                    self.frontend.set_threads(threads(&event.vps));
                    if let Some(non_stop) = &mut self.non_stop {
                        non_stop.set_vps(&self.vps, &event.vps);
                    }
                    self.vps = event.vps;
                }
                self.stopped_for(&event.reason);
            }
            Err(CallError::Refused(DebugError::Ended { how })) => {
                self.no_vp_runs();
                let text = match how {
                    GuestEnd::PowerOff => None,
                    _ => Some(format!("The guest has ended: {how}.\n")),
                };
                self.frontend.stopped(ending(&how), text.as_deref());
            }
            // The client was told that the guest runs. Only a stop can correct this.
            Err(error) => {
                self.no_vp_runs();
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

/// A stop in the log.
fn stop_span(stop: &StopEvent) -> Span {
    let StopEvent { epoch, reason, .. } = stop;
    tracing::info_span!(
        "stop",
        epoch = epoch.number(),
        cause = StopCause::of(reason).name(),
        vp = reason.vp().map(VpIndex::index),
    )
}

/// The threads of the protocol.
fn threads(vps: &VpSet) -> Vec<Tid> {
    vps.iter().filter_map(thread_of).collect()
}

/// Writes the queued bytes, if there are any. Cancel safe.
async fn flush(outgoing: &mut Outgoing) -> io::Result<Written> {
    if outgoing.is_empty() {
        std::future::pending::<()>().await;
    }
    outgoing.flush().await
}

/// Waits for the answer to the pending resume, if there is one. Cancel safe.
async fn next_stop(running: &mut Option<PendingStop>) -> Result<StopEvent, CallError> {
    match running {
        Some(pending) => Ok(pending.await?),
        None => std::future::pending().await,
    }
}

/// Reads the next bytes, if `wanted`. Cancel safe.
async fn read_if(wanted: bool, incoming: &mut Incoming) -> io::Result<&[u8]> {
    if !wanted {
        std::future::pending::<()>().await;
    }
    incoming.read().await
}
