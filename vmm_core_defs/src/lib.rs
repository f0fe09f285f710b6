//! The messages between a debugger and a VMM.
//!
//! This crate contains only types:
//!
//! - [`debug_rpc`]: the requests that a debugger sends, and their errors
//! - [`session`]: the sessions to which requests belong
//! - [`target`]: the VM to which a debugger sends its messages
//! - [`stop`]: the reasons why a guest stops or ends
//! - [`breakpoint`]: the breakpoints that a debugger can set
//! - [`capability`]: the features of a host
//! - [`condition`]: expressions that decide whether a hit of a breakpoint is a stop
//! - [`trace`]: tracepoints, and what VPs record at them
//! - [`memory`]: replies about memory and page tables
//! - [`regs`]: the register files of all architectures, which are always compiled
//! - [`addr`]: ids and addresses
//! - `wire`, with the feature of that name: the messages as bytes
//!
//! The crate does not depend on a hypervisor, on a debugger's protocol or on sockets.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod addr;
mod bad_message;
pub mod breakpoint;
pub mod capability;
pub mod condition;
mod debug_error;
pub mod debug_rpc;
mod hypervisor_call;
mod machine_call;
pub mod memory;
pub mod regs;
pub mod session;
mod status;
pub mod stop;
pub mod target;
pub mod trace;
pub mod vp_set;
#[cfg(feature = "wire")]
pub mod wire;
