//! The GDB Remote Serial Protocol without I/O.
//!
//! A [`Session`](session::Session) takes bytes from a client and returns bytes for the client and operations on the
//! guest ([`target::TargetOp`]). The caller carries out the operations and returns their results. The crate uses no
//! sockets, no async, no channels and no hypervisor.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod command;
mod framing;
#[doc(hidden)]
pub mod fuzzing;
mod packets;
pub mod regs;
pub mod session;
pub mod target;
mod target_xml;

pub use framing::PACKET_SIZE;
pub use framing::PacketCounts;

#[cfg(test)]
#[path = "../tests/fake_guest/mod.rs"]
#[expect(
    unreachable_patterns,
    reason = "`TargetOp` is non-exhaustive for the integration tests and the fuzz targets, which use this file too"
)]
mod fake_guest;
// The fake guest names this crate as an integration test does.
#[cfg(test)]
extern crate self as gdb_frontend;
