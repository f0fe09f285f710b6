//! The trap flag of steps is not visible in the guest, and the guest's own trap flag keeps working (I9). Each program
//! is stepped, and the memory that it leaves is compared with the memory of an untouched run.
//!
//! The programs log every image of RFLAGS at the time when they can read it, so a later correction cannot hide a trap
//! flag.

use test_machine::machine;

use machine::guest::*;
use machine::program::*;
use machine::*;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::breakpoint::BreakpointChange;
use vmm_core_defs::breakpoint::BreakpointKind;
use vmm_core_defs::debug_rpc::*;
use vmm_core_defs::stop::DebugStopReason;
use vp_runner::runner::RunnerExit;

const RCX: usize = 1;
const RBX: usize = 3;
const RDI: usize = 7;
const R11: usize = 11;
const TF: u64 = 1 << 8;

/// `pushfq; pop rax; stosq`; in other modes with the operand size of the mode.
const LOG_FLAGS: [u8; 4] = [0x9c, 0x58, 0x48, 0xab];
/// `mov rax, [rsp+16]; stosq; iretq`
const LOG_FRAME: &[u8] = &[0x48, 0x8b, 0x44, 0x24, 0x10, 0x48, 0xab, 0x48, 0xcf];
/// The same, with two added to the return address.
const LOG_AND_SKIP: &[u8] = &[
    0x48, 0x8b, 0x44, 0x24, 0x10, 0x48, 0xab, 0x48, 0x83, 0x04, 0x24, 2, 0x48, 0xcf,
];
/// The same below an error code.
const LOG_AND_SKIP_BELOW_CODE: &[u8] = &[
    0x48, 0x8b, 0x44, 0x24, 0x18, 0x48, 0xab, 0x48, 0x83, 0x44, 0x24, 8, 2, 0x48, 0x83, 0xc4, 8,
    0x48, 0xcf,
];
/// `push rax`; logs return address, flags and DR6 at R15; `pop rax; iretq`. B0-B3 are masked out, `and al, 0f0h`: with
/// no debug register enabled they may have any value (SDM volume 3, "Debug Status Register (DR6)"), and in a run
/// without a debugger one of them was set.
const LOG_TRAP: &[u8] = &[
    0x50, 0x48, 0x8b, 0x44, 0x24, 0x08, 0x49, 0x89, 0x07, 0x48, 0x8b, 0x44, 0x24, 0x18, 0x49, 0x89,
    0x47, 0x08, 0x0f, 0x21, 0xf0, 0x24, 0xf0, 0x49, 0x89, 0x47, 0x10, 0x49, 0x83, 0xc7, 0x18, 0x58,
    0x48, 0xcf,
];

/// The trail through one instruction of `len` bytes at the start, a handler with instructions of these lengths, and the
/// instructions behind it.
fn through_handler(handler: &[u64], len: u64, rest: &[u64]) -> Vec<u64> {
    let mut trail = run(HANDLER, handler);
    let after = run(ENTRY + len, rest);
    trail.extend(&after);
    trail.push(ENTRY + len + rest.iter().sum::<u64>());
    trail
}

#[test]
fn pushf_pushes_no_trap_flag() {
    let twice = |code: &[u8]| [code, code].concat();
    let long = Program::new("pushfq", Mode::Long, &twice(&LOG_FLAGS));
    long.check(&run(ENTRY + 1, &[1, 2, 1, 1, 2, 0]));
    let small = Program::new("pushf", Mode::Long, &[0x66, 0x9c, 0x66, 0x58, 0x66, 0xab]);
    small.check(&run(ENTRY + 2, &[2, 2, 0]));
    for mode in [Mode::Real, Mode::Protected] {
        Program::new("pushf", mode, &twice(&[0x9c, 0x58, 0xab])).check(&run(ENTRY + 1, &[1; 6]));
    }
}

/// The instruction lies between instructions that use only registers. A range step reads only the opcodes of those.
#[test]
fn a_range_goes_from_harmless_instructions_to_others_and_shows_no_trap_flag() {
    let nops: &[u8] = &[0x90, 0xff, 0xc1, 0x89, 0xca];
    // `ud2`; `mov [rbx], eax` at an address without a page.
    let parts: [&[u8]; 4] = [&LOG_FLAGS, &[0xcd, 0x40], &[0x0f, 0x0b], &[0x89, 0x03]];
    let body: Vec<u8> = parts
        .iter()
        .flat_map(|part| [nops, part])
        .collect::<Vec<_>>()
        .concat();
    let over_nops = [1, 2, 2];
    let mut path = run(
        ENTRY,
        &[&over_nops[..], &[1, 1, 2], &over_nops, &[2]].concat(),
    );
    path.remove(0);
    path.extend(run(HANDLER, &[5, 2, 2]));
    let at = |n: u64| ENTRY + 9 + 7 * n;
    path.extend(run(at(1), &[&over_nops[..], &[2]].concat()));
    path.extend(run(HANDLER + 0x100, &[5, 2, 5, 2]));
    path.extend(run(at(2), &[&over_nops[..], &[2]].concat()));
    path.extend(run(HANDLER + 0x200, &[5, 2, 6, 4, 2]));
    path.push(at(3));
    Program::new("registers alone", Mode::Long, &body)
        .handler(0x40, LOG_FRAME)
        .handler(6, LOG_AND_SKIP)
        .handler(14, LOG_AND_SKIP_BELOW_CODE)
        .check(&path);
}

#[test]
fn software_interrupts_lead_to_their_handlers_with_no_trap_flag_in_the_frame() {
    let body = |code: &[u8]| [code, &LOG_FLAGS].concat();
    let path = |len| through_handler(&[5, 2, 2], len, &[1, 1, 2]);
    Program::new("int 40h", Mode::Long, &body(&[0xcd, 0x40]))
        .handler(0x40, LOG_FRAME)
        .check(&path(2));
    Program::new("int3", Mode::Long, &body(&[0xcc]))
        .handler(3, LOG_FRAME)
        .check(&path(1));
    // mov ax, [bp+4] with bp the stack pointer; stosw; iret
    Program::new("int 40h", Mode::Real, &[0xcd, 0x40, 0x9c, 0x58, 0xab])
        .handler(0x40, &[0x89, 0xe5, 0x8b, 0x46, 4, 0xab, 0xcf])
        .check(&through_handler(&[2, 3, 1, 1], 2, &[1, 1, 1]));
    // mov al, 7fh; add al, 1: overflow
    let mut path = vec![ENTRY + 2, ENTRY + 4];
    path.extend(through_handler(&[4, 1, 1], 5, &[]));
    Program::new("into", Mode::Protected, &[0xb0, 0x7f, 0x04, 1, 0xce])
        .handler(4, &[0x8b, 0x44, 0x24, 8, 0xab, 0xcf])
        .check(&path);
}

#[test]
fn exceptions_in_a_step_lead_to_their_handlers_with_no_trap_flag_in_the_frame() {
    let body = |code: &[u8]| [code, &LOG_FLAGS].concat();
    let path = |handler: &[u64]| through_handler(handler, 2, &[1, 1, 2]);
    for (name, code, vector) in [("ud2", [0x0f, 0x0b], 6), ("div by 0", [0xf7, 0xf1], 0)] {
        Program::new(name, Mode::Long, &body(&code))
            .handler(vector, LOG_AND_SKIP)
            .check(&path(&[5, 2, 5, 2]));
    }
    let read = Program::new("read of no page", Mode::Long, &body(&[0x8b, 0x03]));
    read.handler(14, LOG_AND_SKIP_BELOW_CODE)
        .check(&path(&[5, 2, 6, 4, 2]));
    let read = Program::new("read of no address", Mode::Long, &body(&[0x8b, 0x03]));
    read.handler(13, LOG_AND_SKIP_BELOW_CODE)
        .set(|regs| regs.gp[RBX] = 1 << 63)
        .check(&path(&[5, 2, 6, 4, 2]));
}

/// A page table for the second 2 MiB, and its entry in the directory.
const PT: u64 = 0x1_6000;
const PD_ENTRY: (u64, u64) = (0x1_2000 + 8, PT | 0x23);

fn jump(from: u64, to: u64) -> Vec<u8> {
    const JMP: u8 = 0xe9;
    let by = u32::try_from(to.wrapping_sub(from + 5) & 0xffff_ffff).unwrap();
    [&[JMP][..], &by.to_le_bytes()].concat()
}

#[test]
fn a_range_that_jumps_to_another_page_looks_at_what_is_there() {
    const FIRST: u64 = 0x20_0000;
    const SECOND: u64 = 0x20_1010;
    let first = [&[0x90; 4][..], &jump(FIRST + 4, SECOND)].concat();
    let second = [&LOG_FLAGS[..], &jump(SECOND + 4, ENTRY + 5)].concat();
    let mut path = run(FIRST, &[1, 1, 1, 1, 5]);
    path.extend(run(SECOND, &[1, 1, 2, 5]));
    path.push(ENTRY + 5);
    Program::new("two pages", Mode::Long, &jump(ENTRY, FIRST))
        .more(0x10_0000, &first)
        // The page behind the first one is not the second one.
        .more(0x10_1010, &[0x90; 16])
        .more(0x10_3010, &second)
        .more(PD_ENTRY.0, &PD_ENTRY.1.to_le_bytes())
        .more(PT, &0x10_0063_u64.to_le_bytes())
        .more(PT + 8, &0x10_3063_u64.to_le_bytes())
        .check(&path);
}

#[test]
fn a_step_over_an_instruction_that_goes_on_in_a_page_that_is_missing_ends_at_the_fault_handler() {
    /// The address of an instruction of five bytes with two bytes on the next page, and its physical address.
    const ACROSS: u64 = 0x20_0ffd;
    const PHYSICAL: u64 = 0x10_0ffd;
    // mov eax, 12345678h; jmp to the end
    let mut across = vec![0xb8, 0x78, 0x56, 0x34, 0x12];
    across.extend(jump(ACROSS + 5, ENTRY + 5));
    // mov rax, [rsp+24]; stosq; mov dword [rbx], the second page; add rsp, 8; iretq
    let handler = &[
        0x48, 0x8b, 0x44, 0x24, 0x18, 0x48, 0xab, 0xc7, 0x03, 0x63, 0x10, 0x10, 0, 0x48, 0x83,
        0xc4, 8, 0x48, 0xcf,
    ];
    let program = Program::new("mov across pages", Mode::Long, &jump(ENTRY, ACROSS))
        .handler(14, handler)
        .more(PHYSICAL, &across)
        .more(PD_ENTRY.0, &PD_ENTRY.1.to_le_bytes())
        .more(PT, &0x10_0063_u64.to_le_bytes())
        .set(|regs| regs.gp[RBX] = PT + 8);
    let mut path = vec![ACROSS];
    path.extend(run(HANDLER, &[5, 2, 6, 4, 2]));
    path.extend([ACROSS, ACROSS + 5, ENTRY + 5]);
    program.check(&path);
}

#[test]
fn an_nmi_waits_for_the_end_of_the_steps_and_is_taken_once_with_no_trap_flag_in_its_frame() {
    let noted = |memory: &[u8]| memory[usize::try_from(LOG).unwrap()] != 0;
    // movzx eax, word [the flags]; stos; iret
    let handlers: [(Mode, &'static [u8]); 2] = [
        (
            Mode::Long,
            &[0x0f, 0xb7, 0x44, 0x24, 0x10, 0x48, 0xab, 0x48, 0xcf],
        ),
        (Mode::Protected, &[0x0f, 0xb7, 0x44, 0x24, 8, 0xab, 0xcf]),
    ];
    for (mode, handler) in handlers {
        // nop; mov ecx, [esp]; nop
        let program = Program::new("NMI", mode, &[0x90, 0x8b, 0x0c, 0x24, 0x90])
            .handler(2, handler)
            .nmi();
        let Some(expected) = program.untouched() else {
            continue;
        };
        assert!(noted(&expected), "{mode:?}: the guest gets no NMI");
        let vm = program.build().unwrap();
        assert_eq!(program.step_through(&vm), run(ENTRY + 1, &[3, 1, 0]));
        let taken = noted(&vm.machine.raw_memory());
        assert!(!taken, "{mode:?}: the handler ran unseen inside a step");
        assert_eq!(
            stop(vm.resume()),
            DebugStopReason::PowerOff {
                vp: Some(VpIndex::BSP)
            }
        );
        // Only its return address differs.
        let log = usize::try_from(LOG).unwrap();
        let log = log..log + 64;
        assert_eq!(vm.machine.raw_memory()[log.clone()], expected[log]);
    }
}

/// `mov rax, r11; stosq; jmp rcx` at the entry, and the MSRs for `syscall`.
fn syscall(name: &'static str, mask: u64) -> Program {
    let body = [&[0x0f, 0x05][..], &LOG_FLAGS].concat();
    Program::new(name, Mode::Long, &body)
        .more(HANDLER, &[0x4c, 0x89, 0xd8, 0x48, 0xab, 0xff, 0xe1])
        .msr(0xc000_0081, 8 << 32 | 0x20 << 48)
        .msr(0xc000_0082, HANDLER)
        .msr(0xc000_0084, mask)
        .set(|regs| regs.efer |= 1)
}

#[test]
fn syscall_leaves_no_trap_flag_in_r11_and_ends_at_its_entry_whatever_it_masks() {
    let path = through_handler(&[3, 2, 2], 2, &[1, 1, 2]);
    for (name, mask) in [("syscall", 0), ("syscall that masks TF", 0x4_7700)] {
        syscall(name, mask).check(&path);
    }
}

#[test]
fn sysret_and_syscall_back_are_two_steps() {
    if emulates() {
        return println!("SKIP sysret: a step over it never ends on this host");
    }
    const USER: u64 = 0x3000;
    let mut program = syscall("sysret", 0x4_7700);
    program.body = vec![0x48, 0x0f, 0x07];
    // out off, where the entry is.
    program.more = vec![
        (HANDLER, [&LOG_FLAGS[..], &[0xe6, PORT_OFF]].concat()),
        (USER, [&LOG_FLAGS[..], &[0x0f, 0x05]].concat()),
        // All pages belong to the user.
        (0x1_0000, vec![0x27]),
        (0x1_1000, vec![0x27]),
        (0x1_2000, vec![0xe7]),
    ];
    program.set = |regs| {
        regs.efer |= 1;
        (regs.gp[RCX], regs.gp[R11]) = (USER, 2);
    };
    let Some(expected) = program.untouched() else {
        return;
    };
    let vm = program.build().unwrap();
    for rip in run(USER, &[1, 1, 2, 2])
        .into_iter()
        .chain(run(HANDLER, &[1, 1, 2, 2]))
    {
        vm.step(0);
        assert_eq!(vm.regs(0).rip, rip);
    }
    program.finish(&vm, &expected);
}

#[test]
fn sysenter_takes_no_trap_flag_along() {
    // pushfd; pop eax; stosd; out off
    let mut program = Program::new("sysenter", Mode::Protected, &[0x0f, 0x34])
        .more(HANDLER, &[0x9c, 0x58, 0xab, 0xe6, PORT_OFF])
        .msr(0x174, 24)
        .msr(0x175, STACK)
        .msr(0x176, HANDLER);
    let Some(expected) = program.untouched() else {
        return;
    };
    program.name = "stepped sysenter";
    let vm = program.build().unwrap();
    for rip in run(HANDLER, &[1, 1, 1, 1]) {
        vm.step(0);
        assert_eq!(vm.regs(0).rip, rip);
    }
    program.finish(&vm, &expected);
}

#[test]
fn iret_loads_what_is_on_the_stack_and_steps_go_on() {
    let body = [&[0x48, 0xcf][..], &LOG_FLAGS, &LOG_FLAGS].concat();
    let frame: Vec<u8> = [ENTRY + 2, 8, 0x202, STACK, 16]
        .into_iter()
        .flat_map(u64::to_le_bytes)
        .collect();
    Program::new("iretq", Mode::Long, &body)
        .more(STACK, &frame)
        .check(&run(ENTRY + 2, &[1, 1, 2, 1, 1, 2, 0]));
    let body = [0xcf, 0x9c, 0x58, 0xab];
    let frame: Vec<u8> = [0x1001_u32, 24, 0x202]
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .collect();
    Program::new("iretd", Mode::Protected, &body)
        .more(STACK, &frame)
        .check(&run(ENTRY + 1, &[1, 1, 1, 0]));
}

/// Sets TF by `popfq`, executes many kinds of instructions, and clears TF in the same way.
fn steps_itself() -> Program {
    let body = [
        // pushfq; pop rax; or eax, 100h; push rax; popfq
        &[0x9c, 0x58, 0x0d, 0, 1, 0, 0, 0x50, 0x9d][..],
        // nop; pushfq; pop rdx; mov [rdi], rdx
        &[0x90, 0x9c, 0x5a, 0x48, 0x89, 0x17],
        // xor eax, eax; cpuid; int 40h; out tell, al
        &[0x31, 0xc0, 0x0f, 0xa2, 0xcd, 0x40, 0xe6, PORT_TELL],
        // mov eax, ss; mov ss, eax; nop
        &[0x8c, 0xd0, 0x8e, 0xd0, 0x90],
        // mov ecx, 3; rep stosb
        &[0xb9, 3, 0, 0, 0, 0xf3, 0xaa],
        // push 2; popfq; nop; nop
        &[0x6a, 2, 0x9d, 0x90, 0x90],
    ]
    .concat();
    Program::new("a guest that steps itself", Mode::Long, &body)
        .handler(1, LOG_TRAP)
        .handler(0x40, &[0x48, 0x89, 0x64, 0x24, 0xc0, 0x48, 0xcf])
        .set(|regs| regs.gp[RDI] = 0x5000)
}

/// The number of the guest's own traps in its log.
fn traps_logged(memory: &[u8]) -> usize {
    let start = usize::try_from(LOG).unwrap();
    let entries = memory[start..].chunks(24);
    entries.take_while(|entry| entry[..8] != [0; 8]).count()
}

#[test]
fn a_guest_that_steps_itself_gets_its_own_traps_while_it_is_stepped() {
    let program = steps_itself();
    let Some(expected) = program.untouched() else {
        return;
    };
    let traps = traps_logged(&expected);
    assert!(
        traps >= 14,
        "{traps} traps: the program does not do what it is to"
    );
    let vm = program.build().unwrap();
    let trail = program.step_through(&vm);
    println!("{traps} traps, {} steps", trail.len());
    program.finish(&vm, &expected);
    program.check(&trail);
}

/// The traps of a step need debug registers too, for the handlers of the likeliest exceptions and more.
#[test]
fn a_breakpoint_at_the_debug_handler_is_met_by_each_trap_of_a_guest_that_steps_itself() {
    let program = Program::new("nops", Mode::Long, &[0x90; 6])
        .handler(1, LOG_TRAP)
        .handler(14, LOG_AND_SKIP)
        .handler(13, LOG_AND_SKIP)
        .handler(6, LOG_AND_SKIP)
        .handler(0, LOG_AND_SKIP)
        .set(|regs| regs.rflags |= TF);
    let Some(vm) = program.build() else { return };
    let path = program.step_through(&vm);
    let off = DebugStopReason::PowerOff {
        vp: Some(VpIndex::BSP),
    };
    assert_eq!(stop(vm.resume()), off);
    let expected = vm.machine.raw_memory();
    let traps = path.iter().filter(|rip| **rip == HANDLER).count();
    assert!(traps >= 3, "{path:x?}");
    let vm = program.build().unwrap();
    let breakpoint = execute_at(HANDLER);
    vm.insert(breakpoint);
    for rip in path {
        let reason = stop(vm.only(0, VpAction::Step));
        assert_eq!(vm.regs(0).rip, rip, "{reason:?}");
    }
    vm.remove(breakpoint);
    program.finish(&vm, &expected);
}

#[test]
fn the_debugger_sees_the_guests_own_trap_flag_and_may_change_it() {
    let program = steps_itself();
    let Some(expected) = program.untouched() else {
        return;
    };
    let vm = program.build().unwrap();
    for _ in 0..4 {
        vm.step(0);
        assert_eq!(vm.regs(0).rflags & TF, 0);
    }
    vm.step(0);
    let regs = vm.regs(0);
    assert_eq!((regs.rip, regs.rflags & TF), (ENTRY + 9, TF), "popf set it");
    program.finish(&vm, &expected);
    // The same, with the debugger instead of the guest's popf, between two steps and at the end.
    let program = Program::new("own", Mode::Long, &[0x90; 6]).handler(1, LOG_TRAP);
    let vm = program.build().unwrap();
    vm.step(0);
    let mut regs = vm.regs(0);
    regs.rflags |= TF;
    vm.try_set_regs(0, regs).unwrap();
    assert_eq!(vm.regs(0).rflags & TF, TF);
    vm.step(0);
    assert_eq!(vm.regs(0).rip, ENTRY + 2, "the trap comes when it goes on");
    vm.step(0);
    assert_eq!(vm.regs(0).rip, HANDLER, "now");
    assert_eq!(vm.regs(0).rflags & TF, 0);
    assert_eq!(
        stop(vm.resume()),
        DebugStopReason::PowerOff {
            vp: Some(VpIndex::BSP)
        }
    );
    // One nop after the other, and the out that powers the guest off.
    assert_eq!(traps_logged(&vm.machine.raw_memory()), 5);
}

#[test]
fn steps_and_continues_in_any_mixture_leave_a_guest_that_steps_itself_alone() {
    let program = steps_itself();
    let Some(expected) = program.untouched() else {
        return;
    };
    let stops = [
        execute_at(ENTRY + 10),
        execute_at(HANDLER),
        execute_at(HANDLER + 30),
        execute_at(ENTRY + 21),
    ];
    for seed in 1..=6_u64 {
        println!("seed {seed}");
        let vm = program.build().unwrap();
        for breakpoint in stops {
            vm.insert(breakpoint);
        }
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for turn in 0.. {
            assert!(turn < 500, "seed {seed}: it does not end");
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            match random % 3 {
                0 if stop(vm.resume())
                    == (DebugStopReason::PowerOff {
                        vp: Some(VpIndex::BSP),
                    }) =>
                {
                    break;
                }
                0 => {}
                _ if vm.regs(0).rip == program.end() => {}
                _ => {
                    let reason = stop(vm.only(0, VpAction::Step));
                    assert_ne!(
                        reason,
                        DebugStopReason::PowerOff {
                            vp: Some(VpIndex::BSP)
                        }
                    );
                }
            }
        }
        program.compare(&vm.machine.raw_memory(), &expected);
    }
}

#[test]
fn a_detach_at_any_step_gives_the_guest_its_own_trap_flag_and_trap_back() {
    let program = steps_itself();
    let Some(expected) = program.untouched() else {
        return;
    };
    for steps in [0, 4, 5, 6, 7, 9, 13, 20] {
        let vm = program.build().unwrap();
        for _ in 0..steps {
            vm.step(0);
        }
        vm.detach(DetachAction::Resume);
        let machine = vm.machine.clone();
        assert_eq!(vm.join(), RunnerExit::PowerOff, "after {steps} steps");
        program.compare(&machine.raw_memory(), &expected);
    }
}

#[test]
fn without_a_debug_register_what_the_trap_flag_left_is_corrected() {
    let programs = [
        Program::new("pushfq", Mode::Long, &[LOG_FLAGS; 2].concat()),
        syscall("syscall", 0),
    ];
    for program in programs {
        let Some(expected) = program.untouched() else {
            return;
        };
        let vm = program.build().unwrap();
        let watches = (0..4).map(|n| {
            BreakpointChange::Insert(Breakpoint {
                kind: BreakpointKind::Write,
                address: Gva::new(0x9000 + 8 * n),
                len: 8,
            })
        });
        let inserted = vm.call(DebugRequest::SetDebugState, watches.collect());
        if let Err(err) = inserted {
            println!("SKIP {}: {err}", program.name);
            return;
        }
        program.step_through(&vm);
        program.finish(&vm, &expected);
    }
}

#[test]
fn a_step_over_hlt_ends_behind_it_and_the_interrupt_comes_afterwards() {
    // The timer at 1 kHz; sti; hlt; nop; out off
    let mut body = timer_at_1_khz();
    let lead = body.len() as u64;
    body.extend([0xfb, 0xf4, 0x90]);
    // mov al, 20h; out 20h, al; out tell, al; iret
    let handler = &[0xb0, 0x20, 0xe6, 0x20, 0xe6, PORT_TELL, 0xcf];
    let program = Program::new("hlt", Mode::Real, &body).handler(0x20, handler);
    let Some(vm) = program.build() else {
        return;
    };
    let halt = execute_at(ENTRY + lead + 1);
    vm.insert(halt);
    assert_eq!(stop(vm.resume()), hit(0, halt));
    vm.remove(halt);
    vm.step(0);
    assert_eq!(vm.regs(0).rip, ENTRY + lead + 2);
    let told = vm.machine.wait_until("now", |_| true).told.len();
    assert_eq!(told, 0, "no handler ran inside the step");
    assert_eq!(
        stop(vm.resume()),
        DebugStopReason::PowerOff {
            vp: Some(VpIndex::BSP)
        }
    );
}
