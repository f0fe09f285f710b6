//! Steps over instructions that debuggers often step wrongly, on real guests. The images of RFLAGS that the guest
//! stores are not tested here.

use test_machine::machine;

use machine::guest::*;
use machine::*;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::VpAction;

const RCX: usize = 1;
const RSP: usize = 4;
const RSI: usize = 6;
const RDI: usize = 7;
const STACK: u64 = 0x7f00;
const IF: u64 = 1 << 9;
const TF: u64 = 1 << 8;

/// A guest at `code`, with `nop`s behind it and `stack` on its stack.
fn at(mode: Mode, code: &[u8], stack: &[u8]) -> Option<TestVm> {
    let code = [code, &[0x90; 64]].concat();
    let vm = Setup::new(mode, &code).build()?;
    vm.attach();
    let mut regs = vm.regs(0);
    regs.gp[RSP] = STACK;
    vm.try_set_regs(0, regs).unwrap();
    vm.write_gva(0, STACK, stack).unwrap();
    Some(vm)
}

#[test]
fn a_step_over_what_kvm_executes_itself_ends_right_behind_it() {
    // cpuid; wrmsr and rdmsr of IA32_SYSENTER_CS
    for mode in MODES {
        for code in [[0x0f, 0xa2], [0x0f, 0x30], [0x0f, 0x32]] {
            let Some(vm) = at(mode, &code, &[]) else {
                return;
            };
            let mut regs = vm.regs(0);
            regs.gp[RCX] = 0x174;
            vm.try_set_regs(0, regs).unwrap();
            vm.step(0);
            assert_eq!(vm.regs(0).rip, ENTRY + 2, "{mode:?} {code:x?}");
            vm.step(0);
            assert_eq!(vm.regs(0).rip, ENTRY + 3, "{mode:?} {code:x?}, then nop");
        }
    }
}

#[test]
fn a_step_over_sti_ends_behind_it_with_interrupts_on() {
    for mode in MODES {
        let Some(vm) = at(mode, &[0xfb], &[]) else {
            return;
        };
        vm.step(0);
        let regs = vm.regs(0);
        assert_eq!((regs.rip, regs.rflags & (IF | TF)), (ENTRY + 1, IF));
    }
}

#[test]
fn steps_go_on_after_popf_and_iret_cleared_the_trap_flag() {
    // popf of IF; in real mode also iret, which the emulating KVMs support in no other mode.
    let iret = [(ENTRY + 4).to_le_bytes()[..2].to_vec(), vec![0, 0, 2, 2]].concat();
    let popf = vec![2, 2, 0, 0, 0, 0, 0, 0];
    for (mode, code, stack, to) in [
        (Mode::Real, 0x9d, popf.clone(), ENTRY + 1),
        (Mode::Protected, 0x9d, popf.clone(), ENTRY + 1),
        (Mode::Long, 0x9d, popf, ENTRY + 1),
        (Mode::Real, 0xcf, iret, ENTRY + 4),
    ] {
        let Some(vm) = at(mode, &[code], &stack) else {
            return;
        };
        for n in 0..4 {
            vm.step(0);
            let regs = vm.regs(0);
            let found = (regs.rip, regs.rflags & (IF | TF));
            assert_eq!(found, (to + n, IF), "{mode:?} {code:#x} step {n}");
        }
    }
}

#[test]
fn a_step_over_mov_ss_may_take_one_more_instruction_and_no_other() {
    for mode in [Mode::Protected, Mode::Long] {
        let Some(vm) = at(mode, &[0x8e, 0xd0], &[]) else {
            return;
        };
        let mut regs = vm.regs(0);
        regs.gp[0] = 16;
        vm.try_set_regs(0, regs).unwrap();
        vm.step(0);
        let rip = vm.regs(0).rip;
        // According to the manual the trap waits for one more instruction. The emulating KVMs do not wait.
        assert!((ENTRY + 2..=ENTRY + 3).contains(&rip), "{mode:?} {rip:#x}");
        vm.step(0);
        assert_eq!(vm.regs(0).rip, rip + 1, "{mode:?}");
    }
}

/// `mov ss, eax; inc ebx` with a breakpoint byte on the latter. VT-x keeps the trap of the step over `mov ss` until the
/// VP enters the guest again at the byte.
#[test]
fn a_breakpoint_behind_mov_ss_is_met_once_and_the_next_step_executes_what_is_under_it() {
    use machine::software::*;
    const RBX: usize = 3;
    const BEHIND: u64 = ENTRY + 2;
    for mode in [Mode::Protected, Mode::Long] {
        for action in [VpAction::Step, VpAction::Run] {
            let Some(vm) = at(mode, &[0x8e, 0xd0, 0xff, 0xc3], &[]) else {
                return;
            };
            let mut regs = vm.regs(0);
            (regs.gp[0], regs.gp[RBX]) = (16, 0);
            vm.try_set_regs(0, regs).unwrap();
            vm.insert(software_at(BEHIND));
            vm.insert(software_at(BEHIND + 2));
            // Some KVMs end the step before the byte, and others hit the byte in the step.
            let reason = answer(vm.only(0, VpAction::Step)).unwrap().reason;
            assert_eq!(reason.vp(), Some(VpIndex::BSP));
            assert_eq!(vm.regs(0).rip, BEHIND, "{mode:?} {reason:?}");
            let reason = answer(vm.only(0, action)).unwrap().reason;
            let regs = vm.regs(0);
            let found = (regs.rip, regs.gp[RBX]);
            assert_eq!(found, (BEHIND + 2, 1), "{mode:?} {action:?}: {reason:?}");
        }
    }
}

#[test]
fn steps_over_a_repeated_string_copy_all_of_it_and_stop_inside_or_behind() {
    const FROM: u64 = 0x6000;
    const TO: u64 = 0x6100;
    for mode in MODES {
        let Some(vm) = at(mode, &[0xf3, 0xa4], &[]) else {
            return;
        };
        vm.write_gva(0, FROM, b"trapgate").unwrap();
        let mut regs = vm.regs(0);
        (regs.gp[RCX], regs.gp[RSI], regs.gp[RDI]) = (8, FROM, TO);
        vm.try_set_regs(0, regs).unwrap();
        let mut left = 8;
        let mut steps = 0;
        while vm.regs(0).rip == ENTRY {
            vm.step(0);
            steps += 1;
            let now = vm.regs(0).gp[RCX];
            assert!(now <= left && steps <= 9, "{mode:?}: {now} after {left}");
            left = now;
        }
        assert_eq!((vm.regs(0).rip, left), (ENTRY + 2, 0), "{mode:?}");
        assert_eq!(vm.read_gva(0, TO, 9).unwrap(), b"trapgate\0", "{mode:?}");
    }
}

/// `mov edi, 6000h; mov ecx, 200h; 1: mov [rdi], ecx; add edi, 4; push rdi; pop rax; push 2; popf; dec ecx; jnz 1b; mov al, 7; out tell, al; jmp .`
const FILL: &[u8] = &[
    0xbf, 0x00, 0x60, 0, 0, 0xb9, 0, 2, 0, 0, 0x89, 0x0f, 0x83, 0xc7, 4, 0x57, 0x58, 0x6a, 2, 0x9d,
    0xff, 0xc9, 0x75, 0xf2, 0xb0, 7, 0xe6, PORT_TELL, 0xeb, 0xfe,
];

#[test]
fn a_thousand_steps_leave_the_memory_that_an_untouched_run_leaves() {
    let told = |vm: &TestVm| {
        let enough = |seen: &Seen| !seen.told.is_empty();
        vm.machine.wait_until("the guest is done", enough);
        vm.machine.raw_memory()
    };
    let Some(untouched) = Setup::new(Mode::Long, FILL).running().build() else {
        return;
    };
    let expected = told(&untouched);
    assert_eq!(expected[0x6000..0x6004], [0, 2, 0, 0]);
    let Some(vm) = Setup::new(Mode::Long, FILL).build() else {
        return;
    };
    vm.attach();
    let turn = [0, 2, 5, 6, 7, 9, 10, 12];
    for n in 0..1000_usize {
        let at = match n {
            0 => 0,
            1 => 5,
            _ => 10 + turn[(n - 2) % turn.len()],
        };
        assert_eq!(vm.regs(0).rip, ENTRY + at, "before step {n}");
        vm.step(0);
    }
    let pending = vm.resume();
    let stepped = told(&vm);
    let first = expected.iter().zip(&stepped).position(|(a, b)| a != b);
    assert_eq!(first, None, "the first byte that differs");
    interrupt(&vm, pending);
}
