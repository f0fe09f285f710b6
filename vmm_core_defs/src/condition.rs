//! Conditions of breakpoints: expressions that decide whether a hit is a stop.

use crate::breakpoint::Breakpoint;
use crate::regs::x86_64::Gp;
use serde::Deserialize;
use serde::Serialize;

/// The most bytes of output of commands that are kept for the client.
pub const MOST_OUTPUT: usize = 64 << 10;

/// The conditions of one breakpoint, and its commands.
///
/// A VP that hits the breakpoint evaluates the conditions on its own thread, in their order, up to the first that holds. The hit is a stop if a condition holds, if a
/// condition cannot be evaluated, or if there is no condition. Otherwise the VP goes on, and no stop is
/// reported. The other VPs run on, unless the VP has to execute the instruction under a breakpoint byte: they are held for that one instruction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakpointConditions {
    /// A breakpoint that is set.
    pub breakpoint: Breakpoint,
    /// The conditions. None: each hit is a stop.
    pub conditions: Vec<Condition>,
    /// What the VP executes at a hit that would be a stop, in this order. A hit with commands is no stop: the VP goes on, as where no condition holds. Commands print
    /// ([`DebugRequest::CommandOutput`](crate::debug_rpc::DebugRequest::CommandOutput)); they change nothing in the guest. A command that fails prints the reason, and so does a condition that
    /// cannot be evaluated.
    #[serde(default)]
    pub commands: Vec<Condition>,
}

/// An expression over the registers and the memory of the VP that has hit the breakpoint. The condition holds if the value of the expression is not 0.
///
/// The expression is bytecode of agent expressions (crate `trapgate-agent-expr`, whose `Expr` builds them). Its registers have the numbers of [`ConditionRegister`], and its addresses are linear.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Condition {
    /// The bytecode.
    pub code: Vec<u8>,
}

/// A register that a condition may name, by its place in [`ALL`](Self::ALL). Its value has 64 bits; a register of fewer bits is extended with zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConditionRegister {
    /// A general register.
    General(Gp),
    /// The linear address of the next instruction.
    ProgramCounter,
    /// RFLAGS.
    Rflags,
    /// The selector of ES.
    Es,
    /// The selector of CS.
    Cs,
    /// The selector of SS.
    Ss,
    /// The selector of DS.
    Ds,
    /// The selector of FS.
    Fs,
    /// The selector of GS.
    Gs,
    /// The base of FS.
    FsBase,
    /// The base of GS.
    GsBase,
    /// The base that `swapgs` exchanges with the base of GS.
    KernelGsBase,
    /// CR0.
    Cr0,
    /// CR2.
    Cr2,
    /// CR3.
    Cr3,
    /// CR4.
    Cr4,
    /// CR8.
    Cr8,
    /// IA32_EFER.
    Efer,
}

impl ConditionRegister {
    /// Every register. The numbers do not change: new registers come behind the last one.
    pub const ALL: [Self; 33] = [
        Self::General(Gp::Rax),
        Self::General(Gp::Rcx),
        Self::General(Gp::Rdx),
        Self::General(Gp::Rbx),
        Self::General(Gp::Rsp),
        Self::General(Gp::Rbp),
        Self::General(Gp::Rsi),
        Self::General(Gp::Rdi),
        Self::General(Gp::R8),
        Self::General(Gp::R9),
        Self::General(Gp::R10),
        Self::General(Gp::R11),
        Self::General(Gp::R12),
        Self::General(Gp::R13),
        Self::General(Gp::R14),
        Self::General(Gp::R15),
        Self::ProgramCounter,
        Self::Rflags,
        Self::Es,
        Self::Cs,
        Self::Ss,
        Self::Ds,
        Self::Fs,
        Self::Gs,
        Self::FsBase,
        Self::GsBase,
        Self::KernelGsBase,
        Self::Cr0,
        Self::Cr2,
        Self::Cr3,
        Self::Cr4,
        Self::Cr8,
        Self::Efer,
    ];

    /// The register with this number.
    pub fn with_number(number: u16) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The number of the register in a condition.
    pub fn number(self) -> u16 {
        let mut numbered = (0..).zip(Self::ALL);
        let number = numbered.find_map(|(number, register)| (register == self).then_some(number));
        number.expect("`ALL` has every register")
    }

    /// The name of the register, in small letters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::General(gp) => Gp::NAMES[gp as usize],
            Self::ProgramCounter => "rip",
            Self::Rflags => "rflags",
            Self::Es => "es",
            Self::Cs => "cs",
            Self::Ss => "ss",
            Self::Ds => "ds",
            Self::Fs => "fs",
            Self::Gs => "gs",
            Self::FsBase => "fs_base",
            Self::GsBase => "gs_base",
            Self::KernelGsBase => "kernel_gs_base",
            Self::Cr0 => "cr0",
            Self::Cr2 => "cr2",
            Self::Cr3 => "cr3",
            Self::Cr4 => "cr4",
            Self::Cr8 => "cr8",
            Self::Efer => "efer",
        }
    }

    /// The register with this name.
    pub fn with_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|register| register.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_that_of_one_register() {
        for (number, register) in (0..).zip(ConditionRegister::ALL) {
            assert_eq!(register.number(), number);
            assert_eq!(ConditionRegister::with_number(number), Some(register));
            let named = ConditionRegister::with_name(register.name());
            assert_eq!(named, Some(register));
        }
        assert_eq!(ConditionRegister::with_name("rpi"), None);
        assert_eq!(ConditionRegister::with_number(33), None);
    }
}
