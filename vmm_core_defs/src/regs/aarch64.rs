//! The 64-bit Arm register file.

use serde::Deserialize;
use serde::Serialize;

/// The register file of a 64-bit Arm VP (Arm ARM, part B1 "Registers in AArch64 Execution state").
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Aarch64VpState {
    /// X0 to X30.
    pub x: [u64; 31],
    /// Stack pointer of EL0 (SP_EL0).
    pub sp_el0: u64,
    /// Stack pointer of EL1 (SP_EL1).
    pub sp_el1: u64,
    /// Program counter.
    pub pc: u64,
    /// The processor state in the format of SPSR (Saved Program Status Register).
    pub cpsr: u64,
    /// System control register of EL1 (SCTLR_EL1).
    pub sctlr_el1: u64,
    /// Translation control register of EL1 (TCR_EL1).
    pub tcr_el1: u64,
    /// Translation table base register 0 of EL1 (TTBR0_EL1).
    pub ttbr0_el1: u64,
    /// Translation table base register 1 of EL1 (TTBR1_EL1).
    pub ttbr1_el1: u64,
    /// V0 to V31, FPSR, FPCR. `None` if the VP has no floating-point unit.
    pub fp: Option<Box<Aarch64FpState>>,
}

/// The floating-point and vector registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Aarch64FpState {
    /// V0 to V31.
    pub v: [u128; 32],
    /// Floating-point status register.
    pub fpsr: u32,
    /// Floating-point control register.
    pub fpcr: u32,
}
