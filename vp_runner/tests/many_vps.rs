//! Several VPs: all-stop, hits at the same time, and kicks that are never lost. On real guests.

use test_machine::machine;

use machine::guest::*;
use machine::software::software_at;
use machine::*;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::*;
use vmm_core_defs::stop::DebugStopReason;
use vmm_core_defs::vp_set::VpSet;

fn wait_for_all(vm: &TestVm, vps: u32, since: usize) {
    vm.machine.wait_until("every VP runs", |seen| {
        let told = |vp| seen.told[since..].iter().any(|(by, _)| by.index() == vp);
        (0..vps).all(told)
    });
}

#[test]
fn all_vps_stop_together_and_stand_still() {
    for vps in [2, 4, 8] {
        let code = telling_loop(Mode::Long);
        let Some(vm) = Setup::new(Mode::Long, &code).vps(vps).build() else {
            return;
        };
        assert_eq!(vm.attach().stop.vps, VpSet::first(vps));
        for _ in 0..3 {
            let since = vm.machine.wait_until("now", |_| true).told.len();
            let pending = vm.resume();
            wait_for_all(&vm, vps, since);
            interrupt(&vm, pending);
            let counts: Vec<_> = (0..vps).map(|vp| vm.regs(vp).gp[3]).collect();
            let told = vm.machine.wait_until("now", |_| true).told.len();
            // Read again from KVM: no register has changed.
            let msr = |vp| {
                vm.call(DebugRequest::ReadMsr, (VpIndex::new(vp), 0x10))
                    .is_ok()
            };
            assert!((0..vps).all(msr));
            let again: Vec<_> = (0..vps).map(|vp| vm.regs(vp).gp[3]).collect();
            assert_eq!(counts, again);
            let later = vm.machine.wait_until("now", |_| true).told.len();
            assert_eq!(told, later, "a VP ran while stopped");
        }
    }
}

/// I7: each VP hits the breakpoint in each turn, and no VP passes it without a report.
#[test]
fn hits_at_the_same_time_are_all_reported_one_after_the_other() {
    for vps in [2, 4] {
        let Some(vm) = Setup::new(Mode::Long, &counting_loop(Mode::Long))
            .vps(vps)
            .build()
        else {
            return;
        };
        vm.attach();
        let breakpoint = execute_at(in_loop(Mode::Long, 1));
        vm.insert(breakpoint);
        let mut hits = vec![0; vps as usize];
        for _ in 0..60 {
            let DebugStopReason::Breakpoint { vp, .. } = stop(vm.resume()) else {
                panic!("not a breakpoint");
            };
            hits[vp.index() as usize] += 1;
            // The breakpoint is behind the increment, so a VP with n reports has counted to n. A VP with a hit that was
            // not reported yet is one ahead.
            for (index, hits) in (0..).zip(&hits) {
                let count = vm.regs(index).gp[3];
                assert!(
                    count == *hits || count == hits + 1,
                    "VP {index} counted to {count} with {hits} hits reported"
                );
            }
            assert_eq!(vm.regs(vp.index()).gp[3], hits[vp.index() as usize]);
        }
    }
}

/// I7, with GDB's requests: GDB removes its breakpoints at a stop and steps the VP of the report.
#[test]
fn a_hit_dropped_with_its_breakpoint_is_met_again() {
    let Some(vm) = Setup::new(Mode::Long, &counting_loop(Mode::Long))
        .vps(2)
        .build()
    else {
        return;
    };
    vm.attach();
    let breakpoint = execute_at(in_loop(Mode::Long, 1));
    let mut hits = [0; 2];
    for _ in 0..40 {
        vm.insert(breakpoint);
        let DebugStopReason::Breakpoint { vp, .. } = stop(vm.resume()) else {
            panic!("not a breakpoint");
        };
        let vp = vp.index();
        hits[vp as usize] += 1;
        vm.remove(breakpoint);
        vm.step(vp);
        for (index, hits) in (0..).zip(hits) {
            let regs = vm.regs(index);
            let ahead = u64::from(index != vp && regs.rip == breakpoint.address.value());
            assert_eq!(regs.gp[3], hits + ahead, "VP {index} slipped past");
        }
    }
    assert!(hits.iter().sum::<u64>() == 40);
}

#[test]
fn a_thousand_breaks_and_resumes_lose_no_kick() {
    let Some(vm) = Setup::new(Mode::Long, &counting_loop(Mode::Long))
        .vps(2)
        .build()
    else {
        return;
    };
    vm.attach();
    for _ in 0..1000 {
        let pending = vm.resume();
        interrupt(&vm, pending);
    }
    let pending = vm.resume();
    vm.break_();
    vm.break_();
    assert_eq!(stop(pending), DebugStopReason::Break);
    // Each kick may have come before the VP was in the guest. The guest still runs.
    vm.insert(execute_at(in_loop(Mode::Long, 1)));
    let reason = stop(vm.resume());
    assert!(
        matches!(reason, DebugStopReason::Breakpoint { .. }),
        "{reason:?}"
    );
}

#[test]
fn a_step_beside_running_vps_is_reported_and_stops_them() {
    let code = telling_loop(Mode::Long);
    let Some(vm) = Setup::new(Mode::Long, &code).vps(3).build() else {
        return;
    };
    vm.attach();
    for _ in 0..20 {
        let request = ResumeRequest::new(VpAction::Run, vec![(VpIndex::new(2), VpAction::Step)]);
        let pending = vm.send(DebugRequest::Resume, request);
        let vp = VpIndex::new(2);
        assert_eq!(stop(pending), DebugStopReason::SingleStep { vp });
        assert!(
            vm.status()
                .vps
                .iter()
                .all(|vp| vp.activity == VpActivity::Stopped)
        );
    }
    // 20 steps of a loop of three instructions.
    assert_eq!(vm.regs(2).gp[3], 7);
}

/// LLDB steps a thread past a breakpoint if the thread has stopped there without a reason. Such a VP was stopped with
/// the others just before it hit the breakpoint, or its step ended there together with a step of another VP.
#[test]
fn a_vp_at_a_breakpoint_always_has_a_reason_and_each_turn_has_one() {
    let site = in_loop(Mode::Long, 1);
    for (vps, breakpoint) in [
        (2, software_at(site)),
        (4, software_at(site)),
        (4, execute_at(site)),
        (8, execute_at(site)),
    ] {
        let code = counting_loop(Mode::Long);
        let Some(vm) = Setup::new(Mode::Long, &code).vps(vps).build() else {
            return;
        };
        vm.attach();
        vm.insert(breakpoint);
        let steps = |vp: &VpIndex| !vp.index().is_multiple_of(4);
        let request = ResumeRequest::new(
            VpAction::Run,
            (0..vps)
                .map(VpIndex::new)
                .filter(steps)
                .map(|vp| (vp, VpAction::Step))
                .collect(),
        );
        let mut told = vec![0; vps as usize];
        // On a host with few cores a VP may not run for many rounds.
        for round in 0.. {
            if round >= 100 && told.iter().all(|told| *told > 0) {
                break;
            }
            assert!(round < 10_000, "a VP never comes to its turn: {told:?}");
            stop(vm.send(DebugRequest::Resume, request.clone()));
            for (index, told) in (0..).zip(&mut told) {
                let reason = vm.call(DebugRequest::StopReason, VpIndex::new(index));
                let reason = reason.unwrap();
                let regs = vm.regs(index);
                match reason {
                    Some(DebugStopReason::Breakpoint { .. }) => *told += 1,
                    // A client knows its breakpoints.
                    Some(DebugStopReason::SingleStep { .. }) if regs.rip == site => *told += 1,
                    Some(DebugStopReason::SingleStep { .. }) | None => {}
                    other => panic!("{other:?}"),
                }
                assert_eq!(
                    regs.gp[3], *told,
                    "VP {index} at {:#x}: {reason:?}",
                    regs.rip
                );
            }
        }
    }
}
