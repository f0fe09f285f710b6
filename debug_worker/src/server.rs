//! The actor: listens, serves one client at a time, refuses other clients, and answers its owner.
//!
//! ```text
//!  listener ---> PendingClients --- first packet, no client is served ----------------------------> State::Serving
//!                  |                                                                                  ^
//!                  +--------------- first packet, another is served ---> queue --- its session ended -+
//!                                                                          |
//!                                                                          +------ waited too long ---> refused
//! ```

use crate::connection::Connection;
use crate::deadline::Deadline;
use crate::listener::Accepted;
use crate::listener::Eviction;
use crate::listener::PolledListener;
use crate::log_limit::LogLimit;
use crate::parameters::DebuggerParameters;
use crate::parameters::SessionSettings;
use crate::peer_owner::PeerRefused;
use crate::pending_clients::NoFirstPacket;
use crate::pending_clients::PendingClients;
use crate::pending_clients::ReadyClient;
use crate::protocol::Protocol;
use crate::refusal::refuse;
use crate::session::ClientDone;
use crate::session::EndRequest;
use crate::session::Ending;
use crate::session::Ends;
use crate::session::Session;
use crate::session::SessionEnd;
use crate::session_log::SessionLog;
use crate::statistics::Statistics;
use futures::FutureExt;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::select_biased;
use futures::stream::FuturesUnordered;
use mesh::OneshotSender;
use mesh::Receiver;
use mesh::inspect;
use mesh::worker::WorkerRpc;
use pal_async::Driver;
use pal_async::socket::PolledSocket;
use pal_async::timer::Instant;
use pal_async::timer::PolledTimer;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tracing::Instrument as _;
use tracing::Span;
use vmm_core_defs::target::Target;

/// A connected client.
pub(crate) type Socket = PolledSocket<socket2::Socket>;

/// The pause after a failed accept. Errors such as "too many open files" do not disappear at once.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(250);

/// The number of refused clients that may stay connected to read the reason. The connections of further refused clients
/// are closed at once.
const MAX_REFUSED: usize = 8;

/// The time that a refused client gets to read the reason.
const REFUSAL_TIME: Duration = Duration::from_secs(2);

/// The number of clients that may wait for the end of a session. Further clients are refused at once.
const MAX_WAITING: usize = 8;

/// The end of a session whose client has gone has three steps: the request that is in progress, the unsent bytes, and
/// the detach. Each takes at most the deadline of a request.
const STEPS_OF_SESSION_END: u32 = 3;

/// Serves debuggers until `requests` receives `Stop` or closes, or until the VM is gone.
///
/// If a session is in progress then, it ends first. Dropping the future detaches too, but does not wait for the detach.
///
/// # Errors
/// The listening socket cannot be polled. An error of a client ends only the session of that client.
pub async fn serve(
    driver: impl Driver + 'static,
    parameters: DebuggerParameters,
    requests: Receiver<WorkerRpc>,
) -> io::Result<()> {
    serve_after(driver, parameters, requests, || Ok(())).await
}

/// As [`serve`], and calls `ready` before the first client is accepted, when every descriptor that the server needs is
/// open.
pub(crate) async fn serve_after(
    driver: impl Driver + 'static,
    parameters: DebuggerParameters,
    requests: Receiver<WorkerRpc>,
    ready: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    let DebuggerParameters {
        listener,
        requests: vm,
        settings,
        statistics,
        #[cfg(feature = "open-metrics")]
        metrics,
    } = parameters;
    let driver: Arc<dyn Driver> = Arc::new(driver);
    let local_addr = listener.local_addr().to_string();
    let can_evict = listener.has_evictor();
    let (listener, evictions) = listener.into_polled(&*driver)?;
    tracing::info!(local_addr, "debug server listening");
    #[cfg(feature = "open-metrics")]
    let metrics = crate::metrics::serve(driver.clone(), metrics, statistics.clone());
    #[cfg(not(feature = "open-metrics"))]
    let metrics = std::future::pending::<std::convert::Infallible>();
    let server = Server {
        accept_pause: PolledTimer::new(&*driver),
        accept_after: None,
        queue_timer: PolledTimer::new(&*driver),
        pending: PendingClients::new(driver.clone(), settings.idle_timeout),
        queue: VecDeque::new(),
        driver,
        listener,
        evictions,
        can_evict,
        local_addr,
        vm,
        settings,
        statistics,
        refused: FuturesUnordered::new(),
        log: Log::new(),
        state: State::Listening,
    };
    ready()?;
    // race: the endpoint ends with the server
    select_biased! {
        () = pin!(server.run(requests).fuse()) => Ok(()),
        never = pin!(metrics.fuse()) => match never {},
    }
}

struct Server {
    driver: Arc<dyn Driver>,
    listener: PolledListener,
    local_addr: String,
    vm: Target,
    settings: SessionSettings,
    statistics: Statistics,
    evictions: Receiver<Eviction>,
    /// Whether the operator can evict a client.
    can_evict: bool,
    pending: PendingClients,
    /// Clients that wait for the end of a session, in the order of their first packets.
    queue: VecDeque<Waiting>,
    queue_timer: PolledTimer,
    refused: FuturesUnordered<BoxFuture<'static, ()>>,
    accept_pause: PolledTimer,
    accept_after: Option<Instant>,
    log: Log,
    state: State,
}

/// What the server does with a client that has sent its first packet.
enum State {
    /// The next client is served.
    Listening,
    /// The next client waits, and is refused if this session goes on.
    Serving(Serving),
    /// The next client waits until the VM has been detached from the last client.
    Ending(BoxFuture<'static, SessionEnd>),
}

struct Serving {
    remote_addr: String,
    /// Tells the session to end. `None` after it was used.
    request_end: Option<OneshotSender<EndRequest>>,
    client_done: ClientDone,
    session: BoxFuture<'static, Ending>,
    log: SessionLog,
}

/// A client that waits for the end of another client's session.
struct Waiting {
    client: ReadyClient,
    since: Instant,
}

/// The limits for log lines that a client can cause. Each kind has its own limit, so many lines of one kind hide no
/// line of another kind.
struct Log {
    connected: LogLimit,
    disconnected: LogLimit,
    refused: LogLimit,
    left: LogLimit,
    failed: LogLimit,
}

/// Lets the other tasks and futures of the executor's thread go on first.
async fn give_way() {
    let mut given = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut given, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl Log {
    fn new() -> Self {
        Self {
            connected: LogLimit::new(),
            disconnected: LogLimit::new(),
            refused: LogLimit::new(),
            left: LogLimit::new(),
            failed: LogLimit::new(),
        }
    }
}

impl Server {
    async fn run(mut self, mut requests: Receiver<WorkerRpc>) {
        enum Event {
            Owner(Option<WorkerRpc>),
            Session(SessionEvent),
            Refused,
            Evict,
            FirstPacket(String, Result<ReadyClient, NoFirstPacket>),
            WaitedTooLong,
            Accepted(io::Result<Accepted>),
        }
        while !self.nothing_left_to_do() {
            // Clients that connect without a pause do not keep the owner's questions waiting.
            give_way().await;
            let queue_deadline = self.queue_deadline();
            // The session comes before the clients that wait for its end, and these come before the clients without a
            // packet.
            // merge
            let event = select_biased! {
                event = self.state.event().fuse() => Event::Session(event),
                request = requests.next() => Event::Owner(request),
                Eviction = self.evictions.select_next_some() => Event::Evict,
                () = self.refused.select_next_some() => Event::Refused,
                (peer, result) = self.pending.next().fuse() => Event::FirstPacket(peer, result),
                () = sleep_until(&mut self.queue_timer, queue_deadline).fuse() => Event::WaitedTooLong,
                accepted = accept(
                    &mut self.listener,
                    &mut self.accept_pause,
                    self.accept_after,
                ).fuse() => Event::Accepted(accepted),
            };
            match event {
                Event::Owner(Some(WorkerRpc::Inspect(deferred))) => self.inspect(deferred),
                Event::Owner(Some(WorkerRpc::Stop)) => break,
                Event::Owner(None) => {
                    tracing::warn!(
                        "the debug server ends, because its owner has dropped the sender of its channel; keep the sender as long as the server has to run"
                    );
                    break;
                }
                Event::Session(SessionEvent::Ending(ending)) => self.end_session(ending),
                Event::Session(SessionEvent::Ended(end)) => self.session_ended(&end),
                Event::Refused => {}
                Event::Evict => self.evict(),
                Event::FirstPacket(_, Ok(client)) => self.first_packet(client),
                Event::FirstPacket(peer, Err(left)) => self.no_first_packet(&peer, &left),
                Event::WaitedTooLong => self.refuse_first_in_queue(),
                Event::Accepted(Ok(accepted)) => self.accepted(accepted),
                Event::Accepted(Err(error)) => self.accept_failed(&error),
            }
        }
        self.stop().await;
    }

    fn accepted(&mut self, accepted: Accepted) {
        self.accept_after = None;
        let Accepted {
            socket,
            peer,
            refused,
        } = accepted;
        let socket = match PolledSocket::new(&*self.driver, socket) {
            Ok(socket) => socket,
            Err(error) => {
                if let Some(left_out) = self.log.failed.admit() {
                    tracing::warn!(peer, %error, "cannot use the client's socket; closing it{left_out}");
                }
                return;
            }
        };
        let connection = Connection::new(
            &*self.driver,
            socket,
            Protocol::Gdb,
            self.settings.idle_timeout,
            self.statistics.clone(),
        );
        match refused {
            None => {}
            Some(PeerRefused::Gone) => return self.no_first_packet(&peer, &NoFirstPacket::Gone),
            Some(refused) => return self.refuse(connection, refused.to_string()),
        }
        if let Some(peer) = self.pending.add(connection, peer) {
            self.no_first_packet(&peer, &NoFirstPacket::TooMany);
        }
    }

    /// Logs that a client without a packet is gone or was closed.
    fn no_first_packet(&mut self, peer: &str, left: &NoFirstPacket) {
        let Some(left_out) = self.log.left.admit() else {
            return;
        };
        match left {
            // Port probes are harmless.
            NoFirstPacket::Gone | NoFirstPacket::Lost(_) => {
                tracing::info!(peer, "{left}{left_out}")
            }
            NoFirstPacket::Silent(_) | NoFirstPacket::TooMany => {
                tracing::info!(peer, "connection closed: {left}{left_out}");
            }
            NoFirstPacket::NotADebugger(_) | NoFirstPacket::WrongProtocol(_) => {
                tracing::warn!(peer, "connection closed: {left}{left_out}")
            }
        }
    }

    /// Handles a client that has sent its first packet.
    fn first_packet(&mut self, client: ReadyClient) {
        match &self.state {
            State::Listening => self.start_session(client),
            State::Serving(_) | State::Ending(_) if self.queue.len() < MAX_WAITING => {
                let since = Instant::now();
                self.queue.push_back(Waiting { client, since });
            }
            State::Serving(_) | State::Ending(_) => self.refuse_second(client),
        }
    }

    fn start_session(&mut self, client: ReadyClient) {
        let remote_addr = client.peer.clone();
        if let Some(left_out) = self.log.connected.admit() {
            tracing::info!(remote_addr, "debugger connected{left_out}");
        }
        self.statistics.session_began();
        let log = SessionLog::new(&remote_addr);
        let (request_end, end_requested) = mesh::oneshot();
        let client_done = ClientDone::default();
        let deadline = Deadline::new(self.driver.clone(), self.settings.rpc_deadline);
        let session = Session::run(
            client,
            self.vm.clone(),
            self.statistics.clone(),
            deadline,
            self.settings.clone(),
            Ends {
                requested: end_requested,
                client_done: client_done.clone(),
            },
            log.clone(),
        );
        self.state = State::Serving(Serving {
            remote_addr,
            request_end: Some(request_end),
            client_done,
            session: session.instrument(log.polled()).boxed(),
            log,
        });
    }

    /// The time that a client may wait for the end of the present session.
    fn queue_limit(&self) -> Duration {
        match &self.state {
            State::Serving(serving) if !serving.client_done.get() => self.settings.refuse_after,
            State::Listening | State::Serving(_) | State::Ending(_) => self
                .settings
                .rpc_deadline
                .saturating_mul(STEPS_OF_SESSION_END),
        }
    }

    /// The time at which the client that has waited longest is refused.
    fn queue_deadline(&self) -> Option<Instant> {
        let first = self.queue.front()?;
        first.since.checked_add(self.queue_limit())
    }

    fn refuse_first_in_queue(&mut self) {
        if let Some(first) = self.queue.pop_front() {
            self.refuse_second(first.client);
        }
    }

    fn refuse_second(&mut self, client: ReadyClient) {
        let why = match &self.state {
            State::Serving(serving) => format!(
                "another debugger is connected, from {}; close that debugger first{}",
                serving.remote_addr,
                match self.can_evict {
                    true => ", or ask the operator of the VM to evict it",
                    false => ", or end its program",
                }
            ),
            State::Listening | State::Ending(_) => {
                "the last debugger's session has not ended yet; try again".to_owned()
            }
        };
        self.refuse(client.connection, why);
    }

    fn refuse(&mut self, connection: Connection, why: String) {
        self.statistics.client_refused();
        if let Some(left_out) = self.log.refused.admit() {
            tracing::warn!(why, "debugger refused{left_out}");
        }
        if self.refused.len() < MAX_REFUSED {
            let deadline = Deadline::new(self.driver.clone(), REFUSAL_TIME);
            self.refused
                .push(async move { refuse(connection, deadline, &why).await }.boxed());
        }
    }

    fn accept_failed(&mut self, error: &io::Error) {
        if let Some(left_out) = self.log.failed.admit() {
            tracing::warn!(%error, "could not accept a debugger's connection; trying again{left_out}");
        }
        self.accept_after = Some(Instant::now() + ACCEPT_PAUSE);
    }

    /// Ends the present session by order of the operator.
    fn evict(&mut self) {
        match &mut self.state {
            State::Serving(serving) => {
                tracing::warn!(remote_addr = serving.remote_addr, "evicting the debugger");
                self.statistics.evicted();
                if let Some(request_end) = serving.request_end.take() {
                    request_end.send(EndRequest::Evict);
                }
            }
            State::Listening | State::Ending(_) => {
                tracing::warn!("there is no debugger to evict");
            }
        }
    }

    fn end_session(&mut self, mut ending: Ending) {
        if let Some(connection) = ending.refused.take() {
            self.refuse(connection, ending.why().to_string());
        }
        let span = match &self.state {
            State::Serving(serving) => serving.log.polled(),
            State::Listening | State::Ending(_) => Span::none(),
        };
        self.state = State::Ending(ending.end().instrument(span).boxed());
    }

    fn session_ended(&mut self, end: &SessionEnd) {
        self.log_end(end);
        self.state = State::Listening;
        if let Some(first) = self.queue.pop_front() {
            self.start_session(first.client);
        }
        // The other clients wait for another session now.
        let now = Instant::now();
        for waiting in &mut self.queue {
            waiting.since = now;
        }
    }

    fn log_end(&mut self, end: &SessionEnd) {
        if let Some(left_out) = self.log.disconnected.admit() {
            tracing::info!(%end, "debugger disconnected{left_out}");
        }
    }

    /// Whether the VM is gone and no client is left that has to be informed.
    fn nothing_left_to_do(&self) -> bool {
        matches!(self.state, State::Listening)
            && self.vm.is_closed()
            && self.refused.is_empty()
            && self.pending.len() == 0
    }

    fn inspect(&self, deferred: inspect::Deferred) {
        deferred.respond(|response| {
            response
                .field("local_addr", &self.local_addr)
                .field("state", self.state.name())
                .field("silent", self.pending.len())
                .field("waiting", self.queue.len())
                .field("statistics", &self.statistics);
            if let State::Serving(serving) = &self.state {
                response.field("remote_addr", &serving.remote_addr);
            }
        });
    }

    async fn stop(mut self) {
        let end = match std::mem::replace(&mut self.state, State::Listening) {
            State::Listening => return,
            State::Serving(Serving {
                request_end,
                session,
                ..
            }) => {
                if let Some(request_end) = request_end {
                    request_end.send(EndRequest::Stop);
                }
                session.await.end().await
            }
            State::Ending(ending) => ending.await,
        };
        self.log_end(&end);
    }
}

enum SessionEvent {
    Ending(Ending),
    Ended(SessionEnd),
}

impl State {
    /// Cancel safe: the session keeps its own progress.
    async fn event(&mut self) -> SessionEvent {
        match self {
            Self::Listening => std::future::pending().await,
            Self::Serving(serving) => SessionEvent::Ending((&mut serving.session).await),
            Self::Ending(ending) => SessionEvent::Ended(ending.await),
        }
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Listening => "listening",
            Self::Serving(_) => "connected",
            Self::Ending(_) => "ending",
        }
    }
}

/// Accepts the next client, but not before `after`. Cancel safe.
pub(crate) async fn accept(
    listener: &mut PolledListener,
    pause: &mut PolledTimer,
    after: Option<Instant>,
) -> io::Result<Accepted> {
    if let Some(after) = after {
        pause.sleep_until(after).await;
    }
    listener.accept().await
}

/// Waits until `then`, or for ever if `then` is `None`. Cancel safe.
async fn sleep_until(timer: &mut PolledTimer, then: Option<Instant>) {
    match then {
        Some(then) => drop(timer.sleep_until(then).await),
        None => std::future::pending().await,
    }
}
