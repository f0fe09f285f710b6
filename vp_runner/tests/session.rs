//! Attach, resume, break, detach, and the end of a debugger in every state. On real guests.

use test_machine::machine;

use machine::guest::*;
use machine::*;
use vmm_core_defs::debug_rpc::*;
use vmm_core_defs::stop::DebugStopReason;
use vp_runner::runner::RunnerExit;

#[test]
fn a_guest_that_waits_stands_at_its_first_instruction_in_every_mode() {
    for mode in MODES {
        let Some(vm) = Setup::new(mode, &counting_loop(mode)).build() else {
            return;
        };
        let info = vm.attach();
        assert_eq!(info.stop.reason, DebugStopReason::Break);
        assert_eq!((info.stop.vps.len(), info.arch), (1, GuestArch::X86_64));
        let regs = vm.regs(0);
        assert_eq!((regs.rip, regs.gp[3]), (ENTRY, 0), "{mode:?}");
    }
}

#[test]
fn break_stops_a_running_guest_and_answers_its_resume() {
    for mode in MODES {
        let Some(vm) = Setup::new(mode, &telling_loop(mode)).build() else {
            return;
        };
        vm.attach();
        let pending = vm.resume();
        vm.machine.wait_until("it runs", |seen| seen.told.len() > 3);
        vm.break_();
        assert_eq!(stop(pending), DebugStopReason::Break);
        let count = vm.regs(0).gp[3] & 0xffff;
        assert!(count > 3, "{mode:?}: {count}");
        assert_eq!(vm.regs(0).gp[3] & 0xffff, count, "it stands still");
    }
}

#[test]
fn a_running_guest_is_stopped_by_attach_and_runs_on_after_detach() {
    let Some(vm) = Setup::new(Mode::Long, &telling_loop(Mode::Long))
        .running()
        .build()
    else {
        return;
    };
    for _ in 0..3 {
        vm.machine
            .wait_until("it runs", |seen| !seen.told.is_empty());
        vm.attach();
        let told = vm.machine.wait_until("now", |_| true).told.len();
        assert!(vm.regs(0).gp[3] >= told as u64);
        vm.detach(DetachAction::Resume);
        vm.machine
            .wait_until("it runs on", |seen| seen.told.len() > told);
    }
}

#[test]
fn stop_ends_the_runner_whatever_the_guest_does() {
    let Some(vm) = Setup::new(Mode::Long, &counting_loop(Mode::Long))
        .running()
        .build()
    else {
        return;
    };
    vm.handle.stop();
    assert_eq!(vm.join(), RunnerExit::Stopped);
}
