//! The registers of x86.
//!
//! The order up to `mxcsr` is GDB's traditional order for this architecture (GDB manual, node "i386 Features").
//! Registers that some processors lack come last.

mod flags;

use super::Group;
use super::Reg;
use super::RegId;
use super::TableBuilder;
use super::types::CODE_PTR;
use super::types::DATA_PTR;
use super::types::I387_EXT;
use super::types::INT;
use super::types::INT32;
use super::types::INT64;
use super::types::Type;
use super::types::UINT16;
use super::types::UINT32;
use super::types::UINT64;
use super::types::UINT128;
use super::types::VEC128;
use super::types::VEC256;

/// A register of x86. Values are little-endian, with the width in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum X86Reg {
    /// A general register, 64 bits.
    Gp(Gp),
    /// The linear address of the next instruction, 64 bits.
    Rip,
    /// The low 32 bits of RFLAGS.
    Eflags,
    /// The selector of a segment register: 32 bits for CS to GS, as GDB requires, and 16 bits for TR and LDTR.
    Selector(Segment),
    /// The linear address of a segment's first byte, 64 bits.
    SegmentBase(Segment),
    /// A segment's last valid offset in bytes, 32 bits.
    SegmentLimit(Segment),
    /// The access rights of a segment in the format of VMX (SDM volume 3, "Guest Register State"), 32 bits.
    SegmentAttributes(Segment),
    /// The base that `swapgs` exchanges with the GS base, 64 bits.
    KernelGsBase,
    /// The linear address of a descriptor table's first byte, 64 bits.
    TableBase(DescriptorTable),
    /// A descriptor table's last valid offset, 16 bits.
    TableLimit(DescriptorTable),
    /// `ST(n)`, 0 to 7, 80 bits.
    St(u8),
    /// x87 control word. In the protocol all x87 control registers have 32 bits.
    Fctrl,
    /// x87 status word.
    Fstat,
    /// x87 tag word in the full form, with two bits for each register.
    Ftag,
    /// Selector of the last x87 instruction.
    Fiseg,
    /// Offset of the last x87 instruction.
    Fioff,
    /// Selector of the last x87 memory operand.
    Foseg,
    /// Offset of the last x87 memory operand.
    Fooff,
    /// Opcode of the last x87 instruction.
    Fop,
    /// Bits 0-127 of vector register 0 to 31 (16 to 31 only with AVX-512).
    Xmm(u8),
    /// SSE control and status register, 32 bits.
    Mxcsr,
    /// Bits 128-255 of vector register 0 to 31 (16 to 31 only with AVX-512).
    YmmHigh(u8),
    /// Bits 256-511 of vector register 0 to 31.
    ZmmHigh(u8),
    /// Opmask register 0 to 7, 64 bits.
    K(u8),
    /// Protection key rights register, 32 bits.
    Pkru,
    /// Control register 0, 64 bits.
    Cr0,
    /// Control register 2, 64 bits.
    Cr2,
    /// Control register 3, 64 bits.
    Cr3,
    /// Control register 4, 64 bits.
    Cr4,
    /// Task priority (control register 8), 64 bits.
    Cr8,
    /// Extended feature enable register, 64 bits.
    Efer,
    /// Extended control register 0, 64 bits.
    Xcr0,
    /// Local APIC base and enable bits, 64 bits.
    ApicBase,
    /// The guest's own debug register 0, 1, 2, 3, 6 or 7, 64 bits.
    Dr(u8),
}

/// The general registers in GDB's order, which differs from the instruction encoding. Do not use it as an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the registers' own")]
pub enum Gp {
    Rax,
    Rbx,
    Rcx,
    Rdx,
    Rsi,
    Rdi,
    Rbp,
    Rsp,
    R8,
    R9,
    R10,
    R11,
    R12,
    R13,
    R14,
    R15,
}

/// The segment registers in GDB's order, then TR and LDTR, which have the same hidden parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the registers' own")]
pub enum Segment {
    Cs,
    Ss,
    Ds,
    Es,
    Fs,
    Gs,
    Tr,
    Ldtr,
}

/// The registers that point to descriptor tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the registers' own")]
pub enum DescriptorTable {
    Gdtr,
    Idtr,
}

const CORE: &str = "org.gnu.gdb.i386.core";
const SSE: &str = "org.gnu.gdb.i386.sse";
const SEGMENTS: &str = "org.gnu.gdb.i386.segments";
const AVX: &str = "org.gnu.gdb.i386.avx";
const AVX512: &str = "org.gnu.gdb.i386.avx512";
const PKEYS: &str = "org.gnu.gdb.i386.pkeys";
/// A feature of Trapgate. GDB shows the registers of an unknown feature as they are described.
const SYSTEM: &str = "org.trapgate.x86.system";

const GP: [(Gp, &str, &Type); 16] = [
    (Gp::Rax, "rax", &INT64),
    (Gp::Rbx, "rbx", &INT64),
    (Gp::Rcx, "rcx", &INT64),
    (Gp::Rdx, "rdx", &INT64),
    (Gp::Rsi, "rsi", &INT64),
    (Gp::Rdi, "rdi", &INT64),
    (Gp::Rbp, "rbp", &DATA_PTR),
    (Gp::Rsp, "rsp", &DATA_PTR),
    (Gp::R8, "r8", &INT64),
    (Gp::R9, "r9", &INT64),
    (Gp::R10, "r10", &INT64),
    (Gp::R11, "r11", &INT64),
    (Gp::R12, "r12", &INT64),
    (Gp::R13, "r13", &INT64),
    (Gp::R14, "r14", &INT64),
    (Gp::R15, "r15", &INT64),
];

const SEGMENT: [(Segment, &str); 6] = [
    (Segment::Cs, "cs"),
    (Segment::Ss, "ss"),
    (Segment::Ds, "ds"),
    (Segment::Es, "es"),
    (Segment::Fs, "fs"),
    (Segment::Gs, "gs"),
];

pub(super) fn table(avx: bool, avx512: bool, pkru: bool) -> Vec<Reg> {
    let mut table = TableBuilder::new();
    core(&mut table);
    sse(&mut table);
    segments(&mut table);
    system(&mut table);
    if avx {
        table.feature(AVX, Group::Vector);
        for n in 0..16 {
            table.x86(X86Reg::YmmHigh(n), format!("ymm{n}h"), 128, &UINT128);
        }
    }
    if avx512 {
        self::avx512(&mut table);
    }
    if pkru {
        table.feature(PKEYS, Group::ByType);
        table.x86(X86Reg::Pkru, "pkru", 32, &UINT32);
    }
    table.regs
}

impl TableBuilder {
    fn x86(&mut self, reg: X86Reg, name: impl Into<String>, bits: u16, ty: &'static Type) {
        self.push(RegId::X86(reg), name, bits, ty);
    }
}

fn core(table: &mut TableBuilder) {
    table.feature(CORE, Group::ByType);
    for (reg, name, ty) in GP {
        table.x86(X86Reg::Gp(reg), name, 64, ty);
    }
    table.x86(X86Reg::Rip, "rip", 64, &CODE_PTR);
    table.x86(X86Reg::Eflags, "eflags", 32, &flags::EFLAGS);
    for (segment, name) in SEGMENT {
        table.x86(X86Reg::Selector(segment), name, 32, &INT32);
    }
    table.feature(CORE, Group::Float);
    for n in 0..8 {
        table.x86(X86Reg::St(n), format!("st{n}"), 80, &I387_EXT);
    }
    table.x86(X86Reg::Fctrl, "fctrl", 32, &INT);
    table.x86(X86Reg::Fstat, "fstat", 32, &INT);
    table.x86(X86Reg::Ftag, "ftag", 32, &INT);
    table.x86(X86Reg::Fiseg, "fiseg", 32, &INT);
    table.x86(X86Reg::Fioff, "fioff", 32, &INT);
    table.x86(X86Reg::Foseg, "foseg", 32, &INT);
    table.x86(X86Reg::Fooff, "fooff", 32, &INT);
    table.x86(X86Reg::Fop, "fop", 32, &INT);
}

fn sse(table: &mut TableBuilder) {
    table.feature(SSE, Group::Vector);
    for n in 0..16 {
        table.x86(X86Reg::Xmm(n), format!("xmm{n}"), 128, &VEC128);
    }
    table.x86(X86Reg::Mxcsr, "mxcsr", 32, &flags::MXCSR);
}

fn segments(table: &mut TableBuilder) {
    table.feature(SEGMENTS, Group::ByType);
    table.x86(X86Reg::SegmentBase(Segment::Fs), "fs_base", 64, &INT64);
    table.x86(X86Reg::SegmentBase(Segment::Gs), "gs_base", 64, &INT64);
    table.x86(X86Reg::KernelGsBase, "k_gs_base", 64, &INT64);
}

/// The control registers have QEMU's names, so scripts for QEMU can use them.
fn system(table: &mut TableBuilder) {
    table.feature(SYSTEM, Group::System);
    table.x86(X86Reg::Cr0, "cr0", 64, &UINT64);
    table.x86(X86Reg::Cr2, "cr2", 64, &UINT64);
    table.x86(X86Reg::Cr3, "cr3", 64, &UINT64);
    table.x86(X86Reg::Cr4, "cr4", 64, &UINT64);
    table.x86(X86Reg::Cr8, "cr8", 64, &UINT64);
    table.x86(X86Reg::Efer, "efer", 64, &UINT64);
    table.x86(X86Reg::Xcr0, "xcr0", 64, &UINT64);
    table.x86(X86Reg::ApicBase, "apic_base", 64, &UINT64);
    for n in [0, 1, 2, 3] {
        table.x86(X86Reg::Dr(n), format!("dr{n}"), 64, &UINT64);
    }
    table.x86(X86Reg::Dr(6), "dr6", 64, &UINT64);
    table.x86(X86Reg::Dr(7), "dr7", 64, &UINT64);
    for (register, name) in [
        (DescriptorTable::Gdtr, "gdtr"),
        (DescriptorTable::Idtr, "idtr"),
    ] {
        table.x86(
            X86Reg::TableBase(register),
            format!("{name}_base"),
            64,
            &UINT64,
        );
        table.x86(
            X86Reg::TableLimit(register),
            format!("{name}_limit"),
            16,
            &UINT16,
        );
    }
    for (segment, name) in SEGMENT {
        hidden_part(table, segment, name);
    }
    for (segment, name) in [(Segment::Tr, "tr"), (Segment::Ldtr, "ldtr")] {
        table.x86(X86Reg::Selector(segment), name, 16, &UINT16);
        hidden_part(table, segment, name);
    }
}

fn hidden_part(table: &mut TableBuilder, segment: Segment, name: &str) {
    // GDB looks for the bases of FS and GS in another feature.
    if !matches!(segment, Segment::Fs | Segment::Gs) {
        table.x86(
            X86Reg::SegmentBase(segment),
            format!("{name}_base"),
            64,
            &UINT64,
        );
    }
    table.x86(
        X86Reg::SegmentLimit(segment),
        format!("{name}_limit"),
        32,
        &UINT32,
    );
    table.x86(
        X86Reg::SegmentAttributes(segment),
        format!("{name}_attr"),
        32,
        &flags::SEGMENT_ATTRIBUTES,
    );
}

fn avx512(table: &mut TableBuilder) {
    table.feature(AVX512, Group::Vector);
    for n in 16..32 {
        table.x86(X86Reg::Xmm(n), format!("xmm{n}"), 128, &VEC128);
    }
    for n in 16..32 {
        table.x86(X86Reg::YmmHigh(n), format!("ymm{n}h"), 128, &UINT128);
    }
    for n in 0..32 {
        table.x86(X86Reg::ZmmHigh(n), format!("zmm{n}h"), 256, &VEC256);
    }
    for n in 0..8 {
        table.x86(X86Reg::K(n), format!("k{n}"), 64, &UINT64);
    }
}
