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
use pal_async::timer::Instant;
use pal_async::timer::PolledTimer;
use std::future::poll_fn;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;
use vmm_core_defs::session::SessionId;
use vmm_core_defs::target::Target;
use vmm_core_defs::wire;
use vmm_core_defs::wire::Frame;
use vmm_core_defs::wire::Frames;
use vmm_core_defs::wire::MAX_FRAME;
use vmm_core_defs::wire::MAX_HELLO;
use vmm_core_defs::wire::PendingAnswer;
use vmm_core_defs::wire::Received;
use vmm_core_defs::wire::Server;

/// The time from the connection to the debugger's hello.
const HELLO_TIME: Duration = Duration::from_secs(10);

/// The time from the beginning of a message to its end. A person may have interrupted the program that sends it.
const MESSAGE_TIME: Duration = Duration::from_secs(60);

/// Passes the requests of one debugger on to `target` until the debugger closes the connection or the VM is gone. The session of the connection ends with
/// it, also when the future is dropped. A debugger has 10 s to say its hello, and may be silent for any time after it. A debugger that only ends its requests
/// (`shutdown(SHUT_WR)`) gets the answers that are open before. When the VM is gone, what has come until then is answered.
///
/// # Limits
/// One connection costs a bounded amount of memory and of time without a pause, whatever the debugger sends. The caller limits what remains: the number of
/// connections, and who may connect.
///
/// # Errors
/// [`WireError`].
pub async fn serve(
    driver: &(impl ?Sized + Driver),
    socket: UnixStream,
    target: impl Into<Target>,
) -> Result<(), WireError> {
    serve_watched(
        driver,
        socket,
        target,
        MESSAGE_TIME,
        &OpenSession::default(),
    )
    .await
}

/// As [`serve`], with another limit for the time from the beginning of a message to its end. Keeps `open` up to date.
///
/// # Errors
/// [`WireError`].
pub async fn serve_watched(
    driver: &(impl ?Sized + Driver),
    socket: UnixStream,
    target: impl Into<Target>,
    message_time: Duration,
    open: &OpenSession,
) -> Result<(), WireError> {
    let times = [HELLO_TIME, message_time];
    serve_within(times, driver, socket, target.into(), open).await
}

/// The session of a connection, as far as the debugger has not ended it. Clones are the same value.
#[derive(Debug, Clone, Default)]
pub struct OpenSession(Arc<Mutex<Option<SessionId>>>);

impl OpenSession {
    /// The session. `None`: the debugger has none.
    pub fn get(&self) -> Option<SessionId> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, session: Option<SessionId>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = session;
    }
}

/// The times are those of the hello and of a message.
async fn serve_within(
    [hello_time, message_time]: [Duration; 2],
    driver: &(impl ?Sized + Driver),
    socket: UnixStream,
    target: Target,
    open: &OpenSession,
) -> Result<(), WireError> {
    let (read, write) = PolledSocket::new(driver, socket)?.split();
    let mut queue = Queue::default();
    queue.push(wire::hello());
    let server = Server::new(target);
    let mut connection = Serving {
        closed: server.closed(),
        server,
        gone: false,
        last_turns: LAST_TURNS,
        pending: FuturesUnordered::new(),
        queue,
        read,
        write,
        frames: Frames::new(MAX_HELLO),
        ended: false,
        hello: Some(Hello {
            timer: PolledTimer::new(driver),
            limit: hello_time,
            deadline: Instant::now() + hello_time,
        }),
        unfinished: Unfinished {
            timer: PolledTimer::new(driver),
            limit: message_time,
            deadline: None,
        },
    };
    let ended = poll_fn(|cx| {
        let ended = connection.poll(cx);
        open.set(connection.server.session());
        ended
    });
    closed_is_no_error(ended.await)
}

/// The number of reads after the VM is gone. A debugger that sends on and on is cut off then.
const LAST_TURNS: u32 = READS_PER_TURN;

struct Serving {
    server: Server,
    closed: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// The VM is gone, so `closed` may not be polled again.
    gone: bool,
    last_turns: u32,
    pending: FuturesUnordered<PendingAnswer>,
    queue: Queue,
    read: ReadHalf<UnixStream>,
    write: WriteHalf<UnixStream>,
    frames: Frames,
    /// The debugger sends no more requests.
    ended: bool,
    /// `None` when the hello of the other side has come.
    hello: Option<Hello>,
    unfinished: Unfinished,
}

/// The wait for the rest of a message.
struct Unfinished {
    timer: PolledTimer,
    limit: Duration,
    /// `None`: no message has begun.
    deadline: Option<Instant>,
}

impl Unfinished {
    fn poll(&mut self, cx: &mut Context<'_>, is_partial: bool) -> Result<(), WireError> {
        if !is_partial {
            self.deadline = None;
            return Ok(());
        }
        let new = || Instant::now() + self.limit;
        let deadline = *self.deadline.get_or_insert_with(new);
        match self.timer.poll_until(cx, deadline) {
            Poll::Ready(_) => Err(WireError::Unfinished(self.limit)),
            Poll::Pending => Ok(()),
        }
    }
}

/// The wait for the hello of the other side.
struct Hello {
    timer: PolledTimer,
    limit: Duration,
    deadline: Instant,
}

impl Serving {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        if let Some(hello) = &mut self.hello
            && hello.timer.poll_until(cx, hello.deadline).is_ready()
        {
            return Poll::Ready(Err(WireError::NoHello(hello.limit)));
        }
        for _ in 0..READS_PER_TURN {
            while let Poll::Ready(Some(reply)) = self.pending.poll_next_unpin(cx) {
                self.queue.push(self.server.answered(reply));
            }
            let written = |bytes| self.server.written(bytes);
            let flushed = self.queue.poll_flush(cx, &mut self.write, written)?;
            let mut received = false;
            while self.server.may_read()
                && let Some(frame) = self.frames.next_frame()
            {
                self.received(frame)?;
                received = true;
            }
            if received {
                self.unfinished.deadline = None;
                continue;
            }
            let answered = self.pending.is_empty() && self.queue.is_empty();
            if self.ended {
                // A debugger that has closed its socket reads no answer, and one that has shut down its direction does.
                let closed = self.read.poll_closed(cx).is_ready();
                return match closed || answered {
                    true => Poll::Ready(Ok(())),
                    false => Poll::Pending,
                };
            }
            if self.server.is_closed() {
                self.last_turns = self.last_turns.saturating_sub(1);
                if self.last_turns == 0 && answered {
                    return Poll::Ready(Ok(()));
                }
            }
            if flushed.is_pending() && !self.server.may_read() {
                // A side that does not read is seen to go away by the write that waits.
                return Poll::Pending;
            }
            match Pin::new(&mut self.read).poll_read(cx, self.frames.space())? {
                Poll::Ready(0) => self.ended = true,
                Poll::Ready(count) => self.frames.filled(count),
                Poll::Pending => {
                    let is_partial = self.hello.is_none() && self.frames.is_partial();
                    self.unfinished.poll(cx, is_partial)?;
                    self.gone = self.gone || self.closed.as_mut().poll(cx).is_ready();
                    return match self.gone && answered {
                        true => Poll::Ready(Ok(())),
                        false => Poll::Pending,
                    };
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn received(&mut self, frame: Frame) -> Result<(), WireError> {
        if self.hello.is_some() {
            let Frame::Message(hello) = frame else {
                return Err(wire::HelloError::OtherProtocol.into());
            };
            wire::accept(hello)?;
            self.hello = None;
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

#[cfg(test)]
mod tests {
    use super::*;
    use pal_async::DefaultDriver;
    use pal_async::async_test;
    use std::io::Write as _;

    /// Serves a VM that gets no request.
    async fn served(
        times: [Duration; 2],
        driver: &DefaultDriver,
        socket: UnixStream,
    ) -> Result<(), WireError> {
        let (requests, _receiver) = mesh::channel();
        let open = OpenSession::default();
        serve_within(times, driver, socket, requests.into(), &open).await
    }

    /// A part of a hello is none.
    #[async_test]
    async fn a_side_that_says_no_hello_is_closed(driver: DefaultDriver) {
        let (vmm, mut debugger) = UnixStream::pair().unwrap();
        debugger.write_all(&[1]).unwrap();
        let limit = Duration::from_millis(20);
        let ended = served([limit, MESSAGE_TIME], &driver, vmm).await;
        assert!(
            matches!(ended, Err(WireError::NoHello(time)) if time == limit),
            "{ended:?}"
        );
    }

    /// Neither a message that is too long nor one with a permitted length holds the connection.
    #[async_test]
    async fn a_side_that_ends_no_message_is_closed(driver: DefaultDriver) {
        for header in [u32::MAX, 64] {
            let (vmm, mut debugger) = UnixStream::pair().unwrap();
            let hello = wire::hello();
            debugger.write_all(&hello.head).unwrap();
            debugger.write_all(&hello.tail).unwrap();
            debugger.write_all(&header.to_le_bytes()).unwrap();
            let limit = Duration::from_millis(20);
            let ended = served([HELLO_TIME, limit], &driver, vmm).await;
            assert!(
                matches!(ended, Err(WireError::Unfinished(time)) if time == limit),
                "{ended:?}"
            );
        }
    }
}
