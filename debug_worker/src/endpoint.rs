//! A listener beside the one for GDB: it serves a few clients at a time.

use crate::listener::Accepted;
use crate::listener::DebugListener;
use crate::listener::Eviction;
use crate::log_limit::LogLimit;
use crate::server::ACCEPT_PAUSE;
use crate::server::accept;
use futures::FutureExt;
use futures::StreamExt;
use futures::select_biased;
use futures::stream::FuturesUnordered;
use pal_async::Driver;
use pal_async::timer::Instant;
use pal_async::timer::PolledTimer;
use std::io;
use std::pin::pin;

/// What is served.
pub(crate) struct Endpoint {
    /// For the log.
    pub(crate) name: &'static str,
    /// The maximum number of clients at a time. The connection of a further client is closed.
    pub(crate) max_clients: usize,
}

impl Endpoint {
    /// Serves each client with a future of its own, until `stop` is ready. What a client was promised before is sent, if its socket takes it at once.
    pub(crate) async fn serve<F: Future<Output = ()>>(
        &self,
        driver: &dyn Driver,
        listener: DebugListener,
        stop: impl Future<Output = ()>,
        mut client: impl FnMut(socket2::Socket) -> F,
    ) -> io::Result<()> {
        enum Event {
            Served,
            Evict,
            Stop,
            Accepted(io::Result<Accepted>),
        }
        let local_addr = listener.local_addr().to_string();
        let (mut listener, mut evictions) = listener.into_polled(driver)?;
        tracing::info!(local_addr, "{} listening", self.name);
        let mut stop = pin!(stop.fuse());
        let mut pause = PolledTimer::new(driver);
        let mut accept_after = None;
        let mut log = LogLimit::new();
        let mut clients = FuturesUnordered::new();
        loop {
            // The clients come before the end, so that each gets the answer that the end has brought.
            // merge
            let event = select_biased! {
                () = clients.select_next_some() => Event::Served,
                Eviction = evictions.select_next_some() => Event::Evict,
                () = stop => Event::Stop,
                accepted = pin!(accept(&mut listener, &mut pause, accept_after).fuse()) => Event::Accepted(accepted),
            };
            match event {
                Event::Served => {}
                Event::Evict => clients.clear(),
                Event::Stop => return Ok(()),
                // Dropping the socket closes the connection.
                Event::Accepted(Ok(_)) if clients.len() >= self.max_clients => {
                    accept_after = None;
                    if let Some(left_out) = log.admit() {
                        let most = self.max_clients;
                        tracing::warn!(
                            "{}: a client was closed, because {most} are connected{left_out}",
                            self.name
                        );
                    }
                }
                Event::Accepted(Ok(Accepted { socket, .. })) => {
                    accept_after = None;
                    clients.push(client(socket));
                }
                Event::Accepted(Err(error)) => {
                    if let Some(left_out) = log.admit() {
                        tracing::warn!(%error, "{}: could not accept a client; trying again{left_out}", self.name);
                    }
                    accept_after = Some(Instant::now() + ACCEPT_PAUSE);
                }
            }
        }
    }
}
