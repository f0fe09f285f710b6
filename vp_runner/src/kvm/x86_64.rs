//! KVM on x86: the register file of a vCPU.

mod convert;
mod msr;
mod register_file;
mod validate;
mod xsave_area;

pub use convert::apply_general;
pub use convert::apply_system;
pub use convert::read_general;
pub use convert::read_system;
pub use msr::read_msr;
pub use msr::write_msr;
pub use register_file::RegisterFile;
