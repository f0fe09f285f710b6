//! The ends of sessions and of real guests: detach and lost channels in every state, resets, power-off, triple faults.

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

/// The state of a session at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Stopped,
    Running,
    RangeStepping,
    AtBreakpoint,
}

const STATES: [State; 4] = [
    State::Stopped,
    State::Running,
    State::RangeStepping,
    State::AtBreakpoint,
];

/// A guest with two VPs in that state, and a debugger with a breakpoint. A pending resume may have been answered.
fn in_state(state: State) -> Option<(TestVm, Option<Pending>)> {
    let code = telling_loop(Mode::Long);
    let vm = Setup::new(Mode::Long, &code).vps(2).build()?;
    vm.attach();
    let pending = match state {
        State::Stopped => {
            // A held guest would stay held.
            vm.step(0);
            vm.insert(execute_at(ENTRY));
            None
        }
        State::Running => {
            vm.insert(execute_at(0x5000));
            Some(vm.resume())
        }
        State::RangeStepping => {
            vm.insert(execute_at(0x5000));
            let start = vmm_core_defs::addr::Gva::new(ENTRY);
            let end = start.checked_add(0x100).unwrap();
            Some(vm.only(1, VpAction::StepRange { start, end }))
        }
        State::AtBreakpoint => {
            vm.insert(execute_at(in_loop(Mode::Long, 1)));
            assert!(matches!(
                stop(vm.resume()),
                DebugStopReason::Breakpoint { .. }
            ));
            None
        }
    };
    Some((vm, pending))
}

type Pending = mesh::rpc::PendingFailableRpc<vmm_core_defs::stop::StopEvent, DebugError>;

/// I6: both VPs go round their loop through the former breakpoints.
fn assert_runs_free(vm: &TestVm, state: State) {
    let since = vm.machine.wait_until("now", |_| true).told.len();
    vm.machine
        .wait_until(&format!("{state:?}: both VPs run free"), |seen| {
            let told = |vp| {
                let by = seen.told[since..].iter().filter(|(by, _)| by.index() == vp);
                by.count() > 20
            };
            told(0) && told(1)
        });
}

#[test]
fn detach_in_every_state_leaves_nothing_behind_and_the_guest_runs() {
    for state in STATES {
        let Some((vm, pending)) = in_state(state) else {
            return;
        };
        vm.detach(DetachAction::Resume);
        if let Some(pending) = pending {
            assert_eq!(answer(pending), Err(DebugError::Detached), "{state:?}");
        }
        assert_runs_free(&vm, state);
        vm.attach();
        for vp in 0..2 {
            let regs = vm.regs(vp);
            assert_eq!(regs.rflags & 0x100, 0, "{state:?}: a trap flag of ours");
            assert_eq!(regs.debug.db, [0; 4], "{state:?}: a debug register of ours");
            assert_eq!(regs.debug.dr7, 0x400, "{state:?}");
        }
        // A debug register that was left behind would stop them in the new session, which has no breakpoint.
        let pending = vm.resume();
        assert_runs_free(&vm, state);
        interrupt(&vm, pending);
        vm.detach(DetachAction::Resume);
        assert_runs_free(&vm, state);
    }
}

#[test]
fn a_dropped_channel_in_every_state_is_a_detach_that_resumes() {
    for state in STATES {
        let Some((mut vm, pending)) = in_state(state) else {
            return;
        };
        vm.drop_channel();
        if let Some(pending) = pending {
            assert_eq!(answer(pending), Err(DebugError::Detached), "{state:?}");
        }
        assert_runs_free(&vm, state);
        vm.handle.stop();
        assert_eq!(vm.join(), RunnerExit::Stopped);
    }
}

#[test]
fn a_held_guest_stays_held_when_no_debugger_can_come_any_more() {
    for attached in [false, true] {
        let code = telling_loop(Mode::Long);
        let Some(mut vm) = Setup::new(Mode::Long, &code).vps(2).build() else {
            return;
        };
        if attached {
            vm.attach();
        }
        vm.drop_channel();
        vm.handle.stop();
        let machine = vm.machine.clone();
        assert_eq!(vm.join(), RunnerExit::Stopped);
        let told = machine.wait_until("now", |_| true).told.len();
        assert_eq!(told, 0, "it ran, attached: {attached}");
    }
}

/// This holds however often debuggers come and are lost.
#[test]
fn a_held_guest_stays_held_until_somebody_resumes_it_or_detaches() {
    let code = telling_loop(Mode::Long);
    let Some(vm) = Setup::new(Mode::Long, &code).vps(2).build() else {
        return;
    };
    for lost in [DetachAction::ResumeUnlessHeld, DetachAction::KillUnlessHeld] {
        vm.attach();
        vm.insert(execute_at(0x5000));
        vm.detach(lost);
        vm.attach();
        for vp in 0..2 {
            assert_eq!(vm.regs(vp).rip, ENTRY, "{lost:?}");
        }
        vm.detach(DetachAction::Stay);
    }
    vm.attach();
    vm.detach(DetachAction::Resume);
    assert_runs_free(&vm, State::Stopped);
}

#[test]
fn detach_can_leave_the_guest_stopped_for_the_next_debugger() {
    for state in STATES {
        let Some((vm, pending)) = in_state(state) else {
            return;
        };
        // The registers of the VPs, if the guest has stopped.
        let stood = |stands: bool| stands.then(|| [vm.regs(0), vm.regs(1)]);
        let stands = pending.is_none();
        let left_at = stood(stands);
        vm.detach(DetachAction::Stay);
        let before = vm.machine.wait_until("now", |_| true).told.len();
        vm.attach();
        let after = vm.machine.wait_until("now", |_| true).told.len();
        assert_eq!(before, after, "{state:?}: it ran");
        assert_eq!(stood(stands), left_at, "{state:?}: it moved");
        vm.detach(DetachAction::Resume);
        assert_runs_free(&vm, state);
    }
}

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
fn a_debugger_can_end_the_guest_in_every_state() {
    for state in STATES {
        let Some((vm, pending)) = in_state(state) else {
            return;
        };
        let untouched = Setup::new(Mode::Long, &telling_loop(Mode::Long)).build();
        vm.detach(DetachAction::Kill);
        let how = RunnerExit::Killed;
        if let Some(pending) = pending {
            assert_eq!(answer(pending), Err(DebugError::Detached), "{state:?}");
        }
        let machine = vm.machine.clone();
        assert_eq!(vm.join(), how, "{state:?}");
        let untouched = untouched.expect("as the first").machine.raw_memory();
        assert!(machine.raw_memory() == untouched, "{state:?}");
    }
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
