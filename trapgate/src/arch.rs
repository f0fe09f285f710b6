//! What depends on the guest's architecture.

pub mod x86_64;
