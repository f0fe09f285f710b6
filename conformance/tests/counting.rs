//! Nothing lost and nothing twice, counted by the guest itself, through requests: turns, ticks and hits.

use conformance::amount::Amount;
use conformance::amount::patience;
use conformance::machine::guest::*;
use conformance::machine::sites::*;
use conformance::machine::software::*;
use conformance::machine::ticking::*;
use conformance::machine::*;
use std::time::Duration;
use std::time::Instant;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::breakpoint::BreakpointKind;
use vmm_core_defs::stop::DebugStopReason;

/// Ticks that may be on their way or one too many: the handler reads the clock before it counts, and a busy host delivers late.
const SLACK: u64 = 20;

/// The guest in its loop, with the timer running, standing at `breakpoint`. `None` with the reason printed.
fn ticking(breakpoint: Breakpoint) -> Option<TestVm> {
    let vm = Setup::new(Mode::Long, &ticking_loop()).build()?;
    vm.attach();
    let_it_tick(&vm, 10);
    vm.insert(breakpoint);
    assert_eq!(stop(vm.resume()), hit(0, breakpoint));
    Some(vm)
}

/// Ticks that the PIT owes the guest for the time that its time stamp counter says has passed between its first and its last tick.
fn owed(vm: &TestVm, ticks: Ticks) -> u64 {
    let tsc_hz = 1000
        * u64::from(
            vm.machine
                .tsc_khz
                .expect("KVM tells the guest's TSC frequency"),
        );
    let passed = u128::from(ticks.last - ticks.first);
    let periods = passed * u128::from(PIT_HZ) / (u128::from(tsc_hz) * u128::from(PIT_PERIOD));
    u64::try_from(periods).expect("some hours at most")
}

/// KVM's PIT counts every period that passes and delivers one interrupt for each, a new one when the guest has acknowledged the last: a guest that was held up gets
/// its ticks afterwards. So with time to catch up it must have exactly as many as its clock says.
fn every_tick_is_delivered(vm: &TestVm) {
    let mut regs = vm.regs(0);
    regs.rip = IDLE;
    vm.try_set_regs(0, regs).unwrap();
    // The last tick is the guest's clock: one from after what was counted.
    let_it_tick(vm, 64);
    let mut now = ticks(vm);
    let late = owed(vm, now).saturating_sub(now.count);
    let start = Instant::now();
    let mut steady = 0;
    while now.count + SLACK < owed(vm, now) {
        let before = now;
        let_it_tick(vm, 500);
        now = ticks(vm);
        // Ticks that come when they are due, one for each period, with others missing: nobody has those in store.
        let came = now.count - before.count;
        let due = owed(vm, now) - owed(vm, before);
        steady = if came.abs_diff(due) * 100 <= due {
            steady + 1
        } else {
            0
        };
        let missing = owed(vm, now).saturating_sub(now.count);
        assert!(
            steady < 5 || missing <= SLACK,
            "{missing} ticks are lost: {now:?}"
        );
        // KVM hands out each tick from a thread of its own, which has to get its turn.
        if start.elapsed() > patience() {
            println!(
                "SKIP: this machine is too busy for 1,000 ticks a second: {missing} are still to come"
            );
            return;
        }
    }
    let owed = owed(vm, now);
    println!(
        "{} ticks delivered for {owed} periods, {late} of them late",
        now.count
    );
    // The first tick, from which on the clock counts, may itself have been late.
    assert!(
        now.count <= owed + owed / 100 + 1_000,
        "{} ticks for {owed} periods",
        now.count
    );
}

fn continues_advance_by_one_turn(breakpoint: Breakpoint) {
    let Some(vm) = ticking(breakpoint) else {
        return;
    };
    let amount = Amount::turns(100_000, 300);
    let first = vm.regs(0).gp[3];
    let before = ticks(&vm).count;
    let start = Instant::now();
    let mut done = 0;
    while amount.is_left(done) {
        done += 1;
        assert_eq!(stop(vm.resume()), hit(0, breakpoint), "continue {done}");
        let regs = vm.regs(0);
        assert_eq!((regs.rip, regs.gp[3]), (SITE, first + done));
    }
    println!(
        "{done} continues in {:?}, {} ticks meanwhile",
        start.elapsed(),
        ticks(&vm).count - before
    );
    vm.remove(breakpoint);
    every_tick_is_delivered(&vm);
}

#[test]
fn a_hundred_thousand_continues_over_a_software_breakpoint_advance_one_turn_each_and_lose_no_tick()
{
    continues_advance_by_one_turn(software_at(SITE));
}

#[test]
fn a_hundred_thousand_continues_over_a_debug_register_advance_one_turn_each_and_lose_no_tick() {
    continues_advance_by_one_turn(execute_at(SITE));
}

#[test]
fn ten_thousand_steps_stay_in_the_loop_and_lose_no_tick() {
    let entry = execute_at(LOOP);
    let Some(vm) = ticking(entry) else {
        return;
    };
    vm.remove(entry);
    let amount = Amount::turns(10_000, 500);
    let first = vm.regs(0).gp[3];
    let before = ticks(&vm).count;
    let start = Instant::now();
    let mut done = 0;
    while amount.is_left(done) {
        done += 1;
        vm.step(0);
        let regs = vm.regs(0);
        let turns = done.div_ceil(4);
        let at = IN_LOOP[usize::try_from(done % 4).unwrap()];
        assert_eq!((regs.rip, regs.gp[3]), (at, first + turns), "step {done}");
    }
    let during = ticks(&vm).count - before;
    println!(
        "{done} steps in {:?}, {during} ticks meanwhile",
        start.elapsed()
    );
    // One that was on its way before the first step may still come.
    assert!(during <= 1, "{during} handlers ran inside steps");
    every_tick_is_delivered(&vm);
}

/// Whoever comes to a place is stopped there, however many others are on their way over theirs.
fn hits_are_what_the_guest_counts(vps: u32) {
    let Some(vm) = Setup::new(Mode::Long, &hundred_sites()).vps(vps).build() else {
        return;
    };
    vm.attach();
    for n in 1..=SITES {
        vm.insert(software_at(site(n)));
    }
    // Four debug registers are no hundred.
    let armed = armings(&vm).len();
    let amount = Amount::time(Duration::from_secs(60), Duration::from_secs(10));
    let mut hits = vec![0; vps as usize];
    // Each has to come to a place at least once, however busy the machine.
    while amount.is_left(0) || (hits.contains(&0) && hits.iter().sum::<u64>() < 10_000) {
        let DebugStopReason::Breakpoint { vp, breakpoint } = stop(vm.resume()) else {
            panic!("not a breakpoint");
        };
        let hits = &mut hits[vp.index() as usize];
        *hits += 1;
        let regs = vm.regs(vp.index());
        assert_eq!(regs.gp[3], *hits, "VP {vp} slipped past {breakpoint:?}");
        assert_eq!(
            (regs.rip, breakpoint),
            (site(*hits), software_at(site(*hits)))
        );
    }
    for (vp, hits) in (0..).zip(&hits) {
        let regs = vm.regs(vp);
        // A VP may stand at a place that is yet to be reported.
        let unreported = regs.gp[3] - hits;
        assert!(
            unreported <= 1,
            "VP {vp} counted {} and {hits} were reported",
            regs.gp[3]
        );
        if unreported == 1 {
            assert_eq!(regs.rip, site(regs.gp[3]), "VP {vp} went past a place");
        }
        assert!(*hits > 0, "VP {vp} never came to a place");
    }
    println!(
        "{vps} VPs, {armed} breakpoints: {} hits, {hits:?}",
        hits.iter().sum::<u64>()
    );
}

#[test]
fn four_vps_through_a_hundred_breakpoints_report_what_the_guest_counts() {
    hits_are_what_the_guest_counts(4);
}

#[test]
fn eight_vps_through_a_hundred_breakpoints_report_what_the_guest_counts() {
    hits_are_what_the_guest_counts(8);
}

/// How many of its own `int3` the guest is to have, at least.
fn own_traps() -> Amount {
    Amount::turns(1_000, 1_000)
}

/// The guest in its loop of `int3`, with the timer running, a breakpoint in memory that it does not meet there, and as many turns to go as it may need.
/// `None` with the reason printed.
fn trapping() -> Option<(TestVm, u64)> {
    // From where interrupts are on: a break may find the guest in its handler.
    let vm = ticking(execute_at(SITE))?;
    vm.remove(execute_at(SITE));
    let go_to_traps = |turns| {
        let mut regs = vm.regs(0);
        regs.rip = TRAPS;
        regs.gp[5] = turns;
        vm.try_set_regs(0, regs).unwrap();
    };
    // With no breakpoint in memory, nothing of ours has to do with it.
    go_to_traps(1);
    vm.insert(execute_at(TRAPS_END));
    match stop(vm.resume()) {
        DebugStopReason::Breakpoint { .. } => {}
        reason => {
            println!("SKIP: without a breakpoint in memory this host's KVM ends it: {reason:?}");
            return None;
        }
    }
    assert_eq!(traps_handled(&vm), (1, 0));
    vm.remove(execute_at(TRAPS_END));
    let turns = u64::from(u32::MAX);
    go_to_traps(turns);
    vm.insert(software_at(SITE));
    is_byte(&vm).then_some((vm, turns))
}

/// The guest stands behind an `int3`: as many handlers have run as there were, and each found what it has to find.
#[track_caller]
fn every_trap_is_its_own(vm: &TestVm, turns: u64) -> u64 {
    let regs = vm.regs(0);
    assert_eq!(regs.rip, BEHIND_TRAP);
    let executed = turns - regs.gp[5] + 1;
    // And the one before.
    assert_eq!(traps_handled(vm), (1 + executed, 0), "of 1 + {executed}");
    executed
}

fn each_turn_has_its_trap(also: &[Breakpoint]) {
    let Some((vm, turns)) = trapping() else {
        return;
    };
    also.iter().for_each(|breakpoint| vm.insert(*breakpoint));
    let behind = software_at(BEHIND_TRAP);
    vm.insert(behind);
    let before = ticks(&vm).count;
    let amount = own_traps();
    let mut done = 0;
    while amount.is_left(done) {
        assert_eq!(stop(vm.resume()), hit(0, behind), "after {done}");
        done += 1;
        assert_eq!(every_trap_is_its_own(&vm, turns), done);
    }
    println!("{done} INT3, {} ticks meanwhile", ticks(&vm).count - before);
    vm.remove(behind);
    also.iter().for_each(|breakpoint| vm.remove(*breakpoint));
    every_tick_is_delivered(&vm);
}

#[test]
fn the_guests_own_int3_is_lost_to_no_tick_while_a_breakpoint_is_met_behind_each() {
    each_turn_has_its_trap(&[]);
}

#[test]
fn the_guests_own_int3_is_lost_to_no_tick_while_watchpoints_hold_every_debug_register() {
    let watch = |n: u64| Breakpoint {
        kind: BreakpointKind::Write,
        address: Gva::new(0x6000 + 8 * n),
        len: 8,
    };
    each_turn_has_its_trap(&[0, 1, 2, 3].map(watch));
}

#[test]
fn the_guests_own_int3_is_lost_to_no_tick_and_no_break() {
    let Some((vm, turns)) = trapping() else {
        return;
    };
    let before = ticks(&vm).count;
    let amount = own_traps();
    let (mut done, mut breaks) = (0, 0);
    while amount.is_left(done) {
        // It runs alone, ever a little longer, with no stop but this.
        let pending = vm.resume();
        let enough = traps_handled(&vm).0 + breaks % 16;
        let end = Instant::now() + patience();
        while traps_handled(&vm).0 < enough {
            assert!(Instant::now() < end, "no more INT3 after {done}");
        }
        interrupt(&vm, pending);
        breaks += 1;
        let behind = software_at(BEHIND_TRAP);
        vm.insert(behind);
        assert_eq!(stop(vm.resume()), hit(0, behind));
        done = every_trap_is_its_own(&vm, turns);
        vm.remove(behind);
    }
    println!(
        "{done} INT3, {breaks} breaks, {} ticks meanwhile",
        ticks(&vm).count - before
    );
    every_tick_is_delivered(&vm);
}

#[test]
fn a_step_over_the_guests_own_int3_ends_at_its_handler_whatever_ticks() {
    let Some((vm, turns)) = trapping() else {
        return;
    };
    let behind = software_at(BEHIND_TRAP);
    vm.insert(behind);
    let amount = Amount::turns(1_000, 300);
    let mut done = 0;
    while amount.is_left(done) {
        // Behind the last one: dec, jnz.
        while vm.regs(0).rip != TRAPS {
            vm.step(0);
        }
        vm.step(0);
        assert_eq!(vm.regs(0).rip, TRAP_HANDLER, "step {done}");
        assert_eq!(stop(vm.resume()), hit(0, behind), "after {done}");
        done += 1;
        assert_eq!(every_trap_is_its_own(&vm, turns), done);
    }
    vm.remove(behind);
    every_tick_is_delivered(&vm);
}
