//! Guest programs, and fixtures with which a test drives a guest and its debug
//! server.
//!
//! - [`amount`]: the number of repetitions in a test.
//! - [`machine`]: a small machine around `vp_runner`, in the test's own process, driven by requests.
//! - [`own_loops`]: a VMM with run loops of its own, in the place of the runner's threads.
//! - [`running`]: a VMM as a child process.
//! - [`linux_guest`]: the stock Linux kernel of the nested bed.
//! - [`any_vmm`]: the VMM under test as a command, with a small guest.
//! - [`debuggers`]: the GDBs and LLDBs on this machine.
//! - [`packets`], [`gdb_client`] and [`typed_gdb`]: clients of the debug server, by raw packets, by GDB in batch mode, and by GDB that gets its commands one at a time.
//!
//! The functions are for tests: a failure is a panic with a message, and so is a wait that exceeds its deadline.
#![forbid(unsafe_code)]

pub mod amount;
pub mod any_vmm;
pub mod debuggers;
pub mod gdb_client;
pub mod linux_guest;
pub mod machine;
pub mod metrics;
pub mod own_loops;
pub mod packets;
pub mod running;
pub mod typed_gdb;
