//! Tests which debugging features work on this host's KVM, with a temporary VM of one page.
//!
//! KVM's capability bits show what an ioctl accepts, and not whether it works. For example, some KVMs accept data watchpoints and never report a hit. The time of each
//! scenario is limited. A guest that does not exit in time is kicked, and the feature counts as not working.

use crate::breakpoints::Int3Traps;
use crate::kvm::kick::Kick as _;
use crate::kvm::kick::KickSignal;
use crate::kvm::kick::SignalKick;
use crate::kvm::vcpu::features::SeenToWork;
use crate::kvm::x86_64::ScratchVmError;
use kvm_ioctls::Kvm;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use vmm_core_defs::addr::VpIndex;
use x86_64::scenario::ScenarioRunner;

mod capabilities;
mod x86_64;

pub use x86_64::seen::Seen;

/// The time limit of a scenario. A scenario usually takes a few microseconds; the limit allows for a busy host.
const SCENARIO_LIMIT: Duration = Duration::from_millis(300);
/// The time after which a kick is repeated, because a signal between two ioctls is lost.
const KICK_AGAIN: Duration = Duration::from_millis(1);
/// The only version (api.rst, KVM_GET_API_VERSION).
const KVM_API_VERSION: i32 = 12;

/// The features that work on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The effect of a guest's `INT3` in real mode while `KVM_GUESTDBG_USE_SW_BP` is on.
    pub int3_real: Int3,
    /// The same in 32-bit protected mode.
    pub int3_protected: Int3,
    /// The same in long mode.
    pub int3_long: Int3,
    /// Whether a debug register stops the vCPU before the instruction at its address, in real and long mode.
    pub execution_breakpoints: Finding,
    /// Whether a debug register stops the vCPU after a write, and after a read, of the watched bytes, in real and long mode.
    pub data_watchpoints: Finding,
    /// Whether `KVM_GUESTDBG_SINGLESTEP` stops after one instruction, in real and long mode.
    pub single_step: Finding,
    /// Whether `KVM_GUESTDBG_BLOCKIRQ` keeps a pending interrupt from being delivered during steps.
    pub interrupts_held: Finding,
    /// Whether an interrupt shadow that is set before each step does the same.
    pub shadow_holds: Finding,
    /// Whether DR7.GD in the debugger's set makes the guest's access to a debug register an exit.
    pub register_access: Finding,
    /// Whether the vCPU passes an armed execution breakpoint if RFLAGS.RF is set.
    pub resume_flag: Finding,
    /// Whether `KVM_CAP_SYNC_REGS` reads and writes the registers of the vCPU.
    pub sync_regs: Finding,
    /// Which of these features work in 64-bit code in ring 3.
    pub user_mode: UserMode,
    /// Whether a vCPU's time-stamp counter and the VM's kvmclock can be set back.
    pub frozen_time: Finding,
}

/// The effect of an `INT3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Int3 {
    /// `KVM_EXIT_DEBUG` with vector 3 and RIP at the `INT3`.
    DebugExit,
    /// `KVM_EXIT_INTERNAL_ERROR` with RIP at the `INT3` and nothing executed. This serves as a trap for a breakpoint byte.
    InternalError,
    /// KVM delivers the exception to the guest, or something else happens.
    NotTrapped(Seen),
}

impl Int3 {
    /// Whether the runner can use `INT3` for software breakpoints.
    pub const fn traps(self) -> bool {
        matches!(self, Self::DebugExit | Self::InternalError)
    }
}

/// Debugging of 64-bit code in ring 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct UserMode {
    /// Whether the program of the scenarios runs to its end without a debugger.
    pub code_runs: bool,
    /// The effect of a guest's `INT3` while `KVM_GUESTDBG_USE_SW_BP` is on.
    pub int3: Int3,
    /// Whether a debug register stops the vCPU before the instruction at its address.
    pub execution_breakpoints: Finding,
    /// Whether `KVM_GUESTDBG_SINGLESTEP` stops after one instruction.
    pub single_step: Finding,
}

impl UserMode {
    /// Whether all of them work.
    pub const fn works(&self) -> bool {
        self.code_runs
            && self.int3.traps()
            && self.execution_breakpoints.works
            && self.single_step.works
    }
}

/// Whether a feature works, and the observation that shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// Whether the feature works.
    pub works: bool,
    /// The observation, or the first observation that differs from the expected one.
    pub seen: Seen,
}

/// Why this host cannot run guests. Each message says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// The file does not exist.
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
    /// The file is not KVM.
    #[error(
        "cannot open /dev/kvm; check `dmesg` for lines of kvm, and that no other hypervisor holds the processor's extensions"
    )]
    Open(#[source] std::io::Error),
    /// KVM has another version of the API.
    #[error(
        "/dev/kvm speaks version {found} of its API where {KVM_API_VERSION} is needed; use a Linux kernel of 5.4 or later"
    )]
    ApiVersion {
        /// The version.
        found: i32,
    },
    /// The host is out of memory.
    #[error(
        "not even a guest of one page fits in memory ({why}); free some, or raise the limit on locked or virtual memory (`ulimit -a`)"
    )]
    NoMemory {
        /// The error of the host.
        why: String,
    },
    /// KVM could not create a guest.
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
            ScratchVmError::Kvm { source, .. } if source.raw_os_error() == Some(libc::ENOMEM) => {
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
#[cfg(feature = "rust-vmm")]
pub fn open_kvm() -> Result<Kvm, ProbeError> {
    open()
}

fn open() -> Result<Kvm, ProbeError> {
    check_version(Kvm::new().map_err(open_error)?)
}

fn open_error(err: kvm_ioctls::Error) -> ProbeError {
    match err.errno() {
        libc::ENOENT => ProbeError::Absent,
        libc::EACCES | libc::EPERM => ProbeError::NotPermitted,
        libc::ENOMEM => ProbeError::NoMemory {
            why: err.to_string(),
        },
        _ => ProbeError::Open(err.into()),
    }
}

fn check_version(kvm: Kvm) -> Result<Kvm, ProbeError> {
    match kvm.get_api_version() {
        KVM_API_VERSION => Ok(kvm),
        found => Err(ProbeError::ApiVersion { found }),
    }
}

/// Runs all scenarios, which takes a few milliseconds.
///
/// # Errors
/// [`ProbeError`] if there is no usable KVM.
pub fn run() -> Result<Report, ProbeError> {
    run_with(KickSignal::default())
}

/// Probes this host as [`run`] does, with the kick signal that the runner will use.
///
/// # Errors
/// As [`run`].
pub fn run_with(signal: KickSignal) -> Result<Report, ProbeError> {
    let kvm = open()?;
    supervised(
        SCENARIO_LIMIT,
        signal,
        move |bench| match x86_64::scenario::all(&kvm, bench) {
            Ok((report, used)) => (Ok(report), Some(used)),
            Err(err) => (Err(err), None),
        },
    )?
}

/// Does the work on its own thread, and kicks the guest if a scenario takes longer than `limit`.
///
/// The second result of the work is dropped without waiting, because the kernel takes ten times as long to destroy a VM with interrupt controllers as all
/// scenarios take together.
fn supervised<T: Send + 'static, L>(
    limit: Duration,
    signal: KickSignal,
    work: impl FnOnce(&ScenarioRunner) -> (T, L) + Send + 'static,
) -> Result<T, ProbeError> {
    signal.install().map_err(ProbeError::Signal)?;
    let kick = Arc::new(SignalKick::new(signal));
    let (begin, begun) = mpsc::channel();
    let (finish, finished) = mpsc::channel();
    let overdue = Arc::new(AtomicU32::new(0));
    let bench = ScenarioRunner::new(begin, overdue.clone());
    let worker = thread::Builder::new()
        .name("probe".into())
        .spawn({
            let kick = kick.clone();
            move || {
                kick.enlist(VpIndex::BSP);
                let (result, leftovers) = work(&bench);
                // If the receiver is dropped, its thread has panicked.
                let _ = finish.send(result);
                // The end of all scenarios.
                drop(bench);
                drop(leftovers);
                kick.unregister(VpIndex::BSP);
            }
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
                kick.kick(VpIndex::BSP);
                wait = KICK_AGAIN;
            }
            // The thread has dropped its end, so it has finished with the guests, or has panicked.
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

/// The parts of the report that the runner uses.
impl Report {
    /// The features that the probe has seen work. Without a report, only capability bits count.
    pub(crate) fn seen_to_work(report: Option<&Self>) -> SeenToWork {
        SeenToWork {
            block_irq: report.is_none_or(|report| report.interrupts_held.works),
            register_access: report.is_some_and(|report| report.register_access.works),
        }
    }

    /// The processor modes in which breakpoint bytes can be used.
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
