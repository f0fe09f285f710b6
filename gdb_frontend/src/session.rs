//! One client's session: bytes in, actions out.

use crate::target::Stop;
use crate::target::TargetInfo;
use crate::target::TargetOp;
use crate::target::TargetReply;

/// What the driver has to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Write these bytes to the client, in one write.
    Send(Vec<u8>),
    /// Carry this out and call [`Session::complete`].
    Target(TargetOp),
    /// Close the connection, after what was sent before has gone out.
    Close,
}

/// One client's session.
#[derive(Debug)]
pub struct Session;

impl Session {
    /// A session with a client that has just connected. The guest is stopped.
    pub fn new(_info: TargetInfo) -> Self {
        Self
    }

    /// Takes bytes from the client, in whatever pieces they come. Never fails: bad input gets an error reply.
    pub fn push(&mut self, _bytes: &[u8]) {}

    /// The next thing to do; `None` until more comes in. While an operation is out, only interrupts are acted on (a Ctrl-C yields
    /// [`TargetOp::Interrupt`] while the guest runs); packets wait.
    pub fn poll_action(&mut self) -> Option<Action> {
        None
    }

    /// Answers the operation that is out.
    pub fn complete(&mut self, _reply: TargetReply) {}

    /// The guest has stopped, after a [`TargetOp::Resume`] that was answered with [`TargetReply::Done`]. `console` is text to
    /// show the user before the stop reply, where there is some.
    pub fn stopped(&mut self, _stop: Stop, _console: Option<&str>) {}
}
