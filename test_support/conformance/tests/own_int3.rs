//! The guest's own `int3`, counted by the guest, with a timer and with breakpoints of the debugger in memory. No trap
//! is lost, doubled or changed.

use std::time::Instant;
use test_machine::amount::Amount;
use test_machine::amount::patience;
use test_machine::machine::software::*;
use test_machine::machine::ticking::*;
use test_machine::machine::*;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::breakpoint::BreakpointKind;
use vmm_core_defs::stop::DebugStopReason;

/// The guest in its loop of `int3`, with the timer running, and with a breakpoint in memory outside the loop. Returns
/// the number of turns. `None`, with the reason printed, if this host cannot run it.
fn trapping() -> Option<(TestVm, u64)> {
    // Begin with interrupts on, because a break may stop the guest in its handler.
    let vm = standing_at(execute_at(SITE))?;
    vm.remove(execute_at(SITE));
    let go_to_traps = |turns| {
        let mut regs = vm.regs(0);
        regs.rip = TRAPS;
        regs.gp[5] = turns;
        vm.try_set_regs(0, regs).unwrap();
    };
    // Without a breakpoint in memory, the debugger does not affect the trap.
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

/// The guest has stopped behind an `int3`. Asserts that as many handlers as `int3`s have run, each with the correct
/// values.
#[track_caller]
fn every_trap_is_its_own(vm: &TestVm, turns: u64) -> u64 {
    let regs = vm.regs(0);
    assert_eq!(regs.rip, BEHIND_TRAP);
    let executed = turns - regs.gp[5] + 1;
    // And the trap before the loop.
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
    let amount = Amount::turns(1_000, 300);
    let mut done = 0;
    while amount.is_left(done) {
        assert_eq!(stop(vm.resume()), hit(0, behind), "after {done}");
        done += 1;
        assert_eq!(every_trap_is_its_own(&vm, turns), done);
    }
    println!("{done} INT3, {} ticks meanwhile", ticks(&vm).count - before);
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
    let amount = Amount::turns(1_000, 1_000);
    let (mut done, mut breaks) = (0, 0);
    while amount.is_left(done) {
        // The guest runs alone, a little longer each time, and only the break stops it.
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
        // Behind the last `int3`: dec, jnz.
        while vm.regs(0).rip != TRAPS {
            vm.step(0);
        }
        vm.step(0);
        assert_eq!(vm.regs(0).rip, TRAP_HANDLER, "step {done}");
        assert_eq!(stop(vm.resume()), hit(0, behind), "after {done}");
        done += 1;
        assert_eq!(every_trap_is_its_own(&vm, turns), done);
    }
}
