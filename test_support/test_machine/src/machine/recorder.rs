//! A guest that debugs itself. Its handlers of `#DB` and `#BP` record what they get, and the guest powers off at its end. With a debugger
//! the guest has to leave the same memory as without one.
//!
//! | address | contents |
//! |---|---|
//! | 1000h | the program: the tables of handlers, its debug registers, five turns of a loop |
//! | 1080h | [`LOOP`]: `nop; inc dword [6100h]`, for breakpoints of the debugger; then the body under test |
//! | 1800h, 1900h, 1a00h | handlers of vectors 1 and 3, and the IDT |
//! | 5000h, 5100h | the number of exceptions, and a record of each: vector, saved RIP, saved flags, DR6 |
//! | 5800h | DR0-3, DR6 and DR7 at the end (long mode) |

use super::guest::Mode;
use super::*;
use vm_memory::Bytes;
use vp_runner::runner::RunnerExit;

/// The first instruction of the loop: one byte, executed once per turn.
pub const LOOP: u64 = 0x1080;
/// The instruction behind [`LOOP`] writes these 4 bytes once per turn.
pub const TURNS: u64 = 0x6100;
/// The number of turns of the loop.
pub const TIMES: u8 = 5;
/// The first instruction of the body in long mode.
pub const BODY: u64 = 0x1088;

const DB_HANDLER: u64 = 0x1800;
const BP_HANDLER: u64 = 0x1900;
const IDT: u64 = 0x1a00;
const IDTR: u64 = 0x1a80;
const COUNT: u64 = 0x5000;
const LOG: u64 = 0x5100;

/// The handler of vector 1 in long mode. It sets RFLAGS.RF in its frame, as the manual requires of a handler of
/// execution breakpoints.
const DB_64: &[u8] = &[
    0x50, // push rax
    0x51, // push rcx
    0x8b, 0x0c, 0x25, 0x00, 0x50, 0x00, 0x00, // mov ecx, [5000h]
    0xc1, 0xe1, 0x05, // shl ecx, 5
    0x81, 0xc1, 0x00, 0x51, 0x00, 0x00, // add ecx, 5100h
    0xc7, 0x01, 0x01, 0x00, 0x00, 0x00, // mov dword [rcx], 1
    0x48, 0x8b, 0x44, 0x24, 0x10, // mov rax, [rsp+16]
    0x48, 0x89, 0x41, 0x08, // mov [rcx+8], rax
    0x48, 0x8b, 0x44, 0x24, 0x20, // mov rax, [rsp+32]
    0x48, 0x89, 0x41, 0x10, // mov [rcx+16], rax
    0x0f, 0x21, 0xf0, // mov rax, dr6
    0x48, 0x89, 0x41, 0x18, // mov [rcx+24], rax
    0xff, 0x04, 0x25, 0x00, 0x50, 0x00, 0x00, // inc dword [5000h]
    0x0f, 0xba, 0x6c, 0x24, 0x20, 0x10, // bts dword [rsp+32], 16
    0x59, // pop rcx
    0x58, // pop rax
    0x48, 0xcf, // iretq
];

const BP_64: &[u8] = &[
    0x50, // push rax
    0x51, // push rcx
    0x8b, 0x0c, 0x25, 0x00, 0x50, 0x00, 0x00, // mov ecx, [5000h]
    0xc1, 0xe1, 0x05, // shl ecx, 5
    0x81, 0xc1, 0x00, 0x51, 0x00, 0x00, // add ecx, 5100h
    0xc7, 0x01, 0x03, 0x00, 0x00, 0x00, // mov dword [rcx], 3
    0x48, 0x8b, 0x44, 0x24, 0x10, // mov rax, [rsp+16]
    0x48, 0x89, 0x41, 0x08, // mov [rcx+8], rax
    0x48, 0x8b, 0x44, 0x24, 0x20, // mov rax, [rsp+32]
    0x48, 0x89, 0x41, 0x10, // mov [rcx+16], rax
    0x0f, 0x21, 0xf0, // mov rax, dr6
    0x48, 0x89, 0x41, 0x18, // mov [rcx+24], rax
    0xff, 0x04, 0x25, 0x00, 0x50, 0x00, 0x00, // inc dword [5000h]
    0x59, // pop rcx
    0x58, // pop rax
    0x48, 0xcf, // iretq
];

const BP_32: &[u8] = &[
    0x50, // push eax
    0x51, // push ecx
    0x8b, 0x0d, 0x00, 0x50, 0x00, 0x00, // mov ecx, [5000h]
    0xc1, 0xe1, 0x05, // shl ecx, 5
    0x81, 0xc1, 0x00, 0x51, 0x00, 0x00, // add ecx, 5100h
    0xc7, 0x01, 0x03, 0x00, 0x00, 0x00, // mov dword [ecx], 3
    0x8b, 0x44, 0x24, 0x08, // mov eax, [esp+8]
    0x89, 0x41, 0x08, // mov [ecx+8], eax
    0x8b, 0x44, 0x24, 0x10, // mov eax, [esp+16]
    0x89, 0x41, 0x10, // mov [ecx+16], eax
    0x0f, 0x21, 0xf0, // mov eax, dr6
    0x89, 0x41, 0x18, // mov [ecx+24], eax
    0xff, 0x05, 0x00, 0x50, 0x00, 0x00, // inc dword [5000h]
    0x59, // pop ecx
    0x58, // pop eax
    0xcf, // iretd
];

const BP_16: &[u8] = &[
    0x50, // push ax
    0x53, // push bx
    0x55, // push bp
    0x89, 0xe5, // mov bp, sp
    0x8b, 0x1e, 0x00, 0x50, // mov bx, [5000h]
    0xc1, 0xe3, 0x05, // shl bx, 5
    0x81, 0xc3, 0x00, 0x51, // add bx, 5100h
    0xc7, 0x07, 0x03, 0x00, // mov word [bx], 3
    0x8b, 0x46, 0x06, // mov ax, [bp+6]
    0x89, 0x47, 0x08, // mov [bx+8], ax
    0x8b, 0x46, 0x0a, // mov ax, [bp+10]
    0x89, 0x47, 0x10, // mov [bx+16], ax
    0x0f, 0x21, 0xf0, // mov eax, dr6
    0x66, 0x89, 0x47, 0x18, // mov [bx+24], eax
    0xff, 0x06, 0x00, 0x50, // inc word [5000h]
    0x5d, // pop bp
    0x5b, // pop bx
    0x58, // pop ax
    0xcf, // iret
];

const READ_BACK: &[u8] = &[
    0x0f, 0x21, 0xc0, // mov rax, dr0
    0x48, 0x89, 0x04, 0x25, 0x00, 0x58, 0x00, 0x00, // mov [5800h], rax
    0x0f, 0x21, 0xc8, // mov rax, dr1
    0x48, 0x89, 0x04, 0x25, 0x08, 0x58, 0x00, 0x00, // mov [5808h], rax
    0x0f, 0x21, 0xd0, // mov rax, dr2
    0x48, 0x89, 0x04, 0x25, 0x10, 0x58, 0x00, 0x00, // mov [5810h], rax
    0x0f, 0x21, 0xd8, // mov rax, dr3
    0x48, 0x89, 0x04, 0x25, 0x18, 0x58, 0x00, 0x00, // mov [5818h], rax
    0x0f, 0x21, 0xf0, // mov rax, dr6
    0x48, 0x89, 0x04, 0x25, 0x20, 0x58, 0x00, 0x00, // mov [5820h], rax
    0x0f, 0x21, 0xf8, // mov rax, dr7
    0x48, 0x89, 0x04, 0x25, 0x28, 0x58, 0x00, 0x00, // mov [5828h], rax
];

/// `mov eax, value; mov drN, rax`, in 32-bit and long mode.
pub fn set_debug_register(n: u8, value: u64) -> Vec<u8> {
    let mut code = vec![0xb8];
    code.extend(u32::try_from(value).unwrap().to_le_bytes());
    code.extend([0x0f, 0x23, 0xc0 | n << 3]);
    code
}

/// The code before the loop, which sets up the handlers. Long and protected mode: `lidt [1a80h]`; real mode: vector 3
/// in the table at 0.
pub fn exception_tables(mode: Mode) -> Vec<u8> {
    match mode {
        Mode::Long => vec![0x0f, 0x01, 0x1c, 0x25, 0x80, 0x1a, 0, 0],
        Mode::Protected => vec![0x0f, 0x01, 0x1d, 0x80, 0x1a, 0, 0],
        Mode::Real => vec![0xc7, 6, 12, 0, 0, 0x19, 0xc7, 6, 14, 0, 0, 0],
    }
}

/// Adds the handlers and the IDT behind a program.
pub fn with_handlers(mode: Mode, mut code: Vec<u8>) -> Vec<u8> {
    let (db, bp) = match mode {
        Mode::Long => (DB_64, BP_64),
        Mode::Protected => (&[][..], BP_32),
        Mode::Real => (&[][..], BP_16),
    };
    put(&mut code, DB_HANDLER, db);
    put(&mut code, BP_HANDLER, bp);
    let mut gate = |vector: u64, handler: u64| {
        let [low, high, ..] = handler.to_le_bytes();
        let (size, selector) = match mode {
            Mode::Long => (16, 8),
            _ => (8, 24),
        };
        let mut gate = vec![low, high, selector, 0, 0, 0x8e, 0, 0];
        gate.resize(size, 0);
        put(&mut code, IDT + vector * size as u64, &gate);
    };
    if mode == Mode::Long {
        gate(1, DB_HANDLER);
    }
    if mode != Mode::Real {
        gate(3, BP_HANDLER);
    }
    let mut idtr = vec![0x7f, 0];
    idtr.extend(IDT.to_le_bytes());
    put(&mut code, IDTR, &idtr);
    code
}

/// Fills the code up to [`LOOP`] with `nop`.
pub fn up_to_loop(code: &mut Vec<u8>) {
    let at = usize::try_from(LOOP - ENTRY).unwrap();
    assert!(code.len() <= at, "the program is too long");
    code.resize(at, 0x90);
}

fn put(code: &mut Vec<u8>, address: u64, bytes: &[u8]) {
    let at = usize::try_from(address - ENTRY).unwrap();
    assert!(code.len() <= at, "what is before {address:#x} is too long");
    code.resize(at, 0);
    code.extend(bytes);
}

/// A whole guest: `setup` before the loop, and `body` five times in the loop.
pub fn program(mode: Mode, setup: &[u8], body: &[u8]) -> Vec<u8> {
    let mut code = exception_tables(mode);
    code.extend(setup);
    // An exit between the guest's write to its debug registers and their use. For the window without such an exit, see
    // the page Hosts of the Guide.
    code.extend([0xe6, PORT_TELL]);
    code.extend(match mode {
        Mode::Real => vec![0xbd, TIMES, 0],
        Mode::Protected | Mode::Long => vec![0xbd, TIMES, 0, 0, 0],
    });
    up_to_loop(&mut code);
    code.push(0x90);
    code.extend(match mode {
        Mode::Long => vec![0xff, 4, 0x25, 0, 0x61, 0, 0],
        Mode::Protected => vec![0xff, 5, 0, 0x61, 0, 0],
        Mode::Real => vec![0x66, 0xff, 6, 0, 0x61],
    });
    assert!(mode != Mode::Long || ENTRY + code.len() as u64 == BODY);
    code.extend(body);
    // dec ebp (bp in real mode); jnz
    code.extend([0xff, 0xcd]);
    let back = i64::try_from(LOOP - ENTRY).unwrap() - i64::try_from(code.len() + 2).unwrap();
    code.extend([0x75, i8::try_from(back).unwrap().cast_unsigned()]);
    if mode == Mode::Long {
        code.extend(READ_BACK);
    }
    code.extend([0xe6, PORT_OFF, 0xfa, 0xf4]);
    with_handlers(mode, code)
}

/// A record of a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// The vector: 1 or 3.
    pub vector: u64,
    /// The saved RIP.
    pub rip: u64,
    /// The saved RFLAGS.
    pub rflags: u64,
    /// DR6 as the handler read it.
    pub dr6: u64,
}

/// The records so far.
pub fn records(machine: &TestMachine) -> Vec<Record> {
    let memory = machine.ram.memory();
    let word = |at: u64| memory.read_obj::<u64>(RamAddress(at)).unwrap();
    let record = |at: u64| Record {
        vector: word(at),
        rip: word(at + 8),
        rflags: word(at + 16),
        dr6: word(at + 24),
    };
    (0..word(COUNT)).map(|n| record(LOG + 32 * n)).collect()
}

/// The result of the guest without a debugger.
pub struct Alone {
    /// The records of its handlers.
    pub records: Vec<Record>,
    /// All of RAM at the end.
    pub memory: Vec<u8>,
}

/// Runs the guest without a debugger. `None`, with the reason printed, if this host's KVM cannot run the guest.
pub fn alone(mode: Mode, code: &[u8]) -> Option<Alone> {
    let vm = Setup::new(mode, code).running().exit_on_reset().build()?;
    let machine = vm.machine.clone();
    match vm.join() {
        RunnerExit::PowerOff => Some(Alone {
            records: records(&machine),
            memory: machine.raw_memory(),
        }),
        exit => {
            println!("SKIP: without any debugger this host's KVM ends such a guest with {exit:?}");
            None
        }
    }
}
