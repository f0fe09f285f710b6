//! The core of one VP: how it is entered, what its exits mean, and what the controller may ask while it is parked. Generic over the vCPU, so that unit tests drive it with
//! a scripted one.
//!
//! | part | owns |
//! |---|---|
//! | [`Cpu`](cpu::Cpu) | the vCPU, and the values that were read from it and are still valid |
//! | [`Debugging`](debugging::Debugging) | the stop set, the debug registers shared with the guest, the guest's own `INT3` |
//! | [`Stepping`](stepping::Stepping) | the step that is planned or under way, and the correction of its effects |
//! | [`Clocks`](clocks::Clocks) | the VP's time-stamp counter and timer over a stop |
//! | [`Vp`] | the order of the calls: [`guest_run`], [`enter`], [`debug_exit`], [`breakpoint_byte`], [`parked`] |

mod before_guest;
mod breakpoint_byte;
pub(crate) mod clocks;
mod conditions;
mod cpu;
mod debug_exit;
pub(crate) mod debug_state;
mod debugging;
mod enter;
pub(crate) mod guest_memory;
pub(crate) mod guest_run;
mod parked;
mod stepping;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod vcpu;

use crate::arch::x86_64::guest_time::timekeeper::Timekeeper;
use crate::control::guest_event::GuestEvent;
use crate::control::run_gate::RunGate;
use crate::control::run_state::Cause;
use clocks::Clocks;
use cpu::Cpu;
use debugging::Debugging;
use guest_memory::GuestMemory;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use stepping::Stepping;
use vcpu::Vcpu;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::regs::X86VpState;
use vmm_core_defs::stop::CrashCause;
use vmm_core_defs::stop::RunnerFault;

/// The register file of a parked VP, once it has been read. Empty while the VP runs.
pub(crate) type Snapshots = Arc<Mutex<Option<Arc<X86VpState>>>>;

/// What a VP shares with the controller and with the other VPs.
pub(crate) struct VpContext {
    pub(crate) index: VpIndex,
    pub(crate) gate: Arc<RunGate>,
    pub(crate) snapshot: Snapshots,
    pub(crate) memory: GuestMemory,
    pub(crate) time: Arc<Timekeeper>,
}

/// One VP.
pub(crate) struct Vp<V> {
    index: VpIndex,
    gate: Arc<RunGate>,
    snapshot: Snapshots,
    memory: GuestMemory,
    cpu: Cpu<V>,
    debugging: Debugging,
    stepping: Stepping,
    clocks: Clocks,
    /// Breakpoint bytes that are out of memory for this VP to execute the instruction under them. None while the VP is parked.
    lifted: Vec<Gpa>,
    progress: Progress,
    kvm_gave_up: KvmGaveUp,
}

/// Whether the cause of the last stop was that KVM cannot run the VP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KvmGaveUp {
    Yes,
    No,
}

/// What the guest has done with this VP since power-on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// The VP has run nothing: it may be waiting for its start-up message.
    NotStarted,
    /// The VP has run.
    Started,
    /// The VP executed `hlt`, and there is no interrupt controller in KVM that would wake it.
    Halted,
}

impl<V: Vcpu> Vp<V> {
    pub(crate) fn new(vcpu: V, context: VpContext) -> Self {
        let VpContext {
            index,
            gate,
            snapshot,
            memory,
            time,
        } = context;
        Self {
            index,
            gate,
            snapshot,
            memory,
            cpu: Cpu::new(vcpu),
            debugging: Debugging::default(),
            stepping: Stepping::default(),
            clocks: Clocks::new(index, time),
            lifted: Vec::new(),
            progress: Progress::NotStarted,
            kvm_gave_up: KvmGaveUp::No,
        }
    }

    /// The vCPU, for methods that are not part of [`Vcpu`].
    pub(crate) fn vcpu(&mut self) -> &mut V {
        &mut self.cpu.vcpu
    }

    /// The VP cannot run under the debugger.
    fn crashed(&self, err: &DebugError) -> Cause {
        let vp = self.index;
        tracing::error!(%vp, error = %err, "a VP cannot run under the debugger");
        let cause = CrashCause::Runner(RunnerFault::DebugState);
        Cause::Guest(GuestEvent::Crashed { vp, cause })
    }

    fn forget_snapshot(&self) {
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
