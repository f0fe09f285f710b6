//! What a real guest asks for or meets: resets, power-off, panics, triple faults, and vCPUs that cannot go on.

use test_machine::machine;

use machine::guest::*;
use machine::*;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::GuestAddress;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::*;
use vmm_core_defs::stop::CrashCause;
use vmm_core_defs::stop::DebugStopReason;
use vmm_core_defs::stop::FaultRegisters;
use vmm_core_defs::stop::GuestEventKind;
use vmm_core_defs::stop::RunnerFault;
use vmm_core_defs::stop::StopOn;
use vp_runner::runner::RunnerExit;

/// Reports to the test, asks for the event of `port`, then counts.
fn asking(port: u8) -> Vec<u8> {
    let mut code = vec![0xe6, PORT_TELL, 0xe6, port, 0xff, 0xc3];
    jump_to_start(&mut code);
    code
}

const BSP: Option<VpIndex> = Some(VpIndex::BSP);
const RESET: DebugStopReason = DebugStopReason::Reset { vp: BSP };
const POWER_OFF: DebugStopReason = DebugStopReason::PowerOff { vp: BSP };

/// Behind the `out` that asks: the exit is completed (I2), and `inc ebx` was not executed yet.
const BEHIND: u64 = ENTRY + 4;

#[test]
fn a_reset_is_a_stop_and_carried_out_at_the_next_resume() {
    let Some(vm) = Setup::new(Mode::Long, &asking(PORT_RESET)).vps(2).build() else {
        return;
    };
    vm.attach();
    assert_eq!(stop(vm.only(0, VpAction::Run)), RESET);
    let regs = vm.regs(0);
    assert_eq!((regs.rip, regs.gp[3]), (BEHIND, 0));
    assert_eq!(vm.machine.wait_until("now", |_| true).resets, 0);
    // A breakpoint survives the reset, also one at the first instruction.
    let breakpoint = execute_at(ENTRY);
    vm.insert(breakpoint);
    assert_eq!(stop(vm.only(0, VpAction::Run)), hit(0, breakpoint));
    let seen = vm.machine.wait_until("now", |_| true);
    assert_eq!((seen.resets, seen.inits), (1, 4));
    assert_eq!(vm.regs(0).rip, ENTRY);
    assert_eq!(stop(vm.only(0, VpAction::Run)), RESET);
}

#[test]
fn a_reset_without_debugger_is_carried_out_at_once() {
    let Some(vm) = Setup::new(Mode::Long, &asking(PORT_RESET))
        .vps(2)
        .running()
        .build()
    else {
        return;
    };
    vm.machine
        .wait_until("three resets", |seen| seen.resets >= 3);
}

#[test]
fn a_debugger_that_leaves_lets_the_reset_happen() {
    let Some(vm) = Setup::new(Mode::Long, &asking(PORT_RESET)).build() else {
        return;
    };
    vm.attach();
    assert_eq!(stop(vm.resume()), RESET);
    vm.detach(DetachAction::Stay);
    assert_eq!(vm.attach().stop.reason, RESET);
    vm.detach(DetachAction::Resume);
    vm.machine.wait_until("the reset", |seen| seen.resets >= 1);
}

/// The event happens at the next resume, even if it was reported to another debugger.
#[test]
fn what_one_debugger_was_told_of_happens_at_the_next_ones_resume() {
    for (port, reason) in [(PORT_RESET, RESET), (PORT_OFF, POWER_OFF)] {
        let Some(vm) = Setup::new(Mode::Long, &asking(port)).build() else {
            return;
        };
        vm.attach();
        assert_eq!(stop(vm.resume()), reason);
        vm.detach(DetachAction::Stay);
        assert_eq!(vm.attach().stop.reason, reason);
        let regs = vm.regs(0);
        assert_eq!((regs.rip, regs.gp[3]), (BEHIND, 0), "it stays where it was");
        let next = answer(vm.resume());
        if port == PORT_OFF {
            let how = RunnerExit::PowerOff;
            assert_eq!(next, Err(DebugError::Ended { how }));
            assert_eq!(vm.join(), how);
            continue;
        }
        // After the reset the guest has not counted yet.
        assert_eq!(next.unwrap().reason, reason);
        assert_eq!(vm.regs(0).gp[3], 0);
        assert_eq!(vm.machine.wait_until("now", |_| true).resets, 1);
    }
}

/// Without a debugger, events are no stops, however the last debugger went.
#[test]
fn what_the_guest_asks_for_after_a_debugger_has_gone_happens() {
    for says_so in [true, false] {
        let leave = |mut vm: TestVm| {
            vm.attach();
            vm.step(0);
            vm.insert(execute_at(0x5000));
            match says_so {
                true => vm.detach(DetachAction::Resume),
                false => vm.drop_channel(),
            }
            vm
        };
        let Some(vm) = Setup::new(Mode::Long, &asking(PORT_RESET)).build() else {
            return;
        };
        let vm = leave(vm);
        vm.machine
            .wait_until("three resets", |seen| seen.resets >= 3);
        let off = Setup::new(Mode::Long, &asking(PORT_OFF)).build();
        let vm = leave(off.expect("as the first"));
        assert_eq!(vm.join(), RunnerExit::PowerOff);
    }
}

#[test]
fn the_debuggers_own_reset_stops_at_the_first_instruction_with_breakpoints_kept() {
    let Some(vm) = Setup::new(Mode::Long, &counting_loop(Mode::Long))
        .vps(2)
        .build()
    else {
        return;
    };
    vm.attach();
    let breakpoint = execute_at(in_loop(Mode::Long, 2));
    vm.insert(breakpoint);
    assert!(matches!(
        stop(vm.resume()),
        DebugStopReason::Breakpoint { .. }
    ));
    vm.call(DebugRequest::Reset, ()).unwrap();
    for vp in 0..2 {
        let regs = vm.regs(vp);
        assert_eq!((regs.rip, regs.gp[3]), (ENTRY, 0));
    }
    assert_eq!(stop(vm.only(1, VpAction::Run)), hit(1, breakpoint));
    assert_eq!(vm.regs(1).gp[3], 1);
}

#[test]
fn power_off_is_a_stop_and_ends_the_runner_at_the_next_resume() {
    let Some(vm) = Setup::new(Mode::Long, &asking(PORT_OFF)).vps(2).build() else {
        return;
    };
    vm.attach();
    // Both VPs ask.
    let off = stop(vm.resume());
    assert!(matches!(off, DebugStopReason::PowerOff { vp: Some(_) }));
    let pending = vm.resume();
    let how = RunnerExit::PowerOff;
    assert_eq!(answer(pending), Err(DebugError::Ended { how }));
    assert_eq!(vm.join(), how);
}

fn stop_on(vm: &TestVm, kinds: &[GuestEventKind]) {
    let on: StopOn = kinds.iter().copied().collect();
    let set = vm.call(DebugRequest::StopOn, Some(on));
    assert_eq!(set.as_ref(), Ok(&on));
    assert_eq!(vm.call(DebugRequest::StopOn, None), set);
}

#[test]
fn an_event_that_is_no_stop_is_carried_out_at_once_under_the_same_resume() {
    let Some(vm) = Setup::new(Mode::Long, &asking(PORT_RESET)).vps(2).build() else {
        return;
    };
    vm.attach();
    stop_on(&vm, &[GuestEventKind::PowerOff]);
    let pending = vm.resume();
    vm.machine
        .wait_until("three resets", |seen| seen.resets >= 3);
    // From now on the event is a stop, for the next VP that asks.
    stop_on(&vm, &[GuestEventKind::Reset]);
    let reset = stop(pending);
    assert!(matches!(reset, DebugStopReason::Reset { vp: Some(_) }));
    // The setting holds as long as the session.
    stop_on(&vm, &[]);
    vm.detach(DetachAction::Stay);
    assert_eq!(vm.attach().stop.reason, reset);
    let on = vm.call(DebugRequest::StopOn, None);
    assert_eq!(on, Ok(StopOn::default()));
}

#[test]
fn a_power_off_that_is_no_stop_ends_the_resume() {
    let Some(vm) = Setup::new(Mode::Long, &asking(PORT_OFF)).vps(2).build() else {
        return;
    };
    vm.attach();
    stop_on(&vm, &[]);
    let how = RunnerExit::PowerOff;
    assert_eq!(answer(vm.resume()), Err(DebugError::Ended { how }));
    assert_eq!(vm.join(), how);
}

#[test]
fn a_panic_is_a_stop_on_request_after_which_the_guest_goes_on() {
    let Some(vm) = Setup::new(Mode::Long, &asking(PORT_GIVES_UP)).build() else {
        return;
    };
    vm.attach();
    let pending = vm.resume();
    vm.machine
        .wait_until("the guest panics and goes on", |seen| seen.told.len() > 3);
    interrupt(&vm, pending);
    stop_on(&vm, &[GuestEventKind::Panic]);
    let vp = VpIndex::BSP;
    let first = stop(vm.resume());
    assert_eq!(first, DebugStopReason::Panic { vp });
    let regs = vm.regs(0);
    assert_eq!(regs.rip, BEHIND);
    // Once for each panic, with a turn of the loop in between.
    assert_eq!(stop(vm.resume()), DebugStopReason::Panic { vp });
    assert_eq!(vm.regs(0).gp[3], regs.gp[3] + 1);
    assert_eq!(vm.machine.wait_until("now", |_| true).resets, 0);
}

#[test]
fn guests_without_debugger_end_the_runner_as_the_policy_says() {
    let cases = [
        (asking(PORT_OFF), RunnerExit::PowerOff),
        (asking(PORT_RESET), RunnerExit::Reset),
        (
            vec![0x0f, 0x0b],
            RunnerExit::TripleFault {
                vp: VpIndex::BSP,
                shown: false,
            },
        ),
    ];
    for (code, exit) in cases {
        let setup = Setup::new(Mode::Long, &code).running().exit_on_reset();
        let Some(vm) = setup.build() else {
            return;
        };
        assert_eq!(vm.join(), exit);
    }
}

#[test]
fn a_triple_fault_is_a_stop_with_all_state_readable() {
    // inc ebx; ud2, with no interrupt table
    let code = [0xff, 0xc3, 0x0f, 0x0b];
    let Some(vm) = Setup::new(Mode::Long, &code).build() else {
        return;
    };
    vm.attach();
    for round in 0..3 {
        let vp = VpIndex::BSP;
        match stop(vm.resume()) {
            DebugStopReason::TripleFault { vp: by, registers } => {
                assert_eq!(by, vp);
                let regs = vm.regs(0);
                // The registers agree with the stop.
                let seen = match registers {
                    FaultRegisters::Kept => (ENTRY + 2, 1),
                    FaultRegisters::ResetByHypervisor => (0xfff0, 0),
                };
                println!("the registers at a triple fault: {registers:?}");
                assert_eq!((regs.rip, regs.gp[3]), seen);
            }
            reason => panic!("{reason:?}"),
        }
        let gpa = GuestAddress::Gpa(Gpa::new(ENTRY));
        let read = vm.call(DebugRequest::ReadMemory, (gpa, 4));
        assert_eq!(read, Ok(code.to_vec()));
        assert_eq!(vm.machine.wait_until("now", |_| true).resets, round);
    }
}

/// The VMM's user is told that the guest could not start again, and not that it asked for a reset.
#[test]
fn a_reset_that_fails_ends_the_runner_as_such() {
    for code in [asking(PORT_RESET), vec![0x0f, 0x0b]] {
        let setup = Setup::new(Mode::Long, &code).running().reset_fails();
        let Some(vm) = setup.build() else {
            return;
        };
        assert_eq!(vm.join(), RunnerExit::ResetFailed);
    }
}

/// The end of the guest says whether a debugger saw the event, whether that debugger continued or left.
#[test]
fn the_end_of_a_guest_says_whether_a_debugger_was_stopped_there_first() {
    for leave in [false, true] {
        let setup = Setup::new(Mode::Long, &[0x0f, 0x0b]).exit_on_reset();
        let Some(vm) = setup.build() else {
            return;
        };
        let vp = VpIndex::BSP;
        let end = |shown| RunnerExit::TripleFault { vp, shown };
        vm.attach();
        assert!(matches!(
            stop(vm.resume()),
            DebugStopReason::TripleFault { .. }
        ));
        match leave {
            true => vm.call(DebugRequest::Detach, DetachAction::Resume).unwrap(),
            false => {
                let how = end(true);
                assert_eq!(answer(vm.resume()), Err(DebugError::Ended { how }));
            }
        }
        assert_eq!(vm.join(), end(true), "{leave}");
    }
    // A debugger for which the event is no stop is told nothing.
    let setup = Setup::new(Mode::Long, &[0x0f, 0x0b]).exit_on_reset();
    let Some(vm) = setup.build() else {
        return;
    };
    vm.attach();
    let nothing = StopOn::from_iter([]);
    vm.call(DebugRequest::StopOn, Some(nothing)).unwrap();
    drop(vm.resume());
    let vp = VpIndex::BSP;
    let shown = false;
    assert_eq!(vm.join(), RunnerExit::TripleFault { vp, shown });
}

#[test]
fn a_vp_that_cannot_go_on_is_a_stop_and_can_be_repaired() {
    // An instruction fetch from an address with neither memory nor a device.
    let code = [0x90, 0x90, 0xff, 0xc3, 0xeb, 0xfc];
    let Some(vm) = Setup::new(Mode::Protected, &code).build() else {
        return;
    };
    vm.attach();
    let mut regs = vm.regs(0);
    regs.rip = 0x4000_0000;
    vm.try_set_regs(0, regs.clone()).unwrap();
    let pending = vm.resume();
    match stop(pending) {
        DebugStopReason::Crashed { vp, cause } => {
            assert_eq!(vp, VpIndex::BSP);
            assert!(matches!(cause, CrashCause::Internal { .. }), "{cause:?}");
        }
        reason => {
            println!("SKIP: this KVM makes of such a fetch: {reason:?}");
            return;
        }
    }
    assert_eq!(vm.regs(0).rip, 0x4000_0000);
    let mut regs = vm.regs(0);
    regs.rip = ENTRY;
    vm.try_set_regs(0, regs).unwrap();
    let breakpoint = execute_at(ENTRY + 4);
    vm.insert(breakpoint);
    assert_eq!(stop(vm.resume()), hit(0, breakpoint));
}

#[test]
fn a_stop_while_a_port_is_read_completes_the_read_first() {
    // in al, held; 1: inc ebx; jmp 1b
    let code = [0xe4, PORT_HELD, 0xff, 0xc3, 0xeb, 0xfc];
    let Some(vm) = Setup::new(Mode::Long, &code).build() else {
        return;
    };
    vm.attach();
    let pending = vm.resume();
    vm.machine
        .wait_until("the guest reads", |seen| seen.held == 1);
    let broken = vm.send(DebugRequest::Break, ());
    // This is answered after the break has kicked the VP, which is in the device.
    assert_eq!(vm.status().vps[0].activity, VpActivity::Running);
    vm.machine.release();
    answer(broken).unwrap();
    assert_eq!(stop(pending), DebugStopReason::Break);
    let regs = vm.regs(0);
    assert_eq!(
        (regs.rip, regs.gp[0] & 0xff, regs.gp[3]),
        (ENTRY + 2, 0x5a, 0)
    );
    // A late completion does not overwrite the values that the client writes now.
    let mut changed = regs;
    changed.gp[0] = 0x1234;
    changed.rip = ENTRY;
    vm.try_set_regs(0, changed.clone()).unwrap();
    assert_eq!((vm.regs(0).rip, vm.regs(0).gp[0]), (ENTRY, 0x1234));
}

#[test]
fn a_panic_in_a_device_ends_the_runner_instead_of_hanging_it() {
    let Some(vm) = Setup::new(Mode::Long, &asking(PORT_PANIC)).vps(2).build() else {
        return;
    };
    vm.attach();
    let pending = vm.only(1, VpAction::Run);
    let vp = VpIndex::new(1);
    let cause = CrashCause::Runner(RunnerFault::ThreadPanicked);
    let shown = false;
    let how = RunnerExit::Crashed { vp, cause, shown };
    assert_eq!(answer(pending), Err(DebugError::Ended { how }));
    assert_eq!(vm.join(), how);
}
