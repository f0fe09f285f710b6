//! A small machine for real guests on /dev/kvm: a few pages of memory, two or three devices, a runner under test, and
//! requests with a deadline.

pub mod guest;
pub mod program;
pub mod recorder;
pub mod sites;
pub mod software;
pub mod ticking;
mod vm;

pub use vm::*;

use crate::own_loops::Shape;
use guest::Mode;
use guest::timer_at_1_khz;
use kvm_bindings::KVM_MP_STATE_RUNNABLE;
use kvm_bindings::kvm_mp_state;
use kvm_ioctls::VcpuFd;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::thread::JoinHandle;
use std::time::Duration;
use vm_memory::Bytes;
use vm_memory::GuestAddress as RamAddress;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::DebugMessage;
use vmm_core_defs::debug_rpc::FreezeTime;
use vmm_core_defs::session::DebugSession;
use vmm_core_defs::stop::DebugStopReason;
use vp_runner::kvm::ram::RegisteredRam;
use vp_runner::machine::DeviceOutcome;
use vp_runner::machine::Machine;
use vp_runner::machine::MachineError;
use vp_runner::machine::MmioOutcome;
use vp_runner::runner::KickSignal;
use vp_runner::runner::ResetPolicy;
use vp_runner::runner::RunnerExit;
use vp_runner::runner::StartMode;

/// No answer takes this long, even on the slowest host. A test in which this time passes has found a hang.
const DEADLINE: Duration = Duration::from_secs(120);

const RAM: usize = 2 << 20;
/// The address of the guest's program, at which the VPs start.
pub const ENTRY: u64 = 0x1000;
/// A device register of eight bytes.
pub const DEVICE: Gpa = Gpa::new(0x1000_0000);
/// A read returns 0x5a after the test has released it.
pub const HELD_DEVICE: Gpa = Gpa::new(0x1000_1000);
/// A write reports the written byte to the test.
pub const PORT_TELL: u8 = 0xe9;
/// A write asks for a reset.
pub const PORT_RESET: u8 = 0xf1;
/// A write asks for a power-off.
pub const PORT_OFF: u8 = 0xf2;
/// A write makes the device panic.
pub const PORT_PANIC: u8 = 0xf4;
/// A write reports a panic of the guest's kernel.
pub const PORT_GIVES_UP: u8 = 0xf5;
/// A read returns 0x5a after the test has released it.
pub const PORT_HELD: u8 = 0xf3;

/// The configuration of a test machine.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The mode in which the VPs start.
    pub mode: Mode,
    /// The number of VPs.
    pub vps: u32,
    /// The program, loaded at [`ENTRY`] at each reset.
    pub code: Vec<u8>,
    /// Whether the guest waits for a debugger.
    pub start: StartMode,
    /// The policy for resets.
    pub on_reset: ResetPolicy,
    /// Receives the reason when a crashed guest is kept. `None`: a crash ends the guest.
    pub kept: Option<mesh::Sender<DebugStopReason>>,
    /// Whether VPs other than the first wait for INIT-SIPI.
    pub others_wait: bool,
    /// Whether the runner gets the results of the probe.
    pub probed: bool,
    /// Whether the guest's clocks stop while the guest is stopped.
    pub freeze_time: FreezeTime,
    /// Whether the runner is told that `KVM_GUESTDBG_BLOCKIRQ` has no effect here.
    pub shadowed: bool,
    /// Whether an NMI is pending for the first VP before its first instruction.
    pub nmi: bool,
    /// An interrupt that the first VP's local APIC has delivered, and that KVM injects before the first instruction.
    pub queued: Option<u8>,
    /// Whether a reset of the machine fails.
    pub reset_fails: bool,
    /// Whether a reset of the machine waits until the test releases it.
    pub reset_is_held: bool,
    /// The signal that the runner uses.
    pub kick_signal: KickSignal,
    /// The shape of the VMM's own run loops. `None`: what the environment says ([`Shape::of_environment`]), otherwise threads of the runner.
    pub loops: Option<Shape>,
}

impl Setup {
    /// A guest with one VP, which waits for a debugger at `code`.
    pub fn new(mode: Mode, code: &[u8]) -> Self {
        Self {
            mode,
            vps: 1,
            code: code.to_vec(),
            start: StartMode::WaitForDebugger,
            on_reset: ResetPolicy::Reset,
            kept: None,
            others_wait: false,
            probed: true,
            freeze_time: FreezeTime::Off,
            shadowed: false,
            nmi: false,
            queued: None,
            reset_fails: false,
            reset_is_held: false,
            kick_signal: KickSignal::default(),
            loops: None,
        }
    }

    /// The VMM has run loops of its own.
    pub fn own_loops(mut self, shape: Shape) -> Self {
        self.loops = Some(shape);
        self
    }

    /// Sets the number of VPs.
    pub fn vps(mut self, vps: u32) -> Self {
        self.vps = vps;
        self
    }

    /// Tells the runner that `KVM_GUESTDBG_BLOCKIRQ` has no effect here, so that it uses interrupt shadows.
    pub fn shadowed(mut self) -> Self {
        self.shadowed = true;
        self
    }

    /// The guest runs at once.
    pub fn running(mut self) -> Self {
        self.start = StartMode::Run;
        self
    }

    /// A reset ends the runner.
    pub fn exit_on_reset(mut self) -> Self {
        self.on_reset = ResetPolicy::Exit;
        self
    }

    /// A guest that crashes without a debugger is kept, and `kept` receives the reason.
    pub fn kept(mut self, kept: mesh::Sender<DebugStopReason>) -> Self {
        self.kept = Some(kept);
        self
    }

    /// A reset of the machine fails.
    pub fn reset_fails(mut self) -> Self {
        self.reset_fails = true;
        self
    }

    /// Sets the signal of the runner. The host is not probed, because the probe would use another signal.
    pub fn kick_signal(mut self, number: i32) -> Self {
        self.kick_signal = KickSignal::new(number).unwrap();
        self.probed = false;
        self
    }

    /// A reset of the machine waits until the test releases it.
    pub fn reset_is_held(mut self) -> Self {
        self.reset_is_held = true;
        self
    }

    /// VPs other than the first wait for INIT-SIPI.
    pub fn others_wait(mut self) -> Self {
        self.others_wait = true;
        self
    }

    /// The runner gets no results of a probe, so software breakpoints are in debug registers.
    pub fn unprobed(mut self) -> Self {
        self.probed = false;
        self
    }

    /// Starts the guest. `None`, with the reason printed, if this host has no KVM.
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

/// The devices, and the record of their use.
pub struct TestMachine {
    setup: Setup,
    /// Held until the VP threads are joined, because the runner holds the machine until then.
    ram: RegisteredRam,
    /// The rate of the guest's time stamp counter in kHz, if KVM reports it.
    pub tsc_khz: Option<u32>,
    seen: Mutex<Seen>,
    news: Condvar,
}

/// The record of the machine's calls.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The bytes written to [`PORT_TELL`], with the VPs that wrote them.
    pub told: Vec<(VpIndex, u8)>,
    /// The contents of the device register.
    pub device: [u8; 8],
    /// The accesses to the device register: the VP (`None` for a debugger) and the number of bytes.
    pub device_accesses: Vec<(Option<VpIndex>, usize)>,
    /// The number of resets of the machine.
    pub resets: u32,
    /// The number of VPs that were initialised.
    pub inits: u32,
    /// The number of held calls that have begun.
    pub held: u32,
    /// The number of held calls that may return.
    pub released: u32,
}

impl TestMachine {
    /// Waits until `enough` accepts the record.
    pub fn wait_until(&self, what: &str, enough: impl Fn(&Seen) -> bool) -> Seen {
        let seen = self.seen.lock().unwrap();
        let (seen, timeout) = self
            .news
            .wait_timeout_while(seen, DEADLINE, |seen| !enough(seen))
            .unwrap();
        assert!(!timeout.timed_out(), "waiting until {what}: {seen:?}");
        seen.clone()
    }

    /// The guest's RAM.
    pub fn ram(&self) -> Arc<vm_memory::GuestMemoryMmap> {
        self.ram.memory().clone()
    }

    /// All of RAM as the guest has it, including breakpoint bytes.
    pub fn raw_memory(&self) -> Vec<u8> {
        let mut bytes = vec![0; RAM];
        let ram = self.ram.memory();
        ram.read_slice(&mut bytes, RamAddress(0)).unwrap();
        bytes
    }

    /// Releases one held call.
    pub fn release(&self) {
        self.note(|seen| seen.released += 1);
    }

    /// Releases every held call, and all future ones.
    pub fn release_all(&self) {
        self.note(|seen| seen.released = u32::MAX);
    }

    fn hold(&self) {
        self.note(|seen| seen.held += 1);
        self.wait_until("the call is released", |seen| seen.released >= seen.held);
    }

    fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap());
        self.news.notify_all();
    }

    fn load(&self) {
        let zeros = vec![0; RAM];
        self.ram
            .memory()
            .write_slice(&zeros, RamAddress(0))
            .unwrap();
        let code = &self.setup.code;
        self.ram
            .memory()
            .write_slice(code, RamAddress(ENTRY))
            .unwrap();
        guest::tables(self.ram.memory());
    }
}

impl Machine for TestMachine {
    fn pio_read(&self, _vp: VpIndex, port: u16, data: &mut [u8]) {
        data.fill(0xff);
        if port == u16::from(PORT_HELD) {
            self.hold();
            data.fill(0x5a);
        }
    }

    fn pio_write(&self, vp: VpIndex, port: u16, data: &[u8]) -> DeviceOutcome {
        if port == u16::from(PORT_TELL) {
            self.note(|seen| seen.told.extend(data.iter().map(|byte| (vp, *byte))));
        }
        match u8::try_from(port) {
            Ok(PORT_RESET) => DeviceOutcome::Reset,
            Ok(PORT_PANIC) => panic!("a device of the test panics, as it should"),
            Ok(PORT_OFF) => DeviceOutcome::PowerOff,
            Ok(PORT_GIVES_UP) => DeviceOutcome::Panicked,
            _ => DeviceOutcome::Done,
        }
    }

    fn mmio_read(&self, vp: Option<VpIndex>, gpa: Gpa, data: &mut [u8]) -> MmioOutcome {
        let mut outcome = MmioOutcome::Unclaimed;
        if gpa == HELD_DEVICE {
            self.hold();
            data.fill(0x5a);
            return MmioOutcome::Handled;
        }
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
        let failed = |why: kvm_ioctls::Error| MachineError::new("set a VP's power-on state", why);
        guest::power_on(self.setup.mode, vp, vcpu).map_err(failed)?;
        let runs = vp == VpIndex::BSP || !self.setup.others_wait;
        let state = if runs {
            KVM_MP_STATE_RUNNABLE
        } else {
            kvm_bindings::KVM_MP_STATE_UNINITIALIZED
        };
        vcpu.set_mp_state(kvm_mp_state { mp_state: state })
            .map_err(failed)?;
        if self.setup.nmi && vp == VpIndex::BSP {
            vcpu.nmi().map_err(failed)?;
        }
        if let Some(vector) = self.setup.queued.filter(|_| vp == VpIndex::BSP) {
            let mut events = vcpu.get_vcpu_events().map_err(failed)?;
            (events.interrupt.injected, events.interrupt.nr) = (1, vector);
            vcpu.set_vcpu_events(&events).map_err(failed)?;
        }
        self.note(|seen| seen.inits += 1);
        Ok(())
    }

    fn reset(&self) -> Result<(), MachineError> {
        if self.setup.reset_is_held {
            self.hold();
        }
        if self.setup.reset_fails {
            return Err(MachineError::new(
                "reset the test's machine",
                "the test wants it so",
            ));
        }
        self.load();
        self.note(|seen| seen.resets += 1);
        Ok(())
    }
}

fn device_bytes(device: &mut [u8; 8], gpa: Gpa, len: usize) -> Option<&mut [u8]> {
    let offset = usize::try_from(gpa.value().checked_sub(DEVICE.value())?).ok()?;
    device.get_mut(offset..offset + len)
}

/// A guest with its runner on a separate thread.
pub struct TestVm {
    /// The devices of the guest.
    pub machine: Arc<TestMachine>,
    /// The handle of the runner.
    pub handle: Handle,
    debug: Option<mesh::Sender<DebugMessage>>,
    session: Mutex<Option<Arc<DebugSession>>>,
    runner: Option<JoinHandle<RunnerExit>>,
}
