//! The construction of a controller: with VP threads that it starts, or with the fake VPs of the tests.

use super::Control;
use super::Controller;
use super::HeldEvents;
use super::Owner;
use super::breakpoint_control::BreakpointControl;
use super::device_calls;
use super::device_calls::DeviceCalls;
use super::device_calls::StartCall;
use super::latest_session::LatestSession;
use super::ticker::Tick;
use super::ticker::Ticker;
use super::vps::KvmVps;
use super::vps::VpShared;
use super::vps::Vps;
use super::waiting::Waiting;
use crate::arch::PagingLimits;
use crate::arch::Timekeeper;
use crate::arch::TscRate;
use crate::breakpoints::BreakpointTable;
use crate::breakpoints::Breakpoints;
use crate::breakpoints::Int3Traps;
use crate::control::enter::StopSet;
use crate::control::run_state::KeepStopped;
use crate::control::run_state::RunState;
use crate::hook::VpEvent;
use crate::kvm::kick::Kick;
use crate::kvm::kick::SignalKick;
use crate::kvm::vcpu::features::KvmFeatures;
use crate::kvm::x86_64::RegisterFile;
use crate::kvm::x86_64::clocks;
use crate::kvm::x86_64::clocks::KvmClocks;
use crate::machine::for_debugger::ForDebugger;
use crate::machine::for_debugger::OfMachine;
use crate::memory::DebugMemory;
use crate::memory::slots::MemorySlots;
use crate::probe::Report;
use crate::runner::OnCrash;
use crate::runner::ResetPolicy;
use crate::runner::RunnerParams;
use crate::runner::StartError;
use crate::runner::StartMode;
use futures::executor::block_on;
use kvm_ioctls::VcpuFd;
use kvm_ioctls::VmFd;
use std::sync::Arc;
use std::sync::RwLock;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::capability::Capabilities;
use vmm_core_defs::capability::CapabilityKind;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::DebugMessage;
use vmm_core_defs::debug_rpc::FreezeTime;
use vmm_core_defs::debug_rpc::StepInterrupts;
use vmm_core_defs::debug_rpc::Unsupported;
use vmm_core_defs::regs::XFeatures;

/// The guest of a controller.
pub(super) struct Guest {
    pub(super) vps: Vps,
    pub(super) events: mesh::Receiver<VpEvent>,
    pub(super) breakpoints: Arc<RwLock<Breakpoints>>,
    pub(super) xfeatures: XFeatures,
    pub(super) paging_limits: PagingLimits,
    pub(super) memory: Arc<MemorySlots>,
    pub(super) machine: Arc<dyn ForDebugger>,
    pub(super) owner: Owner,
}

/// The channels and settings of a controller.
pub(super) struct Setup {
    pub(super) debug: mesh::Receiver<DebugMessage>,
    pub(super) control: mesh::Receiver<Control>,
    pub(super) ticker: (Ticker, mesh::Receiver<Tick>),
    pub(super) time: Arc<Timekeeper>,
    pub(super) device_threads: StartCall,
    pub(super) int3: Int3Traps,
    pub(super) capabilities: Capabilities,
    pub(super) start: StartMode,
    pub(super) on_reset: ResetPolicy,
    pub(super) on_crash: OnCrash,
}

/// The parts of a controller in a VMM with run loops of its own.
pub(crate) struct Embedded {
    pub(crate) vm: Arc<VmFd>,
    pub(crate) memory: Arc<MemorySlots>,
    pub(crate) events: HeldEvents,
    pub(crate) machine: Arc<dyn ForDebugger>,
    pub(crate) kick: Arc<dyn Kick>,
    pub(crate) debug: mesh::Receiver<DebugMessage>,
    pub(crate) control: mesh::Receiver<Control>,
    pub(crate) start: StartMode,
    pub(crate) breakpoint_limit: u32,
    pub(crate) report: Option<Report>,
}

impl Controller {
    /// Starts the VP threads and puts every VP into its power-on state. No VP runs yet.
    pub(crate) fn new(
        params: RunnerParams,
        control: mesh::Receiver<Control>,
    ) -> Result<Self, StartError> {
        let Some(vcpu) = params.vcpus.first() else {
            return Err(StartError::NoVcpus);
        };
        let report = params.report.as_ref();
        let rate = tsc_rate(vcpu, report);
        if let (Err(err), FreezeTime::On, Some(_)) = (&rate, params.freeze_time, report) {
            tracing::info!(error = %err, "the guest's clocks go on while it is stopped");
        }
        let clocks = Box::new(KvmClocks(params.vm.clone()));
        let time = Arc::new(Timekeeper::new(clocks, params.freeze_time, rate));
        let (send, events) = mesh::channel();
        let features = KvmFeatures::of(&params.vm, Report::seen_to_work(report));
        let breakpoints = Breakpoints {
            table: BreakpointTable::new(params.breakpoint_limit),
            ..Breakpoints::default()
        };
        let breakpoints = Arc::new(RwLock::new(breakpoints));
        let ram = Arc::new(MemorySlots::of(params.memory));
        let shared = VpShared {
            ram: ram.clone(),
            breakpoints: Arc::clone(&breakpoints),
            time: time.clone(),
            kick: Arc::new(SignalKick::new(params.kick_signal)),
            events: send,
        };
        let kvm = KvmVps {
            shared,
            vm: params.vm,
            features,
        };
        let vps = Vps::start(params.vcpus, &kvm, &params.machine).map_err(StartError::Thread)?;
        let registers = block_on(power_on(&vps)).map_err(StartError::PowerOn)?;
        let guest = Guest {
            vps,
            events,
            breakpoints,
            xfeatures: registers.xfeatures(),
            paging_limits: registers.paging_limits(),
            memory: ram,
            machine: Arc::new(OfMachine(params.machine)),
            owner: Owner::Runner,
        };
        let report = params.report.as_ref();
        let setup = Setup {
            debug: params.debug,
            control,
            ticker: Ticker::new(),
            time,
            device_threads: device_calls::on_a_thread,
            int3: report.map(Report::int3_traps).unwrap_or_default(),
            capabilities: report.map(Report::capabilities).unwrap_or_default(),
            start: params.start,
            on_reset: params.on_reset,
            on_crash: params.on_crash,
        };
        Ok(Self::over(guest, setup))
    }

    /// A controller of a VM whose VPs register later, and what the VPs need for that.
    pub(crate) fn embedded(parts: Embedded) -> (Self, KvmVps) {
        let report = parts.report.as_ref();
        let breakpoints = Arc::new(RwLock::new(Breakpoints {
            table: BreakpointTable::new(parts.breakpoint_limit),
            ..Breakpoints::default()
        }));
        let clocks = Box::new(KvmClocks(parts.vm.clone()));
        // The clocks of an embedded VM belong to the VMM, and run on during a stop.
        let rate = Err(Unsupported::ClocksOfVmm.into());
        let time = Arc::new(Timekeeper::new(clocks, FreezeTime::Off, rate));
        let (send, events) = mesh::channel();
        let shared = VpShared {
            ram: parts.memory.clone(),
            breakpoints: breakpoints.clone(),
            time: time.clone(),
            kick: parts.kick,
            events: send,
        };
        let kvm = KvmVps {
            shared,
            features: KvmFeatures::of(&parts.vm, Report::seen_to_work(report)),
            vm: parts.vm,
        };
        let guest = Guest {
            vps: Vps::of(Vec::new()),
            events,
            breakpoints,
            // No request is served before the first VP, which knows both.
            xfeatures: XFeatures::default(),
            paging_limits: PagingLimits::new(0, false),
            memory: parts.memory,
            machine: parts.machine,
            owner: Owner::Vmm(parts.events),
        };
        let setup = Setup {
            debug: parts.debug,
            control: parts.control,
            ticker: Ticker::new(),
            time,
            device_threads: device_calls::on_a_thread,
            int3: report.map(Report::int3_traps).unwrap_or_default(),
            capabilities: report.map(Report::capabilities).unwrap_or_default(),
            start: parts.start,
            on_reset: ResetPolicy::Reset,
            on_crash: OnCrash::End,
        };
        (Self::over(guest, setup), kvm)
    }

    /// A controller of VPs that exist already.
    pub(super) fn over(guest: Guest, setup: Setup) -> Self {
        let breakpoint_control = BreakpointControl::new(
            guest.memory.clone(),
            Arc::clone(&guest.breakpoints),
            setup.int3,
            guest.vps.count(),
        );
        let (ticker, ticks) = setup.ticker;
        let keep_stopped = match (&setup.on_crash, setup.on_reset) {
            (OnCrash::End, _) => KeepStopped::Nothing,
            (OnCrash::Stop { .. }, ResetPolicy::Reset) => KeepStopped::Crashes,
            (OnCrash::Stop { .. }, ResetPolicy::Exit) => KeepStopped::CrashesAndTripleFaults,
        };
        Self {
            state: RunState::new(guest.vps.count(), keep_stopped),
            vps: guest.vps,
            events: guest.events,
            debug: setup.debug,
            session: LatestSession::default(),
            control: setup.control,
            waiting: Waiting::default(),
            breakpoint_control,
            stops: StopSet::default(),
            step_interrupts: StepInterrupts::default(),
            ticker,
            ticks,
            memory: DebugMemory::new(guest.memory, guest.machine.clone(), guest.breakpoints),
            machine: guest.machine,
            device_calls: DeviceCalls::new(setup.device_threads),
            run_after_reset: false,
            xfeatures: guest.xfeatures,
            paging_limits: guest.paging_limits,
            capabilities: setup.capabilities,
            start: setup.start,
            on_reset: setup.on_reset,
            on_crash: setup.on_crash,
            owner: guest.owner,
            ends_at: None,
            exit: None,
            reported: Vec::new(),
            time: setup.time,
        }
    }
}

/// The rate of the guest's time-stamp counter, or why the counter cannot be set back on this host. Requires that the probe has seen frozen time work.
fn tsc_rate(vcpu: &VcpuFd, report: Option<&Report>) -> Result<TscRate, DebugError> {
    let report = report.ok_or(Unsupported::NotProbed(CapabilityKind::FrozenTime))?;
    match report.capabilities().missing(CapabilityKind::FrozenTime) {
        Some(missing) => Err(Unsupported::Host(missing.clone()).into()),
        None => clocks::tsc_rate(vcpu),
    }
}

/// Puts every VP into its power-on state, and finds out which registers the VPs have.
async fn power_on(vps: &Vps) -> Result<RegisterFile, DebugError> {
    vps.call_all(|vp| vp.power_on()).await?;
    let registers = vps.call(VpIndex::BSP, |vp| vp.find_register_file()).await?;
    vps.call_all(move |vp| {
        vp.set_register_file(registers);
        Ok(())
    })
    .await?;
    Ok(registers)
}
