//! Both sides of a connection without a socket.

mod any_value;
mod hostile;
mod recorded;
mod round_trip;

use super::Client;
use super::Frame;
use super::Frames;
use super::MAX_FRAME;
use super::Outgoing;
use super::Received;
use super::Server;
use crate::debug_rpc::DebugMessage;
use crate::target::Target;
use mesh::OneshotReceiver;
use mesh::Receiver;
use mesh::Sender;
use std::pin::pin;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;

/// The output of a future that is ready.
pub(super) fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("not ready"),
    }
}

/// An answer that has come. `None` if the call has failed.
pub(super) fn answered<T>(answer: OneshotReceiver<T>) -> Option<T> {
    now(answer).ok()
}

/// The message of a frame, cut out of a stream.
pub(super) fn through_stream(frame: &Outgoing) -> Frame {
    let mut frames = Frames::new(MAX_FRAME);
    for mut bytes in [&frame.head[..], &frame.tail[..]] {
        while !bytes.is_empty() {
            let space = frames.space();
            let count = space.len().min(bytes.len());
            space[..count].copy_from_slice(&bytes[..count]);
            frames.filled(count);
            bytes = &bytes[count..];
        }
    }
    let message = frames.next_frame().expect("a whole frame");
    assert_eq!(frames.next_frame(), None);
    message
}

/// A debugger and a VMM.
pub(super) struct Pair {
    pub(super) client: Client,
    pub(super) server: Server,
    /// What the debugger sends to.
    pub(super) debugger: Sender<DebugMessage>,
    /// What the debugger has sent, before it is encoded.
    sent: Receiver<DebugMessage>,
    /// What the VMM has received.
    pub(super) vmm: Receiver<DebugMessage>,
}

impl Pair {
    pub(super) fn new() -> Self {
        let (target, vmm) = mesh::channel();
        let (debugger, sent) = mesh::channel();
        Self {
            client: Client::default(),
            server: Server::new(Target::from(target)),
            debugger,
            sent,
            vmm,
        }
    }

    /// Takes what the debugger sends to the VMM.
    pub(super) fn ask(&mut self, message: DebugMessage) -> Received {
        let frame = self.client.send(message).expect("not too long");
        self.server.received(through_stream(&frame))
    }

    /// Takes what was sent over `debugger` to the VMM.
    pub(super) fn pump(&mut self) -> Vec<Received> {
        let mut received = Vec::new();
        while let Ok(message) = self.sent.try_recv() {
            received.push(self.ask(message));
        }
        received
    }

    /// Takes an answer of the VMM to the debugger.
    pub(super) fn answer(&mut self, received: Received) {
        let frame = match received {
            Received::Pending(answer) => self.server.answered(now(answer)),
            Received::Answer(frame) => frame,
            Received::Nothing => panic!("no answer"),
        };
        self.server.written(frame.len());
        let answered = self.client.received(through_stream(&frame)).unwrap();
        assert_eq!(answered.deliver(), None);
    }
}
