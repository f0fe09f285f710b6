//! Requests that cross events of the guest, and each other. On real guests. The tests do not wait for an answer before
//! the next request.

use test_machine::amount::Amount;
use test_machine::machine;
use test_machine::own_loops::Shape;

use machine::guest::*;
use machine::software::*;
use machine::*;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::breakpoint::BreakpointChange;
use vmm_core_defs::debug_rpc::*;
use vmm_core_defs::regs::DebuggerVpState;
use vmm_core_defs::stop::DebugStopReason;
use vmm_core_defs::stop::GuestEnd;
use vp_runner::probe;
use vp_runner::probe::Int3;

const ROUNDS: u64 = 200;

fn guest(vps: u32) -> Option<TestVm> {
    let vm = Setup::new(Mode::Long, &counting_loop(Mode::Long))
        .vps(vps)
        .build()?;
    vm.attach();
    Some(vm)
}

/// I1: whichever comes first is the answer of this resume, and a break that comes second has nothing to stop.
#[test]
fn a_break_that_crosses_a_hit_stops_no_later_resume() {
    let Some(vm) = guest(2) else {
        return;
    };
    let breakpoint = execute_at(in_loop(Mode::Long, 1));
    let mut epoch = 0;
    vm.insert(breakpoint);
    for round in 0..ROUNDS {
        let pending = vm.resume();
        // Once in one round, twice in the next.
        let breaks: Vec<_> = (0..=round % 2)
            .map(|_| vm.send(DebugRequest::Break, ()))
            .collect();
        let crossed = answer(pending).unwrap();
        for pending in breaks {
            answer(pending).unwrap();
        }
        let behind = answer(vm.resume()).unwrap();
        assert!(
            matches!(behind.reason, DebugStopReason::Breakpoint { .. }),
            "round {round}: {:?} behind {:?}",
            behind.reason,
            crossed.reason
        );
        for stop in [crossed, behind] {
            epoch += 1;
            assert_eq!(stop.epoch.number(), epoch, "a stop of another resume");
        }
    }
}

/// Only a stopped guest accepts a resume. A refused resume changes nothing.
#[test]
fn a_resume_while_a_stop_is_on_its_way_is_refused_or_a_resume_of_its_own() {
    let Some(vm) = guest(2) else {
        return;
    };
    let mut refused = 0;
    for _ in 0..ROUNDS {
        let first = vm.resume();
        let stopping = vm.send(DebugRequest::Break, ());
        let second = vm.resume();
        let first = answer(first).unwrap();
        assert_eq!(first.reason, DebugStopReason::Break);
        answer(stopping).unwrap();
        // An accepted resume is not answered before this, because nothing else stops the guest.
        vm.break_();
        match answer(second) {
            Ok(second) => {
                assert_eq!(second.reason, DebugStopReason::Break);
                assert_eq!(second.epoch, first.epoch.next());
            }
            Err(error) => {
                assert_eq!(error, DebugError::NotStopped);
                refused += 1;
            }
        }
        vm.regs(0);
    }
    println!("{refused} of {ROUNDS} refused");
}

/// The resume is answered once, by the hit or by the detach, and the debugger that attaches at once can run the guest.
#[test]
fn a_detach_that_crosses_a_hit_and_an_attach_right_behind_it_leave_the_guest_running() {
    let Some(vm) = guest(2) else {
        return;
    };
    let breakpoint = execute_at(in_loop(Mode::Long, 1));
    let mut count = vm.regs(0).gp[3];
    for _ in 0..ROUNDS {
        vm.insert(breakpoint);
        let resume = vm.resume();
        let detach = vm.send(DebugRequest::Detach, DetachAction::Resume);
        let attach = vm.send_attach();
        match answer(resume) {
            Ok(stop) => assert!(
                matches!(stop.reason, DebugStopReason::Breakpoint { .. }),
                "{stop:?}"
            ),
            Err(error) => assert_eq!(error, DebugError::Detached),
        }
        answer(detach).unwrap();
        vm.begin(answer(attach).unwrap());
        // No breakpoint was left armed: only the break ends a resume. The resume has moved the guest, or stopped it
        // before its next turn.
        interrupt(&vm, vm.resume());
        let now = vm.regs(0).gp[3];
        assert!(now >= count, "went back from {count} to {now}");
        count = now;
    }
    assert!(count > 0, "it ran");
}

/// I7: an event of one VP while another VP steps is reported at once or by the next resume.
#[test]
fn hits_of_others_while_a_vp_steps_are_all_reported() {
    let Some(vm) = guest(2) else {
        return;
    };
    vm.insert(execute_at(in_loop(Mode::Long, 1)));
    let (stepper, runner) = (VpIndex::new(0), VpIndex::new(1));
    let (mut hits, mut steps) = (0, 0);
    for _ in 0..ROUNDS {
        let request = ResumeRequest::new(VpAction::Run, vec![(stepper, VpAction::Step)]);
        match stop(vm.send(DebugRequest::Resume, request)) {
            DebugStopReason::SingleStep { vp } => {
                assert_eq!(vp, stepper);
                steps += 1;
            }
            DebugStopReason::Breakpoint { vp, .. } => hits += u64::from(vp == runner),
            other => panic!("{other:?}"),
        }
        let count = vm.regs(1).gp[3];
        assert!(
            count == hits || count == hits + 1,
            "counted to {count} with {hits} hits reported"
        );
    }
    assert!(hits > 0 && steps > 0, "{hits} hits, {steps} steps");
}

/// I2: no client sees registers while another VP still runs.
#[test]
fn registers_asked_for_while_a_stop_is_on_its_way_are_refused_or_the_stops() {
    let Some(vm) = guest(2) else {
        return;
    };
    for round in 0..ROUNDS {
        let resume = vm.resume();
        let early = vm.send(DebugRequest::GetVpState, VpIndex::new(1));
        let stopping = vm.send(DebugRequest::Break, ());
        let crossing = [0, 1].map(|vp| vm.send(DebugRequest::GetVpState, VpIndex::new(vp)));
        assert_eq!(answer(early).err(), Some(DebugError::NotStopped));
        let crossing = crossing.map(answer);
        answer(stopping).unwrap();
        assert_eq!(stop(resume), DebugStopReason::Break);
        for (index, state) in (0..).zip(crossing) {
            match state {
                Ok(state) => {
                    let shown = DebuggerVpState::X86_64(vm.regs(index));
                    assert_eq!(*state, shown, "round {round}, VP {index}");
                }
                Err(error) => assert_eq!(error, DebugError::NotStopped),
            }
        }
    }
}

/// The VMM ends the guest at any time: the resume is answered by the stop or by the end of the guest.
#[test]
fn an_end_by_the_vmm_that_crosses_a_hit_leaves_nobody_waiting() {
    for _ in 0..ROUNDS / 10 {
        let Some(vm) = guest(2) else {
            return;
        };
        vm.insert(execute_at(in_loop(Mode::Long, 1)));
        let resume = vm.resume();
        // The resume has been accepted when this is answered.
        vm.status();
        vm.handle.stop();
        match answer(resume) {
            Ok(stop) => assert!(
                matches!(stop.reason, DebugStopReason::Breakpoint { .. }),
                "{stop:?}"
            ),
            Err(error) => {
                // A VMM with run loops of its own may go on without the debugger.
                let how = match Shape::of_environment() {
                    None => GuestEnd::Stopped,
                    Some(_) => GuestEnd::Released,
                };
                assert_eq!(error, DebugError::Ended { how });
            }
        }
        assert_eq!(vm.join(), GuestEnd::Stopped);
    }
}

/// I8: no stop was reported there.
#[test]
fn a_breakpoint_set_where_a_kick_left_a_vp_on_the_byte_of_another_address_is_met() {
    let Some(vm) = guest(1) else {
        return;
    };
    let instructions = [0, 1, 2, 3].map(|index| in_loop(Mode::Long, index));
    // A second mapping of the guest's page, at 2 MiB.
    const ALIAS: u64 = 0x20_0000;
    vm.write_gva(0, 0x1_2008, &0xe3_u64.to_le_bytes()).unwrap();
    vm.insert(software_at(ALIAS + instructions[0]));
    if !is_byte(&vm) {
        return;
    }
    vm.remove(software_at(ALIAS + instructions[0]));
    let (mut reported, mut left) = (0, 0);
    let amount = Amount::turns(5 * ROUNDS, ROUNDS);
    for round in (0..).take_while(|round| amount.is_left(*round)) {
        for address in instructions {
            vm.insert(software_at(ALIAS + address));
        }
        let pending = vm.resume();
        interrupt(&vm, pending);
        for address in instructions {
            vm.remove(software_at(ALIAS + address));
        }
        let here = software_at(vm.regs(0).rip);
        vm.insert(here);
        // A VP that has not moved since its last stop was reported there.
        if reported != here.address.value() {
            let step = stop(vm.only(0, VpAction::Step));
            assert_eq!(step, hit(0, here), "round {round}");
            left += 1;
        }
        reported = here.address.value();
        vm.remove(here);
    }
    assert!(left > 0, "the VP never moved");
}

/// I8: no stop was reported there until the VP hits the breakpoint.
#[test]
fn a_breakpoint_set_where_a_break_found_a_vp_stepping_over_another_is_met_and_then_passed() {
    let Some(vm) = guest(2) else {
        return;
    };
    // An instruction that the runner does not carry out, so one VP at a time steps over it.
    let jump = in_loop(Mode::Long, 3);
    vm.insert(software_at(jump));
    let mut left = 0;
    let mut reported = [0; 2];
    let amount = Amount::turns(5 * ROUNDS, ROUNDS);
    for round in (0..).take_while(|round| amount.is_left(*round)) {
        let pending = vm.resume();
        vm.break_();
        answer(pending).unwrap();
        for index in 0..2 {
            let vp = VpIndex::new(index);
            let rip = vm.regs(index).rip;
            // A VP that has not moved since its last stop was reported there.
            if rip == jump || rip == reported[index as usize] {
                continue;
            }
            left += 1;
            let here = software_at(rip);
            vm.insert(here);
            let met = stop(vm.only(index, VpAction::Step));
            assert_eq!(met, hit(index, here), "round {round}");
            assert_eq!(vm.regs(index).rip, rip, "round {round}");
            let step = stop(vm.only(index, VpAction::Step));
            assert_eq!(step, DebugStopReason::SingleStep { vp }, "round {round}");
            reported[index as usize] = vm.regs(index).rip;
            vm.remove(here);
        }
    }
    println!("{left} times behind the breakpoint");
}

/// The runner injects the guest's `int3`, and a kick may come between its delivery and the end of the step.
#[test]
fn a_step_of_the_guests_own_int3_ends_at_its_handler_whatever_crosses_it() {
    let Ok(Int3::DebugExit) = probe::run().map(|report| report.int3_long) else {
        println!("SKIP: no INT3 of the guest's own is delivered here");
        return;
    };
    let mut code = vec![0xcc, 0x90, 0x90, 0x90];
    code.resize(0x20, 0x90);
    let Some(vm) = Setup::new(Mode::Long, &code).build() else {
        return;
    };
    vm.attach();
    const IDT: u64 = 0x9000;
    let handler = ENTRY + 8;
    let [low, high, ..] = handler.to_le_bytes();
    let gate = [low, high, 8, 0, 0, 0x8e, 0, 0];
    vm.write_gva(0, IDT + 3 * 16, &gate).unwrap();
    let mut start = vm.regs(0);
    (start.idtr.base, start.idtr.limit) = (IDT, 4 * 16 - 1);
    vm.insert(software_at(ENTRY + 0x1c));
    let elsewhere = software_at(ENTRY + 0x18);
    // With and without a breakpoint on the `int3`, which the step passes.
    for on_it in [None, Some(execute_at(ENTRY))] {
        if let Some(breakpoint) = on_it {
            vm.insert(breakpoint);
        }
        let amount = Amount::turns(6 * ROUNDS, 3 * ROUNDS);
        for round in (0..).take_while(|round| amount.is_left(*round)) {
            vm.try_set_regs(0, start.clone()).unwrap();
            if let Some(breakpoint) = on_it {
                // RIP was set, so the breakpoint there is hit first.
                assert_eq!(stop(vm.only(0, VpAction::Step)), hit(0, breakpoint));
            }
            let step = vm.only(0, VpAction::Step);
            let change = match round % 2 {
                0 => BreakpointChange::Insert(elsewhere),
                _ => BreakpointChange::Remove(elsewhere),
            };
            let changed = vm.send(DebugRequest::SetDebugState, vec![change]);
            let vp = VpIndex::BSP;
            assert_eq!(stop(step), DebugStopReason::SingleStep { vp });
            assert_eq!(vm.regs(0).rip, handler, "round {round}, {on_it:?}");
            answer(changed).unwrap();
        }
    }
}
