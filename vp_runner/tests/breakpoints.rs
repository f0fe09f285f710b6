//! Breakpoints and watchpoints, through RPC, on real guests.

use test_machine::machine;

use machine::guest::*;
use machine::*;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::breakpoint::Pending;
use vmm_core_defs::breakpoint::*;
use vmm_core_defs::debug_rpc::*;
use vmm_core_defs::stop::DebugStopReason;

#[test]
fn every_continue_over_a_breakpoint_goes_round_the_loop_exactly_once() {
    for mode in MODES {
        let Some(vm) = Setup::new(mode, &counting_loop(mode)).build() else {
            return;
        };
        vm.attach();
        let breakpoint = execute_at(in_loop(mode, 2));
        vm.insert(breakpoint);
        for turn in 1..=50 {
            assert_eq!(stop(vm.resume()), hit(0, breakpoint), "{mode:?}");
            let regs = vm.regs(0);
            assert_eq!((regs.rip, regs.gp[3]), (in_loop(mode, 2), turn));
        }
    }
}

#[test]
fn a_software_breakpoint_is_reported_as_the_client_inserted_it() {
    let code = counting_loop(Mode::Long);
    let Some(vm) = Setup::new(Mode::Long, &code).build() else {
        return;
    };
    vm.attach();
    let software = Breakpoint {
        kind: BreakpointKind::Software,
        ..execute_at(in_loop(Mode::Long, 1))
    };
    vm.insert(software);
    vm.insert(software);
    assert_eq!(stop(vm.resume()), hit(0, software));
    assert_eq!(vm.read_gva(0, ENTRY, code.len()), Ok(code), "guest memory");
    vm.remove(software);
    let changes = vec![BreakpointChange::Remove(software)];
    let address = software.address;
    assert_eq!(
        vm.call(DebugRequest::SetDebugState, changes),
        Err(DebugError::NoSuchBreakpoint { address })
    );
}

#[test]
fn a_breakpoint_set_where_the_guest_stands_is_met_and_then_passed() {
    for action in [VpAction::Run, VpAction::Step] {
        let Some(vm) = Setup::new(Mode::Long, &counting_loop(Mode::Long)).build() else {
            return;
        };
        vm.attach();
        let breakpoint = execute_at(ENTRY);
        vm.insert(breakpoint);
        assert_eq!(stop(vm.only(0, action)), hit(0, breakpoint), "{action:?}");
        let regs = vm.regs(0);
        assert_eq!((regs.rip, regs.gp[3]), (ENTRY, 0), "{action:?}");
        let reason = stop(vm.only(0, action));
        let regs = vm.regs(0);
        match action {
            VpAction::Run => assert_eq!(reason, hit(0, breakpoint)),
            _ => assert_eq!(regs.rip, in_loop(Mode::Long, 1)),
        }
        assert_eq!(regs.gp[3], 1, "{action:?}");
    }
}

/// The VP has stopped at a breakpoint that was reported. It passes the breakpoint unless the client sets RIP, or sets
/// RSP as for a call, by any request.
#[test]
fn a_breakpoint_is_met_again_where_the_client_has_set_rip_and_passed_where_it_has_not() {
    let Some(vm) = Setup::new(Mode::Long, &counting_loop(Mode::Long)).build() else {
        return;
    };
    vm.attach();
    let [first, second] = [1, 2].map(|n| execute_at(in_loop(Mode::Long, n)));
    vm.insert(first);
    assert_eq!(stop(vm.resume()), hit(0, first));
    // Asserts whether the next resume goes round the loop.
    let goes_round = |what: &str, goes: bool| {
        let before = vm.regs(0).gp[3];
        assert_eq!(stop(vm.resume()), hit(0, first), "{what}");
        assert_eq!(vm.regs(0).gp[3] - before, u64::from(goes), "{what}");
    };
    let mut regs = vm.regs(0);
    regs.gp[0] = 0x1234;
    vm.try_set_regs(0, regs.clone()).unwrap();
    goes_round("another register", true);
    vm.call(DebugRequest::Redirect, VpIndex::BSP).unwrap();
    goes_round("RIP as it was", false);
    let mut called = vm.regs(0);
    called.gp[4] = called.gp[4].wrapping_sub(8);
    vm.try_set_regs(0, called).unwrap();
    goes_round("RSP", false);
    let mut refused = vm.regs(0);
    refused.cr0 = 1 << 31;
    vm.try_set_regs(0, refused).unwrap_err();
    goes_round("a write that failed", true);
    vm.insert(second);
    let mut moved = vm.regs(0);
    let count = moved.gp[3];
    moved.rip = second.address.value();
    vm.try_set_regs(0, moved).unwrap();
    assert_eq!(stop(vm.resume()), hit(0, second));
    assert_eq!(vm.regs(0).gp[3], count);
}

#[test]
fn a_step_onto_a_breakpoint_moves_one_instruction_and_the_next_one_leaves_it() {
    let Some(vm) = Setup::new(Mode::Long, &counting_loop(Mode::Long)).build() else {
        return;
    };
    vm.attach();
    vm.insert(execute_at(in_loop(Mode::Long, 1)));
    vm.insert(execute_at(in_loop(Mode::Long, 2)));
    for n in 1..=8 {
        let reason = stop(vm.only(0, VpAction::Step));
        let rip = vm.regs(0).rip;
        assert_eq!(rip, in_loop(Mode::Long, n % 4));
        // Some CPUs report the step and the breakpoint behind it in one exception. Then the breakpoint is reported.
        let vp = VpIndex::BSP;
        let met = [DebugStopReason::SingleStep { vp }, hit(0, execute_at(rip))];
        assert!(met.contains(&reason), "{reason:?}");
    }
}

#[test]
fn four_breakpoints_all_hit_and_a_fifth_is_refused() {
    let Some(vm) = Setup::new(Mode::Long, &counting_loop(Mode::Long)).build() else {
        return;
    };
    vm.attach();
    let all: Vec<_> = (0..4).map(|n| execute_at(in_loop(Mode::Long, n))).collect();
    all.iter().for_each(|breakpoint| vm.insert(*breakpoint));
    let fifth = vec![BreakpointChange::Insert(execute_at(0x5000))];
    assert_eq!(
        vm.call(DebugRequest::SetDebugState, fifth),
        Err(DebugError::NoFreeSlot { slots: 4 })
    );
    for n in 0..8 {
        assert_eq!(stop(vm.resume()), hit(0, all[n % 4]));
    }
}

#[test]
fn a_breakpoint_set_and_removed_while_the_guest_runs_takes_effect() {
    let code = telling_loop(Mode::Long);
    let Some(vm) = Setup::new(Mode::Long, &code).vps(2).build() else {
        return;
    };
    vm.attach();
    let pending = vm.resume();
    vm.machine.wait_until("both run", |seen| {
        (0..2).all(|vp| seen.told.iter().any(|(told, _)| told.index() == vp))
    });
    let breakpoint = execute_at(ENTRY);
    vm.insert(breakpoint);
    let DebugStopReason::Breakpoint { vp, .. } = stop(pending) else {
        panic!("not a breakpoint");
    };
    assert_eq!(vm.regs(vp.index()).rip, ENTRY);
    // A breakpoint that no VP reaches: the guest runs on after the change.
    let pending = vm.send(DebugRequest::Resume, ResumeRequest::every(VpAction::Run));
    let elsewhere = execute_at(0x5000);
    let changes = vec![
        BreakpointChange::Remove(breakpoint),
        BreakpointChange::Insert(elsewhere),
    ];
    vm.call(DebugRequest::SetDebugState, changes).unwrap();
    // A hit may have come before the removal. Then it was the stop.
    let told = vm.machine.wait_until("now", |_| true).told.len();
    vm.break_();
    match stop(pending) {
        DebugStopReason::Break => {}
        reason => assert!(matches!(reason, DebugStopReason::Breakpoint { .. })),
    }
    let pending = vm.resume();
    vm.machine
        .wait_until("it runs on", |seen| seen.told.len() > told + 10);
    interrupt(&vm, pending);
}

#[test]
fn breakpoints_the_hardware_cannot_watch_are_refused() {
    let Some(vm) = Setup::new(Mode::Long, &counting_loop(Mode::Long))
        .unprobed()
        .build()
    else {
        return;
    };
    vm.attach();
    for (address, len) in [
        (0x6001, 2),
        (0x6004, 8),
        (0x6000, 3),
        (0x6000, 0),
        (0x6000, u64::MAX),
    ] {
        let address = Gva::new(address);
        let kind = BreakpointKind::Write;
        let bad = Breakpoint { kind, address, len };
        assert_eq!(
            vm.call(
                DebugRequest::SetDebugState,
                vec![BreakpointChange::Insert(bad)]
            ),
            Err(DebugError::BadBreakpoint { address, len })
        );
    }
}

/// `inc ebx; mov [0x6000], ebx; mov edx, [0x6008]; out tell, al; jmp` to the start.
fn storing_loop() -> Vec<u8> {
    let mut code = vec![0xff, 0xc3, 0x89, 0x1c, 0x25, 0, 0x60, 0, 0];
    code.extend([0x8b, 0x14, 0x25, 8, 0x60, 0, 0, 0xe6, PORT_TELL]);
    jump_to_start(&mut code);
    code
}

#[test]
fn watchpoints_stop_after_the_access() {
    let cases = [
        (BreakpointKind::Write, 0x6000, 4, 0x1009),
        (BreakpointKind::Write, 0x6001, 1, 0x1009),
        (BreakpointKind::ReadWrite, 0x6008, 4, 0x1010),
        (BreakpointKind::Read, 0x6008, 2, 0x1010),
    ];
    for (kind, address, len, rip) in cases {
        let Some(vm) = Setup::new(Mode::Long, &storing_loop()).build() else {
            return;
        };
        vm.attach();
        let address = Gva::new(address);
        let breakpoint = Breakpoint { kind, address, len };
        let watch = vec![BreakpointChange::Insert(breakpoint)];
        if let Err(DebugError::Unsupported(why)) = vm.call(DebugRequest::SetDebugState, watch) {
            println!("SKIP: {why}");
            return;
        }
        // Behind both accesses: hit only if the watchpoint did not fire.
        let backstop = execute_at(0x1010);
        let backstop = match rip {
            0x1010 => execute_at(0x1012),
            _ => backstop,
        };
        vm.insert(backstop);
        let reason = stop(vm.resume());
        vm.remove(backstop);
        let vp = VpIndex::BSP;
        let watch = DebugStopReason::Watchpoint {
            vp,
            breakpoint,
            address,
        };
        assert_eq!(reason, watch);
        assert_eq!(vm.regs(0).rip, rip, "{kind:?}");
        assert_eq!(stop(vm.resume()), watch, "and again");
    }
}

/// I9. Real mode: points vector 1 at the handler; `int1; inc bx; out tell, al; jmp $`; the handler counts in DI.
#[test]
fn the_guests_own_debug_exception_reaches_its_handler_while_breakpoints_are_set() {
    let handler = ENTRY + 18;
    let [low, high, ..] = handler.to_le_bytes();
    let mut code = vec![0xc7, 0x06, 4, 0, low, high, 0xc7, 0x06, 6, 0, 0, 0];
    code.extend([0xf1, 0x43, 0xe6, PORT_TELL, 0xeb, 0xfe, 0x47, 0xcf]);
    let Some(vm) = Setup::new(Mode::Real, &code).build() else {
        return;
    };
    vm.attach();
    vm.insert(execute_at(0x5000));
    let end = execute_at(ENTRY + 16);
    vm.insert(end);
    let reason = stop(vm.resume());
    if let DebugStopReason::Crashed { cause, .. } = reason {
        println!("SKIP: this host's KVM cannot execute INT1: {cause:?}");
        return;
    }
    assert_eq!(reason, hit(0, end));
    let regs = vm.regs(0);
    assert_eq!(
        (regs.gp[7], regs.gp[3]),
        (1, 1),
        "handler runs, then the guest goes on"
    );
}

/// GDB lets a called function return to a byte of the guest's stack, whose page is not executable. The fetch faults
/// before any `INT3`.
#[test]
fn a_software_breakpoint_on_a_page_that_is_not_executable_is_met() {
    use vmm_core_defs::addr::Gpa;
    use vmm_core_defs::addr::GuestAddress;
    const EFER: u32 = 0xc000_0080;
    const LONG_MODE_WITH_NXE: u64 = 0xd00;
    /// The entry for the gigabyte from [`HIGH`] on, and the table that it points to.
    const PDPT_ENTRY: u64 = 0x1_1008;
    const TABLE: u64 = 0x1_5000;
    /// A second mapping of the 2 MiB of RAM, without permission to execute.
    const HIGH: u64 = 0x4000_0000;
    const STACK: u64 = 0x8000;
    let ret = [0xc3];
    let Some(vm) = Setup::new(Mode::Long, &ret).build() else {
        return;
    };
    vm.attach();
    let efer = (VpIndex::BSP, EFER, LONG_MODE_WITH_NXE);
    assert_eq!(vm.call(DebugRequest::WriteMsr, efer), Ok(()));
    let put = |gpa: u64, value: u64| {
        let at = GuestAddress::Gpa(Gpa::new(gpa));
        let bytes = value.to_le_bytes().to_vec();
        assert_eq!(vm.call(DebugRequest::WriteMemory, (at, bytes)), Ok(()));
    };
    put(PDPT_ENTRY, TABLE | 0x23);
    put(TABLE, 1 << 63 | 0xe3);
    let back = HIGH + 0x7fff;
    put(STACK, back);
    let software = Breakpoint {
        kind: BreakpointKind::Software,
        ..execute_at(back)
    };
    vm.insert(software);
    let status = vm.call(DebugRequest::Breakpoints, ()).unwrap();
    let register = |status: &BreakpointStatus| matches!(&status.arming, Arming::DebugRegister { why, .. } if *why == Some(Pending::NotExecutable));
    // Without INT3 a debug register holds every breakpoint, without a reason of its own.
    let any = matches!(status[0].arming, Arming::DebugRegister { why: None, .. });
    assert!(register(&status[0]) || any, "{status:?}");
    assert_eq!(stop(vm.resume()), hit(0, software));
    assert_eq!(vm.regs(0).rip, back);
    assert_eq!(vm.read_gva(0, back, 1), Ok(vec![0]), "guest memory");
    // No breakpoint stops the VP there any more, so it faults.
    vm.remove(software);
    let reason = stop(vm.resume());
    assert!(
        !matches!(reason, DebugStopReason::Breakpoint { .. }),
        "{reason:?}"
    );
}
