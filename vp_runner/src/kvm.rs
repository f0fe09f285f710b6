//! Everything that talks to KVM. The only place with `unsafe`.

mod exit_decode;
pub(crate) mod kick;
mod pending_interrupt;
pub mod ram;
pub(crate) mod vcpu;
pub mod x86_64;
