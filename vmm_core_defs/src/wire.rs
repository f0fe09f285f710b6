//! The messages of [`debug_rpc`](crate::debug_rpc) as bytes, for a debugger in another process. This module does no input or output: it turns messages
//! into frames and back. The `.proto` files in the folder `proto` of this crate describe the messages for other languages.
//!
//! ```text
//!  debugger                                                      VMM
//!     | -- Hello { oldest, newest } ------------------------------>  |
//!     | <------------------------------ Hello { oldest, newest } --  |
//!     | -- Request { id: 1, attach } ----------------------------->  |
//!     | <------------- Answer { id: 1, attached: { session, .. } }   |
//!     | -- Request { id: 2, session, resume } -------------------->  |  no answer until the guest stops
//!     | -- Request { id: 3, session, read_memory } --------------->  |
//!     | <------------------------------ Answer { id: 3, memory } --  |
//! ```
//!
//! A frame is the length of a message as 4 bytes in little-endian order, and the message. [`Frames`] cuts the bytes of a stream into frames, and allocates
//! nothing for a frame that is longer than the limit. [`Client`] is the debugger's side, and [`Server`] the VMM's. A request with a field or a value that
//! the VMM does not know is answered with [`BadMessage`](crate::debug_rpc::BadMessage), and the connection stays.

mod client;
mod convert;
mod frame;
#[rustfmt::skip]
#[path = "wire/generated/fields.rs"]
mod fields;
mod hello;
#[rustfmt::skip]
#[expect(unreachable_pub, reason = "generated")]
#[path = "wire/generated/proto.rs"]
mod proto;
mod server;
mod strict;
#[cfg(test)]
mod tests;

pub use client::Answered;
pub use client::Client;
pub use frame::Frame;
pub use frame::Frames;
pub use frame::Outgoing;
pub use hello::HelloError;
pub use hello::MAX_HELLO;
pub use hello::VERSION;
pub use hello::accept;
pub use hello::hello;
pub use server::PendingAnswer;
pub use server::Received;
pub use server::Reply;
pub use server::Server;

use crate::memory::MAX_TRANSFER;

/// The maximum length of a message after the hello, in bytes: a write of [`MAX_TRANSFER`] bytes with its other fields.
pub const MAX_FRAME: usize = MAX_TRANSFER + (64 << 10);

/// The maximum number of elements of lists in a request.
const MAX_ELEMENTS_OF_REQUEST: usize = 1 << 16;

/// The maximum number of elements of lists in an answer.
const MAX_ELEMENTS_OF_ANSWER: usize = 1 << 18;

/// The maximum number of pages in an answer to `MappedPages`. The runner may find more; the answer then says where to go on.
const MAX_PAGES: usize = 1 << 16;
