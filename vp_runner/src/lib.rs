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

mod code_patches;
mod cpu_mode;
mod dr7;
mod emulate;
pub mod kvm;
pub mod machine;
mod memory;
mod page_walk;
pub mod probe;
pub mod runner;
mod xsave;

pub use runner::start;
