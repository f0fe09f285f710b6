//! An executor for one thread, its sockets and timers, with names of OpenVMM's `pal_async`. What differs is in the README of `support`.
//!
//! A debug session is a chain of very short turns between a socket, a protocol task and the task that owns the VM.
//! So that such a turn costs next to nothing, a pool runs all of its tasks on one thread, passes from task to task
//! without a system call, and enters `epoll_wait` only when no task is ready. A wake from the pool's own thread is a
//! push on a queue; only a wake from another thread, and only while the pool sleeps, costs a write to an `eventfd`.
//! Where its last wait was short the pool stays [`awake`] for the next one.

#![forbid(unsafe_code)]

pub mod awake;
pub mod local;
mod pool;
mod reactor;
pub mod socket;
pub mod task;
pub mod timer;

pub use pal_async_test::async_test;
pub use pool::DefaultDriver;
pub use pool::DefaultPool;
pub use reactor::Driver;
