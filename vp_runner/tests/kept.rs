//! A guest that crashes while no debugger is attached, and that is kept for a debugger.

use test_machine::machine::Setup;
use test_machine::machine::guest::Mode;
use test_machine::machine::wait;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::GuestAddress;
use vmm_core_defs::debug_rpc::DebugRequest;
use vmm_core_defs::debug_rpc::DetachAction;
use vmm_core_defs::stop::DebugStopReason;
use vp_runner::runner::RunnerExit;

/// ud2, with no interrupt table.
const TRIPLE_FAULT: [u8; 2] = [0x0f, 0x0b];

#[test]
fn a_triple_fault_that_would_end_the_runner_waits_for_a_debugger_which_is_told_of_it() {
    for vps in [1, 2, 4] {
        let (kept, mut told) = mesh::channel();
        let setup = Setup::new(Mode::Long, &TRIPLE_FAULT).vps(vps);
        let Some(vm) = setup.running().exit_on_reset().kept(kept).build() else {
            return;
        };
        let reason = wait(told.recv()).expect("told");
        let DebugStopReason::TripleFault { vp, .. } = reason else {
            panic!("{reason:?}");
        };
        for round in 0..3 {
            assert_eq!(vm.attach().stop.reason, reason, "{round}");
            // All memory can be read.
            let gpa = GuestAddress::Gpa(Gpa::new(test_machine::machine::ENTRY));
            let read = vm.call(DebugRequest::ReadMemory, (gpa, 2));
            assert_eq!(read, Ok(TRIPLE_FAULT.to_vec()));
            vm.regs(vp.index());
            // When a debugger is lost, the guest is kept for the next one.
            let lost = DetachAction::Resume.unless_held();
            vm.call(DebugRequest::Detach, lost).unwrap();
            assert_eq!(wait(told.recv()), Ok(reason), "{round}");
        }
        vm.attach();
        vm.call(DebugRequest::Detach, DetachAction::Resume).unwrap();
        let shown = true;
        assert_eq!(vm.join(), RunnerExit::TripleFault { vp, shown }, "{vps}");
    }
}

#[test]
fn a_kept_guest_ends_where_no_debugger_can_come_any_more_and_where_the_vmm_says_so() {
    for says in [false, true] {
        let (kept, mut told) = mesh::channel();
        let setup = Setup::new(Mode::Long, &TRIPLE_FAULT).running();
        let Some(mut vm) = setup.exit_on_reset().kept(kept).build() else {
            return;
        };
        let reason = wait(told.recv()).expect("told");
        let vp = reason.vp().expect("of a VP");
        let shown = false;
        let end = match says {
            true => {
                vm.handle.stop();
                RunnerExit::Stopped
            }
            false => {
                vm.drop_channel();
                RunnerExit::TripleFault { vp, shown }
            }
        };
        assert_eq!(vm.join(), end, "{says}");
    }
}

/// If a triple fault is a reset, the guest is not kept.
#[test]
fn a_triple_fault_that_starts_the_guest_again_is_not_kept() {
    let (kept, mut told) = mesh::channel();
    let setup = Setup::new(Mode::Long, &TRIPLE_FAULT).running().kept(kept);
    let Some(vm) = setup.build() else { return };
    vm.machine
        .wait_until("the guest starts again", |seen| seen.resets > 3);
    assert!(told.try_recv().is_err());
}
