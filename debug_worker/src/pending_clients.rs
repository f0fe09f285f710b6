//! Clients that have connected and have not sent a packet yet. The server does nothing to the guest for them, and none of them delays another client.
//!
//! ```text
//!  accepted --> PendingClients ---+--- a packet with a correct checksum ---> ReadyClient, which may attach
//!                                 +--- gone, silent, wrong protocol, too many ---> NoFirstPacket
//! ```

use crate::connection::Connection;
use crate::protocol::WrongProtocol;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::select_biased;
use gdb_frontend::session::FirstPacket;
use gdb_frontend::session::NotADebugger;
use gdb_frontend::session::Progress;
use pal_async::Driver;
use pal_async::timer::Instant;
use pal_async::timer::PolledTimer;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use thiserror::Error;

/// The maximum number of pending clients. When one more connects, the client that has waited longest is closed, so
/// nobody can keep a debugger out by connecting often.
const MAX_PENDING: usize = 16;

/// A client that has sent its first packet.
pub(crate) struct ReadyClient {
    pub(crate) peer: String,
    pub(crate) connection: Connection,
    pub(crate) first_packet: FirstPacket,
}

/// The reason why a client is gone that has never sent a packet.
#[derive(Debug, Error)]
pub(crate) enum NoFirstPacket {
    #[error("the client closed the connection before its first packet")]
    Gone,
    #[error("the connection was lost before the client's first packet: {0}")]
    Lost(io::Error),
    #[error(transparent)]
    WrongProtocol(#[from] WrongProtocol),
    #[error("the client sent no packet within {} s", .0.as_secs_f32())]
    Silent(Duration),
    #[error(transparent)]
    NotADebugger(NotADebugger),
    #[error(
        "{MAX_PENDING} other clients connected after this client, and it had not sent a packet"
    )]
    TooMany,
}

impl From<io::Error> for NoFirstPacket {
    fn from(error: io::Error) -> Self {
        match error.downcast::<WrongProtocol>() {
            Ok(wrong) => wrong.into(),
            Err(error) => Self::Lost(error),
        }
    }
}

impl From<NotADebugger> for NoFirstPacket {
    fn from(why: NotADebugger) -> Self {
        match why {
            NotADebugger::Foreign(byte) => WrongProtocol(byte).into(),
            NotADebugger::NoPacket => Self::NotADebugger(why),
        }
    }
}

/// Clients that have connected and have not sent a packet yet.
pub(crate) struct PendingClients {
    driver: Arc<dyn Driver>,
    /// The maximum time to the first packet.
    idle_timeout: Duration,
    /// In the order of their connections.
    clients: VecDeque<PendingClient>,
}

struct PendingClient {
    peer: String,
    packet: BoxFuture<'static, Result<ReadyClient, NoFirstPacket>>,
}

impl PendingClients {
    pub(crate) fn new(driver: Arc<dyn Driver>, idle_timeout: Duration) -> Self {
        Self {
            driver,
            idle_timeout,
            clients: VecDeque::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.clients.len()
    }

    /// Adds a client. Returns the name of the client that was closed because there were too many.
    pub(crate) fn add(&mut self, connection: Connection, peer: String) -> Option<String> {
        let closed = match self.clients.len() < MAX_PENDING {
            true => None,
            false => self.clients.pop_front(),
        };
        let timer = PolledTimer::new(&*self.driver);
        let packet = wait_within(peer.clone(), connection, timer, self.idle_timeout);
        self.clients.push_back(PendingClient {
            peer,
            packet: packet.boxed(),
        });
        closed.map(|client| client.peer)
    }

    /// Waits for the next client that sends its first packet or is gone. Returns its name. Cancel safe: each client
    /// keeps its own progress.
    pub(crate) async fn next(&mut self) -> (String, Result<ReadyClient, NoFirstPacket>) {
        poll_fn(|cx| {
            for index in 0..self.clients.len() {
                if let Poll::Ready(packet) = self.clients[index].packet.poll_unpin(cx)
                    && let Some(client) = self.clients.remove(index)
                {
                    return Poll::Ready((client.peer, packet));
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// Waits for the first packet, for `limit` at most, however slowly the bytes arrive.
async fn wait_within(
    peer: String,
    mut connection: Connection,
    mut timer: PolledTimer,
    limit: Duration,
) -> Result<ReadyClient, NoFirstPacket> {
    let mut first_packet = FirstPacket::default();
    let started = Instant::now();
    let received = {
        let received = pin!(wait_for_packet(&mut connection, &mut first_packet).fuse());
        // race: the connection of a client that is too late is dropped
        select_biased! {
            received = { received } => received,
            _ = pin!(timer.sleep(limit).fuse()) => Err(NoFirstPacket::Silent(started.elapsed())),
        }
    };
    received?;
    Ok(ReadyClient {
        peer,
        connection,
        first_packet,
    })
}

async fn wait_for_packet(
    connection: &mut Connection,
    first_packet: &mut FirstPacket,
) -> Result<(), NoFirstPacket> {
    loop {
        let progress = match connection.incoming.read().await? {
            [] => return Err(NoFirstPacket::Gone),
            bytes => first_packet.push(bytes),
        };
        match progress {
            Progress::Waiting => {}
            Progress::Received => return Ok(()),
            Progress::NotADebugger(why) => return Err(why.into()),
        }
        let replies = first_packet.take_replies();
        if !replies.is_empty() {
            connection.outgoing.queue(replies);
            connection.outgoing.flush().await?;
        }
    }
}
