//! The runner under test, and requests to it with a deadline.

use super::*;
use crate::own_loops::OwnLoops;
use crate::own_loops::Record;
use crate::own_loops::Shape;
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_bindings::kvm_pit_config;
use kvm_ioctls::Cap;
use kvm_ioctls::Kvm;
use mesh::rpc::PendingFailableRpc;
use mesh::rpc::RpcError;
use mesh::rpc::RpcSend;
use std::pin::pin;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::task::Context;
use std::task::Poll;
use std::task::Wake;
use std::thread;
use std::time::Instant;
use vm_memory::GuestAddress as RamAddress;
use vm_memory::GuestMemoryMmap;
use vmm_core_defs::addr::GuestAddress;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::breakpoint::BreakpointChange;
use vmm_core_defs::breakpoint::BreakpointKind;
use vmm_core_defs::debug_rpc::AttachInfo;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::DebugMessage;
use vmm_core_defs::debug_rpc::DebugRequest;
use vmm_core_defs::debug_rpc::DetachAction;
use vmm_core_defs::debug_rpc::ResumeRequest;
use vmm_core_defs::debug_rpc::VmStatus;
use vmm_core_defs::debug_rpc::VpAction;
use vmm_core_defs::debug_rpc::VpActivity;
use vmm_core_defs::regs::DebuggerVpState;
use vmm_core_defs::regs::X86VpState;
use vmm_core_defs::session::Attached;
use vmm_core_defs::session::DebugSession;
use vmm_core_defs::stop::DebugStopReason;
use vmm_core_defs::stop::StopEvent;
use vp_runner::embed::EmbedParams;
use vp_runner::embed::MmioAccess;
use vp_runner::embed::SignalKick;
use vp_runner::embed::VmHandle;
use vp_runner::embed::embed;
use vp_runner::kvm::ram::RegisteredRam;
use vp_runner::probe;
use vp_runner::probe::Report;
use vp_runner::runner::Controller;
use vp_runner::runner::OnCrash;
use vp_runner::runner::RunnerExit;
use vp_runner::runner::RunnerHandle;
use vp_runner::runner::RunnerParams;

/// CPUID leaf 1.
const CPUID_1_ECX_TSC_DEADLINE: u32 = 1 << 24;

/// A guest whose runner does not run yet.
pub struct Parts {
    /// The devices of the guest.
    pub machine: Arc<TestMachine>,
    /// The handle of the runner or of the embedded debugger.
    pub handle: Handle,
    /// The controller, which does not run yet.
    pub controller: Controller,
    /// The channel for a debugger's requests.
    pub debug: mesh::Sender<DebugMessage>,
}

impl Setup {
    /// The results of the probe, once per test program.
    fn report(&self) -> Option<Report> {
        static REPORT: OnceLock<Report> = OnceLock::new();
        let probed = || probe::run().expect("a host that has KVM can be probed");
        if !self.probed {
            return None;
        }
        let mut report = REPORT.get_or_init(probed).clone();
        report.interrupts_held.works &= !self.shadowed;
        Some(report)
    }
}

impl Parts {
    /// # Errors
    /// The reason why this host cannot run the guest.
    pub fn new(setup: Setup) -> Result<Self, String> {
        let kvm = Kvm::new().map_err(|err| format!("no /dev/kvm: {err}"))?;
        if let Some(report) = setup.report()
            && setup.shadowed
            && !report.shadow_holds.works
        {
            let seen = report.shadow_holds.seen;
            return Err(format!(
                "this KVM drops an interrupt shadow when it steps (Linux clears it for VT-x, `vmx_vcpu_run`): {seen}"
            ));
        }
        let vm = kvm.create_vm().map_err(|err| format!("no VM: {err}"))?;
        vm.set_tss_address(0xfffb_d000).unwrap();
        vm.create_irq_chip().unwrap();
        vm.create_pit2(kvm_pit_config::default()).unwrap();
        let ram = GuestMemoryMmap::<()>::from_ranges(&[(RamAddress(0), RAM)]).unwrap();
        let ram = Arc::new(ram);
        let vm = Arc::new(vm);
        let registered = RegisteredRam::new(vm.clone(), ram.clone()).unwrap();
        let mut cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).unwrap();
        if kvm.check_extension(Cap::TscDeadlineTimer) {
            // KVM leaves this bit to the VMM, which has to provide the local APIC.
            let features = cpuid.as_mut_slice().iter_mut();
            features
                .filter(|entry| entry.function == 1)
                .for_each(|entry| entry.ecx |= CPUID_1_ECX_TSC_DEADLINE);
        }
        let vcpus: Vec<_> = (0..setup.vps)
            .map(|index| {
                let vcpu = vm.create_vcpu(index.into()).unwrap();
                vcpu.set_cpuid2(&cpuid).unwrap();
                vcpu
            })
            .collect();
        let machine = Arc::new(TestMachine {
            tsc_khz: vcpus[0].get_tsc_khz().ok(),
            setup: setup.clone(),
            ram: registered,
            seen: Mutex::default(),
            news: Condvar::new(),
        });
        machine.load();
        let (debug, requests) = mesh::channel();
        if let Some(shape) = setup.loops.or_else(Shape::of_environment) {
            let params = EmbedParams::of_kvm_ioctls(&kvm, &vm, requests).unwrap();
            return Ok(Self::embedded(params, &setup, machine, vcpus, debug, shape));
        }
        let on_crash = match setup.kept.clone() {
            Some(kept) => OnCrash::Stop { kept },
            None => OnCrash::End,
        };
        let params = RunnerParams::new(vm, vcpus, ram, machine.clone(), requests)
            .start(setup.start)
            .on_reset(setup.on_reset)
            .on_crash(on_crash)
            .freeze_time(setup.freeze_time)
            .kick_signal(setup.kick_signal)
            .report(setup.report());
        let (handle, controller) = vp_runner::start(params).unwrap();
        Ok(Self {
            machine,
            handle: Handle::Runner(handle),
            controller,
            debug,
        })
    }
}

impl Parts {
    /// The same guest in a VMM with run loops of its own.
    fn embedded(
        params: EmbedParams,
        setup: &Setup,
        machine: Arc<TestMachine>,
        vcpus: Vec<VcpuFd>,
        debug: mesh::Sender<DebugMessage>,
        shape: Shape,
    ) -> Self {
        let devices = machine.clone();
        let record = Arc::<Mutex<Record>>::default();
        let handle = Arc::new(OnceLock::<VmHandle>::new());
        let (acts, acting) = (record.clone(), handle.clone());
        let params = params
            .start(setup.start)
            .report(setup.report())
            .kick(SignalKick::new(setup.kick_signal))
            .mmio(move |gpa, access| match access {
                MmioAccess::Read(data) => devices.mmio_read(None, Gpa::new(gpa), data),
                MmioAccess::Write(data) => devices.mmio_write(None, Gpa::new(gpa), data).0,
                _ => MmioOutcome::Unclaimed,
            });
        let params = params.on_continue(move |kind| {
            let vm = acting.get().expect("the handle comes before any event");
            acts.lock().unwrap().act(kind, vm);
        });
        let (vm, controller) = embed(params).unwrap();
        handle.set(vm.clone()).ok().expect("the handle is set once");
        vm.set_guest_memory(machine.ram.memory().clone());
        let loops = OwnLoops::new(vm.clone(), machine.clone(), record, shape);
        // Identifiers with gaps, as those of local APICs. The threads of a VMM may begin in any order, so the last one begins first here.
        let vcpus: Vec<_> = (0..).zip(vcpus).collect();
        for (index, _) in &vcpus {
            vm.expect_vp(index * 4);
        }
        for (index, vcpu) in vcpus.into_iter().rev() {
            loops.start_vcpu(index * 4, index, vcpu);
        }
        Self {
            machine,
            handle: Handle::Embedded(vm, Arc::new(loops)),
            controller,
            debug,
        }
    }
}

/// The handle of the VMM to the debugger.
#[derive(Clone)]
pub enum Handle {
    /// The runner has the vCPUs.
    Runner(RunnerHandle),
    /// The VMM has the vCPUs.
    Embedded(VmHandle, Arc<OwnLoops>),
}

impl Handle {
    /// Ends the debugger.
    pub fn stop(&self) {
        match self {
            Self::Runner(runner) => runner.stop(),
            Self::Embedded(vm, _) => vm.stop(),
        }
    }

    /// The VMM with run loops of its own.
    ///
    /// # Panics
    /// If the runner has the vCPUs.
    pub fn loops(&self) -> (&VmHandle, &OwnLoops) {
        match self {
            Self::Runner(_) => panic!("the runner has the vCPUs"),
            Self::Embedded(vm, loops) => (vm, loops),
        }
    }
}

impl TestVm {
    pub(super) fn new(setup: Setup) -> Result<Self, String> {
        let Parts {
            machine,
            handle,
            controller,
            debug,
        } = Parts::new(setup)?;
        let runner = thread::spawn(move || futures::executor::block_on(controller.run()));
        Ok(Self {
            machine,
            handle,
            debug: Some(debug),
            session: Mutex::default(),
            runner: Some(runner),
        })
    }

    /// The channel to which debuggers attach.
    pub fn sender(&self) -> &mesh::Sender<DebugMessage> {
        self.debug.as_ref().expect("the channel was dropped")
    }

    /// The present session: the one that attached last, even if it has ended.
    pub fn session(&self) -> Arc<DebugSession> {
        let session = self.session.lock().unwrap();
        session.clone().expect("no debugger has attached yet")
    }

    /// Sends an `Attach` in addition to the present session.
    pub fn send_attach(&self) -> PendingFailableRpc<Attached, DebugError> {
        DebugSession::attach(self.sender(), DetachAction::Resume)
    }

    /// Drops the session without a detach.
    pub fn lose_session(&self) {
        *self.session.lock().unwrap() = None;
    }

    /// Makes a session the present one, and drops the previous one.
    pub fn begin(&self, attached: Attached) -> AttachInfo {
        let Attached { session, info } = attached;
        *self.session.lock().unwrap() = Some(Arc::new(session));
        info
    }

    /// Sends a request. [`answer`] waits for its answer.
    pub fn send<I, T>(
        &self,
        request: impl FnOnce(mesh::rpc::Rpc<I, Result<T, DebugError>>) -> DebugRequest,
        input: I,
    ) -> PendingFailableRpc<T, DebugError> {
        self.session().call_failable(request, input)
    }

    /// Sends a request and waits for its answer.
    pub fn call<I, T>(
        &self,
        request: impl FnOnce(mesh::rpc::Rpc<I, Result<T, DebugError>>) -> DebugRequest,
        input: I,
    ) -> Result<T, DebugError> {
        answer(self.send(request, input))
    }

    /// Attaches.
    pub fn attach(&self) -> AttachInfo {
        self.attach_with(DetachAction::Resume)
    }

    /// Attaches. `if_lost` says what happens to the guest if the session is lost.
    pub fn attach_with(&self, if_lost: DetachAction) -> AttachInfo {
        let attach = DebugSession::attach(self.sender(), if_lost);
        self.begin(answer(attach).unwrap())
    }

    /// Detaches.
    pub fn detach(&self, action: DetachAction) {
        self.call(DebugRequest::Detach, action).unwrap();
    }

    /// Stops the guest.
    pub fn break_(&self) {
        self.call(DebugRequest::Break, ()).unwrap();
    }

    /// Runs every VP.
    pub fn resume(&self) -> PendingFailableRpc<StopEvent, DebugError> {
        self.send(DebugRequest::Resume, every(VpAction::Run))
    }

    /// One VP carries out `action`, and the others stay stopped.
    pub fn only(&self, vp: u32, action: VpAction) -> PendingFailableRpc<StopEvent, DebugError> {
        let request = ResumeRequest::new(VpAction::Stay, vec![(VpIndex::new(vp), action)]);
        self.send(DebugRequest::Resume, request)
    }

    /// Steps one VP by one instruction, and expects no other stop reason.
    pub fn step(&self, vp: u32) {
        let reason = answer(self.only(vp, VpAction::Step)).unwrap().reason;
        let vp = VpIndex::new(vp);
        assert_eq!(reason, DebugStopReason::SingleStep { vp });
    }

    /// Sets a breakpoint.
    pub fn insert(&self, breakpoint: Breakpoint) {
        let changes = vec![BreakpointChange::Insert(breakpoint)];
        self.call(DebugRequest::SetDebugState, changes).unwrap();
    }

    /// Removes a breakpoint.
    pub fn remove(&self, breakpoint: Breakpoint) {
        let changes = vec![BreakpointChange::Remove(breakpoint)];
        self.call(DebugRequest::SetDebugState, changes).unwrap();
    }

    /// The registers of a stopped VP.
    pub fn regs(&self, vp: u32) -> X86VpState {
        let state = self.call(DebugRequest::GetVpState, VpIndex::new(vp));
        let DebuggerVpState::X86_64(state) = *state.unwrap() else {
            panic!("an x86 guest");
        };
        state
    }

    /// Writes the registers of a stopped VP.
    ///
    /// # Errors
    /// Those of `SetVpState`.
    pub fn try_set_regs(&self, vp: u32, state: X86VpState) -> Result<(), DebugError> {
        let state = Box::new(DebuggerVpState::X86_64(state));
        self.call(DebugRequest::SetVpState, (VpIndex::new(vp), state))
    }

    /// Reads memory in the address space of a VP.
    ///
    /// # Errors
    /// Those of `ReadMemory`.
    pub fn read_gva(&self, vp: u32, gva: u64, len: usize) -> Result<Vec<u8>, DebugError> {
        let vp = VpIndex::new(vp);
        let gva = Gva::new(gva);
        let address = GuestAddress::Gva { vp, gva };
        self.call(DebugRequest::ReadMemory, (address, len))
    }

    /// Writes memory in the address space of a VP.
    ///
    /// # Errors
    /// Those of `WriteMemory`.
    pub fn write_gva(&self, vp: u32, gva: u64, data: &[u8]) -> Result<(), DebugError> {
        let vp = VpIndex::new(vp);
        let gva = Gva::new(gva);
        let address = GuestAddress::Gva { vp, gva };
        self.call(DebugRequest::WriteMemory, (address, data.to_vec()))
    }

    /// The status of the VPs.
    pub fn status(&self) -> VmStatus {
        self.call(DebugRequest::Status, ()).unwrap()
    }

    /// Interrupts the guest and returns the activity of the first VP.
    pub fn status_after_break(
        &self,
        pending: PendingFailableRpc<StopEvent, DebugError>,
    ) -> VpActivity {
        interrupt(self, pending);
        self.status().vps[0].activity
    }

    /// Drops the debug channel, as a debugger that dies does.
    pub fn drop_channel(&mut self) {
        self.lose_session();
        self.debug = None;
    }

    /// Waits for the end of the runner.
    pub fn join(mut self) -> RunnerExit {
        self.join_runner()
    }

    fn join_runner(&mut self) -> RunnerExit {
        let runner = self.runner.take().expect("joined once");
        let end = Instant::now() + DEADLINE;
        while !runner.is_finished() {
            assert!(Instant::now() < end, "the runner does not end");
            thread::yield_now();
        }
        let end = runner.join().unwrap();
        match &self.handle {
            Handle::Embedded(_, loops) if loops.is_off() => RunnerExit::PowerOff,
            Handle::Runner(_) | Handle::Embedded(..) => end,
        }
    }
}

impl Drop for TestVm {
    fn drop(&mut self) {
        if self.runner.is_some() && !thread::panicking() {
            self.handle.stop();
            self.join_runner();
        }
    }
}

/// The same action for every VP.
pub fn every(action: VpAction) -> ResumeRequest {
    ResumeRequest::every(action)
}

/// A breakpoint in a debug register.
pub fn execute_at(address: u64) -> Breakpoint {
    Breakpoint {
        kind: BreakpointKind::Execute,
        address: Gva::new(address),
        len: 1,
    }
}

/// The stop of a VP at a breakpoint.
pub fn hit(vp: u32, breakpoint: Breakpoint) -> DebugStopReason {
    let vp = VpIndex::new(vp);
    DebugStopReason::Breakpoint { vp, breakpoint }
}

/// Interrupts the guest. `pending` is its resume, which must not have been answered by another stop.
pub fn interrupt(vm: &TestVm, pending: PendingFailableRpc<StopEvent, DebugError>) {
    vm.break_();
    assert_eq!(stop(pending), DebugStopReason::Break);
}

/// Waits for an answer. If the runner is gone, the test fails.
pub fn answer<T>(pending: PendingFailableRpc<T, DebugError>) -> Result<T, DebugError> {
    match wait(pending) {
        Ok(value) => Ok(value),
        Err(RpcError::Call(err)) => Err(err),
        Err(err @ RpcError::Channel(_)) => panic!("{err}"),
    }
}

/// The reason of the stop that answers a resume.
pub fn stop(pending: PendingFailableRpc<StopEvent, DebugError>) -> DebugStopReason {
    answer(pending).unwrap().reason
}

/// Waits for a future, up to the deadline.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    let end = Instant::now() + DEADLINE;
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        let left = end.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "no answer before the deadline");
        thread::park_timeout(left);
    }
}
