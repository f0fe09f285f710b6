//! What guest debugging really works on this host's KVM, found by trying it on a throw-away VM of one page.
//!
//! KVM's capability bits say what an ioctl accepts, not what happens then: KVMs were seen that accept data watchpoints and never report one. Each
//! scenario is bounded: a guest that does not come back is kicked out, and counts as "does not work".

use crate::breakpoints::Int3Traps;
use crate::kvm::kick::KickSignal;
use crate::kvm::vcpu::features::SeenToWork;
use crate::kvm::x86_64::ScratchVmError;
use kvm_ioctls::Kvm;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use x86_64::scenario::Bench;

mod words;
mod x86_64;

pub use x86_64::seen::Seen;

/// How long one scenario may take. A few microseconds are usual; this is for a host that is busy.
const SCENARIO_LIMIT: Duration = Duration::from_millis(300);
/// How long to wait for a kicked scenario to notice before kicking it again: a signal between two ioctls is lost.
const KICK_AGAIN: Duration = Duration::from_millis(1);
/// The only version there ever was (api.rst, KVM_GET_API_VERSION).
const KVM_API_VERSION: i32 = 12;

/// What works on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What a guest's `INT3` does in real mode while `KVM_GUESTDBG_USE_SW_BP` is on.
    pub int3_real: Int3,
    /// The same in 32-bit protected mode.
    pub int3_protected: Int3,
    /// The same in long mode.
    pub int3_long: Int3,
    /// Whether a debug register stops the vCPU before the instruction it names, in real and long mode.
    pub execution_breakpoints: Finding,
    /// Whether a debug register stops the vCPU after a write, and after a read, of the bytes it names, in real and long mode.
    pub data_watchpoints: Finding,
    /// Whether `KVM_GUESTDBG_SINGLESTEP` stops after one instruction, in real and long mode.
    pub single_step: Finding,
    /// Whether `KVM_GUESTDBG_BLOCKIRQ` keeps a pending interrupt from being delivered during steps.
    pub interrupts_held: Finding,
    /// Whether an interrupt shadow that is cast before each step does the same.
    pub shadow_holds: Finding,
    /// Whether DR7.GD in the debugger's set makes the guest's access to a debug register an exit.
    pub register_access: Finding,
    /// Whether RFLAGS.RF gets the vCPU past an execution breakpoint that is still armed.
    pub resume_flag: Finding,
    /// Whether `KVM_CAP_SYNC_REGS` gives and takes the true registers.
    pub sync_regs: Finding,
    /// Whether a vCPU's time-stamp counter and the VM's kvmclock can be put back.
    pub frozen_time: Finding,
}

/// What becomes of an `INT3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Int3 {
    /// `KVM_EXIT_DEBUG` with vector 3 and RIP on it.
    DebugExit,
    /// `KVM_EXIT_INTERNAL_ERROR` with RIP on it and nothing executed: as good as a trap where the byte is ours.
    InternalError,
    /// The guest gets it, or something else happens.
    NotTrapped(Seen),
}

impl Int3 {
    /// Whether a software breakpoint can be made of it.
    pub const fn traps(self) -> bool {
        matches!(self, Self::DebugExit | Self::InternalError)
    }
}

/// Whether something works, and what was seen that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    /// Whether it does.
    pub works: bool,
    /// What was seen, or the first thing that was not as it should be.
    pub seen: Seen,
}

/// Why this host cannot run guests at all. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No such file.
    #[error(
        "there is no /dev/kvm: turn on virtualization (VT-x or AMD-V) in the firmware and load `kvm_intel` or `kvm_amd` with modprobe; in a virtual machine, \
         turn on nested virtualization on its host; in a container, pass the device (`--device /dev/kvm`)"
    )]
    Absent,
    /// The file cannot be opened by this user.
    #[error(
        "no permission to use /dev/kvm: add yourself to its group with `sudo usermod -aG kvm $USER` and log in again, or run as root; in a container, \
         check that the device is passed for reading and writing"
    )]
    NotPermitted,
    /// The file does not lead to KVM.
    #[error(
        "cannot open /dev/kvm; check `dmesg` for lines of kvm, and that no other hypervisor holds the processor's extensions"
    )]
    Open(#[source] kvm_ioctls::Error),
    /// Another version of the API.
    #[error(
        "/dev/kvm speaks version {found} of its API where {KVM_API_VERSION} is needed; use a Linux kernel of 5.4 or later"
    )]
    ApiVersion {
        /// What it says.
        found: i32,
    },
    /// The host is out of memory.
    #[error(
        "not even a guest of one page fits in memory ({why}); free some, or raise the limit on locked or virtual memory (`ulimit -a`)"
    )]
    NoMemory {
        /// What the host said.
        why: String,
    },
    /// KVM refused to make a guest.
    #[error("/dev/kvm opens but makes no guest; check `dmesg` for lines of kvm")]
    Vm(#[source] ScratchVmError),
    /// The kick signal cannot be handled.
    #[error(
        "cannot install the handler of the kick signal; give `probe::run_with` the number of a signal that nothing else in this process uses"
    )]
    Signal(#[source] std::io::Error),
}

impl From<ScratchVmError> for ProbeError {
    fn from(err: ScratchVmError) -> Self {
        match err {
            ScratchVmError::Memory { why, .. } => Self::NoMemory { why },
            ScratchVmError::Kvm { source, .. } if source.errno() == libc::ENOMEM => {
                Self::NoMemory {
                    why: source.to_string(),
                }
            }
            ScratchVmError::Kvm { .. } => Self::Vm(err),
        }
    }
}

/// Opens /dev/kvm.
///
/// # Errors
/// [`ProbeError::Absent`], [`ProbeError::NotPermitted`], [`ProbeError::Open`], [`ProbeError::ApiVersion`].
pub fn open_kvm() -> Result<Kvm, ProbeError> {
    check_version(Kvm::new().map_err(open_error)?)
}

fn open_error(err: kvm_ioctls::Error) -> ProbeError {
    match err.errno() {
        libc::ENOENT => ProbeError::Absent,
        libc::EACCES | libc::EPERM => ProbeError::NotPermitted,
        libc::ENOMEM => ProbeError::NoMemory {
            why: err.to_string(),
        },
        _ => ProbeError::Open(err),
    }
}

fn check_version(kvm: Kvm) -> Result<Kvm, ProbeError> {
    match kvm.get_api_version() {
        KVM_API_VERSION => Ok(kvm),
        found => Err(ProbeError::ApiVersion { found }),
    }
}

/// Tries everything, in a few milliseconds.
///
/// # Errors
/// [`ProbeError`] where there is no KVM to try it on.
pub fn run() -> Result<Report, ProbeError> {
    run_with(KickSignal::default())
}

/// As [`run`], with the signal that the runner is to be given too.
///
/// # Errors
/// As [`run`].
pub fn run_with(signal: KickSignal) -> Result<Report, ProbeError> {
    let kvm = open_kvm()?;
    supervised(
        SCENARIO_LIMIT,
        signal,
        move |bench| match x86_64::scenario::all(&kvm, bench) {
            Ok((report, used)) => (Ok(report), Some(used)),
            Err(err) => (Err(err), None),
        },
    )?
}

/// Does the work on a thread of its own, and kicks its guest out whenever a scenario takes longer than `limit`.
///
/// The work's second result is what it leaves behind; nobody waits for that to be dropped, since a VM with interrupt controllers takes the
/// kernel ten times as long to take down as all scenarios together.
fn supervised<T: Send + 'static, L>(
    limit: Duration,
    signal: KickSignal,
    work: impl FnOnce(&Bench) -> (T, L) + Send + 'static,
) -> Result<T, ProbeError> {
    signal.install().map_err(ProbeError::Signal)?;
    let (begin, begun) = mpsc::channel();
    let (finish, finished) = mpsc::channel();
    let overdue = Arc::new(AtomicU32::new(0));
    let bench = Bench::new(begin, overdue.clone());
    let worker = thread::Builder::new()
        .name("probe".into())
        .spawn(move || {
            signal.unblock();
            let (result, leftovers) = work(&bench);
            // A receiver that is gone has panicked.
            let _ = finish.send(result);
            // The end of all scenarios.
            drop(bench);
            drop(leftovers);
        })
        .map_err(|err| ProbeError::NoMemory {
            why: err.to_string(),
        })?;
    let mut current = 0;
    let mut wait = limit;
    loop {
        match begun.recv_timeout(wait) {
            Ok(number) => {
                current = number;
                wait = limit;
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                overdue.store(current, Ordering::Relaxed);
                signal.send(&worker);
                wait = KICK_AGAIN;
            }
            // The thread has dropped its end: it is done with the guests, or has panicked.
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    finished
        .recv()
        .or_else(|mpsc::RecvError| match worker.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => unreachable!("the thread sends its result before it ends"),
        })
}

/// What the runner relies on.
impl Report {
    /// What KVM was seen to do for a vCPU. Without a probe, nothing counts as seen but what a capability bit stands for.
    pub(crate) fn seen_to_work(report: Option<&Self>) -> SeenToWork {
        SeenToWork {
            block_irq: report.is_none_or(|report| report.interrupts_held.works),
            register_access: report.is_some_and(|report| report.register_access.works),
        }
    }

    /// The processor modes in which an `INT3` of the debugger's can be used.
    pub(crate) fn int3_traps(&self) -> Int3Traps {
        Int3Traps {
            real: self.int3_real.traps(),
            protected: self.int3_protected.traps(),
            long: self.int3_long.traps(),
        }
    }
}

#[cfg(test)]
mod tests;
