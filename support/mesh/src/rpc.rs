//! Requests that carry a channel for their reply.

use crate::OneshotReceiver;
use crate::OneshotSender;
use crate::RecvError;
use crate::Sender;
use crate::error::BoxedError;
use crate::error::RemoteError;
use crate::error::RemoteResult;
use crate::oneshot;
use futures::FutureExt;
use futures::future::FusedFuture;
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use thiserror::Error;

/// A request: its input and the sender of its reply.
///
/// If it is dropped without an answer, the caller gets [`RpcError::Channel`] with [`RecvError::Closed`].
#[derive(Debug)]
#[must_use = "dropping an Rpc unanswered fails the call"]
pub struct Rpc<I, R>(pub I, pub OneshotSender<R>);

/// A request that can fail with an error that only people read.
pub type FailableRpc<I, R> = Rpc<I, RemoteResult<R>>;

impl<I, R> Rpc<I, R> {
    /// A request without a receiver for its reply.
    pub fn detached(input: I) -> Self {
        let (send, _) = oneshot();
        Self(input, send)
    }

    /// The input.
    pub fn input(&self) -> &I {
        &self.0
    }

    /// Takes the input. The remaining request still has to be completed.
    pub fn split(self) -> (I, Rpc<(), R>) {
        (self.0, Rpc((), self.1))
    }

    /// Answers with `f(input)`.
    pub fn handle_sync<F: FnOnce(I) -> R>(self, f: F) {
        let reply = f(self.0);
        self.1.send(reply);
    }

    /// Answers with the output of `f(input)`. Cancelling this future fails the call.
    pub async fn handle<F: AsyncFnOnce(I) -> R>(self, f: F) {
        let reply = f(self.0).await;
        self.1.send(reply);
    }

    /// Answers with `reply`.
    pub fn complete(self, reply: R) {
        self.1.send(reply);
    }
}

impl<I, R> Rpc<I, RemoteResult<R>> {
    /// Answers with `f(input)`. An error is converted to text.
    pub fn handle_failable_sync<F, E>(self, f: F)
    where
        F: FnOnce(I) -> Result<R, E>,
        E: Into<BoxedError>,
    {
        let reply = f(self.0).map_err(RemoteError::new);
        self.1.send(reply);
    }

    /// Answers with the output of `f(input)`. An error is converted to text. Cancelling this future fails the call.
    pub async fn handle_failable<F, E>(self, f: F)
    where
        F: AsyncFnOnce(I) -> Result<R, E>,
        E: Into<BoxedError>,
    {
        let reply = f(self.0).await.map_err(RemoteError::new);
        self.1.send(reply);
    }

    /// Answers with an error.
    pub fn fail<E: Into<BoxedError>>(self, error: E) {
        self.1.send(Err(RemoteError::new(error)));
    }
}

/// The reason why a call failed. `E` is the error type of the callee.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RpcError<E: fmt::Debug + fmt::Display = Infallible> {
    /// The callee answered with an error.
    #[error("{0}")]
    Call(E),
    /// The callee is gone, or it dropped the request without an answer.
    #[error("the other side of the call is gone")]
    Channel(#[source] RecvError),
}

/// The pending reply of [`RpcSend::call`].
///
/// Dropping it drops the reply and does not cancel the request: the callee still carries it out.
#[derive(Debug)]
#[must_use = "the reply is lost unless this is awaited"]
pub struct PendingRpc<R>(OneshotReceiver<R>);

impl<R> Future for PendingRpc<R> {
    type Output = Result<R, RpcError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_unpin(cx).map_err(RpcError::Channel)
    }
}

impl<R> FusedFuture for PendingRpc<R> {
    fn is_terminated(&self) -> bool {
        self.0.is_terminated()
    }
}

/// The pending reply of [`RpcSend::call_failable`]. See [`PendingRpc`].
#[derive(Debug)]
#[must_use = "the reply is lost unless this is awaited"]
pub struct PendingFailableRpc<T, E = RemoteError>(OneshotReceiver<Result<T, E>>);

impl<T, E: fmt::Debug + fmt::Display> Future for PendingFailableRpc<T, E> {
    type Output = Result<T, RpcError<E>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match ready!(self.0.poll_unpin(cx)) {
            Ok(reply) => reply.map_err(RpcError::Call),
            Err(closed) => Err(RpcError::Channel(closed)),
        })
    }
}

impl<T, E: fmt::Debug + fmt::Display> FusedFuture for PendingFailableRpc<T, E> {
    fn is_terminated(&self) -> bool {
        self.0.is_terminated()
    }
}

/// A sender of requests.
pub trait RpcSend: Sized {
    /// The message type of the channel, usually an enum with a variant for each request.
    type Message;

    /// Sends a message that contains a request.
    fn send_rpc(self, message: Self::Message);

    /// Sends `f(request)`. The request has been sent when this function returns, whether or not the reply is awaited.
    fn call<F, I, R>(self, f: F, input: I) -> PendingRpc<R>
    where
        F: FnOnce(Rpc<I, R>) -> Self::Message,
    {
        let (send, recv) = oneshot();
        self.send_rpc(f(Rpc(input, send)));
        PendingRpc(recv)
    }

    /// As [`RpcSend::call`]. One error type contains the callee's errors and the loss of the callee.
    fn call_failable<F, I, T, E>(self, f: F, input: I) -> PendingFailableRpc<T, E>
    where
        F: FnOnce(Rpc<I, Result<T, E>>) -> Self::Message,
    {
        let (send, recv) = oneshot();
        self.send_rpc(f(Rpc(input, send)));
        PendingFailableRpc(recv)
    }
}

impl<T> RpcSend for &Sender<T> {
    type Message = T;

    fn send_rpc(self, message: T) {
        self.send(message);
    }
}

impl<T> RpcSend for OneshotSender<T> {
    type Message = T;

    fn send_rpc(self, message: T) {
        self.send(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel;
    use futures::executor::block_on;
    use futures::join;

    enum Request {
        Double(Rpc<u32, u32>),
        Halve(Rpc<u32, Result<u32, String>>),
        Open(FailableRpc<&'static str, ()>),
    }

    async fn serve(mut requests: crate::Receiver<Request>) {
        while let Ok(request) = requests.recv().await {
            match request {
                Request::Double(rpc) => rpc.handle(async |n| n * 2).await,
                Request::Halve(rpc) => rpc.handle_sync(|n| match n % 2 {
                    0 => Ok(n / 2),
                    _ => Err(format!("{n} is odd")),
                }),
                Request::Open(rpc) => {
                    rpc.handle_failable_sync(|name| Err::<(), _>(format!("{name}: not found")));
                }
            }
        }
    }

    #[test]
    fn a_call_gets_its_reply_or_the_callees_own_error() {
        let (send, recv) = channel();
        let client = async move {
            assert_eq!(send.call(Request::Double, 21).await, Ok(42));
            assert_eq!(send.call_failable(Request::Halve, 8).await, Ok(4));
            assert_eq!(
                send.call_failable(Request::Halve, 7).await,
                Err(RpcError::Call("7 is odd".into()))
            );
            let error = send
                .call_failable(Request::Open, "vmlinux")
                .await
                .unwrap_err();
            assert_eq!(error.to_string(), "vmlinux: not found");
        };
        block_on(async { join!(client, serve(recv)) });
    }

    #[test]
    fn a_request_dropped_unanswered_says_closed() {
        let (send, mut recv) = channel();
        let pending = send.call(Request::Double, 1);
        drop(recv.try_recv());
        assert_eq!(block_on(pending), Err(RpcError::Channel(RecvError::Closed)));
        let pending = send.call_failable(Request::Halve, 1);
        drop(recv.try_recv());
        assert_eq!(block_on(pending), Err(RpcError::Channel(RecvError::Closed)));
    }

    #[test]
    fn a_request_queued_or_sent_to_a_dead_callee_says_closed() {
        let (send, recv) = channel();
        let queued = send.call(Request::Double, 1);
        drop(recv);
        let late = send.call(Request::Double, 2);
        assert_eq!(block_on(queued), Err(RpcError::Channel(RecvError::Closed)));
        assert_eq!(block_on(late), Err(RpcError::Channel(RecvError::Closed)));
    }

    #[test]
    fn a_handler_that_is_cancelled_says_closed() {
        let (send, recv) = oneshot();
        let rpc = Rpc((), send);
        let handling = rpc.handle(async |()| futures::future::pending::<u8>().await);
        assert!(handling.now_or_never().is_none());
        assert_eq!(block_on(recv), Err(RecvError::Closed));
    }

    #[test]
    fn a_split_request_is_still_to_be_answered() {
        let (send, recv) = oneshot();
        let (input, rpc) = Rpc("in", send).split();
        assert_eq!(input, "in");
        rpc.complete("out");
        assert_eq!(block_on(recv), Ok("out"));
        Rpc::<_, ()>::detached(1).complete(());
    }
}
