//! Nothing is lost and nothing happens twice: the guest itself counts turns, ticks and hits. Driven by requests.

use std::time::Duration;
use std::time::Instant;
use test_machine::amount::Amount;
use test_machine::machine::guest::*;
use test_machine::machine::sites::*;
use test_machine::machine::software::*;
use test_machine::machine::ticking::*;
use test_machine::machine::*;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::stop::DebugStopReason;

fn continues_advance_by_one_turn(breakpoint: Breakpoint) {
    let Some(vm) = standing_at(breakpoint) else {
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
    let Some(vm) = standing_at(entry) else {
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
    // An interrupt that was in flight before the first step may still arrive.
    assert!(during <= 1, "{during} handlers ran inside steps");
    every_tick_is_delivered(&vm);
}

/// Every VP that reaches a site stops there, however many other VPs step over their sites.
fn hits_are_what_the_guest_counts(vps: u32) {
    let Some(vm) = Setup::new(Mode::Long, &hundred_sites()).vps(vps).build() else {
        return;
    };
    vm.attach();
    for n in 1..=SITES {
        vm.insert(software_at(site(n)));
    }
    // There are four debug registers and a hundred sites.
    let armed = armings(&vm).len();
    let amount = Amount::time(Duration::from_secs(60), Duration::from_secs(10));
    let mut hits = vec![0; vps as usize];
    // Each VP has to reach a site at least once, however busy the machine is.
    while amount.is_left(0) || (hits.contains(&0) && hits.iter().sum::<u64>() < 10_000) {
        let reason = stop(vm.resume());
        let DebugStopReason::Breakpoint { vp, breakpoint } = reason else {
            panic!("{reason:?} after {hits:?}");
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
        // A VP may have a hit that was not reported yet.
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
