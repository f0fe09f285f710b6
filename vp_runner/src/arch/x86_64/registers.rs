//! General and system registers of a VP in KVM's structures, and values that follow from these registers alone.

use super::code_location::CodeLocation;
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

    /// These registers in a register file whose other registers are zero or absent.
    pub(crate) fn state(&self) -> X86VpState {
        let mut state = X86VpState::default();
        read_general(&self.general, &mut state);
        read_system(&self.system, &mut state);
        state
    }
}
