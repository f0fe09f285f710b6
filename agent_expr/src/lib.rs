//! GDB's agent expressions (GDB manual, appendix "The GDB Agent Expression Mechanism"), without I/O.
//!
//! GDB compiles the condition of a breakpoint, or a `dprintf`, to bytecode and sends the bytecode with the breakpoint. [`Expression::verify`] checks the bytecode once, when the
//! breakpoint is set. [`Expression::evaluate`] runs the bytecode at each hit, on the thread of the vCPU: an evaluation allocates nothing, and its time is bounded by [`Steps`].
//! Registers, memory and output are those of a [`Context`]. [`Expr`] builds expressions in Rust.
//!
//! ```
//! use agent_expr::{Context, Expr, Limits, Refused, Steps};
//!
//! /// Registers whose value is their number, and no memory.
//! struct Numbers;
//!
//! impl Context for Numbers {
//!     fn register(&mut self, number: u16) -> Result<u64, Refused> {
//!         Ok(number.into())
//!     }
//!
//!     fn read(&mut self, _address: u64, _into: &mut [u8]) -> Result<(), Refused> {
//!         Err(Refused)
//!     }
//! }
//!
//! let condition = Expr::register(5).plus(Expr::constant(1)).equals(Expr::constant(6));
//! let condition = condition.assemble(Limits::default()).expect("a short expression");
//! assert_eq!(condition.evaluate(&mut Numbers, Steps(100)), Ok(Some(1)));
//! ```
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod builder;
mod compiled;
mod context;
mod evaluate;
mod format;
mod instruction;
mod print;
mod printf;
mod verify;

pub use builder::Expr;
pub use context::Context;
pub use context::Refused;
pub use evaluate::Cause;
pub use evaluate::EvaluationError;
pub use evaluate::Steps;
pub use format::FormatProblem;
pub use format::WIDTH_MAX;
pub use print::STRING_MAX;
pub use printf::Printf;
pub use verify::Expression;
pub use verify::Limits;
pub use verify::STACK_DEPTH;
pub use verify::VerifyError;

#[cfg(test)]
extern crate std;
#[cfg(test)]
mod tests;
#[cfg(test)]
#[path = "../tests/world/mod.rs"]
mod world;
// The world names this crate as an integration test does.
#[cfg(test)]
extern crate self as agent_expr;
