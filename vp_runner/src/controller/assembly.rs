//! How a controller is put together: over the VP threads it starts, or over others (those of the tests).

use super::devices::reset_failed;
use super::*;
use crate::breakpoints::BreakpointTable;
use crate::breakpoints::Breakpoints;
use crate::breakpoints::Int3Traps;
use crate::control::run_state::Keeps;
use crate::kvm::timekeeper::Timekeeper;
use crate::kvm::vcpu::offers::Offers;
use crate::kvm::x86_64::RegisterFile;
use crate::probe::Report;
use crate::runner::OnCrash;
use crate::runner::RunnerParams;
use crate::runner::StartError;
use futures::executor::block_on;
use std::sync::RwLock;
use vm_memory::GuestMemoryMmap;

/// What a controller controls.
pub(super) struct Guest {
    pub(super) vps: Vps,
    pub(super) events: mesh::Receiver<VpEvent>,
    pub(super) breakpoints: Arc<RwLock<Breakpoints>>,
    pub(super) xfeatures: XFeatures,
    pub(super) paging_limits: PagingLimits,
    pub(super) memory: Arc<GuestMemoryMmap>,
    pub(super) machine: Arc<dyn Machine>,
}

/// Who tells it what to do.
pub(super) struct Wiring {
    pub(super) debug: mesh::Receiver<DebugMessage>,
    pub(super) control: mesh::Receiver<Control>,
    pub(super) ticker: (Ticker, mesh::Receiver<Tick>),
    pub(super) int3: Int3Traps,
    pub(super) capabilities: Capabilities,
    pub(super) start: StartMode,
    pub(super) on_reset: ResetPolicy,
    pub(super) on_crash: OnCrash,
}

impl Controller {
    /// Starts the VP threads and brings every VP into its power-on state; none runs yet.
    pub(crate) fn new(
        params: RunnerParams,
        control: mesh::Receiver<Control>,
    ) -> Result<Self, StartError> {
        let Some(vcpu) = params.vcpus.first() else {
            return Err(StartError::NoVcpus);
        };
        let time = Arc::new(Timekeeper::new(
            params.vm.clone(),
            vcpu,
            params.freeze_time,
            params.report.as_ref(),
        ));
        let (send, events) = mesh::channel();
        let offers = Offers::of(&params.vm, params.report.as_ref());
        let breakpoints = Breakpoints {
            table: BreakpointTable::new(params.breakpoint_limit),
            ..Breakpoints::default()
        };
        let breakpoints = Arc::new(RwLock::new(breakpoints));
        let around = vps::Around {
            machine: params.machine.clone(),
            ram: params.memory.clone(),
            breakpoints: Arc::clone(&breakpoints),
            vm: params.vm.clone(),
            offers,
            time: time.clone(),
            kick_signal: params.kick_signal,
        };
        let vps = Vps::start(params.vcpus, &around, &send).map_err(StartError::Thread)?;
        let registers = block_on(power_on(&vps, params.vm)).map_err(StartError::PowerOn)?;
        let guest = Guest {
            vps,
            events,
            breakpoints,
            xfeatures: registers.xfeatures(),
            paging_limits: registers.paging_limits(),
            memory: params.memory,
            machine: params.machine,
        };
        let report = params.report.as_ref();
        let wiring = Wiring {
            debug: params.debug,
            control,
            ticker: Ticker::new(),
            int3: report.map(Int3Traps::new).unwrap_or_default(),
            capabilities: report.map(Report::capabilities).unwrap_or_default(),
            start: params.start,
            on_reset: params.on_reset,
            on_crash: params.on_crash,
        };
        let mut controller = Self::over(guest, wiring);
        controller.time = Some(time);
        Ok(controller)
    }

    /// A controller of VPs that are there already.
    pub(super) fn over(guest: Guest, wiring: Wiring) -> Self {
        let code = Code::new(
            guest.memory.clone(),
            Arc::clone(&guest.breakpoints),
            wiring.int3,
            guest.vps.count(),
        );
        let (ticker, ticks) = wiring.ticker;
        let keeps = match (&wiring.on_crash, wiring.on_reset) {
            (OnCrash::End, _) => Keeps::Nothing,
            (OnCrash::Stop { .. }, ResetPolicy::Reset) => Keeps::Crashes,
            (OnCrash::Stop { .. }, ResetPolicy::Exit) => Keeps::CrashesAndTripleFaults,
        };
        Self {
            state: RunState::new(guest.vps.count(), keeps),
            vps: guest.vps,
            events: guest.events,
            debug: wiring.debug,
            session: LatestSession::default(),
            control: wiring.control,
            waiting: Waiting::default(),
            code,
            arms: Arms::default(),
            step_interrupts: StepInterrupts::default(),
            ticker,
            ticks,
            memory: DebugMemory::new(guest.memory, guest.machine.clone(), guest.breakpoints),
            machine: guest.machine,
            device_calls: DeviceCalls::new(),
            run_after_reset: false,
            xfeatures: guest.xfeatures,
            paging_limits: guest.paging_limits,
            capabilities: wiring.capabilities,
            start: wiring.start,
            on_reset: wiring.on_reset,
            on_crash: wiring.on_crash,
            exit: None,
            told: Vec::new(),
            time: None,
        }
    }
}

/// Puts every VP into its power-on state, and finds out what registers they have.
async fn power_on(vps: &Vps, vm: Arc<kvm_ioctls::VmFd>) -> Result<RegisterFile, DebugError> {
    vps.call_all(|vp| vp.init().map_err(reset_failed)).await?;
    let registers = vps
        .call(VpIndex::BSP, move |vp| vp.find_registers(&vm))
        .await?;
    vps.call_all(move |vp| {
        vp.set_register_file(registers);
        Ok(())
    })
    .await?;
    Ok(registers)
}
