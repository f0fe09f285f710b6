//! The debug server: an actor between a GDB or LLDB client and the VMM.
//!
//! ```text
//!  client --- socket ---> server --- one session at a time ---> DebugRequest ---> the VMM's controller
//!             (listener,   |                |
//!              lobby)      |                +- gdb_frontend: bytes to operations and back
//!             others are   |                +- operation: operations to requests and back
//!             refused <----+
//! ```
//!
//! A VMM binds a [`DebugListener`], so that it can print the address or say why there is none, and then either runs [`serve`]
//! as a task beside its controller, which is the fast way: a request and its answer are two turns of one executor. Or it
//! launches [`DebugWorker`], which brings its own thread.
//!
//! A connection is nobody's debugger before its first well-formed packet: until then nothing is done to the guest.
//!
//! What holds for every session:
//! - it survives any input; only a lost connection, the client's own wish or [`WorkerRpc::Stop`](mesh::worker::WorkerRpc::Stop)
//!   ends it (I10);
//! - however it ends, `Detach` is sent once and its answer awaited before the next client is served (I6);
//! - no request to the VM waits longer than the deadline, except `Resume`, which waits for the guest.
//!
//! `RUST_LOG=rsp=trace` shows the protocol as it goes over the wire.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod address;
mod capability_text;
mod connection;
mod deadline;
mod error_table;
mod listener;
mod lobby;
mod log_limit;
mod monitor;
mod opening;
mod operation;
mod peer_owner;
mod refusal;
mod refused;
mod registers;
mod server;
mod session;
mod stop_reply;
mod vm;
mod worker;

#[cfg(test)]
mod tests;

pub use address::AddressError;
pub use address::Exposure;
pub use address::ListenAddress;
pub use capability_text::capability_meaning;
pub use listener::BindError;
pub use listener::DebugListener;
pub use listener::Evictor;
pub use server::DebuggerParameters;
pub use server::SessionSettings;
pub use server::serve;
pub use worker::DebugWorker;
