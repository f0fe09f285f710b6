//! Software breakpoints when the guest changes the memory: new pages, overwritten code, a second mapping, a reset.

use test_machine::machine;

use machine::guest::*;
use machine::software::*;
use machine::*;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::breakpoint::Pending;
use vmm_core_defs::breakpoint::*;
use vmm_core_defs::debug_rpc::*;
use vmm_core_defs::memory::WalkFaultReason;
use vmm_core_defs::stop::DebugStopReason;

/// The guest overwrites the breakpoint in each turn, as a loader would. The breakpoint is armed again, with the new
/// byte.
#[test]
fn a_breakpoint_that_the_guest_overwrites_hits_again() {
    // mov byte [rel target], 90h; mov ecx, 20000000; 1: dec ecx; jnz 1b; target: nop; inc ebx; jmp to the start
    let mut code = vec![0xc6, 0x05, 9, 0, 0, 0, 0x90];
    code.extend([0xb9, 0, 0, 4, 0, 0xff, 0xc9, 0x75, 0xfc]);
    let target = ENTRY + code.len() as u64;
    code.extend([0x90, 0xff, 0xc3]);
    jump_to_start(&mut code);
    let Some(vm) = Setup::new(Mode::Long, &code).build() else {
        return;
    };
    vm.attach();
    let breakpoint = software_at(target);
    vm.insert(breakpoint);
    if !is_byte(&vm) {
        return;
    }
    // The guest passes the breakpoint once or more often between two checks.
    for _ in 0..3 {
        let before = vm.regs(0).gp[3];
        assert_eq!(stop(vm.resume()), hit(0, breakpoint));
        println!("turn {before} to {}", vm.regs(0).gp[3]);
        assert_eq!(vm.read_gva(0, target, 1), Ok(vec![0x90]));
    }
    vm.detach(DetachAction::Stay);
    assert_eq!(raw(&vm, target, 1), [0x90]);
}

/// The guest maps a page, and writes code there, after the breakpoints were set.
#[test]
fn a_pending_breakpoint_hits_once_its_page_is_there() {
    // Linear 200000h is not mapped. `mov byte [100000h], 0c3h; mov [12008h], 83h (2 MiB at 0)`, then calls 206000h, which is 6000h
    let mut code = vec![0xc6, 0x04, 0x25, 0x00, 0x60, 0, 0, 0xc3];
    code.extend([
        0x48, 0xc7, 0x04, 0x25, 0x08, 0x20, 0x01, 0x00, 0x83, 0, 0, 0,
    ]);
    code.extend([
        0xb8, 0x00, 0x60, 0x20, 0x00, 0xff, 0xd0, 0xff, 0xc3, 0xeb, 0xf5,
    ]);
    let Some(vm) = Setup::new(Mode::Long, &code).build() else {
        return;
    };
    vm.attach();
    // More breakpoints than debug registers.
    for n in 1..=6 {
        vm.insert(software_at(0x20_6000 + n));
    }
    let last = software_at(0x20_6000);
    vm.insert(last);
    let list = armings(&vm);
    let Arming::Pending { why } = &list[6] else {
        panic!("{list:?}");
    };
    let unmapped = |why| matches!(why, Pending::Unmapped(WalkFaultReason::NotPresent(_)));
    assert!(why.is_some_and(unmapped), "{why:?}");
    assert!(matches!(
        list[0],
        Arming::DebugRegister {
            number: 0,
            why: Some(_)
        }
    ));
    assert_eq!(stop(vm.resume()), hit(0, last));
    let list = armings(&vm);
    assert_eq!(
        list[6],
        Arming::Memory {
            gpa: Gpa::new(0x6000)
        }
    );
    assert_eq!(
        list[0],
        Arming::Memory {
            gpa: Gpa::new(0x6001)
        }
    );
    let turn = vm.regs(0).gp[3];
    assert_eq!(stop(vm.resume()), hit(0, last));
    assert_eq!(vm.regs(0).gp[3], turn + 1);
}

/// A debug register matches in every process. A register that holds a breakpoint of one process does not stop another
/// process that has its own byte there.
#[test]
fn a_pending_breakpoint_of_one_process_does_not_stop_another() {
    const TABLES: u64 = 0x1_0000;
    const OTHER_TABLES: u64 = 0x2_0000;
    const START: u64 = 0x20_6000;
    let Some(vm) = Setup::new(Mode::Long, &counting_loop(Mode::Long)).build() else {
        return;
    };
    vm.attach();
    let entry = |at: u64, value: u64| vm.write_gva(0, at, &value.to_le_bytes()).unwrap();
    for page in [0x6000, 0x7000] {
        vm.write_gva(0, page, &[0x90; 0x40]).unwrap();
    }
    // In the other process 200000h to 3fffffh are mapped to 0 to 1fffffh. In the first process they are not mapped.
    entry(OTHER_TABLES, 0x2_1023);
    entry(0x2_1000, 0x2_2023);
    entry(0x2_2000, 0xe3);
    entry(0x2_2008, 0xe3);
    let (pending, behind) = (software_at(START + 0x10), execute_at(START + 0x20));
    vm.insert(pending);
    vm.insert(behind);
    assert!(matches!(armings(&vm)[0], Arming::DebugRegister { .. }));
    let place = |root: u64, rip: u64| {
        let mut regs = vm.regs(0);
        (regs.cr3, regs.rip) = (root, rip);
        vm.try_set_regs(0, regs).unwrap();
    };
    let run = |root: u64| {
        place(root, START);
        stop(vm.resume())
    };
    // Only this process has a byte there.
    assert_eq!(run(OTHER_TABLES), hit(0, pending));
    // 206000h of the first process becomes 7000h.
    entry(0x1_2008, 0x2_3023);
    entry(0x2_3000 + 6 * 8, 0x7063);
    for _ in 0..3 {
        assert_eq!(run(OTHER_TABLES), hit(0, behind));
    }
    place(OTHER_TABLES, START + 0xf);
    for next in [0x10, 0x11] {
        vm.step(0);
        assert_eq!(vm.regs(0).rip, START + next);
    }
    assert_eq!(run(TABLES), hit(0, pending));
    assert_eq!(run(OTHER_TABLES), hit(0, behind));
    assert_eq!(run(TABLES), hit(0, pending));
}

/// The same byte at another address: a VP passes it without a stop, while the other VP runs too.
#[test]
fn a_byte_that_is_met_by_another_address_does_not_stop_the_guest() {
    // The guest runs at 1000h and, by a second mapping of the same page, calls 201800h = 1800h.
    let mut code = vec![0xb8, 0x00, 0x18, 0x20, 0x00, 0xff, 0xd0, 0xff, 0xc3];
    code.extend([0xe6, PORT_TELL, 0xeb, 0xf8]);
    code.resize(0x800, 0x90);
    // clc; ret: the runner does not carry out these instructions
    code.extend([0xf8, 0xc3]);
    let Some(vm) = Setup::new(Mode::Long, &code).vps(2).build() else {
        return;
    };
    vm.attach();
    vm.write_gva(0, 0x1_2008, &0x83_u64.to_le_bytes()).unwrap();
    let breakpoint = software_at(0x1800);
    vm.insert(breakpoint);
    if !is_byte(&vm) {
        return;
    }
    let pending = vm.resume();
    vm.machine.wait_until("both go round", |seen| {
        (0..2).all(|vp| {
            let tells = seen.told.iter();
            tells.filter(|(by, _)| by.index() == vp).count() > 20
        })
    });
    interrupt(&vm, pending);
    vm.insert(software_at(0x20_1800));
    let DebugStopReason::Breakpoint { breakpoint, .. } = stop(vm.resume()) else {
        panic!("not a breakpoint");
    };
    assert_eq!(breakpoint, software_at(0x20_1800));
}

#[test]
fn breakpoints_survive_a_guest_reset_with_no_gap() {
    if test_machine::own_loops::vmm_resets() {
        return;
    }
    // `out reset` at the third turn
    let mut code = vec![
        0xff, 0xc3, 0x90, 0x83, 0xfb, 3, 0x75, 0xf8, 0xe6, PORT_RESET,
    ];
    jump_to_start(&mut code);
    let Some(vm) = Setup::new(Mode::Long, &code).build() else {
        return;
    };
    let untouched = vm.machine.raw_memory();
    vm.attach();
    let first = software_at(ENTRY);
    let second = software_at(ENTRY + 2);
    vm.insert(first);
    vm.insert(second);
    for round in 0..3 {
        assert_eq!(stop(vm.resume()), hit(0, first));
        for turn in 1..=3 {
            assert_eq!(stop(vm.resume()), hit(0, second), "round {round}");
            assert_eq!(vm.regs(0).gp[3], turn);
            if turn < 3 {
                assert_eq!(stop(vm.resume()), hit(0, first));
            }
        }
        assert_eq!(
            stop(vm.resume()),
            DebugStopReason::Reset {
                vp: Some(VpIndex::BSP)
            }
        );
    }
    vm.call(DebugRequest::Reset, ()).unwrap();
    // The reset of the machine has to find memory without the breakpoints.
    for arming in armings(&vm) {
        assert!(
            matches!(&arming, Arming::Pending { why } if *why == Some(Pending::Reset)),
            "{arming:?}"
        );
    }
    assert_untouched(&vm, &untouched, "at the end");
    assert_eq!(stop(vm.resume()), hit(0, first));
    vm.detach(DetachAction::Stay);
    assert_untouched(&vm, &untouched, "at the end");
}

/// The operation cannot wait until the other VPs have parked, because one of them is held in a device.
#[test]
fn a_usual_first_instruction_met_by_another_address_stops_no_other_vp() {
    // VP 0: `inc ebx; call 201800h; cmp ecx, ebx; jne bad; out tell, al`, again and again; VP 1: `in al, held`.
    let mut code = vec![
        0x84, 0xc0, 0x75, 0x11, 0xff, 0xc3, 0xb8, 0x00, 0x18, 0x20, 0x00,
    ];
    code.extend([0xff, 0xd0, 0x39, 0xd9, 0x75, 8, 0xe6, PORT_TELL, 0xeb, 0xef]);
    code.extend([0xe4, PORT_HELD, 0xeb, 0xfc, 0x0f, 0x0b]);
    code.resize(0x800, 0x90);
    // push rbx; pop rcx; ret
    code.extend([0x53, 0x59, 0xc3]);
    let Some(vm) = Setup::new(Mode::Long, &code).vps(2).build() else {
        return;
    };
    vm.attach();
    vm.write_gva(0, 0x1_2008, &0xe3_u64.to_le_bytes()).unwrap();
    vm.insert(software_at(0x1800));
    if !is_byte(&vm) {
        return;
    }
    let pending = vm.resume();
    vm.machine.wait_until("VP 1 is held", |seen| seen.held > 0);
    let told = vm.machine.wait_until("now", |_| true).told.len();
    let seen = vm
        .machine
        .wait_until("VP 0 goes round", |seen| seen.told.len() > told + 50);
    assert_eq!((seen.held, seen.released), (1, 0), "VP 1 is still held");
    let broken = vm.send(DebugRequest::Break, ());
    vm.machine.release_all();
    answer(broken).unwrap();
    assert_eq!(stop(pending), DebugStopReason::Break);
}
