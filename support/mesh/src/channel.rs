//! Channels for many messages and for one message.
//!
//! They use `futures::channel` and not `async-channel`. With `async-channel`, a message in the queue of a dropped
//! receiver stays there until the last sender is dropped, and so does an unanswered RPC in the message.

use futures::FutureExt;
use futures::Stream;
use futures::StreamExt;
use futures::channel::mpsc;
use futures::channel::oneshot as single;
use futures::future::Shared;
use futures::stream::FusedStream;
use std::fmt;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use thiserror::Error;

/// The reason why no message can be received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecvError {
    /// Every sender is dropped, and the channel is empty.
    #[error("channel closed")]
    Closed,
}

/// The reason why [`Receiver::try_recv`] returns no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TryRecvError {
    /// The channel is empty now; a message may come.
    #[error("channel empty")]
    Empty,
    /// Every sender is dropped, and the channel is empty.
    #[error("channel closed")]
    Closed,
}

/// Creates an unbounded channel.
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let (sender, messages) = mpsc::unbounded();
    let (_open, closed) = single::channel();
    let sender = Sender {
        messages: sender,
        closed: Closed(closed.shared()),
    };
    (sender, Receiver { messages, _open })
}

/// The sending half of [`channel`].
pub struct Sender<T> {
    messages: mpsc::UnboundedSender<T>,
    closed: Closed,
}

impl<T> Sender<T> {
    /// Queues `message`. If the receiver is dropped, the message is dropped. A sender that must know whether the
    /// message arrived sends an [`rpc::Rpc`](crate::rpc::Rpc).
    pub fn send(&self, message: T) {
        let _ = self.messages.unbounded_send(message);
    }

    /// Whether the receiver is dropped. Once true, it stays true.
    pub fn is_closed(&self) -> bool {
        self.messages.is_closed()
    }

    /// Waits until the receiver is dropped.
    pub fn closed(&self) -> Closed {
        self.closed.clone()
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self {
            messages: self.messages.clone(),
            closed: self.closed.clone(),
        }
    }
}

/// The future of [`Sender::closed`].
#[derive(Debug, Clone)]
#[must_use = "futures do nothing unless awaited"]
pub struct Closed(Shared<single::Receiver<()>>);

impl Future for Closed {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_unpin(cx).map(|_| ())
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

/// The receiving half of [`channel`]. Dropped in this order: `Closed` resolves when [`Sender::is_closed`] is true.
pub struct Receiver<T> {
    messages: mpsc::UnboundedReceiver<T>,
    _open: single::Sender<()>,
}

impl<T> Receiver<T> {
    /// Waits for the next message, or returns [`RecvError::Closed`].
    ///
    /// Cancel safe: a poll takes a message from the channel only if it returns the message.
    pub fn recv(&mut self) -> Recv<'_, T> {
        Recv(self)
    }

    /// Returns the next message if one is queued. It needs no executor, so a plain thread may call it.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        if self.messages.is_terminated() {
            return Err(TryRecvError::Closed);
        }
        match self.messages.next().now_or_never() {
            Some(Some(message)) => Ok(message),
            Some(None) => Err(TryRecvError::Closed),
            None => Err(TryRecvError::Empty),
        }
    }

    /// Polls for the next message.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, RecvError>> {
        if self.messages.is_terminated() {
            return Poll::Ready(Err(RecvError::Closed));
        }
        Poll::Ready(ready!(self.messages.poll_next_unpin(cx)).ok_or(RecvError::Closed))
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}

impl<T> Stream for Receiver<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.poll_recv(cx).map(Result::ok)
    }
}

impl<T> FusedStream for Receiver<T> {
    fn is_terminated(&self) -> bool {
        self.messages.is_terminated()
    }
}

/// The future of [`Receiver::recv`].
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct Recv<'a, T>(&'a mut Receiver<T>);

impl<T> Future for Recv<'_, T> {
    type Output = Result<T, RecvError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_recv(cx)
    }
}

/// Creates a channel for one message.
pub fn oneshot<T>() -> (OneshotSender<T>, OneshotReceiver<T>) {
    let (sender, receiver) = single::channel();
    (
        OneshotSender(sender),
        OneshotReceiver {
            receiver,
            done: false,
        },
    )
}

/// The sending half of [`oneshot`]. Dropping it without sending closes the channel.
pub struct OneshotSender<T>(single::Sender<T>);

impl<T> OneshotSender<T> {
    /// Sends the message. If the receiver is dropped, the message is dropped.
    pub fn send(self, message: T) {
        let _ = self.0.send(message);
    }

    /// Whether the receiver is dropped. Once true, it stays true.
    pub fn is_closed(&self) -> bool {
        self.0.is_canceled()
    }
}

impl<T> fmt::Debug for OneshotSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OneshotSender").finish_non_exhaustive()
    }
}

/// The receiving half of [`oneshot`]: a future that returns the message. Cancel safe when polled by reference.
#[must_use = "futures do nothing unless awaited"]
pub struct OneshotReceiver<T> {
    receiver: single::Receiver<T>,
    /// Whether the result was returned. The receiver's own `is_terminated` is true as soon as the sender was dropped,
    /// and `select!` does not poll such a future: the loss of the sender would never be seen.
    done: bool,
}

impl<T> Future for OneshotReceiver<T> {
    type Output = Result<T, RecvError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = ready!(self.receiver.poll_unpin(cx));
        self.done = true;
        Poll::Ready(result.map_err(|single::Canceled| RecvError::Closed))
    }
}

impl<T> futures::future::FusedFuture for OneshotReceiver<T> {
    fn is_terminated(&self) -> bool {
        self.done
    }
}

impl<T> fmt::Debug for OneshotReceiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OneshotReceiver").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;
    use std::rc::Rc;
    use std::sync::Arc;

    #[test]
    fn all_who_wait_for_the_end_of_the_receiver_are_woken() {
        let (send, receive) = channel::<u8>();
        let mut waiting = [send.closed(), send.clone().closed()];
        assert!(
            waiting
                .iter_mut()
                .all(|closed| closed.now_or_never().is_none())
        );
        let ended = std::thread::spawn(move || {
            for closed in waiting {
                block_on(closed);
            }
        });
        drop(receive);
        ended.join().unwrap();
        assert!(send.is_closed());
        assert_eq!(send.closed().now_or_never(), Some(()));
    }

    #[test]
    fn messages_arrive_in_order_and_the_end_comes_after_the_last() {
        let (send, mut recv) = channel();
        send.send(1);
        send.clone().send(2);
        drop(send);
        assert_eq!(recv.try_recv(), Ok(1));
        assert_eq!(block_on(recv.recv()), Ok(2));
        assert_eq!(recv.try_recv(), Err(TryRecvError::Closed));
        assert_eq!(block_on(recv.recv()), Err(RecvError::Closed));
        assert!(recv.is_terminated());
    }

    #[test]
    fn select_sees_that_the_sender_of_a_oneshot_was_dropped() {
        use futures::future::FusedFuture;
        let (send, mut recv) = oneshot::<u8>();
        drop(send);
        assert!(!recv.is_terminated(), "the result was not returned yet");
        let result = block_on(async {
            // race: the only arm
            futures::select! {
                result = recv => result,
                complete => panic!("the dropped sender was not seen"),
            }
        });
        assert_eq!(result, Err(RecvError::Closed));
        assert!(recv.is_terminated());
    }

    #[test]
    fn an_empty_channel_is_not_a_closed_one() {
        let (send, mut recv) = channel::<u8>();
        assert_eq!(recv.try_recv(), Err(TryRecvError::Empty));
        drop(send);
        assert_eq!(recv.try_recv(), Err(TryRecvError::Closed));
    }

    #[test]
    fn a_dropped_recv_loses_nothing() {
        let (send, mut recv) = channel();
        {
            let pending = recv.recv();
            assert!(pending.now_or_never().is_none());
            send.send("kept");
        }
        {
            // The future was woken and is ready, and is dropped before the next poll.
            let _never_polled = recv.recv();
        }
        assert_eq!(block_on(recv.recv()), Ok("kept"));
    }

    #[test]
    fn what_is_queued_dies_with_the_receiver_while_senders_live() {
        let (send, recv) = channel();
        let message = Arc::new(());
        send.send(message.clone());
        assert_eq!(Arc::strong_count(&message), 2);
        drop(recv);
        assert_eq!(
            Arc::strong_count(&message),
            1,
            "queued message dropped with the receiver"
        );
        assert!(send.is_closed());
        send.send(message.clone());
        assert_eq!(
            Arc::strong_count(&message),
            1,
            "later message dropped at once"
        );
    }

    #[test]
    fn payloads_need_no_bound() {
        let (send, mut recv) = channel::<Rc<dyn Fn() -> u8>>();
        send.send(Rc::new(|| 7));
        assert_eq!(recv.try_recv().ok().map(|f| f()), Some(7));
    }

    #[test]
    fn a_oneshot_delivers_or_says_closed() {
        let (send, recv) = oneshot();
        send.send(5);
        assert_eq!(block_on(recv), Ok(5));
        let (send, recv) = oneshot::<u8>();
        drop(send);
        assert_eq!(block_on(recv), Err(RecvError::Closed));
        let (send, recv) = oneshot::<u8>();
        assert!(!send.is_closed());
        drop(recv);
        assert!(send.is_closed());
    }

    #[test]
    fn a_oneshot_polled_by_reference_survives_a_lost_race() {
        let (send, mut recv) = oneshot();
        assert!((&mut recv).now_or_never().is_none());
        send.send(3);
        assert_eq!(block_on(&mut recv), Ok(3));
    }

    #[test]
    fn a_plain_thread_may_receive_what_a_task_sends() {
        let (send, mut recv) = channel();
        let thread = std::thread::spawn(move || block_on(recv.recv()));
        send.send(11);
        assert_eq!(thread.join().unwrap(), Ok(11));
    }
}
