//! Typed channels and RPC inside one process, with the names of OpenVMM's `mesh`. The README of `support` lists the differences.
//!
//! A message type needs no trait bound: a channel moves messages and never serialises them. Callers rely on these rules, and this crate has a test for each:
//! - Channels are unbounded. [`Sender::send`] never blocks and never fails. A message to a dropped receiver is dropped at once, with
//!   every [`rpc::Rpc`] in the message.
//! - If an [`rpc::Rpc`] is dropped without an answer, its caller gets [`rpc::RpcError::Channel`] with
//!   [`RecvError::Closed`]. So no caller waits for ever for a peer that has died.
//! - Every receive is cancel safe: dropping the future loses no message.
//! - A [`Receiver`] ends when its last [`Sender`] is dropped and all sent messages have been received.

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
