//! The library that `trapgate exec` preloads into a VMM: it interposes functions of libc, and hosts a debug server for each VM of the process.
//!
//! ```text
//!  the VMM --- ioctl, close, dup, ... ---> vmm_process (symbols) ---> interposer ---> libc
//!                                                                      |     |
//!                                                  what is a vCPU? tracker   vm_servers, one vm_server for each VM
//!                                                                            |
//!                                                                   vp_runner::embed, debug_worker
//! ```
//!
//! A call that has nothing to do with KVM takes no lock and allocates nothing. Such a call is as safe in a signal handler as the real function. No lock is held across
//! a real call. A thread of the VMM is in code of the library (`ours`) while the thread registers a memory slot, starts a debug server, or runs a vCPU. The library's
//! own calls then go to the kernel unchanged. The library does nothing in a child process.
#![deny(missing_docs)]
#![cfg_attr(
    test,
    expect(
        dead_code,
        reason = "tests have a host of their own, and interpose nothing"
    )
)]

mod descriptor_set;
mod host;
mod interposer;
mod kvm_request;
mod messages;
mod next_program;
mod ours;
mod presence;
#[cfg(not(test))]
mod process;
mod settings;
mod signals;
mod tracker;
mod vcpu_threads;
#[cfg(not(test))]
mod vm_server;
#[cfg(not(test))]
mod vm_servers;
#[cfg(not(test))]
mod vmm_process;
