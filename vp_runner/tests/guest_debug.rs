//! I9: a guest that debugs itself gets the same exceptions as without a debugger, whatever breakpoints the debugger
//! sets. The reference is the same guest without a debugger: all memory has to be equal at the end, including the
//! records of its handlers (vector, saved RIP and flags, DR6).

use test_machine::machine;

use machine::guest::*;
use machine::program::LOG;
use machine::program::Program;
use machine::recorder::*;
use machine::software::*;
use machine::*;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::breakpoint::Pending;
use vmm_core_defs::breakpoint::*;
use vmm_core_defs::debug_rpc::*;
use vmm_core_defs::stop::DebugStopReason;

fn watch_at(address: u64) -> Breakpoint {
    Breakpoint {
        kind: BreakpointKind::Write,
        address: Gva::new(address),
        len: 4,
    }
}

fn is_refused(vm: &TestVm, breakpoint: Breakpoint) -> bool {
    let change = vec![BreakpointChange::Insert(breakpoint)];
    match vm.call(DebugRequest::SetDebugState, change) {
        Ok(()) => false,
        Err(DebugError::Unsupported(why)) => {
            println!("SKIP: {why}");
            true
        }
        Err(err) => panic!("{breakpoint:?}: {err}"),
    }
}

/// Runs the guest under the debugger with each set of breakpoints, continues at every hit, and compares the memory.
/// Each breakpoint is hit once per turn.
fn compare(name: &str, mode: Mode, code: &[u8], sets: &[&[Breakpoint]]) {
    let Some(alone) = alone(mode, code) else {
        return;
    };
    println!("{name}: {} exceptions alone", alone.records.len());
    if alone.records.is_empty() {
        println!("SKIP: {name}: not even without a debugger on this host's KVM");
        return;
    }
    for set in sets {
        let Some(vm) = Setup::new(mode, code).build() else {
            return;
        };
        vm.attach();
        if set.iter().any(|breakpoint| is_refused(&vm, *breakpoint)) {
            continue;
        }
        let mut hits = vec![0; set.len()];
        loop {
            let hit = match stop(vm.resume()) {
                DebugStopReason::PowerOff { .. } => break,
                DebugStopReason::Breakpoint { breakpoint, .. }
                | DebugStopReason::Watchpoint { breakpoint, .. } => breakpoint,
                other => panic!("{name} with {set:?}: {other:?}"),
            };
            hits[set.iter().position(|other| *other == hit).unwrap()] += 1;
        }
        let records = records(&vm.machine);
        assert_eq!(records, alone.records, "{name} with {set:?}");
        assert_eq!(hits, vec![TIMES; set.len()], "{name} with {set:?}");
        set.iter().for_each(|breakpoint| vm.remove(*breakpoint));
        assert_untouched(&vm, &alone.memory, &format!("{name} with {set:?}"));
    }
}

/// Compares with a breakpoint of each kind, and with all kinds that leave `room` debug registers to the guest.
fn compare_with_each_kind(name: &str, mode: Mode, code: &[u8], room: usize) {
    let [software, execute, watch] = [software_at(LOOP), execute_at(LOOP), watch_at(TURNS)];
    let sets: [&[Breakpoint]; 3] = [&[software], &[execute], &[execute, watch]];
    let fits = |set: &&&[Breakpoint]| {
        // If INT3 does not trap, a software breakpoint is in a debug register too.
        set.len() + room <= 4
    };
    let sets: Vec<_> = sets.iter().filter(fits).copied().collect();
    compare(name, mode, code, &sets);
}

/// The guest uses only this register: beside a breakpoint of each kind for DR0, and beside two breakpoints of the
/// debugger for the others. For DR0 and DR1 the debugger's breakpoints take the register's place.
fn compare_number(name: &str, n: u8, code: &[u8]) {
    let name = format!("DR{n}, {name}");
    match n {
        0 => compare_with_each_kind(&name, Mode::Long, code, 1),
        _ => {
            let two = [execute_at(LOOP), execute_at(BODY)];
            compare(&name, Mode::Long, code, &[&two]);
        }
    }
}

/// DR7 for one register: enabled by its L bit, with `access` and `len` as encoded in DR7.
fn dr7(n: u64, access: u64, len: u64) -> u64 {
    1 << (2 * n) | (access | len << 2) << (16 + 4 * n)
}

const EXECUTE: u64 = 0;
const WRITE: u64 = 1;
const READ_WRITE: u64 = 3;
const FOUR_BYTES: u64 = 3;
const EIGHT_BYTES: u64 = 2;
/// The address to which the bodies store.
const DATA: u64 = 0x6000;

/// `mov [6000h], eax; nop; nop`
const STORE: [u8; 9] = [0x89, 4, 0x25, 0, 0x60, 0, 0, 0x90, 0x90];

#[test]
fn each_of_the_guests_debug_registers_stops_its_own_execution() {
    for n in 0..4 {
        let mut setup = set_debug_register(n, BODY + 1);
        setup.extend(set_debug_register(7, 0x400 | dr7(n.into(), EXECUTE, 0)));
        let code = program(Mode::Long, &setup, &[0x90; 3]);
        compare_number("execution", n, &code);
    }
}

#[test]
fn each_of_the_guests_debug_registers_stops_its_own_writes() {
    for n in 0..4 {
        let mut setup = set_debug_register(n, DATA);
        let control = 0x400 | dr7(n.into(), WRITE, FOUR_BYTES);
        setup.extend(set_debug_register(7, control));
        let code = program(Mode::Long, &setup, &STORE);
        compare_number("writes", n, &code);
    }
}

/// The watchpoint is switched on, an exit follows, it is hit, it is switched off, and it is not hit any more, however
/// soon the access follows.
#[test]
fn a_watchpoint_that_the_guest_has_switched_off_fires_no_more() {
    let on = 0x400 | dr7(0, WRITE, FOUR_BYTES);
    let mut body = set_debug_register(7, on);
    body.extend([0xe6, PORT_TELL]);
    body.extend(STORE);
    body.extend(set_debug_register(7, 0x400));
    body.extend(STORE);
    let code = program(Mode::Long, &set_debug_register(0, DATA), &body);
    compare_with_each_kind("switched off", Mode::Long, &code, 1);
}

/// The same for execution of the instruction behind the one that switches the breakpoint off.
#[test]
fn an_execution_breakpoint_that_the_guest_has_switched_off_fires_no_more() {
    let off = set_debug_register(7, 0x400);
    let mut body = set_debug_register(7, 0x400 | dr7(0, EXECUTE, 0));
    body.extend([0xe6, PORT_TELL, 0x31, 0xc9]);
    // 1: nop; jecxz 2f; jmp 3f; 2: inc ecx; off; jmp 1b; 3:
    let target = BODY + body.len() as u64;
    body.extend([0x90, 0x67, 0xe3, 2, 0xeb, 12, 0xff, 0xc1]);
    body.extend(off);
    body.extend([0xeb, 0xee]);
    let code = program(Mode::Long, &set_debug_register(0, target), &body);
    compare_with_each_kind("switched off", Mode::Long, &code, 1);
}

/// `nop; mov [6000h], eax; mov rdx, [6008h]; nop; nop`: each register has one of these instructions.
#[test]
fn all_four_of_the_guests_at_once_work_beside_software_breakpoints() {
    let mut setup = set_debug_register(0, BODY);
    setup.extend(set_debug_register(1, DATA));
    setup.extend(set_debug_register(2, DATA + 8));
    setup.extend(set_debug_register(3, BODY + 17));
    let control = dr7(0, EXECUTE, 0)
        | dr7(1, WRITE, FOUR_BYTES)
        | dr7(2, READ_WRITE, EIGHT_BYTES)
        | dr7(3, EXECUTE, 0);
    setup.extend(set_debug_register(7, 0x400 | control));
    let mut body = vec![0x90, 0x89, 4, 0x25, 0, 0x60, 0, 0];
    body.extend([0x48, 0x8b, 0x14, 0x25, 8, 0x60, 0, 0, 0x90, 0x90]);
    let code = program(Mode::Long, &setup, &body);
    compare_with_each_kind("all four", Mode::Long, &code, 4);
    let Some(vm) = Setup::new(Mode::Long, &code).build() else {
        return;
    };
    vm.attach();
    vm.insert(software_at(LOOP));
    if is_byte(&vm) {
        compare("all four", Mode::Long, &code, &[&[software_at(LOOP)]]);
    }
}

/// The same with steps only. A step over a store uses debug registers, and a step over `nop` uses none.
#[test]
fn what_the_guest_writes_to_its_registers_in_a_step_holds_from_the_next_on() {
    for under in [&STORE[..7], &[0x90]] {
        let off = set_debug_register(7, 0x400);
        let mut body = STORE.to_vec();
        body.extend(set_debug_register(7, 0x400 | dr7(0, EXECUTE, 0)));
        body.extend([0x90, 0x90]);
        let target = BODY + body.len() as u64;
        body.extend(under);
        body.extend(off);
        // Back to the instruction after the switch-off, by ECX: 1 the first time.
        let back = i8::try_from(under.len() + set_debug_register(7, 0).len() + 4).unwrap();
        body.extend([0xff, 0xc9, 0x74, (-back).cast_unsigned()]);
        let mut setup = set_debug_register(0, target);
        setup.extend([0xb9, 1, 0, 0, 0]);
        let code = program(Mode::Long, &setup, &body);
        let Some(alone) = alone(Mode::Long, &code) else {
            return;
        };
        let range = VpAction::StepRange {
            start: Gva::new(0),
            end: Gva::new(u64::MAX),
        };
        for action in [VpAction::Step, range] {
            let Some(vm) = Setup::new(Mode::Long, &code).build() else {
                return;
            };
            vm.attach();
            let mut steps = 0;
            while stop(vm.only(0, action)) == (DebugStopReason::SingleStep { vp: VpIndex::BSP }) {
                steps += 1;
            }
            assert_eq!(steps > 10, action == VpAction::Step, "{steps}");
            assert!(!alone.records.is_empty());
            assert_eq!(records(&vm.machine), alone.records);
            assert_untouched(&vm, &alone.memory, "steps");
        }
    }
}

#[test]
fn breakpoints_of_the_guests_and_ours_on_one_instruction_both_stop_it() {
    let mut setup = set_debug_register(1, BODY);
    setup.extend(set_debug_register(7, 0x400 | dr7(1, EXECUTE, 0)));
    let sets: [&[Breakpoint]; 4] = [
        &[software_at(BODY)],
        &[execute_at(BODY)],
        &[execute_at(BODY), execute_at(LOOP)],
        &[execute_at(BODY + 1), execute_at(BODY)],
    ];
    let code = program(Mode::Long, &setup, &[0x90; 3]);
    compare("the same instruction", Mode::Long, &code, &sets);
}

/// The guest also has a handler of page faults, so the step over the instruction uses debug registers. RFLAGS.RF makes
/// the step pass the guest's breakpoint, also if the host's KVM ignores RF.
#[test]
fn a_step_from_a_byte_gets_past_the_guests_own_breakpoint_there() {
    // inc byte [rdi]; bts dword [rsp+16], 16 (RF); iretq
    const ON_DEBUG: &[u8] = &[0xfe, 7, 0x0f, 0xba, 0x6c, 0x24, 16, 16, 0x48, 0xcf];
    // hlt
    const ON_FAULT: &[u8] = &[0xf4];
    // push rbp; pop rbp
    let program = Program::new("a breakpoint of the guest's", Mode::Long, &[0x55, 0x5d])
        .handler(1, ON_DEBUG)
        .handler(14, ON_FAULT)
        .set(|regs| (regs.debug.db[0], regs.debug.dr7) = (ENTRY, 0x402));
    let Some(vm) = program.build() else {
        return;
    };
    let ours = software_at(ENTRY);
    vm.insert(ours);
    assert_eq!(stop(vm.resume()), hit(0, ours));
    assert_eq!(
        vm.read_gva(0, LOG, 1).unwrap(),
        [1],
        "the guest's came first"
    );
    let off = DebugStopReason::PowerOff {
        vp: Some(VpIndex::BSP),
    };
    assert_eq!(stop(vm.resume()), off);
    assert_eq!(vm.read_gva(0, LOG, 1).unwrap(), [1], "and once");
}

#[test]
fn a_write_that_the_guest_and_we_wait_for_stops_both() {
    let mut setup = set_debug_register(0, DATA);
    let control = 0x400 | dr7(0, WRITE, FOUR_BYTES);
    setup.extend(set_debug_register(7, control));
    let code = program(Mode::Long, &setup, &STORE);
    compare("the same write", Mode::Long, &code, &[&[watch_at(DATA)]]);
}

/// `int1; nop; nop`
#[test]
fn the_guests_icebp_reaches_its_handler_with_no_bit_of_dr6() {
    let code = program(Mode::Long, &[], &[0xf1, 0x90, 0x90]);
    compare_with_each_kind("ICEBP", Mode::Long, &code, 0);
}

/// `int3; nop; int 3` (two bytes) `; nop`: beside breakpoint bytes of the debugger, in every mode.
#[test]
fn the_guests_int3_reaches_its_handler_with_the_length_of_its_instruction() {
    for mode in MODES {
        let code = program(mode, &[], &[0xcc, 0x90, 0xcd, 3, 0x90]);
        compare_with_each_kind(&format!("INT3, {mode:?}"), mode, &code, 0);
    }
}

/// `sti` before the loop: with interrupts off, a step sets no interrupt shadow.
#[test]
fn steps_over_the_guests_int3_lead_on_where_only_an_interrupt_shadow_holds_interrupts_back() {
    let code = program(Mode::Long, &[0xfb], &[0xcc, 0x90]);
    let Some(alone) = alone(Mode::Long, &code) else {
        return;
    };
    let Some(vm) = Setup::new(Mode::Long, &code).shadowed().build() else {
        return;
    };
    vm.attach();
    vm.insert(software_at(LOOP));
    if !is_byte(&vm) {
        return;
    }
    loop {
        match answer(vm.only(0, VpAction::Step)).unwrap().reason {
            DebugStopReason::PowerOff { .. } => break,
            DebugStopReason::SingleStep { .. } | DebugStopReason::Breakpoint { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(records(&vm.machine), alone.records);
}

/// `pushf; or byte [rsp+1], 1; popf; nop; inc eax; pushf; and byte [rsp+1], 0feh; popf`
const SINGLE_STEPS: [u8; 17] = [
    0x9c, 0x80, 0x4c, 0x24, 1, 1, 0x9d, 0x90, 0xff, 0xc0, 0x9c, 0x80, 0x64, 0x24, 1, 0xfe, 0x9d,
];

#[test]
fn the_guests_single_steps_reach_its_handler() {
    let code = program(Mode::Long, &[], &SINGLE_STEPS);
    compare_with_each_kind("TF", Mode::Long, &code, 0);
}

/// `mov eax, 2400h; mov dr7, rax; mov rbx, dr0; mov [6000h], ebx`
#[test]
fn the_guests_general_detect_reaches_its_handler_once_and_is_cleared() {
    let mut body = set_debug_register(7, 0x2400);
    body.extend([0x0f, 0x21, 0xc3, 0x89, 0x1c, 0x25, 0, 0x60, 0, 0]);
    let code = program(Mode::Long, &[], &body);
    compare_with_each_kind("DR7.GD", Mode::Long, &code, 0);
}

/// `mov dr1, 1080h; mov dr7, ..` and a loop of two instructions without any exit: `inc ebx; jmp`. The handler reports.
#[test]
fn a_guest_that_makes_no_exit_has_its_breakpoint_soon_all_the_same() {
    let mut code = exception_tables(Mode::Long);
    code.extend(set_debug_register(1, LOOP));
    code.extend(set_debug_register(7, 0x400 | dr7(1, EXECUTE, 0)));
    up_to_loop(&mut code);
    // inc ebx; cmp dword [5000h], 100; jb to the inc; jmp $: this stops before the records fill the memory below the
    // page tables.
    code.extend([0xff, 0xc3, 0x83, 0x3c, 0x25, 0, 0x50, 0, 0, 100]);
    code.extend([0x72, 0xf4, 0xeb, 0xfe]);
    let code = with_handlers(Mode::Long, code);
    let Some(vm) = Setup::new(Mode::Long, &code).build() else {
        return;
    };
    vm.attach();
    vm.insert(execute_at(0x5000));
    let pending = vm.resume();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while records(&vm.machine).len() < 10 {
        assert!(std::time::Instant::now() < end, "its breakpoint is dead");
        std::thread::yield_now();
    }
    interrupt(&vm, pending);
    let first = records(&vm.machine)[0];
    assert_eq!((first.vector, first.rip, first.dr6), (1, LOOP, 0xffff_0ff2));
}

/// The guest waits until the test changes this byte.
const FLAG: u64 = 0x6200;

/// Takes registers, reports, waits for the flag, sets DR7 to `then`, reports, and goes round `nop; inc dword [6100h];
/// jmp`.
fn taking_and_leaving(first: u64, then: u64) -> Vec<u8> {
    let mut code = exception_tables(Mode::Long);
    for n in 0..4 {
        code.extend(set_debug_register(n, 0x7000 + 8 * u64::from(n)));
    }
    code.extend(set_debug_register(7, first));
    code.extend([0xe6, PORT_TELL]);
    // cmp byte [6200h], 0; je
    code.extend([0x80, 0x3c, 0x25, 0, 0x62, 0, 0, 0, 0x74, 0xf6]);
    code.extend(set_debug_register(7, then));
    code.extend([0xe6, PORT_TELL]);
    up_to_loop(&mut code);
    code.extend([0x90, 0xff, 4, 0x25, 0, 0x61, 0, 0, 0xeb, 0xf6]);
    with_handlers(Mode::Long, code)
}

const ALL_FOUR: u64 = 0x455;
const THREE: u64 = 0x415;
const NONE: u64 = 0x400;

fn told(vm: &TestVm, times: usize) {
    let what = format!("it has told {times} times");
    vm.machine
        .wait_until(&what, |seen| seen.told.len() >= times);
}

fn raise_the_flag(vm: &TestVm) {
    let address = vmm_core_defs::addr::GuestAddress::Gpa(vmm_core_defs::addr::Gpa::new(FLAG));
    vm.call(DebugRequest::WriteMemory, (address, vec![1]))
        .unwrap();
}

fn try_insert(vm: &TestVm, breakpoint: Breakpoint) -> Result<(), DebugError> {
    vm.call(
        DebugRequest::SetDebugState,
        vec![BreakpointChange::Insert(breakpoint)],
    )
}

fn uses(guest: u32, yours: u32) -> Result<(), DebugError> {
    Err(DebugError::GuestUsesSlots {
        slots: 4,
        guest,
        yours,
    })
}

#[test]
fn what_does_not_fit_beside_the_guests_four_is_refused_until_it_lets_one_go() {
    let Some(vm) = Setup::new(Mode::Long, &taking_and_leaving(ALL_FOUR, THREE)).build() else {
        return;
    };
    vm.attach();
    let pending = vm.resume();
    told(&vm, 1);
    // While the guest runs and while it is stopped.
    assert_eq!(try_insert(&vm, execute_at(LOOP)), uses(4, 0));
    interrupt(&vm, pending);
    assert_eq!(try_insert(&vm, execute_at(LOOP)), uses(4, 0));
    assert_eq!(armings(&vm), []);
    raise_the_flag(&vm);
    let pending = vm.resume();
    told(&vm, 2);
    interrupt(&vm, pending);
    vm.insert(execute_at(LOOP));
    assert_eq!(try_insert(&vm, execute_at(LOOP + 1)), uses(3, 1));
    for _ in 0..3 {
        assert_eq!(stop(vm.resume()), hit(0, execute_at(LOOP)));
    }
    assert_eq!(vm.regs(0).debug.dr7 & 0xff, THREE & 0xff);
}

#[test]
fn a_register_that_the_guest_takes_is_its_own_and_ours_is_armed_again_when_it_lets_go() {
    let Some(vm) = Setup::new(Mode::Long, &taking_and_leaving(ALL_FOUR, NONE)).build() else {
        return;
    };
    vm.attach();
    vm.insert(execute_at(LOOP));
    let pending = vm.resume();
    told(&vm, 1);
    interrupt(&vm, pending);
    let [Arming::Pending { why }] = &armings(&vm)[..] else {
        panic!("{:?}", armings(&vm));
    };
    assert_eq!(*why, Some(Pending::GuestHasRegisters));
    let guests = vm.regs(0).debug;
    assert_eq!(guests.db, [0x7000, 0x7008, 0x7010, 0x7018]);
    raise_the_flag(&vm);
    // The runner notices it without a request.
    assert_eq!(stop(vm.resume()), hit(0, execute_at(LOOP)));
    assert!(matches!(armings(&vm)[..], [Arming::DebugRegister { .. }]));
}

#[test]
fn the_vp_whose_guest_uses_most_decides() {
    let code = taking_and_leaving(THREE, THREE);
    let Some(vm) = Setup::new(Mode::Long, &code).vps(2).build() else {
        return;
    };
    vm.attach();
    let pending = vm.only(1, VpAction::Run);
    vm.machine.wait_until("the second VP tells", |seen| {
        seen.told.contains(&(VpIndex::new(1), 0x15)) || !seen.told.is_empty()
    });
    interrupt(&vm, pending);
    vm.insert(execute_at(LOOP));
    assert_eq!(try_insert(&vm, execute_at(LOOP + 1)), uses(3, 1));
    assert_eq!(vm.regs(0).debug.dr7, 0x400, "the first has done nothing");
}

/// After a detach the guest's registers are in force as if the debugger had never been attached.
#[test]
fn after_detach_the_guests_own_work_as_before() {
    let mut setup = set_debug_register(2, BODY + 1);
    setup.extend(set_debug_register(7, 0x400 | dr7(2, EXECUTE, 0)));
    let code = program(Mode::Long, &setup, &[0x90; 3]);
    let Some(alone) = alone(Mode::Long, &code) else {
        return;
    };
    let Some(vm) = Setup::new(Mode::Long, &code).build() else {
        return;
    };
    vm.attach();
    let all = [execute_at(LOOP), execute_at(BODY), execute_at(BODY + 1)];
    all.iter().for_each(|breakpoint| vm.insert(*breakpoint));
    // Also at the instruction of the guest's own breakpoint.
    for breakpoint in all {
        assert_eq!(stop(vm.resume()), hit(0, breakpoint));
    }
    vm.detach(DetachAction::Resume);
    let machine = vm.machine.clone();
    assert_eq!(vm.join(), vp_runner::runner::RunnerExit::PowerOff);
    assert_eq!(records(&machine), alone.records);
    assert!(machine.raw_memory() == alone.memory);
}

/// Takes all four registers and frees them, reporting each time, without an end.
#[test]
fn a_guest_that_takes_and_leaves_its_registers_all_the_time_runs_on_and_can_be_interrupted() {
    let mut code = set_debug_register(7, ALL_FOUR);
    code.extend([0xe6, PORT_TELL]);
    code.extend(set_debug_register(7, NONE));
    code.extend([0xe6, PORT_TELL]);
    jump_to_start(&mut code);
    let Some(vm) = Setup::new(Mode::Long, &code).vps(2).build() else {
        return;
    };
    vm.attach();
    let ours = [execute_at(0x7000), execute_at(0x7001)];
    ours.iter().for_each(|breakpoint| vm.insert(*breakpoint));
    let mut turns = 0;
    for _ in 0..5 {
        let pending = vm.resume();
        told(&vm, turns + 200);
        interrupt(&vm, pending);
        turns = vm.machine.wait_until("now", |_| true).told.len();
        // All breakpoints are listed, armed or not, and the guest reads what it wrote.
        assert_eq!(armings(&vm).len(), ours.len());
        let dr7 = vm.regs(0).debug.dr7;
        assert!([ALL_FOUR, NONE].contains(&dr7), "{dr7:#x}");
    }
    vm.detach(DetachAction::Resume);
    told(&vm, turns + 200);
}
