//! The x86 register file.

pub mod bits;
mod linear;

pub use linear::SegmentTranslation;

use serde::Deserialize;
use serde::Serialize;

/// The number of a general register in [`X86VpState::gp`], in the order of the instruction encoding (SDM volume 2,
/// table 2-2). Some debuggers use another order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the registers' own")]
pub enum Gp {
    Rax = 0,
    Rcx = 1,
    Rdx = 2,
    Rbx = 3,
    Rsp = 4,
    Rbp = 5,
    Rsi = 6,
    Rdi = 7,
    R8 = 8,
    R9 = 9,
    R10 = 10,
    R11 = 11,
    R12 = 12,
    R13 = 13,
    R14 = 14,
    R15 = 15,
}

impl Gp {
    /// The names of the registers, in small letters, in the order of the numbers.
    pub const NAMES: [&'static str; 16] = [
        "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12",
        "r13", "r14", "r15",
    ];
}

/// The register file of an x86 VP. A register set that some processors lack is an `Option`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct X86VpState {
    /// General registers in encoding order; index with [`Gp`].
    pub gp: [u64; 16],
    /// Instruction pointer: the offset in CS, not the linear address.
    pub rip: u64,
    /// RFLAGS (SDM volume 1, "EFLAGS Register").
    pub rflags: u64,
    /// Control register 0.
    pub cr0: u64,
    /// Control register 2: the linear address of the last page fault.
    pub cr2: u64,
    /// Control register 3: the physical address of the root page table, with the PCID and cache bits.
    pub cr3: u64,
    /// Control register 4.
    pub cr4: u64,
    /// Control register 8: the task priority.
    pub cr8: u64,
    /// Extended feature enable register (MSR C000_0080h).
    pub efer: u64,
    /// Local APIC base and enable bits (MSR 1Bh).
    pub apic_base: u64,
    /// The base that `swapgs` exchanges with the GS base (MSR C000_0102h).
    pub kernel_gs_base: u64,
    /// Extra segment (ES).
    pub es: SegmentRegister,
    /// Code segment (CS).
    pub cs: SegmentRegister,
    /// Stack segment (SS).
    pub ss: SegmentRegister,
    /// Data segment (DS).
    pub ds: SegmentRegister,
    /// FS segment. MSR C000_0100h holds its base.
    pub fs: SegmentRegister,
    /// GS segment. MSR C000_0101h holds its base.
    pub gs: SegmentRegister,
    /// Task register (TR).
    pub tr: SegmentRegister,
    /// Local descriptor table register (LDTR).
    pub ldtr: SegmentRegister,
    /// Global descriptor table register (GDTR).
    pub gdtr: TableRegister,
    /// Interrupt descriptor table register (IDTR).
    pub idtr: TableRegister,
    /// DR0-DR3, DR6 and DR7, as the guest set them.
    pub debug: DebugRegisters,
    /// The x87 registers.
    pub x87: X87State,
    /// XMM0-15 and MXCSR.
    pub sse: SseState,
    /// Bits 128-255 of YMM0-15. `None` if the VP has no AVX.
    pub avx: Option<[u128; 16]>,
    /// The AVX-512 registers. `None` if the VP has no AVX-512.
    pub avx512: Option<Box<Avx512State>>,
    /// The protection key rights register (PKRU). `None` if the VP has no protection keys.
    pub pkru: Option<u32>,
    /// Extended control register 0 (XCR0). `None` if the VP has no XSAVE.
    pub xcr0: Option<u64>,
}

/// A segment register with its hidden part (SDM volume 3, "Segment Registers").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SegmentRegister {
    /// The first byte of the segment, as a linear address.
    pub base: u64,
    /// The last valid offset, in bytes, with the granularity already applied.
    pub limit: u32,
    /// The selector: the visible part of the register.
    pub selector: u16,
    /// Access rights in the format of VMX (SDM volume 3, "Guest Register State"): bits 0-3 type, 4 S, 5-6 DPL, 7 P, 12
    /// AVL, 13 L, 14 D/B, 15 G; bit 16 is set if the segment is unusable.
    pub attributes: u32,
}

/// The contents of GDTR or IDTR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TableRegister {
    /// The first byte of the table, as a linear address.
    pub base: u64,
    /// The last valid offset in the table, in bytes.
    pub limit: u16,
}

/// DR0-DR3, DR6 and DR7, as the guest set them. Breakpoints of the debugger are never in these fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DebugRegisters {
    /// DR0 to DR3: linear addresses.
    pub db: [u64; 4],
    /// The debug status register (DR6).
    pub dr6: u64,
    /// The debug control register (DR7).
    pub dr7: u64,
}

/// The x87 unit, in the layout of FXSAVE (SDM volume 1, "FXSAVE Area").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct X87State {
    /// ST(0) to ST(7), 80 bits each, in the low bits of the `u128`.
    pub st: [u128; 8],
    /// Control word (FCW).
    pub fcw: u16,
    /// Status word (FSW).
    pub fsw: u16,
    /// Tag word in the full form, with two bits for each *physical* register. (FXSAVE stores one bit for each.)
    pub ftw: u16,
    /// Opcode of the last instruction, 11 bits (FOP).
    pub fop: u16,
    /// Offset of the last instruction (FIP).
    pub fip: u32,
    /// Selector of the last instruction (FCS).
    pub fcs: u16,
    /// Offset of the last memory operand (FDP).
    pub fdp: u32,
    /// Selector of the last memory operand (FDS).
    pub fds: u16,
}

/// The SSE registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SseState {
    /// XMM0 to XMM15.
    pub xmm: [u128; 16],
    /// Control and status register (MXCSR).
    pub mxcsr: u32,
}

/// The registers that AVX-512 adds to AVX. A vector is little-endian, in 128-bit parts, with the lowest part first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Avx512State {
    /// The opmask registers K0 to K7.
    pub opmask: [u64; 8],
    /// Bits 256-511 of ZMM0-15.
    pub zmm_hi256: [[u128; 2]; 16],
    /// All bits of ZMM16-31.
    pub hi16_zmm: [[u128; 4]; 16],
}

/// Bits of [`SegmentRegister::attributes`].
pub mod segment_attributes {
    /// L: the segment contains 64-bit code.
    pub const LONG: u32 = 1 << 13;
    /// D/B: the default operand size is 32 bits.
    pub const DEFAULT_BIG: u32 = 1 << 14;
    /// The segment cannot be used.
    pub const UNUSABLE: u32 = 1 << 16;
}
