//! What the conformance suite is made of: guest programs, and beds in which a test drives a guest and its debug server.
//!
//! - [`amount`]: how often a test repeats what it repeats.
//! - [`machine`]: a small machine around `vp_runner`, in the test's own process, driven by requests.
//! - [`running`]: a VMM as a child process.
//! - [`any_vmm`]: the VMM under test as a command, with a guest that needs little.
//! - [`debuggers`]: the GDBs and LLDBs that are here.
//! - [`packets`] and [`gdb_client`]: its debug server, driven by raw packets or by GDB itself.
//!
//! These are for tests: what cannot be had is a panic that says so, and a wait past its deadline is one as well.
#![forbid(unsafe_code)]

pub mod amount;
pub mod any_vmm;
pub mod debuggers;
pub mod gdb_client;
pub mod machine;
pub mod packets;
pub mod running;
