//! The debug requests on a unix socket, for programs.
//!
//! The socket has mode 0600, as the debug server's own unix socket has. A web page cannot reach a unix socket, and bytes of another protocol end the connection
//! before the hello, without an effect on the guest.

use crate::address::ListenAddress;
use crate::endpoint::Endpoint;
use crate::listener::DebugListener;
use crate::log_limit::LogLimit;
use futures::StreamExt;
use mesh::Receiver;
use mesh::worker::WorkerRpc;
use pal_async::Driver;
use std::io;
use std::sync::Mutex;
use std::sync::PoisonError;
use vmm_core_defs::target::Target;

/// The maximum number of programs at a time. One of them is the guest's debugger.
const MAX_CLIENTS: usize = 8;

/// Serves programs that speak the protocol of [`debug_wire`], until `owner` receives `Stop` or closes.
///
/// The target decides which program, or which client of GDB's protocol, is the guest's debugger: it refuses a second `Attach`. A program that goes away ends
/// its session as its `Attach` said. An [`Evictor`](crate::Evictor) of the listener closes the connections of all programs.
///
/// # Errors
/// The listener is not a unix socket, or it cannot be polled. An error of a program ends only the connection of this program.
pub async fn serve_rpc(
    driver: impl Driver,
    listener: DebugListener,
    target: impl Into<Target>,
    mut owner: Receiver<WorkerRpc>,
) -> io::Result<()> {
    if matches!(listener.local_addr(), ListenAddress::Tcp(_)) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "programs need a unix socket: a web page can reach a TCP port; listen on unix:PATH",
        ));
    }
    let target = target.into();
    let log = Mutex::new(LogLimit::new());
    let stop = async {
        // There is nothing to inspect.
        while let Some(WorkerRpc::Inspect(_)) = owner.next().await {}
    };
    let serve = |socket: socket2::Socket| {
        let serving = debug_wire::serve(&driver, socket.into(), target.clone());
        let log = &log;
        async move {
            if let Err(error) = serving.await {
                let left_out = log.lock().unwrap_or_else(PoisonError::into_inner).admit();
                if let Some(left_out) = left_out {
                    tracing::warn!(%error, "the connection of a program has ended{left_out}");
                }
            }
        }
    };
    let endpoint = Endpoint {
        name: "the debug requests for programs",
        max_clients: MAX_CLIENTS,
    };
    endpoint.serve(&driver, listener, stop, serve).await
}
