//! A small machine for real guests on /dev/kvm: a few pages of memory, two or three devices, a runner under test, and requests with a deadline.
#![expect(
    dead_code,
    reason = "compiled into every test program, each of which uses a part"
)]

pub mod guest;

use guest::Mode;
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_bindings::KVM_MP_STATE_RUNNABLE;
use kvm_bindings::kvm_mp_state;
use kvm_bindings::kvm_pit_config;
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::Kvm;
use kvm_ioctls::VcpuFd;
use mesh::rpc::PendingFailableRpc;
use mesh::rpc::RpcError;
use mesh::rpc::RpcSend;
use std::pin::pin;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::task::Context;
use std::task::Poll;
use std::task::Wake;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;
use vm_memory::Bytes;
use vm_memory::GuestAddress as RamAddress;
use vm_memory::GuestMemoryBackend;
use vm_memory::GuestMemoryMmap;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::GuestAddress;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::breakpoint::BreakpointChange;
use vmm_core_defs::breakpoint::BreakpointKind;
use vmm_core_defs::debug_rpc::AttachInfo;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::DebugRequest;
use vmm_core_defs::debug_rpc::DetachAction;
use vmm_core_defs::debug_rpc::ResumeRequest;
use vmm_core_defs::debug_rpc::VmStatus;
use vmm_core_defs::debug_rpc::VpAction;
use vmm_core_defs::debug_rpc::VpActivity;
use vmm_core_defs::regs::DebuggerVpState;
use vmm_core_defs::regs::X86VpState;
use vmm_core_defs::stop::DebugStopReason;
use vmm_core_defs::stop::StopEvent;
use vp_runner::machine::DeviceOutcome;
use vp_runner::machine::Machine;
use vp_runner::machine::MachineError;
use vp_runner::machine::MmioOutcome;
use vp_runner::runner::ResetPolicy;
use vp_runner::runner::RunnerExit;
use vp_runner::runner::RunnerHandle;
use vp_runner::runner::RunnerParams;
use vp_runner::runner::StartMode;

/// No answer takes this long, on the slowest of hosts; a test that waits it out has found a hang.
const DEADLINE: Duration = Duration::from_secs(120);

const RAM: u64 = 2 << 20;
/// Where the guest's program lies, and where its VPs start.
pub const ENTRY: u64 = 0x1000;
/// A device register of eight bytes.
pub const DEVICE: Gpa = Gpa::new(0x1000_0000);
/// A write tells the test of the byte written.
pub const PORT_TELL: u8 = 0xe9;
/// A write asks for a reset.
pub const PORT_RESET: u8 = 0xf1;
/// A write asks to be switched off.
pub const PORT_OFF: u8 = 0xf2;
/// A read gives 0x5a, once the test lets it.
pub const PORT_HELD: u8 = 0xf3;

/// What to build.
#[derive(Debug, Clone)]
pub struct Setup {
    pub mode: Mode,
    pub vps: u32,
    pub code: Vec<u8>,
    pub start: StartMode,
    pub on_reset: ResetPolicy,
    /// Whether VPs after the first wait for INIT-SIPI.
    pub others_wait: bool,
}

impl Setup {
    pub fn new(mode: Mode, code: &[u8]) -> Self {
        Self {
            mode,
            vps: 1,
            code: code.to_vec(),
            start: StartMode::WaitForDebugger,
            on_reset: ResetPolicy::Reset,
            others_wait: false,
        }
    }

    pub fn vps(mut self, vps: u32) -> Self {
        self.vps = vps;
        self
    }

    pub fn running(mut self) -> Self {
        self.start = StartMode::Run;
        self
    }

    pub fn exit_on_reset(mut self) -> Self {
        self.on_reset = ResetPolicy::Exit;
        self
    }

    pub fn others_wait(mut self) -> Self {
        self.others_wait = true;
        self
    }

    /// The running guest, or `None` with the reason printed where this host has no KVM.
    pub fn build(self) -> Option<TestVm> {
        match TestVm::new(self) {
            Ok(vm) => Some(vm),
            Err(why) => {
                println!("SKIP: {why}");
                None
            }
        }
    }
}

/// The devices, and what the tests want to know of them.
pub struct TestMachine {
    setup: Setup,
    ram: Arc<GuestMemoryMmap>,
    seen: Mutex<Seen>,
    news: Condvar,
}

/// What the machine was asked.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub told: Vec<(VpIndex, u8)>,
    pub device: [u8; 8],
    pub device_accesses: Vec<(Option<VpIndex>, usize)>,
    pub resets: u32,
    pub inits: u32,
    /// Reads of the held port that have begun, and how many may end.
    pub held: u32,
    pub released: u32,
}

impl TestMachine {
    /// Waits until the machine has seen enough.
    pub fn wait_until(&self, what: &str, enough: impl Fn(&Seen) -> bool) -> Seen {
        let seen = self.seen.lock().unwrap();
        let (seen, timeout) = self
            .news
            .wait_timeout_while(seen, DEADLINE, |seen| !enough(seen))
            .unwrap();
        assert!(!timeout.timed_out(), "waiting until {what}: {seen:?}");
        seen.clone()
    }

    /// Lets one held read end.
    pub fn release(&self) {
        self.note(|seen| seen.released += 1);
    }

    fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap());
        self.news.notify_all();
    }

    fn load(&self) {
        let zeros = vec![0; usize::try_from(RAM).unwrap()];
        self.ram.write_slice(&zeros, RamAddress(0)).unwrap();
        let code = &self.setup.code;
        self.ram.write_slice(code, RamAddress(ENTRY)).unwrap();
        guest::tables(&self.ram);
    }
}

impl Machine for TestMachine {
    fn pio_read(&self, _vp: VpIndex, port: u16, data: &mut [u8]) {
        data.fill(0xff);
        if port == u16::from(PORT_HELD) {
            self.note(|seen| seen.held += 1);
            self.wait_until("the read is released", |seen| seen.released >= seen.held);
            data.fill(0x5a);
        }
    }

    fn pio_write(&self, vp: VpIndex, port: u16, data: &[u8]) -> DeviceOutcome {
        if port == u16::from(PORT_TELL) {
            self.note(|seen| seen.told.extend(data.iter().map(|byte| (vp, *byte))));
        }
        match u8::try_from(port) {
            Ok(PORT_RESET) => DeviceOutcome::Reset,
            Ok(PORT_OFF) => DeviceOutcome::PowerOff,
            _ => DeviceOutcome::Done,
        }
    }

    fn mmio_read(&self, vp: Option<VpIndex>, gpa: Gpa, data: &mut [u8]) -> MmioOutcome {
        let mut outcome = MmioOutcome::Unclaimed;
        self.note(|seen| {
            if let Some(bytes) = device_bytes(&mut seen.device, gpa, data.len()) {
                seen.device_accesses.push((vp, data.len()));
                data.copy_from_slice(bytes);
                outcome = MmioOutcome::Handled;
            }
        });
        outcome
    }

    fn mmio_write(
        &self,
        vp: Option<VpIndex>,
        gpa: Gpa,
        data: &[u8],
    ) -> (MmioOutcome, DeviceOutcome) {
        let mut outcome = MmioOutcome::Unclaimed;
        self.note(|seen| {
            if let Some(bytes) = device_bytes(&mut seen.device, gpa, data.len()) {
                seen.device_accesses.push((vp, data.len()));
                bytes.copy_from_slice(data);
                outcome = MmioOutcome::Handled;
            }
        });
        (outcome, DeviceOutcome::Done)
    }

    fn init_vp(&self, vp: VpIndex, vcpu: &VcpuFd) -> Result<(), MachineError> {
        let failed = |why: kvm_ioctls::Error| MachineError {
            what: "set a VP's power-on state",
            why: why.to_string(),
        };
        guest::power_on(self.setup.mode, vp, vcpu).map_err(failed)?;
        let runs = vp == VpIndex::BSP || !self.setup.others_wait;
        let state = if runs {
            KVM_MP_STATE_RUNNABLE
        } else {
            kvm_bindings::KVM_MP_STATE_UNINITIALIZED
        };
        vcpu.set_mp_state(kvm_mp_state { mp_state: state })
            .map_err(failed)?;
        self.note(|seen| seen.inits += 1);
        Ok(())
    }

    fn reset(&self) -> Result<(), MachineError> {
        self.load();
        self.note(|seen| seen.resets += 1);
        Ok(())
    }
}

fn device_bytes(device: &mut [u8; 8], gpa: Gpa, len: usize) -> Option<&mut [u8]> {
    let offset = usize::try_from(gpa.value().checked_sub(DEVICE.value())?).ok()?;
    device.get_mut(offset..offset + len)
}

/// A guest in a runner on a thread of its own.
pub struct TestVm {
    pub machine: Arc<TestMachine>,
    pub handle: RunnerHandle,
    debug: Option<mesh::Sender<DebugRequest>>,
    runner: Option<JoinHandle<RunnerExit>>,
}

impl TestVm {
    fn new(setup: Setup) -> Result<Self, String> {
        let kvm = Kvm::new().map_err(|err| format!("no /dev/kvm: {err}"))?;
        let vm = kvm.create_vm().map_err(|err| format!("no VM: {err}"))?;
        vm.set_tss_address(0xfffb_d000).unwrap();
        vm.create_irq_chip().unwrap();
        vm.create_pit2(kvm_pit_config::default()).unwrap();
        let ram = GuestMemoryMmap::<()>::from_ranges(&[(RamAddress(0), RAM as usize)]).unwrap();
        let ram = Arc::new(ram);
        let region = kvm_userspace_memory_region {
            slot: 0,
            guest_phys_addr: 0,
            memory_size: RAM,
            userspace_addr: ram.get_host_address(RamAddress(0)).unwrap() as u64,
            flags: 0,
        };
        guest::map(&vm, region);
        let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).unwrap();
        let vcpus = (0..setup.vps)
            .map(|index| {
                let vcpu = vm.create_vcpu(index.into()).unwrap();
                vcpu.set_cpuid2(&cpuid).unwrap();
                vcpu
            })
            .collect();
        let machine = Arc::new(TestMachine {
            setup: setup.clone(),
            ram: ram.clone(),
            seen: Mutex::default(),
            news: Condvar::new(),
        });
        machine.load();
        let (debug, requests) = mesh::channel();
        let (handle, controller) = vp_runner::start(RunnerParams {
            vm: Arc::new(vm),
            vcpus,
            memory: ram,
            machine: machine.clone(),
            start: setup.start,
            on_reset: setup.on_reset,
            debug: requests,
            capabilities: Vec::new(),
        })
        .unwrap();
        let runner = thread::spawn(move || futures::executor::block_on(controller.run()));
        Ok(Self {
            machine,
            handle,
            debug: Some(debug),
            runner: Some(runner),
        })
    }

    fn sender(&self) -> &mesh::Sender<DebugRequest> {
        self.debug.as_ref().expect("the channel was dropped")
    }

    /// Sends a request; its answer is awaited with [`answer`].
    pub fn send<I, T>(
        &self,
        request: impl FnOnce(mesh::rpc::Rpc<I, Result<T, DebugError>>) -> DebugRequest,
        input: I,
    ) -> PendingFailableRpc<T, DebugError> {
        self.sender().call_failable(request, input)
    }

    /// Sends a request and waits for its answer.
    pub fn call<I, T>(
        &self,
        request: impl FnOnce(mesh::rpc::Rpc<I, Result<T, DebugError>>) -> DebugRequest,
        input: I,
    ) -> Result<T, DebugError> {
        answer(self.send(request, input))
    }

    pub fn attach(&self) -> AttachInfo {
        self.call(DebugRequest::Attach, ()).unwrap()
    }

    pub fn detach(&self, action: DetachAction) {
        self.call(DebugRequest::Detach, action).unwrap();
    }

    pub fn break_(&self) {
        self.call(DebugRequest::Break, ()).unwrap();
    }

    /// Every VP runs.
    pub fn resume(&self) -> PendingFailableRpc<StopEvent, DebugError> {
        self.send(DebugRequest::Resume, every(VpAction::Run))
    }

    /// One VP acts, the others stay.
    pub fn only(&self, vp: u32, action: VpAction) -> PendingFailableRpc<StopEvent, DebugError> {
        let request = ResumeRequest {
            others: VpAction::Stay,
            actions: vec![(VpIndex::new(vp), action)],
        };
        self.send(DebugRequest::Resume, request)
    }

    pub fn step(&self, vp: u32) {
        let reason = answer(self.only(vp, VpAction::Step)).unwrap().reason;
        let vp = VpIndex::new(vp);
        assert_eq!(reason, DebugStopReason::SingleStep { vp });
    }

    pub fn insert(&self, breakpoint: Breakpoint) {
        let changes = vec![BreakpointChange::Insert(breakpoint)];
        self.call(DebugRequest::SetDebugState, changes).unwrap();
    }

    pub fn remove(&self, breakpoint: Breakpoint) {
        let changes = vec![BreakpointChange::Remove(breakpoint)];
        self.call(DebugRequest::SetDebugState, changes).unwrap();
    }

    pub fn regs(&self, vp: u32) -> X86VpState {
        let state = self.call(DebugRequest::GetVpState, VpIndex::new(vp));
        let DebuggerVpState::X86_64(state) = *state.unwrap() else {
            panic!("an x86 guest");
        };
        state
    }

    pub fn try_set_regs(&self, vp: u32, state: X86VpState) -> Result<(), DebugError> {
        let state = Box::new(DebuggerVpState::X86_64(state));
        self.call(DebugRequest::SetVpState, (VpIndex::new(vp), state))
    }

    pub fn read_gva(&self, vp: u32, gva: u64, len: usize) -> Result<Vec<u8>, DebugError> {
        let vp = VpIndex::new(vp);
        let gva = Gva::new(gva);
        let address = GuestAddress::Gva { vp, gva };
        self.call(DebugRequest::ReadMemory, (address, len))
    }

    pub fn write_gva(&self, vp: u32, gva: u64, data: &[u8]) -> Result<(), DebugError> {
        let vp = VpIndex::new(vp);
        let gva = Gva::new(gva);
        let address = GuestAddress::Gva { vp, gva };
        self.call(DebugRequest::WriteMemory, (address, data.to_vec()))
    }

    pub fn status(&self) -> VmStatus {
        self.call(DebugRequest::Status, ()).unwrap()
    }

    /// Interrupts the guest and asks what the first VP was doing.
    pub fn status_after_break(
        &self,
        pending: PendingFailableRpc<StopEvent, DebugError>,
    ) -> VpActivity {
        interrupt(self, pending);
        self.status().vps[0].activity
    }

    /// Drops the debug channel, as a debugger that dies does.
    pub fn drop_channel(&mut self) {
        self.debug = None;
    }

    /// Waits for the runner to end.
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
        runner.join().unwrap()
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

pub fn every(action: VpAction) -> ResumeRequest {
    ResumeRequest {
        others: action,
        actions: Vec::new(),
    }
}

pub fn execute_at(address: u64) -> Breakpoint {
    Breakpoint {
        kind: BreakpointKind::Execute,
        address: Gva::new(address),
        len: 1,
    }
}

pub fn hit(vp: u32, breakpoint: Breakpoint) -> DebugStopReason {
    let vp = VpIndex::new(vp);
    DebugStopReason::Breakpoint { vp, breakpoint }
}

/// Interrupts the guest, whose resume `pending` is: it is not to have stopped by itself.
pub fn interrupt(vm: &TestVm, pending: PendingFailableRpc<StopEvent, DebugError>) {
    vm.break_();
    assert_eq!(stop(pending), DebugStopReason::Break);
}

/// Waits for an answer; a runner that is gone is a failed test.
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
