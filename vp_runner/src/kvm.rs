//! Everything that talks to KVM. The only place with `unsafe`.

mod exit_decode;
mod guarded;
pub(crate) mod guest_ram;
pub(crate) mod kick;
mod pending_interrupt;
pub mod ram;
pub(crate) mod vcpu;
pub mod x86_64;

pub(crate) use x86_64::RegisterFile;
