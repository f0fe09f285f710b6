//! Clients that have connected and have not sent a packet yet. Nothing is done to the guest for them, and none of them keeps another waiting.
//!
//! ```text
//!  accepted --> Lobby ---+--- a packet with a good checksum ---> Visitor, who may attach
//!                        +--- gone, silent, no debugger, crowded out ---> Left
//! ```

use crate::connection::Connection;
use crate::opening::Stranger;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::select_biased;
use gdb_frontend::session::NoDebugger;
use gdb_frontend::session::Opening;
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

/// So many clients may be silent at once. One more, and the one that has been silent for the longest has to go: nobody can keep a
/// debugger out by connecting often.
const ROOM: usize = 16;

/// A client whose first packet has come.
pub(crate) struct Visitor {
    pub(crate) peer: String,
    pub(crate) connection: Connection,
    pub(crate) opening: Opening,
}

/// Why a client is gone that has never sent a packet.
#[derive(Debug, Error)]
pub(crate) enum Left {
    #[error("the client closed the connection before its first packet")]
    Gone,
    #[error("the connection was lost before the client's first packet: {0}")]
    Lost(io::Error),
    #[error(transparent)]
    Stranger(#[from] Stranger),
    #[error("the client sent no packet within {} s", .0.as_secs_f32())]
    Silent(Duration),
    #[error(transparent)]
    NoDebugger(NoDebugger),
    #[error("{ROOM} other clients connected after this one, and it had not sent a packet")]
    CrowdedOut,
}

impl From<io::Error> for Left {
    fn from(error: io::Error) -> Self {
        match error.downcast::<Stranger>() {
            Ok(stranger) => stranger.into(),
            Err(error) => Self::Lost(error),
        }
    }
}

impl From<NoDebugger> for Left {
    fn from(why: NoDebugger) -> Self {
        match why {
            NoDebugger::Foreign(byte) => Stranger(byte).into(),
            NoDebugger::NoPacket => Self::NoDebugger(why),
        }
    }
}

/// Clients that have connected and have not sent a packet yet.
pub(crate) struct Lobby {
    driver: Arc<dyn Driver>,
    /// How long a client may be silent.
    idle_timeout: Duration,
    /// In the order in which they came.
    newcomers: VecDeque<Newcomer>,
}

struct Newcomer {
    peer: String,
    arrival: BoxFuture<'static, Result<Visitor, Left>>,
}

impl Lobby {
    pub(crate) fn new(driver: Arc<dyn Driver>, idle_timeout: Duration) -> Self {
        Self {
            driver,
            idle_timeout,
            newcomers: VecDeque::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.newcomers.len()
    }

    /// Takes in a client. The name of the one that had to make room, if any had to.
    pub(crate) fn enter(&mut self, connection: Connection, peer: String) -> Option<String> {
        let crowded_out = match self.newcomers.len() < ROOM {
            true => None,
            false => self.newcomers.pop_front(),
        };
        let timer = PolledTimer::new(&*self.driver);
        let arrival = first_packet(peer.clone(), connection, timer, self.idle_timeout);
        self.newcomers.push_back(Newcomer {
            peer,
            arrival: arrival.boxed(),
        });
        crowded_out.map(|newcomer| newcomer.peer)
    }

    /// The next client that speaks or leaves, with its name. Cancel safe: each client's progress is its own.
    pub(crate) async fn next(&mut self) -> (String, Result<Visitor, Left>) {
        poll_fn(|cx| {
            for index in 0..self.newcomers.len() {
                if let Poll::Ready(arrival) = self.newcomers[index].arrival.poll_unpin(cx)
                    && let Some(newcomer) = self.newcomers.remove(index)
                {
                    return Poll::Ready((newcomer.peer, arrival));
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// Waits for the first packet, `limit` at most, however the bytes trickle in.
async fn first_packet(
    peer: String,
    mut connection: Connection,
    mut timer: PolledTimer,
    limit: Duration,
) -> Result<Visitor, Left> {
    let mut opening = Opening::default();
    let started = Instant::now();
    let spoke = {
        let spoke = pin!(wait_for_packet(&mut connection, &mut opening).fuse());
        // race: a client that is too late is dropped with its connection
        select_biased! {
            spoke = { spoke } => spoke,
            _ = pin!(timer.sleep(limit).fuse()) => Err(Left::Silent(started.elapsed())),
        }
    };
    spoke?;
    Ok(Visitor {
        peer,
        connection,
        opening,
    })
}

async fn wait_for_packet(connection: &mut Connection, opening: &mut Opening) -> Result<(), Left> {
    loop {
        let progress = match connection.incoming.read().await? {
            [] => return Err(Left::Gone),
            bytes => opening.push(bytes),
        };
        match progress {
            Progress::Waiting => {}
            Progress::Spoke => return Ok(()),
            Progress::NoDebugger(why) => return Err(why.into()),
        }
        let replies = opening.take_replies();
        if !replies.is_empty() {
            connection.outgoing.queue(replies);
            connection.outgoing.flush().await?;
        }
    }
}
