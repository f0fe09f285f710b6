//! The library's contact with the process: the interposed functions, the real ones behind them, the environment, and the VMM's memory.
//! All `unsafe` code of the crate is here.
#![expect(
    unsafe_code,
    reason = "functions of libc take the VMM's pointers and descriptors"
)]

mod constructor;
mod ends;
mod environment;
pub(crate) mod memory;
mod next_program_calls;
mod real;
mod shared;
mod symbols;
