//! vCPU threads on KVM, all-stop coordination, breakpoints, stepping and memory, behind
//! [`DebugRequest`](vmm_core_defs::debug_rpc::DebugRequest).
//!
//! There are two ways to use the crate:
//! - A VMM with run loops of its own calls [`embed::embed`] and puts a hook around each `KVM_RUN`.
//! - A VMM without run loops passes a `VmFd`, its `VcpuFd`s, guest memory and a [`machine::Machine`] to [`start`]. The runner then owns the vCPUs and their threads.
#![deny(missing_docs)]

mod arch;
mod breakpoints;
mod control;
mod controller;
pub mod embed;
mod hook;
pub mod kvm;
pub mod machine;
mod memory;
pub mod probe;
pub mod runner;
mod vp_thread;

pub use runner::start;
