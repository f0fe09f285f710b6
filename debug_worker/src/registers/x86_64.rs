//! The fields of the x86 registers.

use super::Field;
use gdb_frontend::regs::x86_64::DescriptorTable;
use gdb_frontend::regs::x86_64::Gp as GdbGp;
use gdb_frontend::regs::x86_64::Segment;
use gdb_frontend::regs::x86_64::X86Reg;
use vmm_core_defs::condition::ConditionRegister;
use vmm_core_defs::regs::X86VpState;
use vmm_core_defs::regs::x86_64::Gp;
use vmm_core_defs::regs::x86_64::SegmentRegister;
use vmm_core_defs::regs::x86_64::SegmentTranslation;
use vmm_core_defs::regs::x86_64::TableRegister;

/// The low parts of the vector registers below this number are in the SSE and AVX state. The other vector registers are
/// completely in the AVX-512 state.
const LEGACY_VECTORS: usize = 16;

pub(super) fn field(state: &mut X86VpState, reg: X86Reg) -> Option<Field<'_>> {
    Some(match reg {
        X86Reg::Gp(gp) => Field::Bits64(&mut state.gp[encoding(gp) as usize]),
        X86Reg::Rip => pc(state),
        X86Reg::Eflags => Field::Low32(&mut state.rflags),
        X86Reg::Selector(which) => Field::Bits16(&mut segment(state, which).selector),
        X86Reg::SegmentBase(which) => Field::Bits64(&mut segment(state, which).base),
        X86Reg::SegmentLimit(which) => Field::Bits32(&mut segment(state, which).limit),
        X86Reg::SegmentAttributes(which) => Field::Bits32(&mut segment(state, which).attributes),
        X86Reg::KernelGsBase => Field::Bits64(&mut state.kernel_gs_base),
        X86Reg::TableBase(which) => Field::Bits64(&mut table(state, which).base),
        X86Reg::TableLimit(which) => Field::Bits16(&mut table(state, which).limit),
        X86Reg::St(n) => Field::Vector(std::slice::from_mut(state.x87.st.get_mut(usize::from(n))?)),
        X86Reg::Fctrl => Field::Bits16(&mut state.x87.fcw),
        X86Reg::Fstat => Field::Bits16(&mut state.x87.fsw),
        X86Reg::Ftag => Field::Bits16(&mut state.x87.ftw),
        X86Reg::Fiseg => Field::Bits16(&mut state.x87.fcs),
        X86Reg::Fioff => Field::Bits32(&mut state.x87.fip),
        X86Reg::Foseg => Field::Bits16(&mut state.x87.fds),
        X86Reg::Fooff => Field::Bits32(&mut state.x87.fdp),
        X86Reg::Fop => Field::Bits16(&mut state.x87.fop),
        X86Reg::Xmm(n) => Field::Vector(match usize::from(n).checked_sub(LEGACY_VECTORS) {
            None => std::slice::from_mut(&mut state.sse.xmm[usize::from(n)]),
            Some(n) => &mut high_vector(state, n)?[..1],
        }),
        X86Reg::Mxcsr => Field::Bits32(&mut state.sse.mxcsr),
        X86Reg::YmmHigh(n) => Field::Vector(match usize::from(n).checked_sub(LEGACY_VECTORS) {
            None => std::slice::from_mut(&mut state.avx.as_mut()?[usize::from(n)]),
            Some(n) => &mut high_vector(state, n)?[1..2],
        }),
        X86Reg::ZmmHigh(n) => Field::Vector(match usize::from(n).checked_sub(LEGACY_VECTORS) {
            None => &mut state.avx512.as_mut()?.zmm_hi256[usize::from(n)],
            Some(n) => &mut high_vector(state, n)?[2..],
        }),
        X86Reg::K(n) => Field::Bits64(state.avx512.as_mut()?.opmask.get_mut(usize::from(n))?),
        X86Reg::Pkru => Field::Bits32(state.pkru.as_mut()?),
        X86Reg::Cr0 => Field::Bits64(&mut state.cr0),
        X86Reg::Cr2 => Field::Bits64(&mut state.cr2),
        X86Reg::Cr3 => Field::Bits64(&mut state.cr3),
        X86Reg::Cr4 => Field::Bits64(&mut state.cr4),
        X86Reg::Cr8 => Field::Bits64(&mut state.cr8),
        X86Reg::Efer => Field::Bits64(&mut state.efer),
        X86Reg::Xcr0 => Field::Bits64(state.xcr0.as_mut()?),
        X86Reg::ApicBase => Field::Bits64(&mut state.apic_base),
        X86Reg::Dr(6) => Field::Bits64(&mut state.debug.dr6),
        X86Reg::Dr(7) => Field::Bits64(&mut state.debug.dr7),
        X86Reg::Dr(n) => Field::Bits64(state.debug.db.get_mut(usize::from(n))?),
    })
}

/// The register by the numbers of conditions. `None`: conditions do not have the register.
pub(super) fn condition_register(reg: X86Reg) -> Option<ConditionRegister> {
    Some(match reg {
        X86Reg::Gp(gp) => ConditionRegister::General(encoding(gp)),
        X86Reg::Rip => ConditionRegister::ProgramCounter,
        X86Reg::Eflags => ConditionRegister::Rflags,
        X86Reg::Selector(Segment::Es) => ConditionRegister::Es,
        X86Reg::Selector(Segment::Cs) => ConditionRegister::Cs,
        X86Reg::Selector(Segment::Ss) => ConditionRegister::Ss,
        X86Reg::Selector(Segment::Ds) => ConditionRegister::Ds,
        X86Reg::Selector(Segment::Fs) => ConditionRegister::Fs,
        X86Reg::Selector(Segment::Gs) => ConditionRegister::Gs,
        X86Reg::SegmentBase(Segment::Fs) => ConditionRegister::FsBase,
        X86Reg::SegmentBase(Segment::Gs) => ConditionRegister::GsBase,
        X86Reg::KernelGsBase => ConditionRegister::KernelGsBase,
        X86Reg::Cr0 => ConditionRegister::Cr0,
        X86Reg::Cr2 => ConditionRegister::Cr2,
        X86Reg::Cr3 => ConditionRegister::Cr3,
        X86Reg::Cr4 => ConditionRegister::Cr4,
        X86Reg::Cr8 => ConditionRegister::Cr8,
        X86Reg::Efer => ConditionRegister::Efer,
        _ => return None,
    })
}

/// The program counter as a linear address. GDB has one address space without segments: it compares the program counter
/// with addresses of breakpoints, and reads code at this address.
pub(super) fn pc(state: &mut X86VpState) -> Field<'_> {
    let SegmentTranslation { base, mask } = state.code_translation();
    let rip = &mut state.rip;
    Field::Pc { rip, base, mask }
}

/// All bits of ZMM16 to ZMM31.
fn high_vector(state: &mut X86VpState, n: usize) -> Option<&mut [u128; 4]> {
    state.avx512.as_mut()?.hi16_zmm.get_mut(n)
}

/// Converts GDB's register order to the order of the instruction encoding.
const fn encoding(gp: GdbGp) -> Gp {
    match gp {
        GdbGp::Rax => Gp::Rax,
        GdbGp::Rbx => Gp::Rbx,
        GdbGp::Rcx => Gp::Rcx,
        GdbGp::Rdx => Gp::Rdx,
        GdbGp::Rsi => Gp::Rsi,
        GdbGp::Rdi => Gp::Rdi,
        GdbGp::Rbp => Gp::Rbp,
        GdbGp::Rsp => Gp::Rsp,
        GdbGp::R8 => Gp::R8,
        GdbGp::R9 => Gp::R9,
        GdbGp::R10 => Gp::R10,
        GdbGp::R11 => Gp::R11,
        GdbGp::R12 => Gp::R12,
        GdbGp::R13 => Gp::R13,
        GdbGp::R14 => Gp::R14,
        GdbGp::R15 => Gp::R15,
    }
}

const fn segment(state: &mut X86VpState, which: Segment) -> &mut SegmentRegister {
    match which {
        Segment::Cs => &mut state.cs,
        Segment::Ss => &mut state.ss,
        Segment::Ds => &mut state.ds,
        Segment::Es => &mut state.es,
        Segment::Fs => &mut state.fs,
        Segment::Gs => &mut state.gs,
        Segment::Tr => &mut state.tr,
        Segment::Ldtr => &mut state.ldtr,
    }
}

const fn table(state: &mut X86VpState, which: DescriptorTable) -> &mut TableRegister {
    match which {
        DescriptorTable::Gdtr => &mut state.gdtr,
        DescriptorTable::Idtr => &mut state.idtr,
    }
}
