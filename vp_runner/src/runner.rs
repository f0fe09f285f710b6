//! The VMM's handle on its running guest.

pub use crate::controller::Controller;
/// Why the runner ended. All VP threads are joined by then.
pub use vmm_core_defs::stop::GuestEnd as RunnerExit;

use crate::controller::Control;
pub use crate::kvm::kick::BadKickSignal;
pub use crate::kvm::kick::KickSignal;
use crate::machine::Machine;
use crate::probe::Report;
use kvm_ioctls::VcpuFd;
use kvm_ioctls::VmFd;
use std::sync::Arc;
use vm_memory::GuestMemoryMmap;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::DebugMessage;
use vmm_core_defs::debug_rpc::FreezeTime;
use vmm_core_defs::stop::DebugStopReason;

pub use crate::breakpoints::DEFAULT_LIMIT as DEFAULT_BREAKPOINT_LIMIT;

/// What a VMM hands over to have its vCPUs run.
pub struct RunnerParams {
    /// The VM.
    pub vm: Arc<VmFd>,
    /// One for each VP, in index order, as created: `Machine::init_vp` is called for each on its own thread.
    pub vcpus: Vec<VcpuFd>,
    /// Guest RAM, as registered with the VM.
    pub memory: Arc<GuestMemoryMmap>,
    /// Devices and power-on state.
    pub machine: Arc<dyn Machine>,
    /// Whether the guest runs at once.
    pub start: StartMode,
    /// What a reset or triple fault leads to, once any debugger has continued from it.
    pub on_reset: ResetPolicy,
    /// What becomes of a guest that cannot go on while nobody debugs it.
    pub on_crash: OnCrash,
    /// Whether the guest's clocks stand while it is stopped. A debugger may change it ([`DebugRequest::FreezeTime`](vmm_core_defs::debug_rpc::DebugRequest::FreezeTime)). Where the report does not
    /// say that this host can freeze them they go on.
    pub freeze_time: FreezeTime,
    /// How many breakpoints a debugger may set: [`DEFAULT_BREAKPOINT_LIMIT`], or what suits the VMM. Each takes about 400 bytes.
    pub breakpoint_limit: u32,
    /// Where a debugger's requests come from; the debugger is gone when all its senders are dropped.
    pub debug: mesh::Receiver<DebugMessage>,
    /// The signal that brings a vCPU out of `KVM_RUN`. The runner takes its handler for the whole process, so give a number that nothing else in it uses.
    pub kick_signal: KickSignal,
    /// What the capability probe found on this host. Without it the client is told of no capability, and software breakpoints are put on debug
    /// registers, four at most.
    pub report: Option<Report>,
}

/// Whether the guest runs at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartMode {
    /// It does.
    Run,
    /// It stays before its first instruction until a debugger resumes it or detaches.
    WaitForDebugger,
}

/// What a reset or triple fault leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetPolicy {
    /// The guest starts again, as a PC does.
    Reset,
    /// The runner ends.
    Exit,
}

/// What becomes of a guest that cannot go on while nobody debugs it: the hypervisor gave up, or a VP met a triple fault and [`ResetPolicy::Exit`] holds.
/// While a debugger is attached, such a guest waits for the next resume or detach. A debugger that is lost after it was told of the crash does not let the
/// guest go.
#[derive(Debug)]
pub enum OnCrash {
    /// The runner ends.
    End,
    /// The guest stays stopped until a debugger attaches, and the crash is the stop that this debugger is told of. If the debugger then detaches with
    /// [`DetachAction::Resume`](vmm_core_defs::debug_rpc::DetachAction::Resume), the runner ends. If all senders of [`RunnerParams::debug`] are dropped, nobody
    /// can attach, and the runner ends.
    Stop {
        /// Told each time that the guest is kept, for the VMM to tell its user.
        kept: mesh::Sender<DebugStopReason>,
    },
}

/// Starts the VP threads and puts every VP into its power-on state. The guest runs once [`Controller::run`] does.
///
/// # Errors
/// [`StartError`]; no thread is left behind then.
pub fn start(params: RunnerParams) -> Result<(RunnerHandle, Controller), StartError> {
    let (control, receiver) = mesh::channel();
    let controller = Controller::new(params, receiver)?;
    Ok((RunnerHandle { control }, controller))
}

/// The VMM's handle on the runner. Dropping it changes nothing.
#[derive(Debug, Clone)]
pub struct RunnerHandle {
    control: mesh::Sender<Control>,
}

impl RunnerHandle {
    /// Ends the runner: VPs are brought out of the guest, [`Controller::run`] returns [`RunnerExit::Stopped`], and the VP threads are joined.
    ///
    /// A thread that is in a method of [`Machine`] is joined when that method returns, and the log says which VP is awaited. A call that the
    /// controller makes for a debugger is not waited for.
    pub fn stop(&self) {
        self.control.send(Control::Stop);
    }
}

/// Why the runner could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is nothing to run.
    #[error("the VM has no vCPU; create at least one")]
    NoVcpus,
    /// The host refused a thread or a signal handler.
    #[error("cannot start a VP thread; raise the limit on processes (`ulimit -u`)")]
    Thread(#[source] std::io::Error),
    /// The machine could not be brought into its power-on state.
    #[error("cannot bring the guest into its power-on state")]
    PowerOn(#[source] DebugError),
}
