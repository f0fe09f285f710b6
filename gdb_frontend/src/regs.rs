//! Register tables, one for each architecture: everything about registers in the protocol is derived from them.

pub mod x86_64;

/// A register's number in the protocol: its place in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegNum(pub u16);

/// Which registers a session has, in which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// x86 in all modes, 64-bit register file.
    X86_64 {
        /// The upper halves of YMM.
        avx: bool,
        /// AVX-512.
        avx512: bool,
        /// PKRU.
        pkru: bool,
    },
    /// 64-bit Arm.
    Aarch64,
}

/// The bytes of all registers of a layout, in table order, each present or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisterBlock {}
