//! The debug server as a worker in a process of its own.
//!
//! ```text
//!  VMM's process                                              worker's process: this program again, with nothing but these descriptors
//!  controller --- debug_wire::serve === socket === RemoteTarget --- server --- clients
//!  WorkerHost::serve --- control socket === try_run_worker           |
//!  DebugListener ------ a copy of the descriptor ----------------+
//! ```
//!
//! The VMM binds the listener, keeps it, and runs [`WorkerHost::serve`], which starts its own program again as the worker. The program calls [`try_run_worker`] first of all in `main`. The
//! control socket is the worker's standard input. Everything else comes over this socket.
//!
//! Descriptors of the VMM without `O_CLOEXEC` are the worker's too, as those of any child. `trapgate` sets the flag on all that it inherited.
//!
//! Before the worker accepts a client, it gives up what it does not need: see [`Sandbox`]. A program that takes over the worker has the clients of the debug port and the debug requests
//! of this VM, and no file, no other socket and no other process.
//!
//! If the worker ends, is killed by its sandbox, is stopped or hangs, the guest is left as after any lost client (I6), the VMM logs the reason, and a new
//! worker serves the next client on the same listener. The VM does not notice.

mod child;
mod control;
mod host;
mod invitation;
mod sandbox;
mod system_calls;
mod worker;

pub use host::WorkerHost;
pub use host::probe;
pub use sandbox::Part;
pub use sandbox::Sandbox;
pub use system_calls::Needed;
pub use system_calls::SystemCall;
pub use system_calls::system_calls;
pub use worker::try_run_worker;

/// The environment variable of a worker. The worker removes the variable first of all.
pub const INVITATION: &str = "TRAPGATE_WORKER_INVITATION";

/// The name of the worker in `ps` and `top`.
const TITLE: &str = "trapgate-gdb";
