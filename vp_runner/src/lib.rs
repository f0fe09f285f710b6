//! vCPU threads on KVM, all-stop coordination, breakpoints, stepping and memory, behind
//! [`DebugRequest`](vmm_core_defs::debug_rpc::DebugRequest).
//!
//! There are two ways to use the crate:
//! - A VMM with run loops of its own calls [`embed::embed`] and puts a hook around each `KVM_RUN`.
//! - A VMM without run loops passes a `VmFd`, its `VcpuFd`s, guest memory and a `machine::Machine` to `start` (feature `rust-vmm`). The runner then owns the vCPUs and
//!   their threads.
//!
//! # Features
//! - `rust-vmm` (off by default): the part of the interface that has types of kvm-ioctls, kvm-bindings and vm-memory in its signatures. A VMM that uses this part has to
//!   use the same versions of these crates. Without the feature, all types of the interface are those of the standard library, of `vmm_core_defs` and of `mesh`.
#![deny(missing_docs)]
#![cfg_attr(
    not(feature = "rust-vmm"),
    expect(
        dead_code,
        unreachable_pub,
        unused_imports,
        reason = "what only the feature makes public"
    )
)]

mod arch;
mod breakpoints;
mod control;
mod controller;
pub mod embed;
mod hook;
#[cfg(not(feature = "rust-vmm"))]
mod kvm;
#[cfg(feature = "rust-vmm")]
pub mod kvm;
pub mod machine;
mod memory;
pub mod probe;
pub mod runner;
mod sync;
mod vp_thread;

#[cfg(feature = "rust-vmm")]
pub use runner::start;
