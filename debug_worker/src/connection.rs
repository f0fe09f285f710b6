//! The bytes of one client: reads and writes at the same time, neither without bounds.

use crate::opening::Opening;
use crate::server::Socket;
use futures::AsyncReadExt;
use futures::AsyncWrite;
use futures::AsyncWriteExt;
use pal_async::Driver;
use pal_async::socket::ReadHalf;
use pal_async::socket::WriteHalf;
use pal_async::timer::Instant;
use pal_async::timer::PolledTimer;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

/// One read takes in a whole packet of the largest size.
const READ_SIZE: usize = 256 << 10;

/// While more than this waits to be written, no packet is acted upon: a client that does not read its replies cannot make
/// them pile up.
const MAX_UNSENT: usize = 1 << 20;

/// What one dump of the protocol trace shows at most.
const MAX_TRACED: usize = 4096;

/// Both directions of one client's connection.
pub(crate) struct Connection {
    pub(crate) incoming: Incoming,
    pub(crate) outgoing: Outgoing,
}

/// Bytes from the client.
pub(crate) struct Incoming {
    half: ReadHalf<socket2::Socket>,
    buffer: Box<[u8]>,
    /// What has to come first; `None` once it has.
    opening: Option<Opening>,
}

/// Bytes for the client.
pub(crate) struct Outgoing {
    half: WriteHalf<socket2::Socket>,
    unsent: Vec<u8>,
    /// The first byte of `unsent` that has not been sent.
    start: usize,
    /// Since when the client has taken no byte of what is unsent.
    stuck_since: Option<Instant>,
    timer: PolledTimer,
    /// How long that may last.
    idle_timeout: Duration,
}

/// What became of what was queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// All of it is sent.
    All,
    /// The client has not read for too long.
    Stuck,
}

impl Connection {
    /// The bytes of a client that is to speak the protocol of `opening`. One that does not read what is sent to it for `idle_timeout` is
    /// given up.
    pub(crate) fn new(
        driver: &dyn Driver,
        socket: Socket,
        opening: Opening,
        idle_timeout: Duration,
    ) -> Self {
        let (read, write) = socket.split();
        Self {
            incoming: Incoming {
                half: read,
                buffer: vec![0; READ_SIZE].into_boxed_slice(),
                opening: Some(opening),
            },
            outgoing: Outgoing {
                half: write,
                unsent: Vec::new(),
                start: 0,
                stuck_since: None,
                timer: PolledTimer::new(driver),
                idle_timeout,
            },
        }
    }
}

impl Incoming {
    /// The next bytes, none at the end of the stream. Bytes of a client that speaks another protocol are an error, with a
    /// [`Stranger`](crate::opening::Stranger) inside. Cancel safe: bytes are taken only in the poll that returns them.
    pub(crate) async fn read(&mut self) -> io::Result<&[u8]> {
        let count = self.half.read(&mut self.buffer).await?;
        let bytes = &self.buffer[..count];
        tracing::trace!(target: "rsp", "<- {}", Traced(bytes));
        if count > 0
            && let Some(opening) = self.opening.take()
        {
            opening.admit(bytes).map_err(io::Error::other)?;
        }
        Ok(bytes)
    }
}

impl Outgoing {
    /// Queues bytes for [`Outgoing::flush`].
    pub(crate) fn queue(&mut self, bytes: Vec<u8>) {
        tracing::trace!(target: "rsp", "-> {}", Traced(&bytes));
        match self.unsent.is_empty() {
            true => self.unsent = bytes,
            false => self.unsent.extend_from_slice(&bytes),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.unsent.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.unsent.len() > MAX_UNSENT
    }

    /// Writes all that is queued, unless the client takes no byte for the idle timeout. Cancel safe: progress is kept here.
    pub(crate) async fn flush(&mut self) -> io::Result<Written> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Written>> {
        while self.start < self.unsent.len() {
            match Pin::new(&mut self.half).poll_write(cx, &self.unsent[self.start..])? {
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(count) => {
                    self.start += count;
                    self.stuck_since = None;
                }
                Poll::Pending => {
                    let since = *self.stuck_since.get_or_insert_with(Instant::now);
                    let Some(end) = since.checked_add(self.idle_timeout) else {
                        return Poll::Pending;
                    };
                    ready!(self.timer.poll_until(cx, end));
                    return Poll::Ready(Ok(Written::Stuck));
                }
            }
        }
        self.unsent.clear();
        self.start = 0;
        Poll::Ready(Ok(Written::All))
    }

    /// Tells the client that nothing more comes.
    pub(crate) async fn close(&mut self) -> io::Result<()> {
        self.half.close().await
    }
}

/// Text as it is, all else as in a byte string of Rust.
struct Traced<'a>(&'a [u8]);

impl fmt::Display for Traced<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(MAX_TRACED)];
        shown.escape_ascii().fmt(f)?;
        match self.0.len() - shown.len() {
            0 => Ok(()),
            rest => write!(f, " and {rest} bytes more"),
        }
    }
}
