//! The VMM's side: one worker after another, as long as the VM lives.

mod beat;
mod lost;
mod pause;

use super::child;
use super::child::Child;
use super::control;
use super::control::Control;
use super::control::FromWorker;
use super::control::ToWorker;
use super::invitation::Invitation;
use super::invitation::Shared;
use super::sandbox::Sandbox;
use crate::DebuggerParameters;
use crate::listener::Eviction;
use beat::Beat;
use beat::START_TIME;
use debug_wire::OpenSession;
use debug_wire::WireError;
use futures::FutureExt as _;
use futures::StreamExt as _;
use futures::future::FusedFuture as _;
use futures::select_biased;
use lost::Exit;
use lost::Lost;
use mesh::Receiver;
use mesh::inspect::Deferred;
use mesh::worker::WorkerRpc;
use pal_async::Driver;
use pal_async::timer::Instant;
use pal_async::timer::PolledTimer;
use pause::next_pause;
use std::future::pending;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;
use vmm_core_defs::session::SessionId;

/// The time from the request to end, or from the end of the debug socket, to the end of the process.
const END_TIME: Duration = Duration::from_secs(2);

/// The time from the beginning of a request of the worker to its end. A worker that is stopped in between is of no use either.
const MESSAGE_TIME: Duration = Duration::from_secs(5);

/// The time in which the worker has to end the session of a debugger that is to be evicted.
const EVICTION_TIME: Duration = Duration::from_secs(2);

/// Starts the workers of a debug server.
#[derive(Debug, Clone, Default)]
pub struct WorkerHost {
    log: String,
}

/// How the life of a worker ended.
enum End {
    /// The owner asked for it, or the VM is gone.
    AsWanted,
    Lost(Lost),
}

/// Tries whether a worker can be started here, and what its sandbox is. Takes a few milliseconds.
///
/// # Errors
/// No process can be started, or it does not report within 10 s.
pub fn probe(host: &WorkerHost) -> io::Result<Sandbox> {
    let (ours, theirs) = control::pair()?;
    let invitation = Invitation {
        log: host.log.clone(),
        task: None,
    };
    control::begin(&ours, invitation, &[])?;
    let mut child = child::command(theirs).spawn()?;
    let reported = ours
        .set_read_timeout(Some(START_TIME))
        .and_then(|()| control::receive(&ours));
    // It has ended, or it is of no use.
    let _ = child.kill();
    child.wait()?;
    match reported? {
        FromWorker::Ready(sandbox) => Ok(sandbox),
        FromWorker::Failed(why) => Err(io::Error::other(why)),
        FromWorker::State(..) => Err(io::ErrorKind::InvalidData.into()),
    }
}

impl WorkerHost {
    /// Workers that log as the program does by default.
    pub fn new() -> Self {
        Self::default()
    }

    /// The setting of the log, which [`try_run_worker`](super::try_run_worker) gives to the program's own function.
    #[must_use]
    pub fn log(mut self, setting: impl Into<String>) -> Self {
        self.log = setting.into();
        self
    }

    /// As [`serve`](crate::serve), in a process of its own. If the process ends or hangs, another one takes its place.
    ///
    /// The counters of [`DebuggerParameters::statistics`] stay zero: each worker counts for itself, and shows its counters in `monitor stats`, by `Inspect` and at the OpenMetrics endpoint.
    ///
    /// Dropping the future kills the worker, which detaches from the VM.
    ///
    /// # Errors
    /// None at present: a worker that cannot be started is an error in the log, and is tried again.
    pub async fn serve(
        self,
        driver: impl Driver + 'static,
        parameters: DebuggerParameters,
        mut requests: Receiver<WorkerRpc>,
    ) -> io::Result<()> {
        let driver: Arc<dyn Driver> = Arc::new(driver);
        let mut shared = Shared::of(parameters);
        let mut pause = Duration::ZERO;
        loop {
            let began = Instant::now();
            let lost = match self.one_worker(&*driver, &mut shared, &mut requests).await {
                Ok(End::AsWanted) => return Ok(()),
                Ok(End::Lost(lost)) => lost,
                Err(error) => Lost::NotStarted(error),
            };
            if shared.requests.is_closed() {
                return Ok(());
            }
            pause = next_pause(pause, began.elapsed());
            tracing::warn!(
                restart_after = ?pause,
                "the process of the debug server is gone: {lost}; the guest is detached, and a new process serves the next debugger"
            );
            if wait(&*driver, pause, &mut shared, &mut requests)
                .await
                .is_break()
            {
                return Ok(());
            }
        }
    }

    /// Runs one worker, from its start to its end.
    async fn one_worker(
        &self,
        driver: &dyn Driver,
        shared: &mut Shared,
        requests: &mut Receiver<WorkerRpc>,
    ) -> io::Result<End> {
        let (ours, theirs) = control::pair()?;
        let (debug, workers) = UnixStream::pair()?;
        let (task, descriptors) = shared.task(workers)?;
        let invitation = Invitation {
            log: self.log.clone(),
            task: Some(task),
        };
        control::begin(&ours, invitation, &descriptors)?;
        drop(descriptors);
        let control = Control::new(driver, ours)?;
        let child = Child::start(theirs).await?;
        tracing::debug!(
            pid = child.pid,
            "the process of the debug server was started"
        );
        let worker = Supervised {
            child,
            control,
            beat: Beat::new(),
            inspections: Vec::new(),
            session: OpenSession::default(),
            evicted: None,
            ending: None,
        };
        Ok(worker.supervise(driver, debug, shared, requests).await)
    }
}

/// A worker's process with what the VMM knows of it.
struct Supervised {
    child: Child,
    control: Control,
    beat: Beat,
    /// The owner's questions.
    inspections: Vec<Deferred>,
    /// The session of the worker, as the VMM's side of its debug socket sees it.
    session: OpenSession,
    /// A session that the worker was told to end, and the time at which it must have ended.
    evicted: Option<(SessionId, Instant)>,
    /// The process is to end, or has closed a socket. It is killed at this time.
    ending: Option<(End, Instant)>,
}

enum Event {
    Exit(io::Result<ExitStatus>),
    Wire(Result<(), WireError>),
    Message(io::Result<FromWorker>),
    Owner(Option<WorkerRpc>),
    Evict,
    Timer,
}

impl Supervised {
    async fn supervise(
        mut self,
        driver: &dyn Driver,
        debug: UnixStream,
        shared: &mut Shared,
        requests: &mut Receiver<WorkerRpc>,
    ) -> End {
        let mut timer = PolledTimer::new(driver);
        let session = self.session.clone();
        let requests_of_vm = shared.requests.clone();
        let wire = debug_wire::serve_watched(driver, debug, requests_of_vm, MESSAGE_TIME, &session);
        let mut wire = pin!(wire.fuse());
        let exit = loop {
            let deadline = self.deadline();
            let listens = self.ending.is_none();
            // merge
            let event = select_biased! {
                exit = pin!(self.child.exited().fuse()) => Event::Exit(exit),
                ended = wire => Event::Wire(ended),
                message = pin!(message(&mut self.control, listens).fuse()) => Event::Message(message),
                request = requests.next() => Event::Owner(request),
                Eviction = shared.listener.evictions().select_next_some() => Event::Evict,
                _ = pin!(timer.sleep_until(deadline).fuse()) => Event::Timer,
            };
            match event {
                Event::Exit(exit) => break exit,
                Event::Wire(Ok(())) => self.end(End::Lost(Lost::Closed), END_TIME),
                Event::Wire(Err(error)) => self.end(End::Lost(Lost::Wire(error)), Duration::ZERO),
                Event::Message(message) => self.message(message),
                Event::Owner(Some(WorkerRpc::Inspect(deferred))) => self.inspect(deferred),
                Event::Owner(Some(WorkerRpc::Stop) | None) => {
                    self.say(&ToWorker::Stop);
                    self.end(End::AsWanted, END_TIME);
                }
                Event::Evict => self.evict(),
                Event::Timer => self.time_is_up(),
            }
        };
        // The process holds the other end no more, so the rest of its requests is read at once.
        if !wire.is_terminated() {
            // race: a socket that something else holds is not waited for
            select_biased! {
                _ = wire => {}
                _ = pin!(timer.sleep(END_TIME).fuse()) => {}
            }
        }
        match (self.ending, exit) {
            (Some((End::Lost(Lost::Closed | Lost::Control(_)), _)) | None, Ok(status)) => {
                End::Lost(Lost::Exited(Exit(status)))
            }
            (Some((end, _)), _) => end,
            (None, Err(error)) => End::Lost(Lost::Control(error)),
        }
    }

    fn deadline(&self) -> Instant {
        match (&self.ending, self.evicted) {
            (Some((_, kill_at)), _) => *kill_at,
            (None, Some((_, must_end))) => self.beat.deadline.min(must_end),
            (None, None) => self.beat.deadline,
        }
    }

    /// The process has this time to end by itself. The first reason counts.
    fn end(&mut self, end: End, time: Duration) {
        if self.ending.is_none() {
            self.ending = Some((end, Instant::now() + time));
        }
    }

    fn say(&mut self, message: &ToWorker) {
        // A worker that has not read for so long that the socket is full hangs.
        if let Err(error) = self.control.try_send(message) {
            self.end(End::Lost(Lost::Control(error)), Duration::ZERO);
        }
    }

    fn evict(&mut self) {
        let must_end = Instant::now() + EVICTION_TIME;
        self.evicted = self.session.get().map(|session| (session, must_end));
        self.say(&ToWorker::Evict);
    }

    /// A worker in other hands may not obey, and lives on.
    fn check_eviction(&mut self) {
        if let Some((session, _)) = self.evicted.take_if(|(_, end)| *end <= Instant::now())
            && self.session.get() == Some(session)
        {
            self.end(End::Lost(Lost::NotEvicted), Duration::ZERO);
        }
    }

    fn message(&mut self, message: io::Result<FromWorker>) {
        match message {
            Ok(FromWorker::Ready(sandbox)) if !self.beat.ready => {
                tracing::debug!(pid = self.child.pid, "the debug server runs in {sandbox}");
                self.beat.ready();
            }
            Ok(FromWorker::State(id, fields)) if self.beat.asked == Some(id) => {
                self.beat.answered();
                for deferred in self.inspections.drain(..) {
                    let pid = self.child.pid;
                    deferred.respond(|response| {
                        response.field("pid", pid);
                        for (name, value) in &fields {
                            response.field(name, value);
                        }
                    });
                }
            }
            Ok(FromWorker::Failed(why)) => self.end(End::Lost(Lost::Failed(why)), END_TIME),
            Ok(FromWorker::Ready(_) | FromWorker::State(..)) => {
                self.end(End::Lost(Lost::Unexpected), Duration::ZERO);
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.end(End::Lost(Lost::Control(error)), END_TIME);
            }
            Err(error) => self.end(End::Lost(Lost::Control(error)), Duration::ZERO),
        }
    }

    fn inspect(&mut self, deferred: Deferred) {
        self.inspections.push(deferred);
        // A worker that is not ready is asked when it is.
        if self.beat.ready && self.beat.asked.is_none() {
            let question = self.beat.ask();
            self.say(&question);
        }
    }

    fn time_is_up(&mut self) {
        if self.ending.is_some() {
            self.child.kill();
            // The end of the process is the next event.
            if let Some((_, kill_at)) = &mut self.ending {
                *kill_at += START_TIME;
            }
            return;
        }
        self.check_eviction();
        if self.ending.is_some() || self.beat.deadline > Instant::now() {
            return;
        }
        match self.beat.time_is_up() {
            Ok(Some(question)) => self.say(&question),
            Ok(None) => {}
            Err(lost) => {
                self.end(End::Lost(lost), Duration::ZERO);
            }
        }
    }
}

/// The next message, if the worker is listened to. Cancel safe.
async fn message(control: &mut Control, listens: bool) -> io::Result<FromWorker> {
    match listens {
        true => control.receive().await,
        false => pending().await,
    }
}

/// Waits before the next worker, and answers the owner. `Break`: there is to be no next worker.
async fn wait(
    driver: &dyn Driver,
    pause: Duration,
    shared: &mut Shared,
    requests: &mut Receiver<WorkerRpc>,
) -> ControlFlow<()> {
    let mut timer = PolledTimer::new(driver);
    let until = Instant::now() + pause;
    loop {
        // merge
        select_biased! {
            request = requests.next() => match request {
                Some(WorkerRpc::Inspect(deferred)) => deferred.respond(|response| {
                    response.field("state", "restarting");
                }),
                Some(WorkerRpc::Stop) | None => return ControlFlow::Break(()),
            },
            Eviction = shared.listener.evictions().select_next_some() => {
                tracing::warn!("there is no debugger to evict");
            }
            _ = pin!(timer.sleep_until(until).fuse()) => return ControlFlow::Continue(()),
        }
    }
}
