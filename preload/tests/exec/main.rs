//! `trapgate exec`: the program and the library together, around VMMs that know nothing of debuggers.

mod bed;
mod found;
mod linux;
mod other_programs;
mod paused;
mod qemu;
mod qemu_snapshots;
mod small_vmm;
mod wrappers;
