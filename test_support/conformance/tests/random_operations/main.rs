//! Random operations of a debugger on real guests. A model checks the state after each operation.
//!
//! `TRAPGATE_SEED=<n>` selects the first seed. `TRAPGATE_SOAK_SECONDS=<n>` repeats for that time, and derives each seed
//! from the previous one. A seed that found a fault is added to the file `seeds`, one per line, followed by the fault.
//! Without another seed, the first guest of each of these seeds is run. A seed does not reproduce races: it determines
//! the operations, but not the state of the guest at each operation.

mod debugger;
mod guest;
mod model;
mod random;

use debugger::Debugger;
use guest::OwnInt3;
use guest::Program;
use random::Random;
use std::time::Instant;
use std::time::SystemTime;
use test_machine::amount::is_nested;
use test_machine::amount::patience;
use test_machine::amount::soak;
use test_machine::machine::guest::Mode;
use test_machine::machine::*;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::DetachAction;
use vmm_core_defs::debug_rpc::VpAction;
use vmm_core_defs::stop::DebugStopReason;
use vp_runner::probe;
use vp_runner::probe::Report;

/// The number of operations from one seed.
fn operations() -> u32 {
    if is_nested() { 1000 } else { 10_000 }
}

/// The number of operations on one guest.
const LIFE: u32 = 500;

const FOUND: &str = include_str!("seeds");

#[test]
fn the_model_agrees_after_every_one_of_10_000_random_operations() {
    let Ok(report) = probe::run() else {
        println!("SKIP: this host's KVM cannot be probed");
        return;
    };
    if own_int3(&report) == OwnInt3::No {
        println!("SKIP: no INT3 of the guest's own among them: this KVM delivers none");
    }
    let asked = std::env::var("TRAPGATE_SEED").ok();
    let asked = asked.map(|seed| seed.parse().expect("TRAPGATE_SEED is a number"));
    if asked.is_none() {
        for line in FOUND.lines() {
            let (seed, _) = line.split_once(' ').expect("a seed and what it found");
            run(seed.parse().expect("a seed is a number"), LIFE, &report);
        }
    }
    let end = Instant::now() + soak().unwrap_or_default();
    let mut seed = asked.unwrap_or_else(fresh);
    loop {
        run(seed, operations(), &report);
        if Instant::now() >= end {
            return;
        }
        seed = Random::new(seed).next();
    }
}

fn fresh() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.expect("it is past 1970");
    u64::from(now.subsec_nanos()) ^ now.as_secs()
}

/// Runs guests from one seed.
fn run(seed: u64, operations: u32, report: &Report) {
    println!("TRAPGATE_SEED={seed}");
    let mut random = Random::new(seed);
    let start = Instant::now();
    let mut done = 0;
    while done < operations {
        if start.elapsed() > patience() {
            println!(
                "SKIP: this machine is too busy for {operations} operations in {:?}: there were {done}",
                patience()
            );
            return;
        }
        if !life(&mut random, report) {
            return;
        }
        done += LIFE;
    }
    println!("{done} operations in {:?}", start.elapsed());
}

/// Runs one guest with a debugger. `false` if this host cannot run guests; the reason is printed.
fn life(random: &mut Random, report: &Report) -> bool {
    let vps = u32::try_from(1 + random.below(4)).unwrap();
    let program = Program::new(own_int3(report));
    let Some(untouched) = untouched(&program, vps) else {
        return false;
    };
    let Some(vm) = Setup::new(Mode::Long, &program.code).vps(vps).build() else {
        return false;
    };
    let mut debugger = Debugger::new(vm, program, vps, report);
    for _ in 0..LIFE {
        debugger.operation(random);
    }
    debugger.come_to_rest();
    compare(&debugger.vm.machine.raw_memory(), &untouched, vps);
    debugger.die(random);
    true
}

/// Whether the guest can deliver its own `INT3`, according to the probe.
fn own_int3(report: &Report) -> OwnInt3 {
    match report.int3_long {
        probe::Int3::DebugExit => OwnInt3::Yes,
        probe::Int3::InternalError | probe::Int3::NotTrapped(_) => OwnInt3::No,
    }
}

/// The memory of a guest without breakpoints, after each VP has reached the top of its loop.
fn untouched(program: &Program, vps: u32) -> Option<Vec<u8>> {
    let vm = Setup::new(Mode::Long, &program.code).vps(vps).build()?;
    vm.attach();
    program.prepare(&vm, vps);
    let turned = |vm: &TestVm| (0..vps).all(|vp| vm.regs(vp).gp[3] >= 2);
    while !turned(&vm) {
        let pending = vm.resume();
        interrupt(&vm, pending);
    }
    for vp in 0..vps {
        while vm.regs(vp).rip != ENTRY {
            let step = answer(vm.only(vp, VpAction::Step)).unwrap().reason;
            let vp = VpIndex::new(vp);
            assert_eq!(step, DebugStopReason::SingleStep { vp });
        }
    }
    vm.detach(DetachAction::Stay);
    Some(vm.machine.raw_memory())
}

/// Compares all memory except the counters.
fn compare(memory: &[u8], untouched: &[u8], vps: u32) {
    let counters: Vec<u64> = (0..vps).map(guest::counter).collect();
    let own = |at: u64| {
        counters
            .iter()
            .any(|counter| (*counter..counter + 4).contains(&at))
    };
    let different: Vec<_> = (0..)
        .zip(memory.iter().zip(untouched))
        .filter(|(at, (now, then))| now != then && !own(*at))
        .map(|(at, (now, then))| format!("{at:#x}: {now:#x}, untouched {then:#x}"))
        .take(10)
        .collect();
    assert!(different.is_empty(), "memory differs at {different:?}");
}
