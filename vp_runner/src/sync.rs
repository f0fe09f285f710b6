//! Locks, atomics, threads and waits of what several threads share: of the standard library, or of a model checker that chooses the order in which threads go on.
//!
//! `--cfg loom` and `--cfg shuttle` choose the model checker, in builds of the unit tests only (`cargo xtask test --only loom`, `--only shuttle`).

#[cfg(not(all(test, shuttle)))]
mod real;
#[cfg(all(test, shuttle))]
pub(crate) mod tests;

#[cfg(not(all(test, shuttle)))]
pub(crate) use real::*;
#[cfg(all(test, shuttle))]
pub(crate) use tests::*;
