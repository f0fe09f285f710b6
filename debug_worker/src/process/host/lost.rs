//! Why a worker is gone.

use super::beat::START_TIME;
use debug_wire::WireError;
use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use thiserror::Error;

/// Why a worker has ended, or is made to.
#[derive(Debug, Error)]
pub(super) enum Lost {
    #[error("its process cannot be started: {0}")]
    NotStarted(io::Error),
    #[error("it was not ready within {} s", START_TIME.as_secs())]
    NotReady,
    #[error("it does not answer: it was stopped, or it hangs")]
    Silent,
    #[error("its socket has failed: {0}")]
    Control(io::Error),
    #[error("it broke the protocol of its debug socket: {0}")]
    Wire(WireError),
    #[error("it did not end the session of its debugger when it was told to")]
    NotEvicted,
    #[error("it has closed its debug socket")]
    Closed,
    #[error("it sent a message that nobody had asked for")]
    Unexpected,
    #[error("{0}")]
    Failed(String),
    #[error("{0}")]
    Exited(Exit),
}

/// The end of a process, for a reader who may not know the numbers of signals.
#[derive(Debug)]
pub(super) struct Exit(pub(super) ExitStatus);

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.signal() {
            Some(libc::SIGSYS) => f.write_str(
                "its sandbox killed it, because it made a system call that it does not need (SIGSYS); please report this, and use --isolate=off until it is mended",
            ),
            Some(_) | None => write!(f, "it ended with {}", self.0),
        }
    }
}
