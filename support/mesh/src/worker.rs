//! Workers: a piece of a VMM that is started, asked and stopped from outside, here each on its own thread.
//!
//! In OpenVMM this is the crate `mesh_worker`, where the same [`Worker`] can also be put in a process of its own.

use crate::Receiver;
use crate::RecvError;
use crate::Sender;
use crate::channel;
use crate::error::RemoteError;
use crate::inspect;
use crate::rpc::PendingRpc;
use crate::rpc::RpcSend;
use anyhow::Context as _;
use futures::Stream;
use futures::StreamExt;
use futures::stream::FusedStream;
use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;

/// The name of a kind of worker, tied to the type of its parameters.
pub struct WorkerId<T> {
    id: &'static str,
    parameters: PhantomData<fn(T)>,
}

impl<T> WorkerId<T> {
    /// A worker named `id`.
    pub const fn new(id: &'static str) -> Self {
        Self {
            id,
            parameters: PhantomData,
        }
    }

    /// The name.
    pub const fn id(&self) -> &'static str {
        self.id
    }
}

impl<T> fmt::Debug for WorkerId<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WorkerId").field(&self.id).finish()
    }
}

/// Something that runs until it is told to stop.
pub trait Worker: 'static + Sized {
    /// What it is started with.
    type Parameters: 'static + Send;

    /// Its name.
    const ID: WorkerId<Self::Parameters>;

    /// Makes it, on the thread it will run on.
    fn new(parameters: Self::Parameters) -> anyhow::Result<Self>;

    /// Runs it until [`WorkerRpc::Stop`] arrives, the channel closes, or it fails.
    fn run(self, requests: Receiver<WorkerRpc>) -> anyhow::Result<()>;
}

/// What a worker is asked while it runs.
#[derive(Debug)]
pub enum WorkerRpc {
    /// Clean up and return from [`Worker::run`].
    Stop,
    /// Tell about yourself.
    Inspect(inspect::Deferred),
}

/// What has happened to a worker.
#[derive(Debug)]
pub enum WorkerEvent {
    /// It was made and runs.
    Started,
    /// It has ended as it was told to. The last event.
    Stopped,
    /// It could not be made, or ended by itself with an error. The last event.
    Failed(RemoteError),
}

/// A running worker. Dropping the handle tells the worker to stop, and does not wait for it.
#[derive(Debug)]
pub struct WorkerHandle {
    name: &'static str,
    requests: Sender<WorkerRpc>,
    events: Receiver<WorkerEvent>,
}

impl WorkerHandle {
    /// Tells the worker to stop; [`WorkerHandle::join`] waits for it.
    pub fn stop(&mut self) {
        self.requests.send(WorkerRpc::Stop);
    }

    /// Asks the worker about itself.
    pub fn inspect_state(&self) -> PendingRpc<inspect::Response> {
        self.requests.call(|rpc| WorkerRpc::Inspect(rpc.into()), ())
    }

    /// Waits until the worker has ended. Cancel safe.
    pub async fn join(&mut self) -> anyhow::Result<()> {
        loop {
            match self.next().await {
                Some(WorkerEvent::Started) => {}
                Some(WorkerEvent::Stopped) => return Ok(()),
                Some(WorkerEvent::Failed(error)) => {
                    return Err(error).with_context(|| format!("worker {} failed", self.name));
                }
                None => {
                    return Err(RecvError::Closed)
                        .with_context(|| format!("worker {} panicked", self.name));
                }
            }
        }
    }
}

impl Stream for WorkerHandle {
    type Item = WorkerEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<WorkerEvent>> {
        self.events.poll_next_unpin(cx)
    }
}

impl FusedStream for WorkerHandle {
    fn is_terminated(&self) -> bool {
        self.events.is_terminated()
    }
}

impl Drop for WorkerHandle {
    fn drop(&mut self) {
        self.requests.send(WorkerRpc::Stop);
    }
}

/// Starts a worker on a thread of its own and waits until it runs.
///
/// Fails where the thread cannot be created or [`Worker::new`] fails.
pub async fn launch_local_worker<T: Worker>(
    parameters: T::Parameters,
) -> anyhow::Result<WorkerHandle> {
    let name = T::ID.id();
    let (requests, worker_requests) = channel();
    let (worker_events, events) = channel();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || run_worker::<T>(parameters, worker_requests, &worker_events))
        .with_context(|| format!("failed to create a thread for worker {name}"))?;
    let mut handle = WorkerHandle {
        name,
        requests,
        events,
    };
    match handle.next().await {
        Some(WorkerEvent::Started) => Ok(handle),
        Some(WorkerEvent::Failed(error)) => {
            Err(error).with_context(|| format!("failed to start worker {name}"))
        }
        Some(WorkerEvent::Stopped) | None => {
            Err(RecvError::Closed).with_context(|| format!("worker {name} panicked"))
        }
    }
}

fn run_worker<T: Worker>(
    parameters: T::Parameters,
    requests: Receiver<WorkerRpc>,
    events: &Sender<WorkerEvent>,
) {
    let result = T::new(parameters).and_then(|worker| {
        events.send(WorkerEvent::Started);
        worker.run(requests)
    });
    events.send(match result {
        Ok(()) => WorkerEvent::Stopped,
        Err(error) => WorkerEvent::Failed(RemoteError::new(error)),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OneshotSender;
    use futures::executor::block_on;

    enum Start {
        Well(OneshotSender<&'static str>),
        Badly,
        ThenFail,
    }

    struct Echo(Start);

    impl Worker for Echo {
        type Parameters = Start;
        const ID: WorkerId<Start> = WorkerId::new("echo");

        fn new(start: Start) -> anyhow::Result<Self> {
            match start {
                Start::Badly => anyhow::bail!("the port is in use"),
                start => Ok(Self(start)),
            }
        }

        fn run(self, mut requests: Receiver<WorkerRpc>) -> anyhow::Result<()> {
            let Start::Well(ended) = self.0 else {
                anyhow::bail!("lost the listener");
            };
            loop {
                match block_on(requests.recv())? {
                    WorkerRpc::Stop => break,
                    WorkerRpc::Inspect(deferred) => deferred.respond(|response| {
                        response.field("state", "listening").field("port", 1234);
                    }),
                }
            }
            ended.send("cleaned up");
            Ok(())
        }
    }

    #[test]
    fn a_worker_is_inspected_and_stopped() {
        block_on(async {
            let (ended, end) = crate::oneshot();
            let mut worker = launch_local_worker::<Echo>(Start::Well(ended))
                .await
                .unwrap();
            let state = worker.inspect_state().await.unwrap();
            assert_eq!(state.get("port"), Some("1234"));
            assert_eq!(state.get("missing"), None);
            worker.stop();
            worker.join().await.unwrap();
            assert_eq!(end.await, Ok("cleaned up"));
            assert!(
                worker.inspect_state().await.is_err(),
                "a worker that has ended answers nothing, at once"
            );
        });
    }

    #[test]
    fn a_dropped_handle_stops_the_worker() {
        block_on(async {
            let (ended, end) = crate::oneshot();
            drop(
                launch_local_worker::<Echo>(Start::Well(ended))
                    .await
                    .unwrap(),
            );
            assert_eq!(end.await, Ok("cleaned up"));
        });
    }

    #[test]
    fn a_worker_that_cannot_start_or_fails_later_says_why() {
        block_on(async {
            let error = launch_local_worker::<Echo>(Start::Badly).await.unwrap_err();
            assert_eq!(
                format!("{error:#}"),
                "failed to start worker echo: the port is in use"
            );
            let mut worker = launch_local_worker::<Echo>(Start::ThenFail).await.unwrap();
            let error = worker.join().await.unwrap_err();
            assert_eq!(
                format!("{error:#}"),
                "worker echo failed: lost the listener"
            );
        });
    }
}
