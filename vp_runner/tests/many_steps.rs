//! Many steps by one request, on real guests.

use test_machine::machine;

use futures::FutureExt;
use machine::guest::*;
use machine::software::software_at;
use machine::*;
use std::num::NonZeroU64;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::debug_rpc::*;
use vmm_core_defs::stop::DebugStopReason;

const RBX: usize = 3;

fn steps(count: u64) -> VpAction {
    VpAction::StepN {
        count: NonZeroU64::new(count).unwrap(),
    }
}

#[test]
fn a_thousand_steps_are_a_thousand_instructions_while_breakpoints_come_and_go() {
    const STEPPER: u32 = 1;
    let code = counting_loop(Mode::Long);
    let Some(vm) = Setup::new(Mode::Long, &code).vps(4).build() else {
        return;
    };
    vm.attach();
    let vp = VpIndex::new(STEPPER);
    let elsewhere = ENTRY + 0x100;
    let mut changes = 0;
    for round in 1..=10 {
        for others in [VpAction::Run, VpAction::Stay] {
            let before = vm.regs(STEPPER).gp[RBX];
            let request = ResumeRequest::new(others, vec![(vp, steps(1000))]);
            let mut pending = vm.send(DebugRequest::Resume, request);
            let stop = loop {
                if let Some(stop) = (&mut pending).now_or_never() {
                    break stop.unwrap();
                }
                for breakpoint in [software_at(elsewhere), execute_at(elsewhere)] {
                    vm.insert(breakpoint);
                    vm.remove(breakpoint);
                    changes += 2;
                }
            };
            assert_eq!(stop.reason, DebugStopReason::SingleStep { vp });
            assert_eq!(stop.steps, Some(1000));
            let regs = vm.regs(STEPPER);
            // A turn of the loop has 4 instructions.
            assert_eq!(regs.rip, ENTRY, "round {round}");
            assert_eq!(regs.gp[RBX] - before, 250, "round {round}");
        }
    }
    println!("{changes} changes of breakpoints meanwhile");
}

/// `mov ecx, 100; 1: dec ecx; jnz 1b; nop`, and a jump to the start.
fn counted() -> Vec<u8> {
    let mut code = vec![0xb9, 100, 0, 0, 0, 0xff, 0xc9, 0x75, 0xfc, 0x90];
    jump_to_start(&mut code);
    code
}

const AFTER_LOOP: u64 = ENTRY + 9;

#[test]
fn a_breakpoint_in_the_middle_ends_the_steps_and_the_next_ones_pass_it() {
    let breakpoints: [fn(u64) -> Breakpoint; 2] = [software_at, execute_at];
    for breakpoint in breakpoints {
        let Some(vm) = Setup::new(Mode::Long, &counted()).vps(2).build() else {
            return;
        };
        vm.attach();
        let breakpoint = breakpoint(AFTER_LOOP);
        vm.insert(breakpoint);
        // From the start: `mov` and 100 turns. Then over the `nop`, the jump, and the same again.
        for wanted in [201, 203] {
            let stop = answer(vm.only(1, steps(1000))).unwrap();
            assert_eq!(stop.reason, hit(1, breakpoint));
            assert_eq!(stop.steps, Some(wanted));
            assert_eq!(vm.regs(1).rip, AFTER_LOOP);
        }
        assert_eq!(vm.regs(0).rip, ENTRY);
        vm.remove(breakpoint);
        let stop = answer(vm.only(1, steps(203))).unwrap();
        let vp = VpIndex::new(1);
        assert_eq!(stop.reason, DebugStopReason::SingleStep { vp });
        assert_eq!((stop.steps, vm.regs(1).rip), (Some(203), AFTER_LOOP));
    }
}

#[test]
fn steps_without_end_are_interrupted_and_counted() {
    let Some(vm) = Setup::new(Mode::Long, &counting_loop(Mode::Long))
        .vps(2)
        .build()
    else {
        return;
    };
    vm.attach();
    let pending = vm.only(0, steps(u64::MAX));
    vm.break_();
    let stop = answer(pending).unwrap();
    assert_eq!(stop.reason, DebugStopReason::Break);
    let regs = vm.regs(0);
    let executed = (0..4).position(|nth| in_loop(Mode::Long, nth) == regs.rip);
    let executed = match executed {
        Some(0) => 4 * regs.gp[RBX],
        Some(nth) => 4 * (regs.gp[RBX] - 1) + nth as u64,
        None => panic!("{:#x} is not in the loop", regs.rip),
    };
    assert_eq!(stop.steps, Some(executed));
}

#[test]
fn a_guest_event_ends_the_steps_with_its_own_reason() {
    // nop; out off, al
    let code = [0x90, 0xe6, PORT_OFF, 0xeb, 0xfe];
    let Some(vm) = Setup::new(Mode::Long, &code).build() else {
        return;
    };
    vm.attach();
    let stop = answer(vm.only(0, steps(1000))).unwrap();
    let vp = Some(VpIndex::BSP);
    assert_eq!(stop.reason, DebugStopReason::PowerOff { vp });
    assert_eq!(stop.steps, Some(2));
}

/// A panic is no stop of a session that has not asked for it.
#[test]
fn an_event_that_is_no_stop_costs_no_step() {
    let code = [0x90, 0xe6, PORT_GIVES_UP, 0x90, 0x90, 0x90, 0xeb, 0xfe];
    for count in 1..=4 {
        let Some(vm) = Setup::new(Mode::Long, &code).build() else {
            return;
        };
        vm.attach();
        let stop = answer(vm.only(0, steps(count))).unwrap();
        let vp = VpIndex::BSP;
        assert_eq!(stop.reason, DebugStopReason::SingleStep { vp });
        let places = [ENTRY, ENTRY + 1, ENTRY + 3, ENTRY + 4, ENTRY + 5];
        let index = usize::try_from(count).unwrap();
        assert_eq!((stop.steps, vm.regs(0).rip), (Some(count), places[index]));
    }
}
