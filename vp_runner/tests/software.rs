//! Software breakpoints, by requests, on real guests: bytes in memory that only the runner sees.

use test_machine::machine;

use machine::guest::*;
use machine::software::*;
use machine::*;
use std::time::Duration;
use std::time::Instant;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::GuestAddress;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::breakpoint::*;
use vmm_core_defs::debug_rpc::*;
use vmm_core_defs::stop::DebugStopReason;

/// The duration of the tests that repeat an operation.
const A_WHILE: Duration = Duration::from_secs(3);

fn physical(vm: &TestVm, gpa: u64, len: usize) -> Vec<u8> {
    let address = GuestAddress::Gpa(Gpa::new(gpa));
    vm.call(DebugRequest::ReadMemory, (address, len)).unwrap()
}

/// The modes in which the test runs.
fn modes() -> impl Iterator<Item = Mode> {
    [Mode::Protected, Mode::Long].into_iter()
}

#[test]
fn a_breakpoint_is_a_byte_and_every_continue_goes_round_the_loop_exactly_once() {
    for mode in modes() {
        let Some(vm) = Setup::new(mode, &counting_loop(mode)).build() else {
            return;
        };
        vm.attach();
        let breakpoint = software_at(in_loop(mode, 2));
        vm.insert(breakpoint);
        if !is_byte(&vm) {
            return;
        }
        assert_eq!(raw(&vm, in_loop(mode, 2), 1), [0xcc]);
        let start = Instant::now();
        for turn in 1..=200 {
            assert_eq!(stop(vm.resume()), hit(0, breakpoint), "{mode:?}");
            let regs = vm.regs(0);
            assert_eq!((regs.rip, regs.gp[3]), (in_loop(mode, 2), turn));
        }
        println!("{mode:?}: a continue in {:?}", start.elapsed() / 200);
    }
}

/// The requests of GDB at every stop: remove all breakpoints, step, insert all breakpoints, continue.
#[test]
fn a_client_that_removes_and_steps_and_inserts_gets_the_same() {
    let mode = Mode::Long;
    let Some(vm) = Setup::new(mode, &counting_loop(mode)).build() else {
        return;
    };
    vm.attach();
    let breakpoint = software_at(in_loop(mode, 1));
    for turn in 1..=50 {
        vm.insert(breakpoint);
        assert_eq!(stop(vm.resume()), hit(0, breakpoint));
        vm.remove(breakpoint);
        assert_eq!(vm.regs(0).gp[3], turn);
        vm.step(0);
        assert_eq!(vm.regs(0).rip, in_loop(mode, 2));
    }
}

#[test]
fn a_step_leaves_the_byte_that_the_vp_stands_on_and_stops_on_the_next() {
    let mode = Mode::Long;
    let Some(vm) = Setup::new(mode, &counting_loop(mode)).build() else {
        return;
    };
    vm.attach();
    for n in 0..4 {
        vm.insert(software_at(in_loop(mode, n)));
    }
    let first = software_at(in_loop(mode, 0));
    assert_eq!(stop(vm.only(0, VpAction::Step)), hit(0, first));
    for n in 1..=12 {
        vm.step(0);
        assert_eq!(vm.regs(0).rip, in_loop(mode, n % 4));
    }
    // A range step over breakpoint bytes goes on to the first that was not reported.
    let range = VpAction::StepRange {
        start: Gva::new(ENTRY),
        end: Gva::new(in_loop(mode, 3)),
    };
    let met = software_at(in_loop(mode, 1));
    assert_eq!(stop(vm.only(0, range)), hit(0, met));
}

#[test]
fn a_debug_register_right_behind_a_byte_is_met() {
    let mode = Mode::Long;
    let Some(vm) = Setup::new(mode, &counting_loop(mode)).build() else {
        return;
    };
    vm.attach();
    let software = software_at(in_loop(mode, 1));
    let hardware = execute_at(in_loop(mode, 2));
    vm.insert(software);
    vm.insert(hardware);
    for turn in 1..=20 {
        for breakpoint in [software, hardware] {
            assert_eq!(stop(vm.resume()), hit(0, breakpoint));
            assert_eq!(vm.regs(0).gp[3], turn);
        }
    }
}

#[test]
fn the_debugger_sees_and_writes_the_guests_own_bytes() {
    let mode = Mode::Long;
    let code = counting_loop(mode);
    let Some(vm) = Setup::new(mode, &code).build() else {
        return;
    };
    vm.attach();
    let breakpoint = software_at(in_loop(mode, 1));
    vm.insert(breakpoint);
    if !is_byte(&vm) {
        return;
    }
    assert_eq!(vm.read_gva(0, ENTRY, code.len()), Ok(code.clone()));
    assert_eq!(physical(&vm, ENTRY, code.len()), code);
    // A write under the breakpoint: the nops become `inc ecx`, whose first byte is the breakpoint's.
    vm.write_gva(0, in_loop(mode, 1), &[0xff, 0xc1]).unwrap();
    assert_eq!(raw(&vm, in_loop(mode, 1), 2), [0xcc, 0xc1]);
    assert_eq!(vm.read_gva(0, in_loop(mode, 1), 2), Ok(vec![0xff, 0xc1]));
    for turn in 1..=3 {
        assert_eq!(stop(vm.resume()), hit(0, breakpoint));
        assert_eq!(vm.regs(0).gp[1], turn - 1);
    }
    // Across a page boundary, with breakpoint bytes on both sides.
    vm.insert(software_at(0x6fff));
    vm.insert(software_at(0x7000));
    vm.write_gva(0, 0x6ffe, &[1, 2, 3, 4]).unwrap();
    assert_eq!(raw(&vm, 0x6ffe, 4), [1, 0xcc, 0xcc, 4]);
    assert_eq!(vm.read_gva(0, 0x6ffe, 4), Ok(vec![1, 2, 3, 4]));
    assert_eq!(physical(&vm, 0x6ffe, 4), [1, 2, 3, 4]);
    vm.remove(software_at(0x6fff));
    assert_eq!(raw(&vm, 0x6ffe, 4), [1, 2, 0xcc, 4]);
}

/// I6, with every way in which a session can end.
#[test]
fn no_byte_stays_behind_however_the_debugger_goes() {
    for way in 0..5 {
        let mode = Mode::Long;
        let Some(mut vm) = Setup::new(mode, &telling_loop(mode)).vps(2).build() else {
            return;
        };
        let untouched = vm.machine.raw_memory();
        vm.attach();
        // A held guest would stay held.
        vm.step(0);
        for n in 0..200 {
            vm.insert(software_at(0x5000 + 3 * n));
        }
        let breakpoint = software_at(ENTRY);
        vm.insert(breakpoint);
        if vm.machine.raw_memory() == untouched {
            println!("SKIP: INT3 does not trap here");
            return;
        }
        let told = vm.machine.wait_until("now", |_| true).told.len();
        match way {
            0 => {
                let DebugStopReason::Breakpoint { .. } = stop(vm.resume()) else {
                    panic!("not a breakpoint");
                };
                vm.detach(DetachAction::Resume);
            }
            1 => {
                vm.remove(breakpoint);
                let pending = vm.resume();
                vm.detach(DetachAction::Resume);
                assert_eq!(answer(pending), Err(DebugError::Detached));
            }
            2 => vm.drop_channel(),
            3 => {
                // While a VP steps over a breakpoint.
                let pending = vm.resume();
                vm.drop_channel();
                drop(pending);
            }
            _ => {
                let pending = vm.only(0, VpAction::Step);
                vm.detach(DetachAction::Stay);
                drop(pending);
                assert_untouched(&vm, &untouched, "at the end");
                vm.drop_channel();
            }
        }
        vm.machine.wait_until("it runs on", |seen| {
            (0..2).all(|vp| {
                let tells = seen.told[told..].iter();
                tells.filter(|(by, _)| by.index() == vp).count() > 20
            })
        });
        assert_untouched(&vm, &untouched, &format!("way {way}"));
    }
}

#[test]
fn ten_thousand_breakpoints_cost_one_no_more_than_ten_do() {
    let mode = Mode::Long;
    let Some(vm) = Setup::new(mode, &counting_loop(mode)).build() else {
        return;
    };
    let untouched = vm.machine.raw_memory();
    vm.attach();
    let one = software_at(0x10_0000);
    let hundred = [BreakpointChange::Insert(one), BreakpointChange::Remove(one)].repeat(100);
    // All breakpoints in one request. The fastest of several requests counts, so that other work on this machine has no effect.
    let fastest = || {
        let times = (0..10).map(|_| {
            let start = Instant::now();
            vm.call(DebugRequest::SetDebugState, hundred.clone())
                .unwrap();
            start.elapsed()
        });
        times.min().unwrap_or_default()
    };
    let all: Vec<_> = (0..10_000).map(|n| software_at(0x2_0000 + 2 * n)).collect();
    let insert = |breakpoints: &[Breakpoint]| {
        let inserts = breakpoints.iter().copied().map(BreakpointChange::Insert);
        vm.call(DebugRequest::SetDebugState, inserts.collect())
            .unwrap();
    };
    insert(&all[..10]);
    let few = fastest();
    insert(&all[10..]);
    let breakpoint = software_at(in_loop(mode, 1));
    vm.insert(breakpoint);
    let many = fastest();
    println!("100 insertions and removals: {few:?} among 10, {many:?} among 10,000");
    assert!(
        many < few * 4 + Duration::from_millis(5),
        "{few:?} {many:?}"
    );
    assert_eq!(raw(&vm, 0x2_0000, 4), [0xcc, 0, 0xcc, 0]);
    assert_eq!(physical(&vm, 0x2_0000, 20_000), vec![0; 20_000]);
    for turn in 1..=20 {
        assert_eq!(stop(vm.resume()), hit(0, breakpoint));
        assert_eq!(vm.regs(0).gp[3], turn);
    }
    let removes = all.into_iter().map(BreakpointChange::Remove).collect();
    vm.call(DebugRequest::SetDebugState, removes).unwrap();
    vm.detach(DetachAction::Stay);
    assert_untouched(&vm, &untouched, "at the end");
}

/// Every VP counts in EBX and hits two breakpoints per turn. The reports have to agree with the guest's count, for each
/// VP. The runner carries out the `nop`s while other VPs run; the jump has to be executed while the other VPs are
/// parked.
#[test]
fn no_vp_slips_past_a_breakpoint_that_others_step_over() {
    for (vps, second) in [(4, 2), (8, 2), (4, 3)] {
        let mode = Mode::Long;
        let Some(vm) = Setup::new(mode, &counting_loop(mode)).vps(vps).build() else {
            return;
        };
        vm.attach();
        let all = [1, second].map(|n| software_at(in_loop(mode, n)));
        all.iter().for_each(|breakpoint| vm.insert(*breakpoint));
        let mut hits = vec![[0_u64; 2]; vps as usize];
        let end = Instant::now() + A_WHILE;
        while Instant::now() < end {
            let DebugStopReason::Breakpoint { vp, breakpoint } = stop(vm.resume()) else {
                panic!("not a breakpoint");
            };
            let of_vp = &mut hits[vp.index() as usize];
            let which = usize::from(breakpoint == all[1]);
            of_vp[which] += 1;
            // The increment comes before both breakpoints.
            let regs = vm.regs(vp.index());
            assert_eq!(regs.gp[3], of_vp[0], "VP {vp} at {breakpoint:?}");
            assert_eq!(of_vp[0] - of_vp[1], 1 - which as u64, "VP {vp}");
            assert_eq!(regs.rip, breakpoint.address.value());
        }
        // A VP may have a hit that was not reported yet.
        for vp in 0..vps {
            let [first, second] = hits[vp as usize];
            let counted = vm.regs(vp).gp[3];
            assert!(counted - first <= 1 && counted - second <= 1, "VP {vp}");
            assert!(first > 0, "VP {vp} never came round: {hits:?}");
        }
        println!("{vps} VPs, breakpoints 1 and {second}: hits {hits:?}");
    }
}

#[test]
fn a_loop_of_one_instruction_is_met_at_each_turn() {
    let Some(vm) = Setup::new(Mode::Long, &[0xeb, 0xfe]).build() else {
        return;
    };
    vm.attach();
    let breakpoint = software_at(ENTRY);
    vm.insert(breakpoint);
    for _ in 0..20 {
        assert_eq!(stop(vm.resume()), hit(0, breakpoint));
    }
}

/// I9. Real mode: points vector 3 at the handler; `int3; inc bx; out tell, al; jmp $`; the handler counts in DI.
#[test]
fn the_guests_own_int3_reaches_its_handler_once_and_stops_nobody() {
    let handler = ENTRY + 18;
    let [low, high, ..] = handler.to_le_bytes();
    let mut code = vec![0xc7, 0x06, 12, 0, low, high, 0xc7, 0x06, 14, 0, 0, 0];
    code.extend([0xcc, 0x43, 0xe6, PORT_TELL, 0xeb, 0xfe, 0x47, 0xcf]);
    let Some(vm) = Setup::new(Mode::Real, &code).build() else {
        return;
    };
    vm.attach();
    vm.insert(software_at(0x5000));
    let end = software_at(ENTRY + 16);
    vm.insert(end);
    match &armings(&vm)[..] {
        [Arming::Memory { .. }, ..] => {}
        other => println!("on debug registers here: {other:?}"),
    }
    let reason = stop(vm.resume());
    assert_eq!(reason, hit(0, end));
    let regs = vm.regs(0);
    assert_eq!((regs.gp[7], regs.gp[3]), (1, 1));
    assert_eq!(vm.regs(0).rip, end.address.value());
}

#[test]
fn without_a_probe_software_breakpoints_are_on_debug_registers() {
    let mode = Mode::Long;
    let Some(vm) = Setup::new(mode, &counting_loop(mode)).unprobed().build() else {
        return;
    };
    let untouched = vm.machine.raw_memory();
    vm.attach();
    for n in 0..4 {
        vm.insert(software_at(in_loop(mode, n)));
    }
    let fifth = vec![BreakpointChange::Insert(software_at(0x5000))];
    assert_eq!(
        vm.call(DebugRequest::SetDebugState, fifth),
        Err(DebugError::NoFreeSlot { slots: 4 })
    );
    assert_untouched(&vm, &untouched, "at the end");
    for n in 0..4 {
        assert_eq!(stop(vm.resume()), hit(0, software_at(in_loop(mode, n))));
    }
    assert_eq!(vm.regs(0).gp[3], 1);
}

/// A step over an instruction on registers only, after which KVM keeps its step setting; then an instruction under a
/// breakpoint byte, which the runner carries out while the others run, with a write of RIP; then another step.
#[test]
fn a_step_after_one_that_was_carried_out_steps() {
    const SPIN: u64 = ENTRY + 0x10;
    // inc ebx; nop; mov eax, [1000h]; nop; jmp to the start
    let mut code = vec![0xff, 0xc3, 0x90, 0x8b, 4, 0x25, 0, 0x10, 0, 0, 0x90];
    code.extend([0xeb, 0xf3]);
    code.resize(0x10, 0);
    code.extend([0xeb, 0xfe]);
    let Some(vm) = Setup::new(Mode::Long, &code).vps(2).build() else {
        return;
    };
    vm.attach();
    let mut regs = vm.regs(0);
    regs.rip = SPIN;
    vm.try_set_regs(0, regs).unwrap();
    vm.insert(software_at(ENTRY + 2));
    vm.step(1);
    for turn in 1..=20 {
        let request = ResumeRequest::new(VpAction::Run, vec![(VpIndex::new(1), VpAction::Step)]);
        let vp = VpIndex::new(1);
        let reason = stop(vm.send(DebugRequest::Resume, request));
        assert_eq!(reason, DebugStopReason::SingleStep { vp }, "turn {turn}");
        for rip in [3, 10, 11, 0, 2] {
            assert_eq!(vm.regs(1).rip, ENTRY + rip, "turn {turn}");
            if rip != 2 {
                vm.step(1);
            }
        }
        assert_eq!(vm.regs(1).gp[3], turn + 1);
    }
}
