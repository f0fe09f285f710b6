//! The actor: listens, serves one client at a time, refuses the others, answers its owner.
//!
//! ```text
//!  listener ---> Lobby ---- first packet, nobody is served ----------------------------> State::Serving
//!                  |                                                                        ^
//!                  +------- first packet, another is served ---> queue --- that one ended --+
//!                                                                  |
//!                                                                  +------ that one stays ---> refused
//! ```

use crate::connection::Connection;
use crate::deadline::Deadline;
use crate::listener::Accepted;
use crate::listener::DebugListener;
use crate::listener::Eviction;
use crate::listener::PolledListener;
use crate::lobby::Left;
use crate::lobby::Lobby;
use crate::lobby::Visitor;
use crate::log_limit::LogLimit;
use crate::opening::Opening;
use crate::peer_owner::Uninvited;
use crate::refusal::refuse;
use crate::session::Ending;
use crate::session::Leaving;
use crate::session::Session;
use crate::session::SessionEnd;
use crate::session::Told;
use futures::FutureExt;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::select_biased;
use futures::stream::FuturesUnordered;
use mesh::OneshotSender;
use mesh::Receiver;
use mesh::Sender;
use mesh::inspect;
use mesh::worker::WorkerRpc;
use pal_async::Driver;
use pal_async::socket::PolledSocket;
use pal_async::timer::Instant;
use pal_async::timer::PolledTimer;
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use vmm_core_defs::debug_rpc::DebugMessage;
use vmm_core_defs::debug_rpc::DetachAction;

/// A connected client.
pub(crate) type Socket = PolledSocket<socket2::Socket>;

/// How long to leave the listener alone after a failed accept: such as "too many open files" do not pass at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);

/// So many refused clients may linger; further ones are cut off without a word.
const MAX_REFUSED: usize = 8;

/// How long a refused client may take to read why.
const REFUSAL_TIME: Duration = Duration::from_secs(2);

/// So many clients may wait for the end of a session; further ones are refused at once.
const MAX_WAITING: usize = 8;

/// A session whose client has gone ends in three steps that each take the deadline of a request at most: the request that is out, what is
/// left to send, and the detach.
const STEPS_OF_AN_END: u32 = 3;

/// What a debug server needs.
#[derive(Debug)]
pub struct DebuggerParameters {
    /// Where clients come from.
    pub listener: DebugListener,
    /// Where the guest is controlled.
    pub requests: Sender<DebugMessage>,
    /// How sessions behave.
    pub settings: SessionSettings,
}

/// How sessions behave.
#[derive(Debug, Clone)]
pub struct SessionSettings {
    /// What becomes of the guest when a client is lost or sends `k`. After GDB's `detach` it always runs on.
    pub on_disconnect: DetachAction,
    /// How long the VM may take for any request but `Resume`.
    pub rpc_deadline: Duration,
    /// How long a client may take to send its first packet, and how long any client may leave unread what is sent to it. A client that has
    /// sent a packet is never closed for being quiet.
    pub idle_timeout: Duration,
    /// How long a client waits for one that is served before it is refused. Where that one is going already it waits for the end of its session.
    pub refuse_after: Duration,
    /// Where `monitor dump` may make files on this machine. A client chooses their names, and overwrites none. `None`: the command is refused.
    pub dump_folder: Option<PathBuf>,
}

impl Default for SessionSettings {
    /// The guest runs on; 5 seconds; 30 seconds; half a second; no dumps.
    fn default() -> Self {
        Self {
            on_disconnect: DetachAction::Resume,
            rpc_deadline: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(30),
            refuse_after: Duration::from_millis(500),
            dump_folder: None,
        }
    }
}

/// Serves debuggers until `requests` says stop or closes, or the VM is gone.
///
/// A session that is under way then is ended first. Dropping the future detaches too, but does not wait for it.
///
/// # Errors
/// Only where the listening socket cannot be polled at all. What goes wrong with a client ends that client's session.
pub async fn serve(
    driver: impl Driver + 'static,
    parameters: DebuggerParameters,
    requests: Receiver<WorkerRpc>,
) -> io::Result<()> {
    let DebuggerParameters {
        listener,
        requests: vm,
        settings,
    } = parameters;
    let driver: Arc<dyn Driver> = Arc::new(driver);
    let local_addr = listener.local_addr().to_string();
    let (listener, evictions) = listener.into_polled(&*driver)?;
    tracing::info!(local_addr, "debug server listening");
    let server = Server {
        accept_pause: PolledTimer::new(&*driver),
        accept_after: None,
        queue_timer: PolledTimer::new(&*driver),
        lobby: Lobby::new(driver.clone(), settings.idle_timeout),
        queue: VecDeque::new(),
        driver,
        listener,
        evictions,
        local_addr,
        vm,
        settings,
        refused: FuturesUnordered::new(),
        log: Log::new(),
        state: State::Listening,
    };
    server.run(requests).await;
    Ok(())
}

struct Server {
    driver: Arc<dyn Driver>,
    listener: PolledListener,
    local_addr: String,
    vm: Sender<DebugMessage>,
    settings: SessionSettings,
    evictions: Receiver<Eviction>,
    lobby: Lobby,
    /// Clients that wait for the end of a session, in the order in which they spoke.
    queue: VecDeque<Waiting>,
    queue_timer: PolledTimer,
    refused: FuturesUnordered<BoxFuture<'static, ()>>,
    accept_pause: PolledTimer,
    accept_after: Option<Instant>,
    log: Log,
    state: State,
}

/// What the server does with clients that have sent a packet.
enum State {
    /// The next one is served.
    Listening,
    /// The next one waits, and is refused where this one stays.
    Serving(Serving),
    /// The next one waits until the VM has been told that the last one is gone.
    Ending(BoxFuture<'static, SessionEnd>),
}

struct Serving {
    remote_addr: String,
    /// Ends the session. `None` once it was told to.
    told: Option<OneshotSender<Told>>,
    leaving: Leaving,
    session: BoxFuture<'static, Ending>,
}

/// A client that waits for the end of another's session.
struct Waiting {
    visitor: Visitor,
    since: Instant,
}

/// Limits for the lines that a client can cause, one for each kind: a flood of one hides no other.
struct Log {
    connected: LogLimit,
    disconnected: LogLimit,
    refused: LogLimit,
    left: LogLimit,
    failed: LogLimit,
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
            Arrived(String, Result<Visitor, Left>),
            Impatient,
            Accepted(io::Result<Accepted>),
        }
        while !self.is_pointless() {
            let impatient_at = self.impatient_at();
            // merge; the session comes before those who wait for its end, and they before those who have said nothing
            let event = select_biased! {
                event = self.state.event().fuse() => Event::Session(event),
                request = requests.next() => Event::Owner(request),
                Eviction = self.evictions.select_next_some() => Event::Evict,
                () = self.refused.select_next_some() => Event::Refused,
                (peer, arrival) = self.lobby.next().fuse() => Event::Arrived(peer, arrival),
                () = sleep_until(&mut self.queue_timer, impatient_at).fuse() => Event::Impatient,
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
                        "the debug server ends, since its owner has dropped the channel to it; keep the sender to keep the server"
                    );
                    break;
                }
                Event::Session(SessionEvent::Ending(ending)) => self.end_session(ending),
                Event::Session(SessionEvent::Ended(end)) => self.session_ended(&end),
                Event::Refused => {}
                Event::Evict => self.evict(),
                Event::Arrived(_, Ok(visitor)) => self.spoke(visitor),
                Event::Arrived(peer, Err(left)) => self.left(&peer, &left),
                Event::Impatient => self.refuse_impatient(),
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
            uninvited,
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
            Opening::Packets,
            self.settings.idle_timeout,
        );
        match uninvited {
            None => {}
            Some(Uninvited::Gone) => return self.left(&peer, &Left::Gone),
            Some(uninvited) => return self.refuse(connection, uninvited.to_string()),
        }
        if let Some(peer) = self.lobby.enter(connection, peer) {
            self.left(&peer, &Left::CrowdedOut);
        }
    }

    /// A client went, or was sent away, before it had sent a packet.
    fn left(&mut self, peer: &str, left: &Left) {
        let Some(left_out) = self.log.left.admit() else {
            return;
        };
        match left {
            // Port probes are nothing to worry about.
            Left::Gone | Left::Lost(_) => tracing::info!(peer, "{left}{left_out}"),
            Left::Silent(_) | Left::CrowdedOut => {
                tracing::info!(peer, "connection closed: {left}{left_out}");
            }
            Left::NoDebugger(_) | Left::Stranger(_) => {
                tracing::warn!(peer, "connection closed: {left}{left_out}")
            }
        }
    }

    /// A client has sent its first packet.
    fn spoke(&mut self, visitor: Visitor) {
        match &self.state {
            State::Listening => self.start_session(visitor),
            State::Serving(_) | State::Ending(_) if self.queue.len() < MAX_WAITING => {
                let since = Instant::now();
                self.queue.push_back(Waiting { visitor, since });
            }
            State::Serving(_) | State::Ending(_) => self.refuse_second(visitor),
        }
    }

    fn start_session(&mut self, visitor: Visitor) {
        let remote_addr = visitor.peer.clone();
        if let Some(left_out) = self.log.connected.admit() {
            tracing::info!(remote_addr, "debugger connected{left_out}");
        }
        let (tell, told) = mesh::oneshot();
        let leaving = Leaving::default();
        let deadline = Deadline::new(self.driver.clone(), self.settings.rpc_deadline);
        let session = Session::run(
            visitor,
            self.vm.clone(),
            deadline,
            self.settings.on_disconnect,
            self.settings.dump_folder.clone(),
            told,
            leaving.clone(),
        );
        self.state = State::Serving(Serving {
            remote_addr,
            told: Some(tell),
            leaving,
            session: session.boxed(),
        });
    }

    /// How long a client may wait for the present session's end.
    fn patience(&self) -> Duration {
        match &self.state {
            State::Serving(serving) if !serving.leaving.get() => self.settings.refuse_after,
            State::Listening | State::Serving(_) | State::Ending(_) => {
                self.settings.rpc_deadline.saturating_mul(STEPS_OF_AN_END)
            }
        }
    }

    /// When the client that has waited for the longest has waited for too long.
    fn impatient_at(&self) -> Option<Instant> {
        let first = self.queue.front()?;
        first.since.checked_add(self.patience())
    }

    fn refuse_impatient(&mut self) {
        if let Some(first) = self.queue.pop_front() {
            self.refuse_second(first.visitor);
        }
    }

    fn refuse_second(&mut self, visitor: Visitor) {
        let why = match &self.state {
            State::Serving(serving) => format!(
                "another debugger is connected, from {}; close that one first, or have the operator of the VM evict it",
                serving.remote_addr
            ),
            State::Listening | State::Ending(_) => {
                "the last debugger's session has not ended yet; try again".to_owned()
            }
        };
        self.refuse(visitor.connection, why);
    }

    fn refuse(&mut self, connection: Connection, why: String) {
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

    /// The operator throws out whoever is served.
    fn evict(&mut self) {
        match &mut self.state {
            State::Serving(serving) => {
                tracing::warn!(remote_addr = serving.remote_addr, "evicting the debugger");
                if let Some(told) = serving.told.take() {
                    told.send(Told::Evict);
                }
            }
            State::Listening | State::Ending(_) => {
                tracing::warn!("there is no debugger to evict");
            }
        }
    }

    fn end_session(&mut self, mut ending: Ending) {
        if let Some(connection) = ending.turned_away.take() {
            self.refuse(connection, ending.why().to_string());
        }
        self.state = State::Ending(ending.end().boxed());
    }

    fn session_ended(&mut self, end: &SessionEnd) {
        self.log_end(end);
        self.state = State::Listening;
        if let Some(first) = self.queue.pop_front() {
            self.start_session(first.visitor);
        }
        // Those behind wait for another client now.
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

    /// The VM is gone, and nobody is left who has to be told.
    fn is_pointless(&self) -> bool {
        matches!(self.state, State::Listening)
            && self.vm.is_closed()
            && self.refused.is_empty()
            && self.lobby.len() == 0
    }

    fn inspect(&self, deferred: inspect::Deferred) {
        deferred.respond(|response| {
            response
                .field("local_addr", &self.local_addr)
                .field("state", self.state.name())
                .field("silent", self.lobby.len())
                .field("waiting", self.queue.len());
            if let State::Serving(serving) = &self.state {
                response.field("remote_addr", &serving.remote_addr);
            }
        });
    }

    async fn stop(mut self) {
        let end = match std::mem::replace(&mut self.state, State::Listening) {
            State::Listening => return,
            State::Serving(Serving { told, session, .. }) => {
                if let Some(told) = told {
                    told.send(Told::Stop);
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

/// The next client, but not before `after`. Cancel safe.
async fn accept(
    listener: &mut PolledListener,
    pause: &mut PolledTimer,
    after: Option<Instant>,
) -> io::Result<Accepted> {
    if let Some(after) = after {
        pause.sleep_until(after).await;
    }
    listener.accept().await
}

/// Waits until then, for ever without a time. Cancel safe.
async fn sleep_until(timer: &mut PolledTimer, then: Option<Instant>) {
    match then {
        Some(then) => drop(timer.sleep_until(then).await),
        None => std::future::pending().await,
    }
}
