//! The mode of an x86 VP, its privilege level, and its linear addresses: pure functions of the register file.

use vmm_core_defs::addr::Gva;
use vmm_core_defs::debug_rpc::CpuMode;
use vmm_core_defs::regs::X86VpState;
use vmm_core_defs::regs::x86_64::SegmentTranslation;
use vmm_core_defs::regs::x86_64::bits::cr0;
use vmm_core_defs::regs::x86_64::bits::efer;
use vmm_core_defs::regs::x86_64::bits::rflags;
use vmm_core_defs::regs::x86_64::segment_attributes;

/// A segment register by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Segment {
    /// Code.
    Cs,
    /// The stack.
    Ss,
}

/// The processor mode, as far as KVM's treatment of `INT3` depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ModeClass {
    /// CR0.PE is clear.
    Real,
    /// Protected mode, virtual-8086 mode included.
    Protected,
    /// Long mode, compatibility mode included.
    Long,
}

impl ModeClass {
    /// The class by CR0.PE and EFER.LMA (SDM volume 3, "Modes of Operation").
    pub(crate) const fn of(cr0: u64, efer: u64) -> Self {
        if cr0 & cr0::PE == 0 {
            Self::Real
        } else if efer & efer::LMA != 0 {
            Self::Long
        } else {
            Self::Protected
        }
    }
}

/// How the VP decodes instructions.
pub(crate) fn cpu_mode(state: &X86VpState) -> CpuMode {
    mode(&ModeBits {
        cr0: state.cr0,
        efer: state.efer,
        rflags: state.rflags,
        long: state.cs.attributes & segment_attributes::LONG != 0,
        big: state.cs.attributes & segment_attributes::DEFAULT_BIG != 0,
    })
}

/// The bits that decide how a VP decodes instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ModeBits {
    pub(crate) cr0: u64,
    pub(crate) efer: u64,
    pub(crate) rflags: u64,
    /// CS.L.
    pub(crate) long: bool,
    /// CS.D.
    pub(crate) big: bool,
}

/// How a VP with these bits decodes instructions (SDM volume 3, "Modes of Operation", and the L and D bits of CS).
pub(crate) fn mode(bits: &ModeBits) -> CpuMode {
    let virtual_8086 = bits.rflags & rflags::VM != 0;
    match ModeClass::of(bits.cr0, bits.efer) {
        ModeClass::Real => CpuMode::Real,
        // EFLAGS.VM has no effect while long mode is active.
        ModeClass::Long => match (bits.long, bits.big) {
            (true, _) => CpuMode::Long64,
            (false, true) => CpuMode::Compatibility32,
            (false, false) => CpuMode::Compatibility16,
        },
        ModeClass::Protected => match (virtual_8086, bits.big) {
            (true, _) => CpuMode::Virtual8086,
            (false, true) => CpuMode::Protected32,
            (false, false) => CpuMode::Protected16,
        },
    }
}

/// The current privilege level, 0 to 3.
///
/// It is SS.DPL, not CS.RPL: the two differ just after CR0.PE is set and in conforming code (SDM volume 3, "Guest Register State").
pub(crate) fn privilege(state: &X86VpState) -> u8 {
    match cpu_mode(state) {
        CpuMode::Real => 0,
        CpuMode::Virtual8086 => 3,
        _ => {
            let [low, ..] = (state.ss.attributes >> 5 & 3).to_le_bytes();
            low
        }
    }
}

/// The linear address of an offset in a segment. See [`SegmentTranslation`].
pub(crate) fn linear_address(state: &X86VpState, segment: Segment, offset: u64) -> Gva {
    let base = match segment {
        Segment::Cs => state.cs.base,
        Segment::Ss => state.ss.base,
    };
    SegmentTranslation::new(state.is_64_bit_code(), base).linear(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(cr0: u64, efer: u64, rflags: u64, cs_attributes: u32) -> X86VpState {
        let mut state = X86VpState {
            cr0,
            efer,
            rflags,
            ..Default::default()
        };
        state.cs.attributes = cs_attributes;
        state
    }

    const L: u32 = segment_attributes::LONG;
    const DB: u32 = segment_attributes::DEFAULT_BIG;

    #[test]
    fn every_mode_is_told_by_its_bits() {
        for (cr0, efer, rflags, cs, mode) in [
            (0, 0, rflags::VM, L | DB, CpuMode::Real),
            (1, 0, 0, 0, CpuMode::Protected16),
            (1, 0, 0, DB, CpuMode::Protected32),
            // L has no effect before long mode is active.
            (1, 0, 0, L | DB, CpuMode::Protected32),
            (1, 0, rflags::VM, 0, CpuMode::Virtual8086),
            (1, efer::LMA, 0, L, CpuMode::Long64),
            (1, efer::LMA, rflags::VM, L, CpuMode::Long64),
            (1, efer::LMA, 0, DB, CpuMode::Compatibility32),
            (1, efer::LMA, 0, 0, CpuMode::Compatibility16),
        ] {
            assert_eq!(cpu_mode(&state(cr0, efer, rflags, cs)), mode);
        }
    }

    #[test]
    fn privilege_is_the_stack_segments() {
        let mut user = state(1, efer::LMA, 0, L);
        user.ss.attributes = 3 << 5 | 1 << 7;
        assert_eq!(privilege(&user), 3);
        user.cr0 = 0;
        assert_eq!(privilege(&user), 0);
        assert_eq!(privilege(&state(1, 0, rflags::VM, 0)), 3);
    }

    #[test]
    fn a_reset_vp_fetches_from_the_top_of_4_gib() {
        let mut reset = state(0, 0, 2, 0);
        reset.cs.base = 0xffff_0000;
        let fetched = |offset| linear_address(&reset, Segment::Cs, offset);
        assert_eq!(fetched(0xfff0), Gva::new(0xffff_fff0));
        assert_eq!(fetched(0x1_0000), Gva::new(0), "wraps at 4 GiB");
    }

    #[test]
    fn long_mode_ignores_the_bases_of_code_and_stack() {
        let mut long = state(1, efer::LMA, 0, L);
        for segment in [&mut long.cs, &mut long.ss] {
            segment.base = 0x1000;
        }
        for segment in [Segment::Cs, Segment::Ss] {
            assert_eq!(linear_address(&long, segment, 5), Gva::new(5));
        }
    }
}
