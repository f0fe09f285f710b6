//! vCPU threads on KVM, all-stop coordination, breakpoints, stepping and memory, behind
//! [`DebugRequest`](vmm_core_defs::debug_rpc::DebugRequest).
//!
//! A VMM gives it a `VmFd`, its `VcpuFd`s, guest memory and a [`machine::Machine`]; it owns the vCPU threads from then on.
#![deny(missing_docs)]

mod at_breakpoint;
mod breakpoints;
mod controller;
mod debug_registers;
mod entry;
mod exit;
mod guest_time;
mod instruction;
mod place;
mod run_gate;
mod run_state;
mod step_effects;
mod stop_cause;
mod timekeeper;
mod vp_thread;

pub mod code_patches;
pub mod cpu_mode;
pub mod dr7;
pub mod emulate;
pub mod kvm;
pub mod machine;
pub mod memory;
pub mod page_walk;
pub mod probe;
pub mod runner;
pub mod xsave;

pub use runner::start;
