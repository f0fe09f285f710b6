//! Frames that are to be written.

use bytes::Buf;
use bytes::Bytes;
use futures::AsyncWrite;
use pal_async::socket::WriteHalf;
use std::collections::VecDeque;
use std::io;
use std::io::IoSlice;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use vmm_core_defs::wire::Outgoing;

/// The number of parts that are written in one system call.
const PARTS: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct Queue {
    parts: VecDeque<Bytes>,
}

impl Queue {
    pub(crate) fn push(&mut self, frame: Outgoing) {
        let parts = [frame.head, frame.tail];
        self.parts
            .extend(parts.into_iter().filter(|part| !part.is_empty()));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Writes as much as the socket takes, and passes the number of bytes to `written`. Ready when all is written.
    pub(crate) fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut WriteHalf<UnixStream>,
        mut written: impl FnMut(usize),
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let mut slices = [IoSlice::new(&[]); PARTS];
            let mut count = 0;
            for (slice, part) in slices.iter_mut().zip(&self.parts) {
                *slice = IoSlice::new(part);
                count += 1;
            }
            let socket = Pin::new(&mut *socket);
            let now = ready!(socket.poll_write_vectored(cx, &slices[..count]))?;
            written(now);
            self.advance(now);
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(first) = self.parts.front_mut()
            && count > 0
        {
            let now = count.min(first.len());
            first.advance(now);
            count -= now;
            if first.is_empty() {
                self.parts.pop_front();
            }
        }
    }
}
