//! The GDB Remote Serial Protocol without I/O.
//!
//! A [`Session`](session::Session) takes bytes from a client and returns bytes for the client and operations on the
//! guest ([`target::TargetOp`]). The caller carries out the operations and returns their results. The crate uses no
//! sockets, no async, no channels and no hypervisor.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod command;
pub mod framing;
pub mod regs;
pub mod session;
pub mod target;
pub mod target_xml;
