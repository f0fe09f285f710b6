//! Steps and continues while a timer interrupt is always about to be delivered (I8). On real guests.

use test_machine::amount::is_nested;
use test_machine::machine;

use machine::guest::*;
use machine::program::*;
use machine::software::software_at;
use machine::ticking;
use machine::ticking::IDLE;
use machine::ticking::SITE;
use machine::ticking::standing_at;
use machine::*;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::GuestAddress;
use vmm_core_defs::debug_rpc::*;
use vmm_core_defs::regs::X86VpState;

/// The addresses of the loop and of the handler.
const LOOP: u64 = ENTRY + 51;
const HANDLER: u64 = LOOP + 5;
/// The address of the number of ticks, which has 16 bits.
const TICKS: Gpa = Gpa::new(0x5000);

/// Real mode: vector 20h for IRQ 0, the PIT at 1 kHz, then `inc bx; nop; nop; jmp` with interrupts on.
fn ticking_loop() -> Vec<u8> {
    let [low, high, ..] = HANDLER.to_le_bytes();
    let mut code = vec![0xfa, 0xbc, 0x00, 0x30];
    code.extend(timer_at_1_khz());
    // mov word [80h], handler; mov word [82h], 0
    code.extend([0xc7, 0x06, 0x80, 0, low, high, 0xc7, 0x06, 0x82, 0, 0, 0]);
    // xor bx, bx; sti
    code.extend([0x31, 0xdb, 0xfb]);
    assert_eq!(code.len() as u64, LOOP - ENTRY);
    code.extend([0x43, 0x90, 0x90, 0xeb, 0xfb]);
    // inc word [5000h]; push ax; mov al, 20h; out 20h, al; out tell, al; pop ax; iret
    code.extend([0xff, 0x06, 0x00, 0x50, 0x50, 0xb0, 0x20, 0xe6, 0x20]);
    code.extend([0xe6, PORT_TELL, 0x58, 0xcf]);
    code
}

/// The guest in the first turn of its loop, with the timer running.
fn in_the_loop() -> Option<TestVm> {
    go_to_the_loop(Setup::new(Mode::Real, &ticking_loop()))
}

fn go_to_the_loop(setup: Setup) -> Option<TestVm> {
    let vm = setup.build()?;
    vm.attach();
    let entry = execute_at(LOOP);
    vm.insert(entry);
    assert_eq!(stop(vm.resume()), hit(0, entry));
    vm.remove(entry);
    Some(vm)
}

fn ticks(vm: &TestVm) -> u16 {
    let read = vm.call(DebugRequest::ReadMemory, (GuestAddress::Gpa(TICKS), 2));
    u16::from_le_bytes(read.unwrap().try_into().unwrap())
}

/// Runs the guest until its handler has run `more` times.
fn let_it_tick(vm: &TestVm, more: usize) {
    let told = vm.machine.wait_until("now", |_| true).told.len();
    let pending = vm.resume();
    vm.machine
        .wait_until("it ticks", |seen| seen.told.len() >= told + more);
    interrupt(vm, pending);
}

/// Makes `steps` steps. None of them may leave the loop.
#[track_caller]
fn step_in_the_loop(vm: &TestVm, steps: u64) {
    let start = vm.regs(0).gp[3] & 0xffff;
    let before = ticks(vm);
    for n in 1..=steps {
        vm.step(0);
        let regs = vm.regs(0);
        assert_eq!(regs.rip, LOOP + n % 4, "step {n} left the loop");
        assert_eq!(regs.gp[3] & 0xffff, start + n.div_ceil(4));
    }
    let during = ticks(vm) - before;
    // An interrupt that was in flight before the first step may still arrive.
    assert!(during <= 1, "{during} handlers ran inside steps");
}

#[test]
fn ten_thousand_steps_stay_in_the_loop_and_the_ticks_come_afterwards() {
    let Some(vm) = in_the_loop() else {
        return;
    };
    let before = ticks(&vm);
    // In the nested bed a step takes some hundred times as long.
    let steps = if is_nested() { 1000 } else { 10_000 };
    step_in_the_loop(&vm, steps);
    let_it_tick(&vm, 5);
    assert!(ticks(&vm) >= before + 5);
}

#[test]
fn steps_stay_in_the_loop_where_only_an_interrupt_shadow_holds_interrupts_back() {
    let setup = Setup::new(Mode::Real, &ticking_loop()).shadowed();
    let Some(vm) = go_to_the_loop(setup) else {
        return;
    };
    step_in_the_loop(&vm, 2000);
    let_it_tick(&vm, 5);
}

fn step_interrupts(vm: &TestVm, wanted: Option<StepInterrupts>) -> StepInterrupts {
    vm.call(DebugRequest::StepInterrupts, wanted).unwrap()
}

/// Steps until a step ends at the handler, and then until the loop goes on. Returns the flags that the handler found.
fn step_through_the_handler(vm: &TestVm) -> u16 {
    for step in 0..200_000 {
        vm.step(0);
        let regs = vm.regs(0);
        match regs.rip {
            HANDLER => break,
            rip => assert!((LOOP..HANDLER).contains(&rip), "step {step}: {rip:#x}"),
        }
    }
    let regs = vm.regs(0);
    assert_eq!(regs.rip, HANDLER, "no step took an interrupt");
    let sp = regs.gp[4] & 0xffff;
    let frame = vm.read_gva(0, sp, 6).unwrap();
    for _ in 0..7 {
        vm.step(0);
    }
    let rip = vm.regs(0).rip;
    assert!((LOOP..HANDLER).contains(&rip), "after iret: {rip:#x}");
    u16::from_le_bytes([frame[4], frame[5]])
}

#[test]
fn steps_take_interrupts_when_they_are_to_and_end_at_the_handler() {
    let Some(vm) = in_the_loop() else {
        return;
    };
    assert_eq!(step_interrupts(&vm, None), StepInterrupts::Held);
    let on = Some(StepInterrupts::Taken);
    assert_eq!(step_interrupts(&vm, on), StepInterrupts::Taken);
    let before = ticks(&vm);
    for tick in 1..=20 {
        let flags = step_through_the_handler(&vm);
        // IF is set, and the debugger's TF is not.
        assert_eq!(flags & 0x300, 0x200, "{flags:#x}");
        assert_eq!(
            ticks(&vm),
            before + tick,
            "each handler was stepped through"
        );
    }
    let off = Some(StepInterrupts::Held);
    assert_eq!(step_interrupts(&vm, off), StepInterrupts::Held);
    // Back to the first instruction of the loop.
    while vm.regs(0).rip != LOOP {
        vm.step(0);
    }
    step_in_the_loop(&vm, 1000);
    step_interrupts(&vm, on);
    vm.detach(DetachAction::Resume);
    vm.attach();
    assert_eq!(step_interrupts(&vm, None), StepInterrupts::Held);
}

#[test]
fn every_continue_over_a_breakpoint_advances_by_one_turn_while_the_timer_ticks() {
    let Some(vm) = in_the_loop() else {
        return;
    };
    let breakpoint = execute_at(LOOP + 1);
    vm.insert(breakpoint);
    let start = vm.regs(0).gp[3] & 0xffff;
    for n in 1..=400 {
        assert_eq!(stop(vm.resume()), hit(0, breakpoint));
        assert_eq!(vm.regs(0).gp[3] & 0xffff, start + n);
    }
    vm.remove(breakpoint);
    let_it_tick(&vm, 5);
}

/// The guest halts in a loop. Each tick wakes the VP, and the breakpoint on `hlt` is hit again.
#[test]
fn every_continue_over_a_breakpoint_on_hlt_waits_for_a_tick_and_serves_it() {
    for breakpoint in [software_at(IDLE), execute_at(IDLE)] {
        let Some(vm) = standing_at(execute_at(SITE)) else {
            return;
        };
        vm.remove(execute_at(SITE));
        let mut regs = vm.regs(0);
        regs.rip = IDLE;
        vm.try_set_regs(0, regs).unwrap();
        vm.insert(breakpoint);
        assert_eq!(stop(vm.resume()), hit(0, breakpoint));
        let before = ticking::ticks(&vm).count;
        for turn in 1..=20 {
            assert_eq!(stop(vm.resume()), hit(0, breakpoint), "{turn}");
        }
        let served = ticking::ticks(&vm).count - before;
        assert!(served >= 20, "{served} ticks in 20 turns, {breakpoint:?}");
    }
}

const IF: u64 = 1 << 9;
const RF: u64 = 1 << 16;

/// Two instructions with an interrupt before the first. The interrupt's handler counts at RDI and does not change the
/// flags in its frame. A `#DB` counts beside it.
fn queued(name: &'static str, mode: Mode) -> Program {
    // inc byte [rdi]; iret, and inc byte [rdi+1]; iret
    let (handler, on_debug): (&[u8], &[u8]) = match mode {
        Mode::Real => (&[0xfe, 0x05, 0xcf], &[0xfe, 0x45, 1, 0xcf]),
        Mode::Protected => (&[0xfe, 0x07, 0xcf], &[0xfe, 0x47, 1, 0xcf]),
        Mode::Long => (&[0xfe, 0x07, 0x48, 0xcf], &[0xfe, 0x47, 1, 0x48, 0xcf]),
    };
    Program::new(name, mode, &[0x90, 0x90])
        .handler(0x40, handler)
        .handler(1, on_debug)
        .queued(0x40)
}

const MODES: [Mode; 3] = [Mode::Real, Mode::Protected, Mode::Long];

#[test]
fn the_handler_of_an_interrupt_that_waits_to_be_injected_runs_before_the_step() {
    for mode in MODES {
        queued("RF is clear", mode)
            .set(|regs| regs.rflags |= IF)
            .check(&[ENTRY + 1, ENTRY + 2]);
    }
}

/// This happens between two turns of a repeated string instruction, and after a fault in the nested page tables. The
/// handler's `iret` sets RF again, and the instruction does not trap at an execution breakpoint.
#[test]
fn the_handler_of_an_interrupt_that_waits_to_be_injected_runs_before_the_step_of_an_instruction_with_the_resume_flag()
 {
    for mode in MODES {
        queued("RF is set", mode)
            .set(|regs| regs.rflags |= IF | RF)
            .check(&[ENTRY + 1, ENTRY + 2]);
    }
}

/// The guest has its own breakpoint at the instruction. Not in real mode: flags of 16 bits have no RF, and the
/// breakpoint would be hit without an end.
#[test]
fn the_resume_flag_that_an_interrupt_has_saved_gets_the_step_past_the_guests_own_breakpoint() {
    if emulates() {
        println!(
            "SKIP: this KVM ignores RFLAGS.RF, and the guest's breakpoint is met again without end"
        );
        return;
    }
    let set = |regs: &mut X86VpState| {
        regs.rflags |= IF | RF;
        (regs.debug.db[0], regs.debug.dr7) = (ENTRY, 0x402);
    };
    for mode in [Mode::Protected, Mode::Long] {
        queued("a breakpoint of the guest's", mode)
            .set(set)
            .check(&[ENTRY + 1, ENTRY + 2]);
    }
}
