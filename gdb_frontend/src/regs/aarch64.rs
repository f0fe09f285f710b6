//! The registers of 64-bit Arm (GDB manual, node "AArch64 Features").

use super::Group;
use super::Reg;
use super::RegId;
use super::TableBuilder;
use super::types::CODE_PTR;
use super::types::DATA_PTR;
use super::types::INT;
use super::types::INT64;
use super::types::Type;
use super::types::UINT64;
use super::types::VEC128;
use super::types::bit;
use super::types::bits;

/// A register of 64-bit Arm. Values are little-endian, with the width in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Aarch64Reg {
    /// `X0` to `X30`, 64 bits.
    X(u8),
    /// The stack pointer that PSTATE.EL and PSTATE.SP select, 64 bits.
    Sp,
    /// Program counter, 64 bits.
    Pc,
    /// PSTATE in the format of SPSR, 32 bits.
    Cpsr,
    /// `V0` to `V31`, 128 bits.
    V(u8),
    /// Floating-point status register, 32 bits.
    Fpsr,
    /// Floating-point control register, 32 bits.
    Fpcr,
    /// Stack pointer of EL0, 64 bits.
    SpEl0,
    /// Stack pointer of EL1, 64 bits.
    SpEl1,
    /// System control register of EL1, 64 bits.
    SctlrEl1,
    /// Translation control register of EL1, 64 bits.
    TcrEl1,
    /// Translation table base register 0 of EL1, 64 bits.
    Ttbr0El1,
    /// Translation table base register 1 of EL1, 64 bits.
    Ttbr1El1,
}

const CORE: &str = "org.gnu.gdb.aarch64.core";
const FPU: &str = "org.gnu.gdb.aarch64.fpu";
/// A feature of Trapgate. GDB shows the registers of an unknown feature as they are described.
const SYSTEM: &str = "org.trapgate.aarch64.system";

static CPSR: Type = Type::Flags {
    id: "cpsr_flags",
    bytes: 4,
    fields: &[
        bit("SP", 0),
        bits("EL", 2, 3),
        bit("nRW", 4),
        bit("F", 6),
        bit("I", 7),
        bit("A", 8),
        bit("D", 9),
        bits("BTYPE", 10, 11),
        bit("SSBS", 12),
        bit("IL", 20),
        bit("SS", 21),
        bit("PAN", 22),
        bit("UAO", 23),
        bit("DIT", 24),
        bit("TCO", 25),
        bit("V", 28),
        bit("C", 29),
        bit("Z", 30),
        bit("N", 31),
    ],
};

pub(super) fn table() -> Vec<Reg> {
    let mut table = TableBuilder::new();
    table.feature(CORE, Group::ByType);
    for n in 0..31 {
        table.arm(Aarch64Reg::X(n), format!("x{n}"), 64, &INT64);
    }
    table.arm(Aarch64Reg::Sp, "sp", 64, &DATA_PTR);
    table.arm(Aarch64Reg::Pc, "pc", 64, &CODE_PTR);
    table.arm(Aarch64Reg::Cpsr, "cpsr", 32, &CPSR);
    table.feature(FPU, Group::ByType);
    for n in 0..32 {
        table.arm(Aarch64Reg::V(n), format!("v{n}"), 128, &VEC128);
    }
    table.feature(FPU, Group::Float);
    table.arm(Aarch64Reg::Fpsr, "fpsr", 32, &INT);
    table.arm(Aarch64Reg::Fpcr, "fpcr", 32, &INT);
    table.feature(SYSTEM, Group::System);
    table.arm(Aarch64Reg::SpEl0, "sp_el0", 64, &UINT64);
    table.arm(Aarch64Reg::SpEl1, "sp_el1", 64, &UINT64);
    table.arm(Aarch64Reg::SctlrEl1, "sctlr_el1", 64, &UINT64);
    table.arm(Aarch64Reg::TcrEl1, "tcr_el1", 64, &UINT64);
    table.arm(Aarch64Reg::Ttbr0El1, "ttbr0_el1", 64, &UINT64);
    table.arm(Aarch64Reg::Ttbr1El1, "ttbr1_el1", 64, &UINT64);
    table.regs
}

impl TableBuilder {
    fn arm(&mut self, reg: Aarch64Reg, name: impl Into<String>, bits: u16, ty: &'static Type) {
        self.push(RegId::Aarch64(reg), name, bits, ty);
    }
}
