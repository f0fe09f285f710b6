//! The VMM's side.

use crate::READS_PER_TURN;
use crate::WireError;
use crate::closed_is_no_error;
use crate::queue::Queue;
use futures::AsyncRead;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use pal_async::Driver;
use pal_async::socket::PolledSocket;
use pal_async::socket::ReadHalf;
use pal_async::socket::WriteHalf;
use std::future::poll_fn;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use vmm_core_defs::target::Target;
use vmm_core_defs::wire;
use vmm_core_defs::wire::Frame;
use vmm_core_defs::wire::Frames;
use vmm_core_defs::wire::MAX_FRAME;
use vmm_core_defs::wire::MAX_HELLO;
use vmm_core_defs::wire::PendingAnswer;
use vmm_core_defs::wire::Received;
use vmm_core_defs::wire::Server;

/// Passes the requests of one debugger on to `target` until the debugger closes the connection or the VM is gone. The session of the connection ends with
/// it, also when the future is dropped.
///
/// # Errors
/// [`WireError`].
pub async fn serve(
    driver: &(impl ?Sized + Driver),
    socket: UnixStream,
    target: impl Into<Target>,
) -> Result<(), WireError> {
    let (read, write) = PolledSocket::new(driver, socket)?.split();
    let mut queue = Queue::default();
    queue.push(wire::hello());
    let mut connection = Serving {
        server: Server::new(target.into()),
        pending: FuturesUnordered::new(),
        queue,
        read,
        write,
        frames: Frames::new(MAX_HELLO),
        greeted: false,
    };
    closed_is_no_error(poll_fn(|cx| connection.poll(cx)).await)
}

struct Serving {
    server: Server,
    pending: FuturesUnordered<PendingAnswer>,
    queue: Queue,
    read: ReadHalf<UnixStream>,
    write: WriteHalf<UnixStream>,
    frames: Frames,
    /// The hello of the other side has come.
    greeted: bool,
}

impl Serving {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        for _ in 0..READS_PER_TURN {
            while let Poll::Ready(Some(reply)) = self.pending.poll_next_unpin(cx) {
                self.queue.push(self.server.answered(reply));
            }
            let written = |bytes| self.server.written(bytes);
            let flushed = self.queue.poll_flush(cx, &mut self.write, written)?;
            if self.server.is_closed() && self.pending.is_empty() && self.queue.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let mut received = false;
            while self.server.may_read()
                && let Some(frame) = self.frames.next_frame()
            {
                self.received(frame)?;
                received = true;
            }
            if received {
                continue;
            }
            if flushed.is_pending() && !self.server.may_read() {
                // A side that does not read is seen to go away by the write that waits.
                return Poll::Pending;
            }
            let read = Pin::new(&mut self.read).poll_read(cx, self.frames.space());
            match ready!(read)? {
                0 => return Poll::Ready(Ok(())),
                count => self.frames.filled(count),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn received(&mut self, frame: Frame) -> Result<(), WireError> {
        if !self.greeted {
            let Frame::Message(hello) = frame else {
                return Err(wire::HelloError::OtherProtocol.into());
            };
            wire::accept(hello)?;
            self.greeted = true;
            self.frames.set_limit(MAX_FRAME);
            return Ok(());
        }
        match self.server.received(frame) {
            Received::Pending(answer) => self.pending.push(answer),
            Received::Answer(frame) => self.queue.push(frame),
            Received::Nothing => {}
        }
        Ok(())
    }
}
