//! Two small VMMs with run loops of their own, each of which hosts the debugger by hooks at `KVM_RUN`. Both pause, resume and snapshot their guest, whether a debugger
//! is attached or not, and whether the debugger holds the guest or not.
//!
//! - [`states`] has the shape of Firecracker: each vCPU thread is a machine of states, and gets orders over a channel. The program is `own_run_loop`.
//! - [`locked`] has the shape of Cloud Hypervisor: a lock on the vCPU is held across `KVM_RUN`, and threads are paused by a flag. The program is `locked_run_loop`.
//!
//! The other modules are the same for both: [`debugger`] starts the debug server, [`vmm`] is the main thread, [`snapshot`] saves the guest.
#![forbid(unsafe_code)]

pub mod console;
pub mod debugger;
pub mod exits;
pub mod locked;
pub mod snapshot;
pub mod states;
pub mod vmm;
