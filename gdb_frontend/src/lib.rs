//! The GDB Remote Serial Protocol without IO.
//!
//! Bytes from a client go into a [`Session`](session::Session); out come bytes for the client and operations on the guest
//! ([`target::TargetOp`]), whose results are handed back. The crate has no sockets, no async, no channels and no hypervisor in it.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod command;
pub mod framing;
pub mod regs;
pub mod session;
pub mod target;
pub mod target_xml;
