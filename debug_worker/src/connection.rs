//! The bytes of one client: reads and writes at the same time, neither without bounds.

use crate::opening::Opening;
use crate::server::Socket;
use futures::AsyncReadExt;
use futures::AsyncWriteExt;
use pal_async::socket::ReadHalf;
use pal_async::socket::WriteHalf;
use std::fmt;
use std::io;

/// One read takes in a whole packet of the largest size.
const READ_SIZE: usize = 256 << 10;

/// While more than this waits to be written, no packet is acted upon: a client that does not read its replies cannot make
/// them pile up.
const MAX_UNSENT: usize = 1 << 20;

/// What one dump of the protocol trace shows at most.
const MAX_TRACED: usize = 4096;

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
}

/// The bytes of a client that is to speak the protocol of `opening`.
pub(crate) fn split(socket: Socket, opening: Opening) -> (Incoming, Outgoing) {
    let (read, write) = socket.split();
    (
        Incoming {
            half: read,
            buffer: vec![0; READ_SIZE].into_boxed_slice(),
            opening: Some(opening),
        },
        Outgoing {
            half: write,
            unsent: Vec::new(),
            start: 0,
        },
    )
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

    /// Writes all that is queued. Cancel safe: progress is kept here.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        while self.start < self.unsent.len() {
            match self.half.write(&self.unsent[self.start..]).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => self.start += count,
            }
        }
        self.unsent.clear();
        self.start = 0;
        Ok(())
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
