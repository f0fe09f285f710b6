//! The actor: listens, serves one client at a time, refuses the others, answers its owner.

use crate::deadline::Deadline;
use crate::listener::DebugListener;
use crate::listener::PolledListener;
use crate::refusal::refuse;
use crate::session::Ending;
use crate::session::Session;
use crate::session::SessionEnd;
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
use std::io;
use std::sync::Arc;
use std::time::Duration;
use vmm_core_defs::debug_rpc::DebugRequest;
use vmm_core_defs::debug_rpc::DetachAction;

/// A connected client.
pub(crate) type Socket = PolledSocket<socket2::Socket>;

/// How long to leave the listener alone after a failed accept: such as "too many open files" do not pass at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);

/// So many refused clients may linger; further ones are cut off without a word.
const MAX_REFUSED: usize = 8;

/// How long a refused client may take to read why.
const REFUSAL_TIME: Duration = Duration::from_secs(2);

/// What a debug server needs.
#[derive(Debug)]
pub struct DebuggerParameters {
    /// Where clients come from.
    pub listener: DebugListener,
    /// Where the guest is controlled.
    pub requests: Sender<DebugRequest>,
    /// How sessions behave.
    pub settings: SessionSettings,
}

/// How sessions behave.
#[derive(Debug, Clone, Copy)]
pub struct SessionSettings {
    /// What becomes of the guest when a client is lost or sends `k`. After GDB's `detach` it always runs on.
    pub on_disconnect: DetachAction,
    /// How long the VM may take for any request but `Resume`.
    pub rpc_deadline: Duration,
}

impl Default for SessionSettings {
    /// The guest runs on; 5 seconds.
    fn default() -> Self {
        Self {
            on_disconnect: DetachAction::Resume,
            rpc_deadline: Duration::from_secs(5),
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
    let listener = listener.into_polled(&*driver)?;
    tracing::info!(local_addr, "debug server listening");
    let server = Server {
        accept_pause: PolledTimer::new(&*driver),
        accept_after: None,
        driver,
        listener,
        local_addr,
        vm,
        settings,
        refused: FuturesUnordered::new(),
        state: State::Listening,
    };
    server.run(requests).await;
    Ok(())
}

struct Server {
    driver: Arc<dyn Driver>,
    listener: PolledListener,
    local_addr: String,
    vm: Sender<DebugRequest>,
    settings: SessionSettings,
    refused: FuturesUnordered<BoxFuture<'static, ()>>,
    accept_pause: PolledTimer,
    accept_after: Option<Instant>,
    state: State,
}

/// What the server does with clients.
enum State {
    /// The next client is served.
    Listening,
    /// The next client is refused.
    Serving(Serving),
    /// The next client waits until the VM has been told that the last one is gone.
    Ending(BoxFuture<'static, SessionEnd>),
}

struct Serving {
    remote_addr: String,
    /// Ends the session.
    stop: OneshotSender<()>,
    session: BoxFuture<'static, Ending>,
}

impl Server {
    async fn run(mut self, mut requests: Receiver<WorkerRpc>) {
        enum Event {
            Owner(Option<WorkerRpc>),
            Session(SessionEvent),
            Refused,
            Accepted(io::Result<(socket2::Socket, String)>),
        }
        while !self.is_pointless() {
            let accept = self.state.accepts();
            // merge; the session comes before the listener, so that a client which follows another is not refused
            let event = select_biased! {
                event = self.state.event().fuse() => Event::Session(event),
                request = requests.next() => Event::Owner(request),
                () = self.refused.select_next_some() => Event::Refused,
                accepted = accept_if(
                    accept,
                    &mut self.listener,
                    &mut self.accept_pause,
                    self.accept_after,
                ).fuse() => Event::Accepted(accepted),
            };
            match event {
                Event::Owner(Some(WorkerRpc::Inspect(deferred))) => self.inspect(deferred),
                Event::Owner(Some(WorkerRpc::Stop) | None) => break,
                Event::Session(SessionEvent::Ending(ending)) => self.end_session(ending),
                Event::Session(SessionEvent::Ended(end)) => self.session_ended(&end),
                Event::Refused => {}
                Event::Accepted(Ok((socket, peer))) => self.accepted(socket, peer),
                Event::Accepted(Err(error)) => self.accept_failed(&error),
            }
        }
        self.stop().await;
    }

    fn accepted(&mut self, socket: socket2::Socket, peer: String) {
        self.accept_after = None;
        let socket = match PolledSocket::new(&*self.driver, socket) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!(peer, %error, "cannot use the client's socket; closing it");
                return;
            }
        };
        match &self.state {
            State::Serving(serving) => {
                let why = format!(
                    "another debugger is connected, from {}; close that one first",
                    serving.remote_addr
                );
                self.refuse(socket, why);
            }
            State::Listening | State::Ending(_) => self.start_session(socket, peer),
        }
    }

    fn start_session(&mut self, socket: Socket, remote_addr: String) {
        tracing::info!(remote_addr, "debugger connected");
        let (stop, told_to_stop) = mesh::oneshot();
        let deadline = Deadline::new(self.driver.clone(), self.settings.rpc_deadline);
        let session = Session::run(
            socket,
            self.vm.clone(),
            deadline,
            self.settings.on_disconnect,
            told_to_stop,
        );
        self.state = State::Serving(Serving {
            remote_addr,
            stop,
            session: session.boxed(),
        });
    }

    fn refuse(&mut self, socket: Socket, why: String) {
        tracing::warn!(why, "debugger refused");
        if self.refused.len() < MAX_REFUSED {
            let deadline = Deadline::new(self.driver.clone(), REFUSAL_TIME);
            self.refused
                .push(async move { refuse(socket, deadline, &why).await }.boxed());
        }
    }

    fn accept_failed(&mut self, error: &io::Error) {
        tracing::warn!(%error, "could not accept a debugger's connection; trying again");
        self.accept_after = Some(Instant::now() + ACCEPT_PAUSE);
    }

    fn end_session(&mut self, mut ending: Ending) {
        if let Some(socket) = ending.turned_away.take() {
            self.refuse(socket, ending.why().to_string());
        }
        self.state = State::Ending(ending.end().boxed());
    }

    fn session_ended(&mut self, end: &SessionEnd) {
        tracing::info!(%end, "debugger disconnected");
        self.state = State::Listening;
    }

    /// The VM is gone, and nobody is left who has to be told.
    fn is_pointless(&self) -> bool {
        matches!(self.state, State::Listening) && self.vm.is_closed() && self.refused.is_empty()
    }

    fn inspect(&self, deferred: inspect::Deferred) {
        deferred.respond(|response| {
            response
                .field("local_addr", &self.local_addr)
                .field("state", self.state.name());
            if let State::Serving(serving) = &self.state {
                response.field("remote_addr", &serving.remote_addr);
            }
        });
    }

    async fn stop(self) {
        let ending = match self.state {
            State::Listening => return,
            State::Serving(Serving { stop, session, .. }) => {
                stop.send(());
                session.await.end().boxed()
            }
            State::Ending(ending) => ending,
        };
        let end = ending.await;
        tracing::info!(%end, "debugger disconnected");
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

    const fn accepts(&self) -> bool {
        match self {
            Self::Listening | Self::Serving(_) => true,
            Self::Ending(_) => false,
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

/// The next client, but not before `after`, and none at all unless `open`. Cancel safe.
async fn accept_if(
    open: bool,
    listener: &mut PolledListener,
    pause: &mut PolledTimer,
    after: Option<Instant>,
) -> io::Result<(socket2::Socket, String)> {
    if !open {
        std::future::pending::<()>().await;
    }
    if let Some(after) = after {
        pause.sleep_until(after).await;
    }
    listener.accept().await
}
