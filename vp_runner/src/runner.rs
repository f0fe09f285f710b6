//! The VMM's handle to its running guest.

mod own_threads;

pub use crate::breakpoints::DEFAULT_LIMIT as DEFAULT_BREAKPOINT_LIMIT;
pub use crate::controller::Controller;
pub use crate::kvm::kick::BadKickSignal;
pub use crate::kvm::kick::KickSignal;
#[cfg(feature = "rust-vmm")]
pub use own_threads::RunnerHandle;
#[cfg(feature = "rust-vmm")]
pub use own_threads::RunnerParams;
#[cfg(feature = "rust-vmm")]
pub use own_threads::StartError;
#[cfg(feature = "rust-vmm")]
pub use own_threads::start;
/// Why the runner ended. All VP threads are joined by then.
pub use vmm_core_defs::stop::GuestEnd as RunnerExit;

#[cfg(not(feature = "rust-vmm"))]
pub(crate) use own_threads::RunnerParams;
#[cfg(not(feature = "rust-vmm"))]
pub(crate) use own_threads::StartError;
use vmm_core_defs::stop::DebugStopReason;

/// Whether the guest runs at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartMode {
    /// The guest runs as soon as the controller does.
    Run,
    /// The guest stays before its first instruction until a debugger resumes the guest or detaches.
    WaitForDebugger,
}

/// The effect of a reset or triple fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResetPolicy {
    /// The guest starts again, as a PC does.
    Reset,
    /// The runner ends.
    Exit,
}

/// The effect of a crash while no debugger is attached. A crash is a failure of the hypervisor to continue a VP, or, with [`ResetPolicy::Exit`], a triple fault.
/// While a debugger is attached, a crashed guest waits for the next resume or detach. If a debugger is lost after the crash was reported to it, this setting
/// applies.
#[derive(Debug)]
#[non_exhaustive]
pub enum OnCrash {
    /// The runner ends.
    End,
    /// The guest stays stopped until a debugger attaches. The crash is the stop reason that this debugger gets. If the debugger then detaches with
    /// [`DetachAction::Resume`](vmm_core_defs::debug_rpc::DetachAction::Resume), the runner ends. If all senders of the channel of requests are dropped, no debugger
    /// can attach, and the runner ends.
    Stop {
        /// Gets the crash each time that the guest stays stopped, so that the VMM can tell its user.
        kept: mesh::Sender<DebugStopReason>,
    },
}
