//! The x86 register file.

pub mod bits;

use serde::Deserialize;
use serde::Serialize;

/// The number of a general register in [`X86VpState::gp`]: the order of the instruction encoding (SDM volume 2, table 2-2),
/// which is not the one of every debugger.
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

/// The register file of an x86 VP. The general part is present on every VP; what depends on the processor is an `Option`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct X86VpState {
    /// General registers in encoding order; index with [`Gp`].
    pub gp: [u64; 16],
    /// Instruction pointer: the offset in CS.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
    /// Control register 0.
    pub cr0: u64,
    /// Page fault linear address.
    pub cr2: u64,
    /// Page table root.
    pub cr3: u64,
    /// Control register 4.
    pub cr4: u64,
    /// Task priority.
    pub cr8: u64,
    /// Extended feature enable register (MSR C000_0080h).
    pub efer: u64,
    /// Local APIC base and enable bits (MSR 1Bh).
    pub apic_base: u64,
    /// The GS base that `swapgs` brings in (MSR C000_0102h).
    pub kernel_gs_base: u64,
    /// Extra segment.
    pub es: SegmentRegister,
    /// Code segment.
    pub cs: SegmentRegister,
    /// Stack segment.
    pub ss: SegmentRegister,
    /// Data segment.
    pub ds: SegmentRegister,
    /// FS, with the base that MSR C000_0100h shows.
    pub fs: SegmentRegister,
    /// GS, with the base that MSR C000_0101h shows.
    pub gs: SegmentRegister,
    /// Task register.
    pub tr: SegmentRegister,
    /// Local descriptor table.
    pub ldtr: SegmentRegister,
    /// Global descriptor table.
    pub gdtr: TableRegister,
    /// Interrupt descriptor table.
    pub idtr: TableRegister,
    /// The guest's own debug registers.
    pub debug: DebugRegisters,
    /// x87 state.
    pub x87: X87State,
    /// XMM0-15 and MXCSR.
    pub sse: SseState,
    /// Bits 128-255 of YMM0-15; `None` where the VP has no AVX.
    pub avx: Option<[u128; 16]>,
    /// AVX-512 state; `None` where the VP has none.
    pub avx512: Option<Box<Avx512State>>,
    /// Protection key rights; `None` where the VP has no protection keys.
    pub pkru: Option<u32>,
    /// Extended control register 0; `None` where the VP has no XSAVE.
    pub xcr0: Option<u64>,
}

/// A segment register with its hidden part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SegmentRegister {
    /// First byte, as a linear address.
    pub base: u64,
    /// Last valid offset, in bytes (granularity already applied).
    pub limit: u32,
    /// The visible part.
    pub selector: u16,
    /// Access rights as VMX writes them (SDM volume 3, "Guest Register State"): bits 0-3 type, 4 S, 5-6 DPL, 7 P, 12 AVL, 13 L, 14 D/B,
    /// 15 G; bit 16 is set when the segment is unusable.
    pub attributes: u32,
}

/// GDTR or IDTR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TableRegister {
    /// First byte, as a linear address.
    pub base: u64,
    /// Last valid offset, in bytes.
    pub limit: u16,
}

/// DR0-DR3, DR6 and DR7 as the guest set them; never the debugger's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DebugRegisters {
    /// DR0 to DR3: linear addresses.
    pub db: [u64; 4],
    /// Debug status.
    pub dr6: u64,
    /// Debug control.
    pub dr7: u64,
}

/// The x87 unit, in the layout of FXSAVE (SDM volume 1, "FXSAVE Area").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct X87State {
    /// ST(0) to ST(7): 80 bits each, in the low bits.
    pub st: [u128; 8],
    /// Control word.
    pub fcw: u16,
    /// Status word.
    pub fsw: u16,
    /// Tag word in the full form: two bits for each *physical* register (FXSAVE keeps one bit only).
    pub ftw: u16,
    /// Last opcode, 11 bits.
    pub fop: u16,
    /// Last instruction: offset.
    pub fip: u32,
    /// Last instruction: selector.
    pub fcs: u16,
    /// Last operand: offset.
    pub fdp: u32,
    /// Last operand: selector.
    pub fds: u16,
}

/// The SSE registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SseState {
    /// XMM0 to XMM15.
    pub xmm: [u128; 16],
    /// Control and status.
    pub mxcsr: u32,
}

/// What AVX-512 adds to AVX. Vectors are little-endian in 128-bit pieces, the lowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Avx512State {
    /// K0 to K7.
    pub opmask: [u64; 8],
    /// Bits 256-511 of ZMM0-15.
    pub zmm_hi256: [[u128; 2]; 16],
    /// ZMM16-31, whole.
    pub hi16_zmm: [[u128; 4]; 16],
}

/// Bits of [`SegmentRegister::attributes`].
pub mod segment_attributes {
    /// 64-bit code segment.
    pub const LONG: u32 = 1 << 13;
    /// 32-bit default operand size.
    pub const DEFAULT_BIG: u32 = 1 << 14;
    /// The segment cannot be used.
    pub const UNUSABLE: u32 = 1 << 16;
}
