//! Waits for the VM's answers, with a time limit.

use crate::error_table::text_for_gdb;
use futures::FutureExt;
use futures::select;
use mesh::rpc::PendingFailableRpc;
use mesh::rpc::RpcError;
use pal_async::Driver;
use pal_async::timer::PolledTimer;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use thiserror::Error;
use vmm_core_defs::debug_rpc::DebugError;

/// The reason why a request has no result.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum CallError {
    /// The VM refused the request. The text of this error is written for GDB's user.
    #[error("{}", text_for_gdb(.0))]
    Refused(#[from] DebugError),
    /// The VM did not answer in time. It may still carry out the request.
    #[error("the VMM did not answer within {} s: if the VMM has paused the guest, let it go on there (QEMU: `cont`); otherwise the guest may be stuck, see the VMM's log", .0.as_secs_f32())]
    TimedOut(Duration),
    /// The VM's side of the channel is gone.
    #[error(
        "the VMM has closed the channel: the guest is gone; see the VMM's log, and start the guest again"
    )]
    Gone,
}

impl CallError {
    /// Whether the guest is gone for good.
    pub(crate) fn is_end(&self) -> bool {
        matches!(self, Self::Gone | Self::Refused(DebugError::Ended { .. }))
    }
}

impl From<RpcError<DebugError>> for CallError {
    fn from(error: RpcError<DebugError>) -> Self {
        match error {
            RpcError::Call(refused) => Self::Refused(refused),
            RpcError::Channel(mesh::RecvError::Closed) => Self::Gone,
        }
    }
}

/// The time limit of every request but `Resume`.
#[derive(Clone)]
pub(crate) struct Deadline {
    driver: Arc<dyn Driver>,
    limit: Duration,
}

impl Deadline {
    pub(crate) fn new(driver: Arc<dyn Driver>, limit: Duration) -> Self {
        Self { driver, limit }
    }

    /// Returns the answer of `pending`, or [`CallError::TimedOut`]. Cancelling this future drops the answer, but does
    /// not cancel the request.
    pub(crate) async fn answer<T>(
        &self,
        mut pending: PendingFailableRpc<T, DebugError>,
    ) -> Result<T, CallError> {
        let mut timer = PolledTimer::new(&*self.driver);
        // race: a late answer is dropped with `pending`
        select! {
            answer = pending => answer.map_err(CallError::from),
            _ = timer.sleep(self.limit).fuse() => Err(CallError::TimedOut(self.limit)),
        }
    }

    /// Returns the output of `future` if it ends within `limit`. Otherwise `future` is dropped.
    pub(crate) async fn within<T>(
        &self,
        limit: Duration,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        let mut timer = PolledTimer::new(&*self.driver);
        let mut future = std::pin::pin!(future.fuse());
        // race: the caller decides what happens to a future that has not ended
        select! {
            output = future => Some(output),
            _ = timer.sleep(limit).fuse() => None,
        }
    }

    /// As [`answer`](Self::answer), for something else that the VM brings about.
    pub(crate) async fn event<T>(&self, future: impl Future<Output = T>) -> Result<T, CallError> {
        let output = self.within(self.limit, future).await;
        output.ok_or(CallError::TimedOut(self.limit))
    }

    /// Waits for `future`, which is not a request. Returns false if `future` did not end in time.
    pub(crate) async fn limit(&self, future: impl Future<Output = ()>) -> bool {
        self.within(self.limit, future).await.is_some()
    }
}

/// The number of turns of other tasks in which the refusal of a resume is waited for. A controller on the same executor
/// answers in the first turn. The second turn is for a controller that has to ask another task.
const TURNS_FOR_REFUSAL: u32 = 2;

/// Returns the answer if it comes while other ready tasks take a few turns.
pub(crate) async fn answer_within_turns<T>(
    pending: &mut PendingFailableRpc<T, DebugError>,
) -> Option<Result<T, CallError>> {
    for _ in 0..TURNS_FOR_REFUSAL {
        if let Some(answer) = pending.now_or_never_in_turn().await {
            return Some(answer.map_err(CallError::from));
        }
    }
    None
}

trait InTurn: Future + Unpin {
    /// Polls, and if the result is pending, polls once more after every other ready task has had a turn.
    async fn now_or_never_in_turn(&mut self) -> Option<Self::Output> {
        let mut polled = false;
        poll_fn(|cx| match self.poll_unpin(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if polled => Poll::Ready(None),
            Poll::Pending => {
                polled = true;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        })
        .await
    }
}

impl<F: Future + Unpin> InTurn for F {}
