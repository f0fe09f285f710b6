//! Workers: components of a VMM that are started, inspected and stopped from outside. Here each worker has its own
//! thread.
//!
//! In OpenVMM this is the crate `mesh_worker`, which can also run a [`Worker`] in a separate process.

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
    /// A worker kind with the name `id`.
    pub const fn new(id: &'static str) -> Self {
        Self {
            id,
            parameters: PhantomData,
        }
    }

    /// The name of the worker kind.
    pub const fn id(&self) -> &'static str {
        self.id
    }
}

impl<T> fmt::Debug for WorkerId<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WorkerId").field(&self.id).finish()
    }
}

/// A component that runs until it is asked to stop.
pub trait Worker: 'static + Sized {
    /// The parameters of a new worker.
    type Parameters: 'static + Send;

    /// The name of the worker kind.
    const ID: WorkerId<Self::Parameters>;

    /// Creates the worker, on the thread on which it will run.
    fn new(parameters: Self::Parameters) -> anyhow::Result<Self>;

    /// Runs the worker until [`WorkerRpc::Stop`] arrives, the channel closes, or the worker fails.
    fn run(self, requests: Receiver<WorkerRpc>) -> anyhow::Result<()>;
}

/// A request to a running worker.
#[derive(Debug)]
pub enum WorkerRpc {
    /// Clean up and return from [`Worker::run`].
    Stop,
    /// Return the worker's state.
    Inspect(inspect::Deferred),
}

/// An event of a worker.
#[derive(Debug)]
pub enum WorkerEvent {
    /// The worker was created and runs.
    Started,
    /// The worker has ended as requested. No event follows.
    Stopped,
    /// The worker could not be created, or it ended with an error. No event follows.
    Failed(RemoteError),
}

/// A running worker. Dropping the handle asks the worker to stop, and does not wait for it.
#[derive(Debug)]
pub struct WorkerHandle {
    name: &'static str,
    requests: Sender<WorkerRpc>,
    events: Receiver<WorkerEvent>,
}

impl WorkerHandle {
    /// Asks the worker to stop. [`WorkerHandle::join`] waits for the end.
    pub fn stop(&mut self) {
        self.requests.send(WorkerRpc::Stop);
    }

    /// Asks the worker for its state.
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

/// Starts a worker on its own thread and waits until it runs.
///
/// It fails if the thread cannot be created or if [`Worker::new`] fails.
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
