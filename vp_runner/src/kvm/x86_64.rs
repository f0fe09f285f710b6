//! KVM on x86: the register file of a vCPU.

pub(crate) mod clocks;

pub(in crate::kvm) mod guarded_access;
mod msr;
mod register_file;
mod scratch_vm;
pub mod system_calls;
mod validate;
mod xsave_area;

pub use crate::arch::x86_64::convert::apply_general;
pub use crate::arch::x86_64::convert::apply_system;
pub use crate::arch::x86_64::convert::read_general;
pub use crate::arch::x86_64::convert::read_system;
pub use msr::read_msr;
pub use msr::write_msr;
pub use register_file::RegisterFile;
pub use scratch_vm::ScratchVm;
pub use scratch_vm::ScratchVmError;
pub use scratch_vm::StartIn;
#[cfg(test)]
pub(crate) use scratch_vm::kvm_for_test;
pub use xsave_area::XsaveArea;
pub use xsave_area::XsaveSize;
