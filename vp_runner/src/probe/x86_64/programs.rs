//! The guest programs of the scenarios: a few bytes each, at [`CODE`] in the guest's only page.

use crate::kvm::x86_64::StartIn;

/// Where programs start. Below it are the interrupt vectors of real mode.
pub(super) const CODE: u16 = 0x800;
/// The handler of every real-mode vector.
pub(super) const HANDLER: u16 = 0x900;
/// The bytes that are watched.
pub(super) const DATA: u16 = 0xa00;
/// The top of the stack.
pub(super) const STACK: u16 = 0xf00;

/// The port to which a program writes at its end.
pub(super) const END_PORT: u8 = 0xe9;
/// The port to which the handler of a real-mode vector writes.
pub(super) const HANDLER_PORT: u8 = 0xea;

const NOP: u8 = 0x90;
const OUT_IMM8: u8 = 0xe6;

/// `out HANDLER_PORT, al; iret`
pub(super) const HANDLER_PROGRAM: [u8; 3] = [OUT_IMM8, HANDLER_PORT, 0xcf];

/// `nop; int3; nop; out END_PORT, al`, the same bytes in every mode.
pub(super) const INT3: [u8; 5] = [NOP, 0xcc, NOP, OUT_IMM8, END_PORT];
/// The offset of the `int3` in it.
pub(super) const INT3_AT: u16 = 1;

/// `nop; nop; nop; nop; out END_PORT, al`, the same bytes in every mode.
pub(in crate::probe) const NOPS: [u8; 6] = [NOP, NOP, NOP, NOP, OUT_IMM8, END_PORT];

/// `nop; mov rbx, dr0; out END_PORT, al`
pub(super) const READS_DR0: [u8; 6] = [NOP, 0x0f, 0x21, 0xc3, OUT_IMM8, END_PORT];
/// The offset of the `mov` in it.
pub(super) const READS_DR0_AT: u16 = 1;

/// A store to, or load from, [`DATA`], then `nop; out END_PORT, al`.
pub(super) fn access(mode: StartIn, write: bool) -> Vec<u8> {
    // `mov moffs, al` and `mov al, moffs`. The address has the address size of the mode.
    let mut program = vec![if write { 0xa2 } else { 0xa0 }];
    program.extend(DATA.to_le_bytes());
    program.extend(match mode {
        StartIn::Real => &[][..],
        StartIn::Protected32 => &[0; 2],
        StartIn::Long => &[0; 6],
    });
    program.extend([NOP, OUT_IMM8, END_PORT]);
    program
}

/// Real mode: sets the interrupt controller's vectors to 20h, unmasks line 1, sets IF, writes to the port, and loops.
pub(super) const INTERRUPTIBLE: [u8; 34] = [
    0xb0, 0x11, OUT_IMM8, 0x20, // mov al, 11h; out 20h, al: initialise, with a fourth word
    0xb0, 0x20, OUT_IMM8, 0x21, // vectors from 20h
    0xb0, 0x04, OUT_IMM8, 0x21, // a second controller on line 2
    0xb0, 0x01, OUT_IMM8, 0x21, // 8086 mode
    0xb0, 0xfd, OUT_IMM8, 0x21, // all masked but line 1
    0xb0, 0x20, OUT_IMM8, 0x20, // the end of an interrupt that an earlier run took
    0xfb, // sti
    NOP,  // the shadow of sti
    OUT_IMM8, END_PORT, // ready
    // The loop: nop; nop; nop; nop; jmp back
    NOP, NOP, NOP, NOP, 0xeb, 0xfa,
];
/// The offset of the loop, which follows the write to the port.
pub(super) const INTERRUPTIBLE_READY: u16 = 28;
/// The interrupt line it unmasks.
pub(super) const LINE: u32 = 1;
