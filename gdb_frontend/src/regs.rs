//! Register tables, one for each architecture. All register data of the protocol is derived from them: the layout of
//! `g` and `G`, the numbers of `p` and `P`, the target description, and the page in the Guide.
//!
//! A layout is constant within a session, because GDB requires that the length of `g` replies does not change.

pub mod aarch64;
mod block;
#[cfg(test)]
mod markdown;
pub(crate) mod types;
pub mod x86_64;

pub use block::RegisterBlock;

use crate::regs::aarch64::Aarch64Reg;
use crate::regs::types::Type;
use crate::regs::x86_64::X86Reg;
use std::sync::OnceLock;

/// The number of a register in the protocol: its index in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegNum(pub u16);

/// The registers of a session and their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// x86 in all modes, with the 64-bit register file.
    X86_64 {
        /// Whether there are upper halves of the YMM registers.
        avx: bool,
        /// Whether there are AVX-512 registers. Without `avx` they are left out: GDB refuses a description with AVX-512
        /// and without AVX.
        avx512: bool,
        /// Whether there is PKRU.
        pkru: bool,
    },
    /// 64-bit Arm.
    Aarch64,
}

impl Layout {
    /// All registers of this layout, in the order of their numbers.
    pub fn table(self) -> &'static [Reg] {
        static TABLES: [OnceLock<Vec<Reg>>; Layout::COUNT] =
            [const { OnceLock::new() }; Layout::COUNT];
        TABLES[self.index()].get_or_init(|| match self {
            Self::X86_64 { avx, avx512, pkru } => x86_64::table(avx, avx && avx512, pkru),
            Self::Aarch64 => aarch64::table(),
        })
    }

    /// The number of layouts.
    pub(crate) const COUNT: usize = 9;

    /// The index of this layout, below [`COUNT`](Self::COUNT).
    pub(crate) fn index(self) -> usize {
        match self {
            Self::X86_64 { avx, avx512, pkru } => {
                usize::from(avx) | usize::from(avx512) << 1 | usize::from(pkru) << 2
            }
            Self::Aarch64 => 8,
        }
    }

    /// The register with this number, if there is one.
    pub fn reg(self, num: RegNum) -> Option<&'static Reg> {
        self.table().get(usize::from(num.0))
    }

    /// The register with this name, if there is one.
    pub fn by_name(self, name: &str) -> Option<&'static Reg> {
        self.table().iter().find(|reg| reg.name == name)
    }

    /// The length of all registers in bytes: half the length of a `g` reply.
    pub fn total_bytes(self) -> usize {
        self.table()
            .last()
            .map_or(0, |last| last.offset + last.bytes())
    }

    /// The name of the architecture in GDB (`set architecture`).
    pub(crate) const fn architecture(self) -> &'static str {
        match self {
            Self::X86_64 { .. } => "i386:x86-64",
            Self::Aarch64 => "aarch64",
        }
    }
}

/// A register of the table.
#[derive(Debug)]
pub struct Reg {
    /// The number: the index in the table.
    pub num: RegNum,
    /// The name that GDB uses.
    pub name: String,
    /// The width in bits, a multiple of 8.
    pub bits: u16,
    /// The offset in a `g` packet, in bytes of the register file (not of the hex text).
    pub offset: usize,
    /// The feature of the target description (GDB manual, node "Standard Target Features").
    pub(crate) feature: &'static str,
    /// The group in which clients list the register.
    pub(crate) group: Group,
    /// The type, which determines how clients show the register.
    pub(crate) ty: &'static Type,
    /// The register of the architecture, for the code that reads and writes the value.
    pub id: RegId,
}

impl Reg {
    /// The width in bytes.
    pub fn bytes(&self) -> usize {
        usize::from(self.bits / 8)
    }
}

/// A register of an architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RegId {
    /// An x86 register.
    X86(X86Reg),
    /// A 64-bit Arm register.
    Aarch64(Aarch64Reg),
}

/// The group of a register (GDB manual, node "Target Description Format", `group`). `info registers GROUP` lists it.
/// GDB's own code for x86 ignores the group; LLDB uses only the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Group {
    /// GDB derives the group from the name and the type. LLDB takes the register for a general register, which a plain
    /// `register read` prints.
    ByType,
    /// A register of the floating-point unit.
    Float,
    /// A register of the vector unit.
    Vector,
    /// A system register, which user programs do not use.
    System,
}

/// Adds registers to a table. The order determines numbers and offsets.
struct TableBuilder {
    regs: Vec<Reg>,
    offset: usize,
    feature: &'static str,
    group: Group,
}

impl TableBuilder {
    fn new() -> Self {
        Self {
            regs: Vec::new(),
            offset: 0,
            feature: "",
            group: Group::ByType,
        }
    }

    /// Sets the feature and the group of the registers that follow.
    fn feature(&mut self, feature: &'static str, group: Group) {
        self.feature = feature;
        self.group = group;
    }

    fn push(&mut self, id: RegId, name: impl Into<String>, bits: u16, ty: &'static Type) {
        let num = u16::try_from(self.regs.len()).expect("a table has a few hundred registers");
        self.regs.push(Reg {
            num: RegNum(num),
            name: name.into(),
            bits,
            offset: self.offset,
            feature: self.feature,
            group: self.group,
            ty,
            id,
        });
        self.offset += usize::from(bits / 8);
    }
}

#[cfg(test)]
mod tests;
