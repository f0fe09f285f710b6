//! The ends of sessions with real guests: detach, kill and lost channels in every state.

use test_machine::machine;

use machine::guest::*;
use machine::*;
use vmm_core_defs::debug_rpc::*;
use vmm_core_defs::stop::DebugStopReason;
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
