//! The vCPUs that the calling thread runs. Found without a lock and without an allocation, except at a vCPU's first run and after a change of descriptors.

use crate::host::VcpuThread;
use crate::ours::Ours;
use crate::ours::is_ours;
use crate::tracker::Fd;
use crate::tracker::Vcpu;
use std::cell::RefCell;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::fd::BorrowedFd;

/// What a descriptor stands for, asked at its first run on a thread.
pub(crate) enum Found<'a> {
    /// Nothing that is known: it runs without a debugger.
    Unknown,
    /// This vCPU. The function makes its part of this thread, and is called unless the thread has one.
    Vcpu(Vcpu, Box<dyn FnOnce() -> Option<Box<dyn VcpuThread>> + 'a>),
}

struct Entry {
    fd: Fd,
    /// The changes of descriptors when it was looked up.
    changes: u32,
    vcpu: Option<Vcpu>,
    thread: Option<Box<dyn VcpuThread>>,
}

/// A thread that ends drops its vCPUs.
struct Threads(Vec<Entry>);

impl Drop for Threads {
    fn drop(&mut self) {
        let _ours = Ours::enter();
        self.0.clear();
    }
}

thread_local! {
    static THREADS: RefCell<Threads> = const { RefCell::new(Threads(Vec::new())) };
}

/// Runs a vCPU on the calling thread, with its debugger if there is one. `changes`: the number of changes of descriptors so far.
pub(crate) fn run<'a>(
    fd: BorrowedFd<'_>,
    changes: u32,
    kvm_run: &mut dyn FnMut() -> io::Result<()>,
    look_up: impl FnOnce() -> Found<'a>,
) -> io::Result<()> {
    // A vCPU of the probe, or a run in a signal handler that interrupts a run.
    if is_ours() {
        return kvm_run();
    }
    let ran = THREADS.try_with(|threads| {
        let Ok(mut threads) = threads.try_borrow_mut() else {
            return kvm_run();
        };
        let number = fd.as_raw_fd();
        let known = |entry: &Entry| entry.fd == number && entry.changes == changes;
        let place = match threads.0.iter().position(known) {
            Some(place) => place,
            None => add(&mut threads.0, number, changes, look_up()),
        };
        match &mut threads.0[place].thread {
            Some(thread) => {
                let _ours = Ours::enter();
                thread.run(kvm_run)
            }
            None => kvm_run(),
        }
    });
    match ran {
        Ok(result) => result,
        // The thread is ending, and has dropped its vCPUs.
        Err(_) => kvm_run(),
    }
}

/// Returns the place of the entry. An entry of the same vCPU keeps its part of the thread, whatever descriptor the VMM uses for it.
fn add(threads: &mut Vec<Entry>, fd: Fd, changes: u32, found: Found<'_>) -> usize {
    let _ours = Ours::enter();
    let (vcpu, make) = match found {
        Found::Unknown => (None, None),
        Found::Vcpu(vcpu, make) => (Some(vcpu), Some(make)),
    };
    let same = |entry: &Entry| vcpu.is_some() && entry.vcpu == vcpu;
    let kept = threads.iter().position(same);
    let thread = match kept {
        Some(place) => threads.remove(place).thread,
        None => {
            // The vCPU that had the number, if there was one, goes first.
            threads.retain(|entry| entry.fd != fd);
            make.and_then(|make| make())
        }
    };
    threads.retain(|entry| entry.fd != fd);
    threads.push(Entry {
        fd,
        changes,
        vcpu,
        thread,
    });
    threads.len() - 1
}
