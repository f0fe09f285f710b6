//! A guest whose vCPUs belong to the runner: parameters, start, and the VMM's handle.

use super::DEFAULT_BREAKPOINT_LIMIT;
use super::KickSignal;
use super::OnCrash;
use super::ResetPolicy;
use super::StartMode;
use crate::controller::Control;
use crate::controller::Controller;
use crate::machine::Machine;
use crate::probe::Report;
use kvm_ioctls::VcpuFd;
use kvm_ioctls::VmFd;
use std::sync::Arc;
use vm_memory::GuestMemoryMmap;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::DebugMessage;
use vmm_core_defs::debug_rpc::FreezeTime;

/// The parameters of a runner. [`new`](Self::new) takes what every VMM has to give, and the methods set the rest.
#[must_use = "pass it to `start`"]
pub struct RunnerParams {
    pub(crate) vm: Arc<VmFd>,
    pub(crate) vcpus: Vec<VcpuFd>,
    pub(crate) memory: Arc<GuestMemoryMmap>,
    pub(crate) machine: Arc<dyn Machine>,
    pub(crate) debug: mesh::Receiver<DebugMessage>,
    pub(crate) start: StartMode,
    pub(crate) on_reset: ResetPolicy,
    pub(crate) on_crash: OnCrash,
    pub(crate) freeze_time: FreezeTime,
    pub(crate) breakpoint_limit: u32,
    pub(crate) kick_signal: KickSignal,
    pub(crate) report: Option<Report>,
}

impl RunnerParams {
    /// The parameters of a runner whose guest runs at once, starts again after a reset, and ends after a crash.
    ///
    /// - `vcpus`: in index order, as created. `Machine::init_vp` is called for each on its own thread.
    /// - `memory`: guest RAM, as registered with the VM.
    /// - `machine`: devices and power-on state.
    /// - `debug`: the channel of debugger requests. No debugger can attach after all senders were dropped.
    pub fn new(
        vm: Arc<VmFd>,
        vcpus: Vec<VcpuFd>,
        memory: Arc<GuestMemoryMmap>,
        machine: Arc<dyn Machine>,
        debug: mesh::Receiver<DebugMessage>,
    ) -> Self {
        Self {
            vm,
            vcpus,
            memory,
            machine,
            debug,
            start: StartMode::Run,
            on_reset: ResetPolicy::Reset,
            on_crash: OnCrash::End,
            freeze_time: FreezeTime::On,
            breakpoint_limit: DEFAULT_BREAKPOINT_LIMIT,
            kick_signal: KickSignal::default(),
            report: None,
        }
    }

    /// Sets whether the guest runs at once. Without this call it does.
    pub const fn start(mut self, start: StartMode) -> Self {
        self.start = start;
        self
    }

    /// Sets the effect of a reset or triple fault, after an attached debugger has continued from it. Without this call the guest starts again.
    pub const fn on_reset(mut self, policy: ResetPolicy) -> Self {
        self.on_reset = policy;
        self
    }

    /// Sets the effect of a crash while no debugger is attached. Without this call the runner ends.
    pub fn on_crash(mut self, effect: OnCrash) -> Self {
        self.on_crash = effect;
        self
    }

    /// Sets whether the guest's clocks stand while the guest is stopped. A debugger may change this
    /// ([`DebugRequest::FreezeTime`](vmm_core_defs::debug_rpc::DebugRequest::FreezeTime)). Without this call they stand, but the clocks continue unless the
    /// [report](Self::report) shows that this host can freeze them.
    pub const fn freeze_time(mut self, freeze: FreezeTime) -> Self {
        self.freeze_time = freeze;
        self
    }

    /// Sets the most breakpoints that a debugger may set. Each breakpoint takes about 400 bytes. Without this call the limit is [`DEFAULT_BREAKPOINT_LIMIT`].
    pub const fn breakpoint_limit(mut self, limit: u32) -> Self {
        self.breakpoint_limit = limit;
        self
    }

    /// Sets the signal that brings a vCPU out of `KVM_RUN`. The runner installs a handler for the whole process, so choose a number that nothing else in the process
    /// uses. Without this call the signal is `SIGRTMIN`.
    pub const fn kick_signal(mut self, signal: KickSignal) -> Self {
        self.kick_signal = signal;
        self
    }

    /// Passes the report of the capability probe on this host. Without a report the client gets no capabilities, and software breakpoints use debug registers,
    /// four at most.
    pub fn report(mut self, report: impl Into<Option<Report>>) -> Self {
        self.report = report.into();
        self
    }
}

/// Starts the VP threads and puts every VP into its power-on state. The guest runs only while [`Controller::run`] is polled.
///
/// # Errors
/// [`StartError`]. All threads have ended then.
pub fn start(params: RunnerParams) -> Result<(RunnerHandle, Controller), StartError> {
    let (control, receiver) = mesh::channel();
    let controller = Controller::new(params, receiver)?;
    Ok((RunnerHandle { control }, controller))
}

/// The VMM's handle to the runner. Dropping the handle has no effect.
#[derive(Debug, Clone)]
pub struct RunnerHandle {
    control: mesh::Sender<Control>,
}

impl RunnerHandle {
    /// Ends the runner: VPs are brought out of the guest, [`Controller::run`] returns [`RunnerExit::Stopped`](super::RunnerExit::Stopped), and the VP threads are joined.
    ///
    /// A thread that is in a method of [`Machine`] is joined when the method returns. The log names the VP of this thread. The runner does not wait for a call that the
    /// controller makes for a debugger.
    pub fn stop(&self) {
        self.control.send(Control::Stop);
    }
}

/// Why the runner could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The VM has no vCPU.
    #[error("the VM has no vCPU; create at least one")]
    NoVcpus,
    /// The host refused a thread or a signal handler.
    #[error("cannot start a VP thread; raise the limit on processes (`ulimit -u`)")]
    Thread(#[source] std::io::Error),
    /// The machine could not be brought into its power-on state.
    #[error("cannot bring the guest into its power-on state")]
    PowerOn(#[source] DebugError),
}
