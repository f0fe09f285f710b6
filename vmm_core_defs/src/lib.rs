//! The contract between a debugger and a VMM.
//!
//! This crate holds only types: the requests a debug worker sends ([`debug_rpc`]), whom they
//! may come from ([`session`]), why a guest stopped ([`stop`]), the
//! breakpoints it can ask for ([`breakpoint`]), what the host can do ([`capability`]), the register files ([`regs`]) and the ids and addresses they are
//! written in ([`addr`]). It knows no hypervisor, no debugger's protocol and no sockets, and both architectures are always compiled in.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod addr;
pub mod breakpoint;
pub mod capability;
mod debug_error;
pub mod debug_rpc;
pub mod memory;
pub mod regs;
pub mod session;
pub mod stop;
