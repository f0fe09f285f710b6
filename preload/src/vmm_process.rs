//! The library's contact with the process: the interposed functions, the real ones behind them, the environment, and the VMM's memory.
//! All `unsafe` code of the crate is here.
#![expect(
    unsafe_code,
    reason = "functions of libc take the VMM's pointers and descriptors"
)]

mod constructor;
pub(crate) mod memory;
mod real;
mod symbols;
