//! What talks to KVM itself. Only here may code be `unsafe`, block by block.

pub mod x86_64;
