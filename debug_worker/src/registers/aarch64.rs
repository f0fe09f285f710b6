//! The fields of the 64-bit Arm registers.

use super::Field;
use gdb_frontend::regs::aarch64::Aarch64Reg;
use vmm_core_defs::regs::Aarch64VpState;

pub(super) fn field(state: &mut Aarch64VpState, reg: Aarch64Reg) -> Option<Field<'_>> {
    Some(match reg {
        Aarch64Reg::X(n) => Field::Bits64(state.x.get_mut(usize::from(n))?),
        Aarch64Reg::Sp => Field::Bits64(stack_pointer(state)?),
        Aarch64Reg::Pc => Field::Bits64(&mut state.pc),
        Aarch64Reg::Cpsr => Field::Low32(&mut state.cpsr),
        Aarch64Reg::V(n) => Field::Vector(std::slice::from_mut(
            state.fp.as_mut()?.v.get_mut(usize::from(n))?,
        )),
        Aarch64Reg::Fpsr => Field::Bits32(&mut state.fp.as_mut()?.fpsr),
        Aarch64Reg::Fpcr => Field::Bits32(&mut state.fp.as_mut()?.fpcr),
        Aarch64Reg::SpEl0 => Field::Bits64(&mut state.sp_el0),
        Aarch64Reg::SpEl1 => Field::Bits64(&mut state.sp_el1),
        Aarch64Reg::SctlrEl1 => Field::Bits64(&mut state.sctlr_el1),
        Aarch64Reg::TcrEl1 => Field::Bits64(&mut state.tcr_el1),
        Aarch64Reg::Ttbr0El1 => Field::Bits64(&mut state.ttbr0_el1),
        Aarch64Reg::Ttbr1El1 => Field::Bits64(&mut state.ttbr1_el1),
    })
}

/// The stack pointer that instructions use (Arm ARM, "The stack pointer registers"). In the format of SPSR, PSTATE.EL
/// is in bits 2-3 and PSTATE.SP in bit 0. EL2 and EL3 are not supported.
const fn stack_pointer(state: &mut Aarch64VpState) -> Option<&mut u64> {
    match state.cpsr & 0b1101 {
        0b0000 | 0b0001 | 0b0100 => Some(&mut state.sp_el0),
        0b0101 => Some(&mut state.sp_el1),
        _ => None,
    }
}
