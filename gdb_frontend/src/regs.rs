//! Register tables, one for each architecture: everything about registers in the protocol is derived from them: the layout of `g`
//! and `G`, the numbers of `p` and `P`, the target description, the page in the Guide.
//!
//! A layout never changes within a session, so that the answer to `g` never changes its size under GDB.

pub mod aarch64;
mod block;
mod markdown;
pub mod types;
pub mod x86_64;

pub use block::RegisterBlock;
pub use markdown::markdown;

use crate::regs::aarch64::Aarch64Reg;
use crate::regs::types::Type;
use crate::regs::x86_64::X86Reg;
use std::sync::OnceLock;

/// A register's number in the protocol: its place in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegNum(pub u16);

/// Which registers a session has, in which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// x86 in all modes, 64-bit register file.
    X86_64 {
        /// The upper halves of YMM.
        avx: bool,
        /// AVX-512. Without `avx` it is left out too: GDB refuses a description that has one without the other.
        avx512: bool,
        /// PKRU.
        pkru: bool,
    },
    /// 64-bit Arm.
    Aarch64,
}

impl Layout {
    /// All registers of this layout, by number.
    pub fn table(self) -> &'static [Reg] {
        static TABLES: [OnceLock<Vec<Reg>>; Layout::COUNT] =
            [const { OnceLock::new() }; Layout::COUNT];
        TABLES[self.index()].get_or_init(|| match self {
            Self::X86_64 { avx, avx512, pkru } => x86_64::table(avx, avx && avx512, pkru),
            Self::Aarch64 => aarch64::table(),
        })
    }

    /// How many layouts there are.
    pub(crate) const COUNT: usize = 9;

    /// A number for each layout, below [`COUNT`](Self::COUNT).
    pub(crate) fn index(self) -> usize {
        match self {
            Self::X86_64 { avx, avx512, pkru } => {
                usize::from(avx) | usize::from(avx512) << 1 | usize::from(pkru) << 2
            }
            Self::Aarch64 => 8,
        }
    }

    /// The register with this number, where there is one.
    pub fn reg(self, num: RegNum) -> Option<&'static Reg> {
        self.table().get(usize::from(num.0))
    }

    /// The register with this name, where there is one.
    pub fn by_name(self, name: &str) -> Option<&'static Reg> {
        self.table().iter().find(|reg| reg.name == name)
    }

    /// Bytes of all registers together: half the length of a `g` reply.
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

/// One register.
#[derive(Debug)]
pub struct Reg {
    /// Its number: its place in the table.
    pub num: RegNum,
    /// Its name, as GDB knows it.
    pub name: String,
    /// Its width in bits, a multiple of 8.
    pub bits: u16,
    /// Where it starts in a `g` packet, in bytes of the register file (not of hex text).
    pub offset: usize,
    /// The target description's feature it belongs to (GDB manual, node "Standard Target Features").
    pub feature: &'static str,
    /// What lists it.
    pub group: Group,
    /// How it is shown.
    pub ty: &'static Type,
    /// Which register it is, for those who fetch the value.
    pub id: RegId,
}

impl Reg {
    /// Its width in bytes.
    pub fn bytes(&self) -> usize {
        usize::from(self.bits / 8)
    }
}

/// Which register of which architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RegId {
    /// Of x86.
    X86(X86Reg),
    /// Of 64-bit Arm.
    Aarch64(Aarch64Reg),
}

/// The group of a register (GDB manual, node "Target Description Format", `group`), which `info registers GROUP` lists. GDB's own
/// code for x86 does not look at it; LLDB has nothing else to go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Group {
    /// As GDB finds from name and type; to LLDB it is a general register, which a plain `register read` prints.
    ByType,
    /// Of the floating-point unit.
    Float,
    /// Of the vector unit.
    Vector,
    /// Of no interest to programs that run on the system.
    System,
}

/// Lays registers one after the other: numbers and offsets come from the order alone.
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

    /// What follows belongs to this feature and group.
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
