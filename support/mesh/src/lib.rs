//! Typed channels and RPC inside one process, with names of OpenVMM's `mesh`. What differs is in the README of `support`.
//!
//! A message type needs no trait bound: what a channel carries is moved, never serialised. The rules that callers
//! rely on, each with a test in this crate:
//! - channels are unbounded; [`Sender::send`] never blocks and never fails, and a message to a receiver that is
//!   gone is dropped at once, with every [`rpc::Rpc`] in it;
//! - an [`rpc::Rpc`] that is dropped unanswered gives its caller [`rpc::RpcError::Channel`] with
//!   [`RecvError::Closed`], so no caller waits for ever on a peer that has died;
//! - every receive is cancel safe: dropping the future loses no message;
//! - a [`Receiver`] ends when its last [`Sender`] is gone and all that was sent has been received.

#![forbid(unsafe_code)]

mod channel;
pub mod error;
pub mod inspect;
pub mod rpc;
pub mod worker;

pub use channel::OneshotReceiver;
pub use channel::OneshotSender;
pub use channel::Receiver;
pub use channel::Recv;
pub use channel::RecvError;
pub use channel::Sender;
pub use channel::TryRecvError;
pub use channel::channel;
pub use channel::oneshot;
