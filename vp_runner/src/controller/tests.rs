//! The whole actor under shuttle's schedulers, with fake VPs. In whatever order requests, stops, kicks and ends happen, a session loses no stop, reports no
//! stop twice, answers every request, and leaves no trace in the guest (I1-I8, as far as the actor owns them).
//!
//! Real: the controller with all its parts, the gate of each VP, the breakpoint table, the bytes in memory, and every channel between them. Fake: the VP threads
//! (`fake_vp`), the machine, and the clock of the ticks. The scheduler decides which thread continues after each channel operation, gate operation, signal and
//! guest instruction. All of these are schedule points; the channels of futures have an explicit one at each send. The controller has no schedule point
//! between two of its awaits. It shares only the gates and the signal with VPs that run, and `loom` explores these (`run_gate`).
//!
//! A failure prints its schedule or seed. `TRAPGATE_SCHEDULE=<schedule> cargo test -p trapgate-vp-runner --lib controller` repeats it and prints the events.

mod client;
#[cfg(shuttle)]
mod faces;
mod fake_vp;
mod model;

use super::assembly::Guest;
use super::assembly::Setup;
use super::*;
use crate::arch::PagingLimits;
use crate::breakpoints::Int3Traps;
use client::Client;
use fake_vp::FakeVp;
use model::Model;
use shuttle::rand::Rng as _;
use shuttle::rand::thread_rng;
use shuttle::scheduler::PctScheduler;
use shuttle::scheduler::RandomScheduler;
use shuttle::scheduler::ReplayScheduler;
use shuttle::scheduler::Scheduler;
use shuttle::thread;
use std::sync::mpsc;
use std::time::Duration;
use ticker::Pulse;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::regs::XFeatures;

/// The environment variable with the schedule, or the seed, to run again.
const SCHEDULE: &str = "TRAPGATE_SCHEDULE";
/// A session that takes this many steps hangs.
const MAX_STEPS: usize = 200_000;
/// The time limit for each scheduler.
const MAX_TIME: Duration = Duration::from_secs(15);
const EXECUTIONS: usize = 10_000;

/// Returns the number of sessions.
fn explore(scheduler: impl Scheduler + 'static) -> usize {
    let mut config = shuttle::Config::new();
    config.stack_size = 1 << 20;
    config.max_steps = shuttle::MaxSteps::FailAfter(MAX_STEPS);
    config.max_time = Some(MAX_TIME);
    config
        .ungraceful_shutdown_config
        .immediately_return_on_panic = true;
    shuttle::Runner::new(scheduler, config).run(session)
}

fn explore_many(scheduler: impl Scheduler + 'static) {
    let sessions = explore(scheduler);
    println!("{sessions} sessions");
    assert!(sessions > 20, "too few to mean anything");
}

#[test]
fn no_random_schedule_breaks_a_session() {
    let Ok(again) = std::env::var(SCHEDULE) else {
        return explore_many(RandomScheduler::new(EXECUTIONS));
    };
    match again.parse() {
        Ok(seed) => explore(RandomScheduler::new_from_seed(seed, 1)),
        Err(_) => explore(ReplayScheduler::new_from_encoded(&again)),
    };
}

#[test]
fn no_schedule_of_few_preemptions_breaks_a_session() {
    explore_many(PctScheduler::new(4, EXECUTIONS));
}

/// The parts that both models have.
fn setup(
    debug: mesh::Receiver<DebugMessage>,
    control: mesh::Receiver<Control>,
    ticker: (Ticker, mesh::Receiver<Tick>),
    start: StartMode,
) -> Setup {
    Setup {
        debug,
        control,
        ticker,
        time: Arc::new(Timekeeper::without_clocks()),
        // `shuttle` cannot schedule threads that it has not created.
        device_threads: |call| {
            call();
            Ok(())
        },
        int3: Int3Traps::EVERYWHERE,
        capabilities: Capabilities::default(),
        start,
        on_reset: ResetPolicy::Reset,
        on_crash: OnCrash::End,
    }
}

/// One run of a guest: random sessions of one debugger, a second client that sends `Break` at any time, lost channels, the end.
fn session() {
    let vps = thread_rng().gen_range(1..=3);
    let model = Model::new(vps);
    let (debug, requests) = mesh::channel();
    let (stop, control) = mesh::channel();
    let (parked, events) = mesh::channel();
    let (mut ticker, ticks) = Ticker::new();
    let (pulse, pulses) = mpsc::channel();
    let ticks_to = ticker.beside(pulse);
    let links = (0..vps).map(|vp| FakeVp::start(VpIndex::new(vp), &model, parked.clone()));
    let start = match thread_rng().gen_bool(0.5) {
        true => StartMode::Run,
        false => StartMode::WaitForDebugger,
    };
    let guest = Guest {
        vps: Vps::of(links.collect()),
        events,
        breakpoints: model.breakpoints.clone(),
        xfeatures: XFeatures::default(),
        paging_limits: PagingLimits::new(36, false),
        memory: model.ram.clone(),
        machine: model.clone(),
        owner: Owner::Runner,
    };
    let setup = setup(requests, control, (ticker, ticks), start);
    let controller = Controller::over(guest, setup);
    let actor = thread::spawn(move || shuttle::future::block_on(controller.run()));
    let clock = thread::spawn(move || tick(&pulses, &ticks_to, 0.1));
    let id = client::SharedId::default();
    let intruder = thread::spawn({
        let (model, debug, id) = (model.clone(), debug.clone(), id.clone());
        move || client::intrude(&model, &debug, &id)
    });
    Client::new(model.clone(), debug, id).live();
    intruder.join().unwrap();
    // Every sender of requests is dropped now. The guest runs, unless it was never resumed (I6).
    match start == StartMode::Run || model.was_let_go() {
        true => model.wait_for_progress(),
        false => model.wait_until_untouched(),
    }
    model.check_untouched("after the last client");
    stop.send(Control::Stop);
    assert_eq!(actor.join().unwrap(), RunnerExit::Stopped);
    model.check_untouched("at the end");
    clock.join().unwrap();
}

/// Prints the events of one session.
fn say(what: impl FnOnce() -> String) {
    if std::env::var_os(SCHEDULE).is_some() {
        println!("{}", what());
    }
}

/// Sends ticks at any time.
fn tick(pulses: &mpsc::Receiver<Pulse>, ticks: &mesh::Sender<Tick>, often: f64) {
    let mut pulse = Pulse::Off;
    loop {
        match pulses.try_recv() {
            Ok(new) => pulse = new,
            Err(mpsc::TryRecvError::Disconnected) => return,
            Err(mpsc::TryRecvError::Empty) => {}
        }
        if pulse == Pulse::On && thread_rng().gen_bool(often) {
            ticks.send(Tick);
        }
        thread::yield_now();
    }
}
