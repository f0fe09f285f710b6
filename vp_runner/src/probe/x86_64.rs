//! The scenarios for x86.

pub(super) mod programs;
pub(super) mod scenario;
pub(super) mod seen;
