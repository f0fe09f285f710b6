//! General and system registers of a VP in KVM's structures, and values that follow from these registers alone.

use super::code_location::CodeLocation;
use super::convert::gp_value;
use super::convert::read_general;
use super::convert::read_system;
use super::cpu_mode::ModeBits;
use super::cpu_mode::mode;
use super::instruction;
use super::page_walk::PagingLimits;
use super::page_walk::PagingState;
use super::step_effects::TrapFlag;
use iced_x86::Instruction;
use kvm_bindings::kvm_regs;
use kvm_bindings::kvm_sregs;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::condition::ConditionRegister;
use vmm_core_defs::debug_rpc::CpuMode;
use vmm_core_defs::regs::X86VpState;
use vmm_core_defs::regs::x86_64::SegmentTranslation;
use vmm_core_defs::regs::x86_64::bits::rflags;

/// The general and system registers. RFLAGS.TF is the guest's own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct CpuRegisters {
    pub(crate) general: kvm_regs,
    pub(crate) system: kvm_sregs,
}

impl CpuRegisters {
    /// The linear address of RIP.
    pub(crate) fn linear_rip(&self) -> Gva {
        SegmentTranslation::new(self.is_64_bit_code(), self.system.cs.base).linear(self.general.rip)
    }

    /// Whether the next instruction is decoded as 64-bit code.
    pub(crate) fn is_64_bit_code(&self) -> bool {
        self.mode() == CpuMode::Long64
    }

    /// How the VP decodes instructions.
    fn mode(&self) -> CpuMode {
        mode(&ModeBits {
            cr0: self.system.cr0,
            efer: self.system.efer,
            rflags: self.general.rflags,
            long: self.system.cs.l != 0,
            big: self.system.cs.db != 0,
        })
    }

    /// Decodes the next instruction. See [`instruction::decode`].
    pub(crate) fn decode(&self, bytes: &[u8]) -> Option<Instruction> {
        instruction::decode(self.mode(), self.general.rip, bytes)
    }

    /// The address of the next instruction, and the tables that translate it.
    pub(crate) fn location(&self, limits: PagingLimits) -> CodeLocation {
        let paging = PagingState {
            cr0: self.system.cr0,
            cr3: self.system.cr3,
            cr4: self.system.cr4,
            efer: self.system.efer,
            limits,
        };
        CodeLocation {
            rip: self.linear_rip(),
            paging,
            user: self.system.ss.dpl == 3,
        }
    }

    /// RFLAGS.TF as the guest set it.
    pub(crate) fn trap_flag(&self) -> TrapFlag {
        TrapFlag::of(self.general.rflags)
    }

    /// RFLAGS.RF.
    pub(crate) fn resume_flag(&self) -> bool {
        self.general.rflags & rflags::RF != 0
    }

    /// The register that a condition names. `None`: it is neither a general nor a system register.
    pub(crate) fn condition_value(&self, register: ConditionRegister) -> Option<u64> {
        let Self { general, system } = self;
        Some(match register {
            ConditionRegister::General(gp) => gp_value(general, gp),
            ConditionRegister::ProgramCounter => self.linear_rip().value(),
            ConditionRegister::Rflags => general.rflags,
            ConditionRegister::Es => system.es.selector.into(),
            ConditionRegister::Cs => system.cs.selector.into(),
            ConditionRegister::Ss => system.ss.selector.into(),
            ConditionRegister::Ds => system.ds.selector.into(),
            ConditionRegister::Fs => system.fs.selector.into(),
            ConditionRegister::Gs => system.gs.selector.into(),
            ConditionRegister::FsBase => system.fs.base,
            ConditionRegister::GsBase => system.gs.base,
            ConditionRegister::Cr0 => system.cr0,
            ConditionRegister::Cr2 => system.cr2,
            ConditionRegister::Cr3 => system.cr3,
            ConditionRegister::Cr4 => system.cr4,
            ConditionRegister::Cr8 => system.cr8,
            ConditionRegister::Efer => system.efer,
            // `KernelGsBase` is a model-specific register.
            _ => return None,
        })
    }

    /// These registers in a register file whose other registers are zero or absent.
    pub(crate) fn state(&self) -> X86VpState {
        let mut state = X86VpState::default();
        read_general(&self.general, &mut state);
        read_system(&self.system, &mut state);
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::x86_64::convert::general;

    #[test]
    fn each_register_of_a_condition_has_a_field_of_its_own() {
        let mut gp = [0; 16];
        for (value, gp) in (0x20..).zip(&mut gp) {
            *gp = value;
        }
        let mut system = kvm_sregs {
            cr0: 0x12,
            cr2: 0x13,
            cr3: 0x14,
            cr4: 0x15,
            cr8: 0x16,
            efer: 0x17,
            ..Default::default()
        };
        let segments = [
            &mut system.es,
            &mut system.cs,
            &mut system.ss,
            &mut system.ds,
            &mut system.fs,
            &mut system.gs,
        ];
        for (value, segment) in (0x30..).zip(segments) {
            (segment.selector, segment.base) = (value, 0x100 + u64::from(value));
        }
        let registers = CpuRegisters {
            general: general(gp, 0x10, 0x11),
            system,
        };
        let values = ConditionRegister::ALL.map(|register| registers.condition_value(register));
        let mut wanted: Vec<Option<u64>> = (0x20..0x30).map(Some).collect();
        // The code segment's base counts in real mode.
        wanted.extend([Some(0x131 + 0x10), Some(0x11)]);
        wanted.extend((0x30..0x36).map(Some));
        wanted.extend([Some(0x134), Some(0x135), None]);
        wanted.extend((0x12..0x18).map(Some));
        assert_eq!(values.to_vec(), wanted);
    }
}
