//! The debug requests of a VMM over a unix stream socket, for a debugger in another process.
//!
//! ```text
//!  debugger's process                                   VMM's process
//!  DebugSession --- RemoteTarget === socket === serve --- Target: the channel to the controller
//!                        |                        |
//!                    Connection: reads         answers each request when the target has answered it, in any order
//! ```
//!
//! [`connect`] makes a [`RemoteTarget`], which takes the place of a channel to a VMM, and a [`Connection`], which has to run. [`serve`] passes the requests
//! of one connection on. The messages and their limits are those of [`vmm_core_defs::wire`].
//!
//! If the debugger goes away, in whatever way, its session ends as its `Attach` said (I6). If the VMM goes away, every open request of the debugger fails.
//! A debugger that sends nonsense or too much, or that reads nothing, costs the VMM a bounded amount of memory.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod client;
mod queue;
mod server;

pub use client::Connection;
pub use client::RemoteTarget;
pub use client::connect;
pub use server::OpenSession;
pub use server::serve;
pub use server::serve_watched;

use std::io;
use std::time::Duration;
use thiserror::Error;
use vmm_core_defs::debug_rpc::BadMessage;
use vmm_core_defs::wire::HelloError;

/// Why a connection ended before one of its sides closed it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WireError {
    /// The other side does not speak the protocol, or another version of it.
    #[error(transparent)]
    Hello(#[from] HelloError),
    /// The other side has not said which versions of the protocol it speaks.
    #[error("the other side has said no hello for {} s; it does not speak this protocol, or hangs", .0.as_secs_f32())]
    NoHello(Duration),
    /// The socket has failed.
    #[error("the socket to the other side has failed; connect again")]
    Socket(#[from] io::Error),
    /// The other side has sent the beginning of a message, and not the rest.
    #[error("the other side has sent a part of a message, and not the rest for {} s; it hangs, or does not speak this protocol", .0.as_secs_f32())]
    Unfinished(Duration),
    /// The other side sent an answer to no open request.
    #[error(
        "the VMM sent an answer to no open request (number {id}{}); use the same release on both sides", .error.as_ref().map(|error| format!(": {error}")).unwrap_or_default()
    )]
    Stray {
        /// The number of the request. 0: the VMM could not read a request.
        id: u64,
        /// The beginning of the error in the answer.
        error: Option<String>,
    },
    /// The other side sent a message that no message can follow.
    #[error(
        "the other side sent an answer that cannot be used; use the same release on both sides"
    )]
    Answer(#[from] BadMessage),
}

/// The number of reads after which a connection gives way to the other tasks of its executor.
const READS_PER_TURN: u32 = 32;

/// A side that goes away with unread bytes resets the connection (unix(7)).
fn closed_is_no_error(ended: Result<(), WireError>) -> Result<(), WireError> {
    match ended {
        Err(WireError::Socket(error))
            if matches!(
                error.kind(),
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
            ) =>
        {
            Ok(())
        }
        ended => ended,
    }
}
