//! The hook under shuttle's schedulers: kick, park, pause and snapshot of the VMM, the end of a vCPU's thread. In whatever order these happen, nobody waits for ever, the
//! VMM gets its thread, no stop is lost, and a snapshot has nothing of the debugger in it (I4, I6, I11).
//!
//! Real: the hook with its two forms and the ready-made thread, its mailbox, wait and park, the gate, `immediate_exit` with who has set it, the core of each VP, the
//! controller, the breakpoint table and the bytes in memory. Fake: the vCPU (`vcpu`), the VMM around the hook (`vmm`), signals, timeouts and `eventfd` (`sync::tests`).
//! The scheduler decides which thread goes on before each operation on a lock, an atomic or a condition variable of the hook, and before each instruction of the guest.
//!
//! `cargo xtask test --only shuttle` runs this. A failure prints its seed or schedule, and `TRAPGATE_SCHEDULE=<seed or schedule>` repeats it.

mod debugger;
mod vcpu;
mod vmm;
mod world;

use super::super::vps::VpShared;
use super::*;
use crate::machine::DeviceOutcome;
use crate::machine::Machine;
use crate::machine::MachineError;
use crate::machine::MmioOutcome;
use debugger::Debugger;
use kvm_ioctls::VcpuFd;
use vcpu::SharedVcpu;
use vmm::SignalOfTest;
use vmm::Vmm;
use vmm_core_defs::stop::StopOn;
use world::World;

/// Returns the number of runs of the guest.
fn explore(scheduler: impl Scheduler + 'static, session: fn()) -> usize {
    let mut config = shuttle::Config::new();
    config.stack_size = 1 << 20;
    config.max_steps = shuttle::MaxSteps::FailAfter(MAX_STEPS);
    config.max_time = Some(MAX_TIME);
    config
        .ungraceful_shutdown_config
        .immediately_return_on_panic = true;
    shuttle::Runner::new(scheduler, config).run(session)
}

fn random(session: fn()) {
    let runs = match std::env::var(SCHEDULE) {
        Ok(again) => {
            match again.parse() {
                Ok(seed) => explore(RandomScheduler::new_from_seed(seed, 1), session),
                Err(_) => explore(ReplayScheduler::new_from_encoded(&again), session),
            };
            return;
        }
        Err(_) => explore(RandomScheduler::new(EXECUTIONS), session),
    };
    check_number(runs);
}

fn few_preemptions(session: fn()) {
    check_number(explore(PctScheduler::new(4, EXECUTIONS), session));
}

fn check_number(runs: usize) {
    println!("{runs} runs of the guest");
    assert!(runs > 20, "too few to mean anything");
}

/// Not under schedules of few preemptions: some of them do not end within [`MAX_STEPS`], and it is not known whether one thread of the fake VMM keeps the others from
/// running there.
#[test]
fn a_vmm_gets_its_threads_and_a_debugger_its_stops() {
    random(embedded);
}

#[test]
fn a_thread_of_this_crate_loses_no_command_and_no_kick() {
    random(own_threads);
}

#[test]
fn a_thread_of_this_crate_loses_nothing_under_schedules_of_few_preemptions() {
    few_preemptions(own_threads);
}

/// The CPUID values of every vCPU that concern paging.
fn paging_limits() -> PagingLimits {
    PagingLimits::new(40, true)
}

struct Parts {
    world: Arc<World>,
    shared: VpShared,
    events: mesh::Receiver<VpEvent>,
}

impl Parts {
    fn new() -> Self {
        let program = match thread_rng().gen_bool(0.5) {
            true => world::ASKS_DEVICE,
            false => world::SPINS,
        };
        let world = World::new(thread_rng().gen_range(1..=2), program);
        let (send, events) = mesh::channel();
        let shared = VpShared {
            ram: world.ram.clone(),
            breakpoints: world.breakpoints.clone(),
            time: Arc::new(Timekeeper::without_clocks()),
            kick: Arc::new(SignalOfTest::default()),
            events: send,
        };
        Self {
            world,
            shared,
            events,
        }
    }
}

/// A controller on a thread of its own, and the channels and threads that drive it.
struct Running {
    debug: mesh::Sender<DebugMessage>,
    stop: mesh::Sender<Control>,
    actor: thread::JoinHandle<RunnerExit>,
    clock: thread::JoinHandle<()>,
}

impl Running {
    fn start(
        world: &Arc<World>,
        events: mesh::Receiver<VpEvent>,
        vps: Vec<VpThread>,
        owner: Owner,
    ) -> Self {
        let (debug, requests) = mesh::channel();
        let (stop, control) = mesh::channel();
        let (mut ticker, ticks) = Ticker::new();
        let (pulse, pulses) = mpsc::channel();
        let ticks_to = ticker.beside(pulse);
        let guest = Guest {
            vps: Vps::of(vps),
            events,
            breakpoints: world.breakpoints.clone(),
            xfeatures: XFeatures::default(),
            paging_limits: paging_limits(),
            memory: world.ram.clone(),
            machine: Arc::new(NoDevices),
            owner,
        };
        let start = match thread_rng().gen_bool(0.5) {
            true => StartMode::Run,
            false => StartMode::WaitForDebugger,
        };
        if start == StartMode::Run {
            world.begin();
        }
        let setup = setup(requests, control, (ticker, ticks), start);
        let controller = Controller::over(guest, setup);
        let actor = thread::spawn(move || shuttle::future::block_on(controller.run()));
        let clock = thread::spawn(move || tick(&pulses, &ticks_to, 0.005));
        Self {
            debug,
            stop,
            actor,
            clock,
        }
    }

    fn end(self, world: &World) {
        drop(self.debug);
        self.stop.send(Control::Stop);
        assert_eq!(self.actor.join().unwrap(), RunnerExit::Stopped);
        self.clock.join().unwrap();
        world.check_memory("at the end");
    }
}

/// A VMM with run loops of its own.
fn embedded() {
    let Parts {
        world,
        shared,
        events,
    } = Parts::new();
    let acting = world.clone();
    let acts = move |_| acting.act_on_events();
    let held = HeldEvents::new(Box::new(acts), StopOn::all());
    let owner = Owner::Vmm(held.clone());
    let running = Running::start(&world, events, Vec::new(), owner);
    let vmm = Vmm::new(&world, Arc::new(shared), held);
    let vcpus: Vec<_> = world
        .vps()
        .map(|vp| {
            let vmm = vmm.clone();
            thread::spawn(move || vmm.vcpu_thread(vp))
        })
        .collect();
    let operator = thread::spawn({
        let vmm = vmm.clone();
        move || vmm.operate()
    });
    let debugger = Debugger {
        world: world.clone(),
        debug: running.debug.clone(),
        vmm: Some(vmm.clone()),
    };
    debugger.live();
    let vmm_ends_first = thread_rng().gen_bool(0.5);
    if vmm_ends_first {
        operator.join().unwrap();
        vmm.end();
        for vcpu in vcpus {
            vcpu.join().unwrap();
        }
        running.end(&world);
    } else {
        running.end(&world);
        operator.join().unwrap();
        let before: Vec<_> = world.vps().map(|vp| world.record(vp)).collect();
        debugger::wait_for_progress(&world, &before);
        for vp in world.vps() {
            world.check_bare(vp, "without a controller");
        }
        vmm.end();
        for vcpu in vcpus {
            vcpu.join().unwrap();
        }
    }
}

/// vCPUs on threads of this crate.
fn own_threads() {
    let Parts {
        world,
        shared,
        events,
    } = Parts::new();
    let vps = world.vps().map(|vp| {
        let on_thread = {
            let world = world.clone();
            move || SharedVcpu::new(&world, vp).for_hook()
        };
        world.change(vp, |record| record.is_here = true);
        let started = shared.start(vp, on_thread, Arc::new(NoDevices));
        started.expect("nothing can fail")
    });
    let vps = vps.collect();
    let running = Running::start(&world, events, vps, Owner::Runner);
    let debugger = Debugger {
        world: world.clone(),
        debug: running.debug.clone(),
        vmm: None,
    };
    debugger.live();
    running.end(&world);
}

struct NoDevices;

impl Machine for NoDevices {
    fn pio_read(&self, _: VpIndex, _: u16, _: &mut [u8]) {}

    fn pio_write(&self, _: VpIndex, _: u16, _: &[u8]) -> DeviceOutcome {
        DeviceOutcome::Done
    }

    fn mmio_read(&self, _: Option<VpIndex>, _: Gpa, _: &mut [u8]) -> MmioOutcome {
        MmioOutcome::Unclaimed
    }

    fn mmio_write(&self, _: Option<VpIndex>, _: Gpa, _: &[u8]) -> (MmioOutcome, DeviceOutcome) {
        (MmioOutcome::Unclaimed, DeviceOutcome::Done)
    }

    fn init_vp(&self, _: VpIndex, _: &VcpuFd) -> Result<(), MachineError> {
        Ok(())
    }

    fn reset(&self) -> Result<(), MachineError> {
        Ok(())
    }
}
