//! Steps over hardware task switches (SDM volume 3, "Task Management"): a step ends at the first instruction of the new
//! task, and the trap flag of the step is in no TSS (I8, I9). Only 32-bit protected mode is tested.

use test_machine::machine;

use machine::guest::*;
use machine::program::*;
use machine::*;
use vmm_core_defs::regs::X86VpState;

/// The program's task and the other task.
const OWN_TSS: u64 = 0x5000;
const OTHER_TSS: u64 = 0x5100;
const OTHER: u64 = 0x3000;
const OTHER_STACK: u64 = 0x7b00;
const GDT: u64 = 0x1_3000;
const OWN_SELECTOR: u8 = 0x20;
const OTHER_SELECTOR: u8 = 0x28;
const GATE_SELECTOR: u8 = 0x30;
/// The offset of EFLAGS in a TSS.
const EFLAGS: u64 = 0x24;
const TF: u32 = 1 << 8;
const RBX: usize = 3;
const RSI: usize = 6;
/// The address of the far pointer of the call in memory.
const POINTER: u64 = 0x5200;
/// Where the tasks record their own traps.
const TRAPS: u64 = 0x6100;
const TRAPS_OF_OTHER: u64 = 0x6400;

/// Copies a doubleword of memory to the log: `mov eax, [at]; mov [to], eax`.
fn note(at: u64, to: u64) -> Vec<u8> {
    let word = |at: u64| u32::try_from(at).unwrap().to_le_bytes();
    [&[0xa1][..], &word(at), &[0xa3], &word(to)].concat()
}

/// Copies EFLAGS to the log: `pushfd; pop eax; mov [to], eax`.
fn note_flags(to: u64) -> Vec<u8> {
    let to = u32::try_from(to).unwrap().to_le_bytes();
    [&[0x9c, 0x58, 0xa3][..], &to].concat()
}

/// The first instructions of the other task. They log the program's flags that the processor has stored, the task's own
/// flags, and its back-link.
fn other_task() -> Vec<u8> {
    let stored = note(OWN_TSS + EFLAGS, LOG);
    [stored, note_flags(LOG + 4), note(OTHER_TSS, LOG + 8)].concat()
}

const OTHER_TASK: [u64; 7] = [5, 5, 1, 1, 5, 5, 5];

fn descriptor(base: u64, busy: bool) -> [u8; 8] {
    let [low, middle, high, top, ..] = base.to_le_bytes();
    let kind = if busy { 0x8b } else { 0x89 };
    [0x67, 0, low, middle, high, kind, 0, top]
}

/// Two tasks: the program, and the code `other`.
fn tasks(name: &'static str, body: &[u8], other: &[u8], flags: u32) -> Program {
    let mut tss = [0; 0x68];
    let mut put = |at: usize, value: u64| {
        tss[at..at + 4].copy_from_slice(&u32::try_from(value).unwrap().to_le_bytes());
    };
    for (at, value) in [(0x20, OTHER), (0x24, flags.into()), (0x38, OTHER_STACK)] {
        put(at, value);
    }
    for segment in [0x48, 0x50, 0x54, 0x58, 0x5c] {
        put(segment, 16);
    }
    put(0x4c, 24);
    put(0x64, 0x68 << 16);
    Program::new(name, Mode::Protected, body)
        .more(GDT + u64::from(OWN_SELECTOR), &descriptor(OWN_TSS, true))
        .more(
            GDT + u64::from(OTHER_SELECTOR),
            &descriptor(OTHER_TSS, false),
        )
        .more(
            GDT + u64::from(GATE_SELECTOR),
            &[0, 0, OTHER_SELECTOR, 0, 0, 0x85, 0, 0],
        )
        // The gate of int 40h.
        .more(IDT + 0x40 * 8, &[0, 0, OTHER_SELECTOR, 0, 0, 0x85, 0, 0])
        .more(OTHER_TSS, &tss)
        .more(OTHER, other)
        .set(in_own_task)
}

fn in_own_task(regs: &mut X86VpState) {
    regs.gdtr.limit = 0x37;
    regs.tr.selector = OWN_SELECTOR.into();
    (regs.tr.base, regs.tr.limit, regs.tr.attributes) = (OWN_TSS, 0x67, 0x8b);
}

/// `jmp` or `call` to a selector. The offset is ignored.
fn far(opcode: u8, selector: u8) -> Vec<u8> {
    vec![opcode, 0, 0, 0, 0, selector, 0]
}

const JMP: u8 = 0xea;
const CALL: u8 = 0x9a;

#[test]
fn a_step_over_a_far_jump_to_a_task_ends_in_it_with_no_trap_flag_in_the_tss() {
    // The other task jumps back.
    let other = [other_task(), far(JMP, OWN_SELECTOR)].concat();
    let back = [note(OTHER_TSS + EFLAGS, LOG + 12), note_flags(LOG + 16)].concat();
    let other_len: u64 = OTHER_TASK.iter().sum();
    for selector in [OTHER_SELECTOR, GATE_SELECTOR] {
        let body = [far(JMP, selector), back.clone()].concat();
        let mut path = run(OTHER, &OTHER_TASK);
        path.push(OTHER + other_len);
        path.extend(run(ENTRY + 7, &[5, 5, 1, 1, 5, 0]));
        tasks("jmp to a task", &body, &other, 2).check(&path);
    }
}

/// The other task returns by `iretd`. The next entry continues behind it.
fn other_that_returns() -> Vec<u8> {
    [other_task(), vec![0xcf]].concat()
}

/// The program's instruction, the other task, and the program's log entries.
fn there_and_back(name: &'static str, enter: &[u8]) -> (Program, Vec<u64>) {
    let own = [note(OTHER_TSS + EFLAGS, LOG + 12), note_flags(LOG + 16)].concat();
    let body = [enter, &own].concat();
    let mut path = run(OTHER, &OTHER_TASK);
    path.push(OTHER + OTHER_TASK.iter().sum::<u64>());
    path.extend(run(ENTRY + enter.len() as u64, &[5, 5, 1, 1, 5, 0]));
    (tasks(name, &body, &other_that_returns(), 2), path)
}

#[test]
fn steps_over_a_far_call_to_a_task_and_the_iret_back_end_in_the_other_with_no_trap_flag_in_the_tss()
{
    for selector in [OTHER_SELECTOR, GATE_SELECTOR] {
        let (program, path) = there_and_back("call of a task", &far(CALL, selector));
        program.check(&path);
    }
    // call far [ebx]
    let (program, path) = there_and_back("call of a task in memory", &[0xff, 0x1b]);
    let program = program.more(POINTER, &[0, 0, 0, 0, OTHER_SELECTOR, 0]);
    let set = |regs: &mut X86VpState| {
        in_own_task(regs);
        regs.gp[RBX] = POINTER;
    };
    program.set(set).check(&path);
}

#[test]
fn a_step_over_int_n_through_a_task_gate_ends_in_the_task_with_no_trap_flag_in_the_tss() {
    let (program, path) = there_and_back("int 40h to a task", &[0xcd, 0x40]);
    program.check(&path);
}

#[test]
fn a_fault_that_is_handled_by_a_task_ends_the_step_in_it() {
    // ud2. The handler's task adds two to the program's EIP.
    let (mut program, path) = there_and_back("ud2 to a task", &[0x0f, 0x0b]);
    let eip = u32::try_from(OWN_TSS + 0x20).unwrap();
    // add dword [own task's EIP], 2, before iretd
    let skip = [&[0x83, 0x05][..], &eip.to_le_bytes(), &[2, 0xcf]].concat();
    let at = OTHER + OTHER_TASK.iter().sum::<u64>();
    program = program
        .more(at, &skip)
        .more(IDT + 6 * 8, &[0, 0, OTHER_SELECTOR, 0, 0, 0x85, 0, 0]);
    let mut expected = path.clone();
    let iret = path.iter().position(|rip| *rip == at).unwrap();
    expected.insert(iret + 1, at + 7);
    program.check(&expected);
}

/// Logs the return address and the flags of its `#DB` at ESI: `push eax; mov eax, [esp+4]; mov [esi], eax; mov eax,
/// [esp+12]; mov [esi+4], eax; add esi, 8; pop eax; iretd`.
const LOG_TRAP: &[u8] = &[
    0x50, 0x8b, 0x44, 0x24, 4, 0x89, 0x06, 0x8b, 0x44, 0x24, 12, 0x89, 0x46, 4, 0x83, 0xc6, 8,
    0x58, 0xcf,
];

#[test]
fn a_guest_that_steps_itself_goes_on_doing_so_in_the_task_it_is_switched_to() {
    for (name, own, other) in [
        ("the other task steps itself", 2, TF | 2),
        ("the program steps itself", TF | 2, 2),
        ("both step themselves", TF | 2, TF | 2),
    ] {
        // push own; popfd; call far
        let [low, high, ..] = u32::to_le_bytes(own);
        let enter = [
            &[0x68, low, high, 0, 0, 0x9d][..],
            &far(CALL, OTHER_SELECTOR),
        ]
        .concat();
        let back = [
            note(OTHER_TSS + EFLAGS, LOG + 12),
            vec![0x6a, 2, 0x9d, 0x90],
        ]
        .concat();
        let mut tasks = tasks(name, &[enter, back].concat(), &other_that_returns(), other);
        tasks = tasks.handler(1, LOG_TRAP);
        // Each task logs its traps at its own address.
        tasks = tasks.more(OTHER_TSS + 0x40, &TRAPS_OF_OTHER.to_le_bytes());
        let set = |regs: &mut X86VpState| {
            in_own_task(regs);
            regs.gp[RSI] = TRAPS;
        };
        let program = tasks.set(set);
        let Some(expected) = program.untouched() else {
            continue;
        };
        let count = |at: u64| {
            let at = usize::try_from(at).unwrap();
            let entries = expected[at..].chunks(8);
            entries.take_while(|entry| entry[..4] != [0; 4]).count()
        };
        // A trap at the end of a task belongs to the next task.
        let traps = (count(TRAPS), count(TRAPS_OF_OTHER));
        assert!(own & TF == 0 || traps.0 > 2, "{name}: {traps:?}");
        assert!(other & TF == 0 || traps.1 > 2, "{name}: {traps:?}");
        let vm = program.build().unwrap();
        let trail = program.step_through(&vm);
        assert!(trail.contains(&OTHER), "{name}: {trail:x?}");
        program.finish(&vm, &expected);
    }
}
