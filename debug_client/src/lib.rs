//! Programs that debug a guest: breakpoints, registers and memory, without GDB.
//!
//! ```no_run
//! use debug_client::blocking::Debugger;
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), debug_client::Error> {
//! let mut vm = Debugger::connect("unix:/run/me/vm.rpc")?;
//! vm.load_symbols("kernel.elf")?;
//! let round = vm.break_at("do_round")?;
//! vm.run_until(&round, Duration::from_secs(10))?;
//! let cpu = vm.read_struct("struct cpu", vm.current().arg(0)?)?;
//! println!("round {} of {cpu}", cpu["rounds"]);
//! let all: u64 = vm.read("counter")?;
//! println!("{all} rounds, rdi = {:#x}", vm.vp(0).reg("rdi")?);
//! drop(round); // removes the breakpoint
//! vm.step_n(100)?;
//! vm.detach()?; // the guest runs on, as it does when `vm` is dropped
//! # Ok(()) }
//! ```
//!
//! [`Debugger`] is the async interface, for any executor: a thread of this library reads the socket. [`blocking::Debugger`] has the same methods for a thread that may
//! wait, and needs no other thread. Both attach over the unix socket of a VMM (`trapgate run --rpc unix:PATH`, [`connect`](Debugger::connect)), or in the VMM's own
//! process ([`attach`](Debugger::attach)).
//!
//! A program that ends, however it ends, takes its breakpoints with it, and the guest runs on.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod blocking;
mod breakpoint;
mod condition;
mod debugger;
mod error;
mod io_thread;
mod link;
mod memory;
mod options;
mod place;
mod registers;
mod run;
mod scalar;
mod stop;
mod symbols;
mod vp;

pub use breakpoint::Breakpoint;
pub use condition::register;
pub use debugger::Debugger;
pub use error::Error;
pub use options::Options;
pub use place::Place;
pub use scalar::Scalar;
pub use stop::Stop;
pub use stop::StopKind;
pub use symbols::Field;
pub use symbols::SourceLine;
pub use symbols::Symbols;
pub use symbols::SymbolsError;
pub use symbols::Value;
pub use vp::Vp;

// The types of the signatures above. Their fields have types that are not named here.
pub use agent_expr::Expr;
pub use agent_expr::Printf;
pub use vmm_core_defs;
pub use vmm_core_defs::addr::Gva;
pub use vmm_core_defs::capability::Capabilities;
pub use vmm_core_defs::debug_rpc::DebugError;
pub use vmm_core_defs::debug_rpc::DetachAction;
pub use vmm_core_defs::regs::DebuggerVpState;
pub use vmm_core_defs::stop::DebugStopReason;
pub use vmm_core_defs::stop::GuestEventKind;
pub use vmm_core_defs::stop::StopOn;
pub use vmm_core_defs::target::Target;
pub use vmm_core_defs::vp_set::VpSet;
