//! The debug server: an actor between a GDB or LLDB client and the VMM.
//!
//! ```text
//!  client --- socket ---> server --- one session at a time ---> DebugRequest ---> the VMM's controller
//!             (listener,        |                |
//!              pending_clients) |                +- gdb_frontend: bytes to operations and back
//!             other clients     |                +- operation: operations to requests and back
//!             are refused <-----+
//! ```
//!
//! A VMM binds a [`DebugListener`] first, so that it can print the address or report an error. Then the VMM either runs [`serve`]
//! as a task beside its controller, or launches [`DebugWorker`], which has its own thread. The task is faster, because a request and its answer
//! are two turns of one executor.
//!
//! A connection attaches to the guest at its first well-formed packet. Before that, the server does nothing to the guest.
//!
//! These rules hold for every session:
//! - Any input leaves the session alive. Only a lost connection, a `D` or `k` packet, an eviction or
//!   [`WorkerRpc::Stop`](mesh::worker::WorkerRpc::Stop) ends it (I10).
//! - However the session ends, the server sends `Detach` once and awaits the answer before it serves the next client (I6).
//! - No request to the VM waits longer than the deadline, except `Resume`, which waits for the guest.
//!
//! `RUST_LOG=rsp=trace` logs the bytes of the protocol.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod address;
#[cfg(feature = "announce")]
mod announcement;
mod capability_text;
mod checksum;
mod conditions;
mod connection;
mod deadline;
#[cfg(any(feature = "open-metrics", feature = "rpc"))]
mod endpoint;
mod error_table;
mod listener;
mod log_limit;
#[cfg(feature = "open-metrics")]
mod metrics;
mod monitor;
mod non_stop;
mod operation;
mod output;
mod parameters;
mod peer_owner;
mod pending_clients;
#[cfg(feature = "process")]
pub mod process;
mod progress;
mod protocol;
mod ram_pieces;
mod refusal;
mod refused;
mod registers;
#[cfg(feature = "rpc")]
mod rpc;
mod search;
mod server;
mod session;
mod session_log;
mod statistics;
mod stop_reply;
mod symbol_file;
mod tables;
mod trace;
mod vm;
mod worker;

#[cfg(test)]
mod tests;

pub use address::AddressError;
pub use address::Exposure;
pub use address::ListenAddress;
#[cfg(feature = "announce")]
pub use announcement::Announcement;
#[cfg(feature = "announce")]
pub use announcement::RunningServer;
#[cfg(feature = "announce")]
pub use announcement::running_servers;
pub use capability_text::capability_meaning;
pub use listener::BindError;
pub use listener::DebugListener;
pub use listener::Evictor;
pub use parameters::DebuggerParameters;
pub use parameters::SessionSettings;
#[cfg(feature = "rpc")]
pub use rpc::serve_rpc;
pub use server::serve;
pub use statistics::Statistics;
pub use symbol_file::SymbolFile;
pub use worker::DebugWorker;
