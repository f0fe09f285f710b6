//! Conditions of breakpoints, through RPC, on real guests.

use test_machine::machine;

use agent_expr::Expr;
use agent_expr::Limits;
use machine::guest::*;
use machine::software::software_at;
use machine::*;
use std::num::NonZeroU64;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::breakpoint::*;
use vmm_core_defs::condition::*;
use vmm_core_defs::debug_rpc::*;
use vmm_core_defs::regs::x86_64::Gp;
use vmm_core_defs::stop::DebugStopReason;

/// RAM that no test uses otherwise.
const DATA: u64 = 0x6000;

/// The register that the counting loop counts in.
fn count() -> Expr {
    Expr::register(ConditionRegister::General(Gp::Rbx).number())
}

fn number(value: u64) -> Expr {
    Expr::constant(value)
}

/// `count` is a multiple of this power of 2.
fn each(power: u64) -> Expr {
    count().bits_and(number(power - 1)).is_zero()
}

fn conditions(breakpoint: Breakpoint, conditions: &[Expr]) -> BreakpointConditions {
    let code = |condition: &Expr| {
        let condition = condition.assemble(Limits::default()).expect("short");
        Condition {
            code: condition.code().to_vec(),
        }
    };
    let conditions = conditions.iter().map(code).collect();
    BreakpointConditions {
        breakpoint,
        conditions,
        commands: Vec::new(),
    }
}

fn set(vm: &TestVm, breakpoint: Breakpoint, wanted: &[Expr]) {
    let wanted = conditions(breakpoint, wanted);
    vm.call(DebugRequest::SetConditions, wanted).unwrap();
}

/// Both kinds of breakpoints on an instruction.
fn both(address: u64) -> [Breakpoint; 2] {
    [software_at(address), execute_at(address)]
}

/// A guest in its counting loop, with a breakpoint of each kind in turn at the first `nop`.
fn each_kind(cpus: u32, test: impl Fn(&TestVm, Mode, Breakpoint)) {
    for mode in MODES {
        for breakpoint in both(in_loop(mode, 1)) {
            let setup = Setup::new(mode, &counting_loop(mode)).vps(cpus);
            let Some(vm) = setup.build() else { return };
            vm.attach();
            vm.insert(breakpoint);
            test(&vm, mode, breakpoint);
        }
    }
}

#[test]
fn a_hit_is_a_stop_where_the_condition_holds() {
    for cpus in [1, 2] {
        each_kind(cpus, |vm, mode, breakpoint| {
            set(vm, breakpoint, &[each(8)]);
            for turn in 1..=20 {
                let reason = stop(vm.only(0, VpAction::Run));
                assert_eq!(reason, hit(0, breakpoint), "{mode:?} {cpus}");
                let regs = vm.regs(0);
                assert_eq!((regs.rip, regs.gp[3]), (in_loop(mode, 1), 8 * turn));
            }
        });
    }
}

#[test]
fn each_vp_evaluates_its_own_hits_and_none_is_lost() {
    const CPUS: u32 = 4;
    const EACH: u64 = 128;
    const STOPS: u64 = 80;
    each_kind(CPUS, |vm, mode, breakpoint| {
        set(vm, breakpoint, &[each(EACH)]);
        let mut turns = [0; CPUS as usize];
        for _ in 0..STOPS {
            let DebugStopReason::Breakpoint { vp, .. } = stop(vm.resume()) else {
                panic!("no breakpoint");
            };
            let turn = &mut turns[vp.index() as usize];
            *turn += 1;
            let regs = vm.regs(vp.index());
            let expected = (in_loop(mode, 1), EACH * *turn);
            assert_eq!(
                (regs.rip, regs.gp[3]),
                expected,
                "{vp} {mode:?} {breakpoint:?}"
            );
        }
        assert!(turns.iter().all(|turns| *turns > 0), "{turns:?}");
        let counted = vm.call(DebugRequest::BreakpointHits, ()).unwrap();
        let [counted] = counted[..] else {
            panic!("{counted:?}");
        };
        let reached: u64 = (0..CPUS).map(|vp| vm.regs(vp).gp[3]).sum();
        // A VP may have counted, and stand before the breakpoint. Another may have a hit that is not reported.
        let range = reached - u64::from(CPUS)..=reached;
        assert!(
            range.contains(&counted.evaluations),
            "{counted:?}, {reached}"
        );
        assert!(counted.evaluations > 10_000, "{counted:?}");
        assert_eq!(counted.hits, counted.passes + STOPS);
    });
}

#[test]
fn one_condition_of_several_is_enough_and_none_makes_each_hit_a_stop() {
    each_kind(1, |vm, mode, breakpoint| {
        let is = |value| count().equals(number(value));
        set(vm, breakpoint, &[is(5), is(3), is(9)]);
        for expected in [3, 5, 9] {
            assert_eq!(stop(vm.resume()), hit(0, breakpoint), "{mode:?}");
            assert_eq!(vm.regs(0).gp[3], expected, "{mode:?}");
        }
        set(vm, breakpoint, &[is(12)]);
        assert_eq!(stop(vm.resume()), hit(0, breakpoint));
        assert_eq!(vm.regs(0).gp[3], 12);
        set(vm, breakpoint, &[]);
        assert_eq!(stop(vm.resume()), hit(0, breakpoint));
        assert_eq!(vm.regs(0).gp[3], 13);
        // The conditions go with the breakpoint.
        set(vm, breakpoint, &[number(0)]);
        vm.remove(breakpoint);
        vm.insert(breakpoint);
        assert_eq!(stop(vm.resume()), hit(0, breakpoint));
        assert_eq!(vm.regs(0).gp[3], 14);
    });
}

#[test]
fn a_condition_reads_memory_by_the_vps_page_tables_without_our_bytes() {
    each_kind(1, |vm, mode, breakpoint| {
        let code = number(breakpoint.address.value()).load_u8();
        set(
            vm,
            breakpoint,
            &[code.equals(number(0x90)).and_also(number(DATA).load_u32())],
        );
        let running = vm.resume();
        vm.break_();
        assert_eq!(stop(running), DebugStopReason::Break, "{mode:?}");
        vm.write_gva(0, DATA, &[0, 0, 1, 0]).unwrap();
        assert_eq!(stop(vm.resume()), hit(0, breakpoint), "{mode:?}");
    });
}

#[test]
fn a_condition_that_cannot_be_evaluated_is_a_stop_that_says_so() {
    each_kind(1, |vm, mode, breakpoint| {
        // No memory is there.
        set(vm, breakpoint, &[number(0xffff_0000).load_u32()]);
        let event = answer(vm.resume()).unwrap();
        assert_eq!(event.reason, hit(0, breakpoint), "{mode:?}");
        let failure = event.condition_failure.expect("a failure");
        assert!(failure.contains("0xffff0000"), "{failure}");
        set(vm, breakpoint, &[number(1)]);
        let event = answer(vm.resume()).unwrap();
        assert_eq!(event.condition_failure, None);
    });
}

/// Another VP has hit the breakpoint too, and its hit is not reported yet.
#[test]
fn a_hit_from_before_a_condition_is_decided_by_the_condition() {
    each_kind(4, |vm, mode, breakpoint| {
        for _ in 0..30 {
            set(vm, breakpoint, &[]);
            let DebugStopReason::Breakpoint { .. } = stop(vm.resume()) else {
                panic!("no breakpoint");
            };
            set(vm, breakpoint, &[number(0)]);
            let running = vm.resume();
            vm.break_();
            assert_eq!(stop(running), DebugStopReason::Break, "{mode:?}");
        }
    });
}

/// A client asks for the reason of a VP that has not met the breakpoint yet.
#[test]
fn a_vp_before_a_breakpoint_with_a_condition_has_no_hit_to_report() {
    each_kind(2, |vm, mode, breakpoint| {
        let ahead = |vp: u32| {
            let mut regs = vm.regs(vp);
            regs.rip = breakpoint.address.value();
            vm.try_set_regs(vp, regs).unwrap();
            vm.call(DebugRequest::StopReason, VpIndex::new(vp)).unwrap()
        };
        assert_eq!(ahead(0), Some(hit(0, breakpoint)), "{mode:?}");
        set(vm, breakpoint, &[number(0)]);
        assert_eq!(ahead(1), None, "{mode:?}");
        let stepped = DebugStopReason::SingleStep {
            vp: VpIndex::new(1),
        };
        assert_eq!(stop(vm.only(1, VpAction::Step)), stepped, "{mode:?}");
        set(vm, breakpoint, &[number(1)]);
        assert_ne!(ahead(1), Some(hit(1, breakpoint)), "{mode:?}");
        assert_eq!(stop(vm.only(1, VpAction::Run)), hit(1, breakpoint));
    });
}

#[test]
fn steps_pass_a_breakpoint_whose_condition_does_not_hold() {
    each_kind(2, |vm, mode, breakpoint| {
        set(vm, breakpoint, &[number(0)]);
        let stepped = DebugStopReason::SingleStep { vp: VpIndex::BSP };
        for turn in 0..12 {
            let expected = in_loop(mode, (turn + 1) % 4);
            assert_eq!(stop(vm.only(0, VpAction::Step)), stepped, "{mode:?}");
            assert_eq!(vm.regs(0).rip, expected, "{mode:?} {breakpoint:?}");
        }
        let count = NonZeroU64::new(40).unwrap();
        let event = answer(vm.only(0, VpAction::StepN { count })).unwrap();
        assert_eq!((event.reason, event.steps), (stepped, Some(40)));
        assert_eq!(vm.regs(0).gp[3], 13, "{mode:?} {breakpoint:?}");
        // A step from the breakpoint whose stop was reported is not affected.
        set(vm, breakpoint, &[number(1)]);
        assert_eq!(stop(vm.only(0, VpAction::Run)), hit(0, breakpoint));
        assert_eq!(stop(vm.only(0, VpAction::Step)), stepped);
        assert_eq!(vm.regs(0).rip, in_loop(mode, 2));
    });
}

#[test]
fn a_break_stops_a_guest_whose_conditions_are_all_false() {
    each_kind(2, |vm, _, breakpoint| {
        set(vm, breakpoint, &[number(0)]);
        for _ in 0..20 {
            let running = vm.resume();
            vm.break_();
            assert_eq!(stop(running), DebugStopReason::Break);
        }
    });
}

#[test]
fn wrong_conditions_are_refused_and_change_nothing() {
    let mode = Mode::Long;
    let Some(vm) = Setup::new(mode, &counting_loop(mode)).build() else {
        return;
    };
    vm.attach();
    let breakpoint = software_at(in_loop(mode, 1));
    let missing = vm.call(
        DebugRequest::SetConditions,
        conditions(breakpoint, &[number(1)]),
    );
    let address = breakpoint.address;
    assert_eq!(missing, Err(DebugError::NoSuchBreakpoint { address }));
    vm.insert(breakpoint);
    set(&vm, breakpoint, &[each(4)]);
    let wrong: [(&[u8], &str); 5] = [
        (&[], ""),
        (&[0x27], "value"),
        (&[0x22, 1], ""),
        (&[0x26, 0xff, 0xff, 0x27], "register 65535"),
        (&[0xff, 0x27], ""),
    ];
    for (code, words) in wrong {
        let code = code.to_vec();
        let wanted = BreakpointConditions {
            breakpoint,
            conditions: vec![Condition { code }],
            commands: Vec::new(),
        };
        match vm.call(DebugRequest::SetConditions, wanted) {
            Err(DebugError::BadCondition { problem, .. }) => {
                assert!(problem.contains(words), "{problem}");
            }
            other => panic!("{other:?}"),
        }
    }
    let one = conditions(breakpoint, &[number(1)]).conditions.remove(0);
    let many = BreakpointConditions {
        breakpoint,
        conditions: vec![one; 1_001],
        commands: Vec::new(),
    };
    let refused = vm.call(DebugRequest::SetConditions, many);
    assert!(matches!(refused, Err(DebugError::BadCondition { .. })));
    assert_eq!(stop(vm.resume()), hit(0, breakpoint));
    assert_eq!(vm.regs(0).gp[3], 4);
}

/// `loop: jmp loop` in bytecode.
#[test]
fn an_evaluation_without_end_is_a_stop() {
    let mode = Mode::Long;
    let Some(vm) = Setup::new(mode, &counting_loop(mode)).build() else {
        return;
    };
    vm.attach();
    let breakpoint = software_at(in_loop(mode, 1));
    vm.insert(breakpoint);
    let wanted = BreakpointConditions {
        breakpoint,
        conditions: vec![Condition {
            code: vec![0x21, 0, 0],
        }],
        commands: Vec::new(),
    };
    vm.call(DebugRequest::SetConditions, wanted).unwrap();
    let event = answer(vm.resume()).unwrap();
    assert_eq!(event.reason, hit(0, breakpoint));
    assert!(event.condition_failure.is_some());
}

#[test]
fn a_watchpoint_stops_where_its_condition_holds() {
    // inc ebx; mov [6000h], ebx; jmp
    let mut code = vec![0xff, 0xc3, 0x89, 0x1c, 0x25, 0, 0x60, 0, 0];
    jump_to_start(&mut code);
    let Some(vm) = Setup::new(Mode::Long, &code).build() else {
        return;
    };
    vm.attach();
    let breakpoint = Breakpoint {
        kind: BreakpointKind::Write,
        len: 4,
        ..execute_at(DATA)
    };
    let inserted = vm.call(
        DebugRequest::SetDebugState,
        vec![BreakpointChange::Insert(breakpoint)],
    );
    if let Err(error) = inserted {
        println!("SKIP: {error}");
        return;
    }
    set(
        &vm,
        breakpoint,
        &[number(DATA).load_u32().bits_and(number(7)).is_zero()],
    );
    for turn in 1..=10 {
        let DebugStopReason::Watchpoint { .. } = stop(vm.resume()) else {
            panic!("no watchpoint");
        };
        assert_eq!(vm.regs(0).gp[3], 8 * turn);
    }
    set(&vm, breakpoint, &[number(0)]);
    let stepped = DebugStopReason::SingleStep { vp: VpIndex::BSP };
    for _ in 0..9 {
        assert_eq!(stop(vm.only(0, VpAction::Step)), stepped);
    }
    assert_eq!(vm.regs(0).gp[3], 83);
}

/// `bswap`, which nobody carries out in place of a VP, takes a debug register: there a VP passes without the others.
#[test]
fn a_breakpoint_that_would_stop_the_other_vps_takes_a_debug_register() {
    for mode in MODES {
        // `bswap eax; inc ebx; jmp` back, in each mode's form of `inc`.
        let mut code = vec![0x0f, 0xc8];
        code.extend(counting_loop(mode));
        let Some(vm) = Setup::new(mode, &code).vps(2).build() else {
            return;
        };
        vm.attach();
        let breakpoint = software_at(ENTRY);
        vm.insert(breakpoint);
        set(&vm, breakpoint, &[number(0)]);
        let running = vm.resume();
        vm.break_();
        assert_eq!(stop(running), DebugStopReason::Break, "{mode:?}");
        let armed = vm.call(DebugRequest::Breakpoints, ()).unwrap();
        let by_register = matches!(armed[0].arming, Arming::DebugRegister { .. });
        assert!(by_register, "{mode:?} {armed:?}");
        set(&vm, breakpoint, &[]);
    }
}
