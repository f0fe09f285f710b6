//! The debugger's side.

use crate::READS_PER_TURN;
use crate::WireError;
use crate::closed_is_no_error;
use crate::queue::Queue;
use futures::AsyncRead;
use futures::AsyncWrite;
use futures::FutureExt;
use futures::channel::oneshot;
use futures::future;
use pal_async::Driver;
use pal_async::socket::PolledSocket;
use pal_async::socket::ReadHalf;
use pal_async::socket::WriteHalf;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::task::ready;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::DebugMessage;
use vmm_core_defs::target::DebugTarget;
use vmm_core_defs::wire;
use vmm_core_defs::wire::Client;
use vmm_core_defs::wire::Frame;
use vmm_core_defs::wire::Frames;
use vmm_core_defs::wire::MAX_FRAME;
use vmm_core_defs::wire::MAX_HELLO;

/// The characters of the other side's text in an error.
const MAX_TEXT: usize = 200;

/// Begins a connection to a VMM that runs [`serve`](crate::serve). Requests may be sent at once. Their answers come while the [`Connection`] runs.
///
/// # Errors
/// The executor cannot poll the socket.
pub fn connect(
    driver: &(impl ?Sized + Driver),
    socket: UnixStream,
) -> io::Result<(RemoteTarget, Connection)> {
    let (read, write) = PolledSocket::new(driver, socket)?.split();
    let (open, closed) = oneshot::channel();
    let mut queue = Queue::default();
    queue.push(wire::hello());
    let shared = Arc::new(Shared(Mutex::new(State {
        client: Client::default(),
        queue,
        write,
        waker: Waker::noop().clone(),
        unused: false,
        closed: false,
    })));
    let target = RemoteTarget(Arc::new(Handle {
        shared: shared.clone(),
        closed: closed.shared(),
    }));
    let connection = Connection {
        shared,
        read,
        frames: Frames::new(MAX_HELLO),
        greeted: false,
        _open: open,
    };
    Ok((target, connection))
}

/// A VM behind a socket. Clones share the connection, which ends when the last clone and the last session are dropped.
#[derive(Clone)]
pub struct RemoteTarget(Arc<Handle>);

impl fmt::Debug for RemoteTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteTarget")
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

impl DebugTarget for RemoteTarget {
    /// Writes the message to the socket, or queues it if the socket takes no more.
    fn send(&self, message: DebugMessage) {
        let mut state = self.0.shared.lock();
        if state.closed {
            // A message may contain a target or a session, which takes the lock when it is dropped.
            drop(state);
            drop(message);
            return;
        }
        if let Some(frame) = state.client.send(message) {
            state.queue.push(frame);
        }
        let waker = state.waker.clone();
        // The task sees an error when it reads or writes next.
        let flushed = state.poll_flush(&mut Context::from_waker(&waker));
        drop(state);
        if let Poll::Ready(Err(_)) = flushed {
            waker.wake();
        }
    }

    fn is_closed(&self) -> bool {
        self.0.shared.lock().closed
    }

    fn closed(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.0.closed.clone().map(|_| ()))
    }
}

/// Ends the connection when it is dropped: nobody can send any more.
struct Handle {
    shared: Arc<Shared>,
    /// Resolves when the [`Connection`] is dropped.
    closed: future::Shared<oneshot::Receiver<()>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.unused = true;
        let waker = state.waker.clone();
        drop(state);
        waker.wake();
    }
}

struct Shared(Mutex<State>);

impl Shared {
    /// A panic with the lock leaves at worst a request without an answer.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct State {
    client: Client,
    queue: Queue,
    write: WriteHalf<UnixStream>,
    /// Wakes the task that runs the connection.
    waker: Waker,
    /// No handle is left.
    unused: bool,
    /// Nothing is sent or received any more.
    closed: bool,
}

impl State {
    /// Writes what the socket takes. `cx` is woken when it takes more.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.queue.poll_flush(cx, &mut self.write, |_| {})
    }
}

/// The task of a connection, which receives the answers. Dropping it closes the connection: open requests fail, and the session ends as `Attach` said.
#[must_use = "no answer is received unless it runs"]
pub struct Connection {
    shared: Arc<Shared>,
    read: ReadHalf<UnixStream>,
    frames: Frames,
    /// The hello of the other side has come.
    greeted: bool,
    /// Dropped last.
    _open: oneshot::Sender<()>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("greeted", &self.greeted)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Receives answers until a side closes the connection.
    ///
    /// # Errors
    /// [`WireError`].
    pub async fn run(mut self) -> Result<(), WireError> {
        closed_is_no_error(poll_fn(|cx| self.poll(cx)).await)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        {
            let mut state = self.shared.lock();
            state.waker.clone_from(cx.waker());
            let flushed = state.poll_flush(cx)?;
            if state.unused && flushed.is_ready() {
                // The other side reads the last requests, and then the end.
                let _ = Pin::new(&mut state.write).poll_close(cx);
                return Poll::Ready(Ok(()));
            }
        }
        for _ in 0..READS_PER_TURN {
            let read = Pin::new(&mut self.read).poll_read(cx, self.frames.space());
            match ready!(read)? {
                0 => return Poll::Ready(Ok(())),
                count => self.frames.filled(count),
            }
            while let Some(frame) = self.frames.next_frame() {
                self.received(frame)?;
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
        let answered = self.shared.lock().client.received(frame)?;
        let stray = answered.of_no_request();
        let error = answered.deliver();
        match stray {
            // The request for which it was meant would wait for ever.
            Some(id) => Err(WireError::Stray {
                id,
                error: error.map(|error| printable(&error)),
            }),
            None => Ok(()),
        }
    }
}

/// The first characters of the other side's text, of which none changes the log or the terminal.
fn printable(error: &DebugError) -> String {
    let text = error.to_string();
    let first = text.chars().take(MAX_TEXT);
    let escaped = first.map(|char| match char {
        ' '..='~' => char.to_string(),
        other => other.escape_default().to_string(),
    });
    escaped.collect()
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        let open = std::mem::take(&mut state.client);
        drop(state);
        // Fails the calls. A request may contain a target, which takes the lock when it is dropped.
        drop(open);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm_core_defs::debug_rpc::BadMessage;

    #[test]
    fn the_text_of_the_other_side_is_short_and_harmless() {
        let of = "\nERROR forged\x1b[31m\u{9b}31m\u{202e}".to_owned() + &"A".repeat(1 << 20);
        let text = printable(&BadMessage::Missing { of }.into());
        assert!(text.contains("\\nERROR forged\\u{1b}[31m"), "{text}");
        assert!(text.chars().all(|char| matches!(char, ' '..='~')));
        assert!(text.len() < 2 * MAX_TEXT, "{}", text.len());
    }
}
