//! Values that a VP would refuse, found before anything is written. Only what changes is looked at: what the guest has is the guest's.
//!
//! KVM itself checks some of it when the registers are set (CR4 and APIC base among them, see `RegisterFile::write`), and some only when the VP next enters
//! the guest, where it would end the guest instead of the request.

use crate::arch::x86_64::cpu_mode::cpu_mode;
use crate::arch::x86_64::page_walk::PagingLimits;
use kvm_bindings::kvm_cpuid_entry2;
use vmm_core_defs::debug_rpc::BadRegisterReason;
use vmm_core_defs::debug_rpc::CpuMode;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::regs::X86VpState;
use vmm_core_defs::regs::XFeatures;
use vmm_core_defs::regs::x86_64::SegmentRegister;
use vmm_core_defs::regs::x86_64::bits::cr0;
use vmm_core_defs::regs::x86_64::bits::cr4;
use vmm_core_defs::regs::x86_64::bits::efer;
use vmm_core_defs::regs::x86_64::bits::rflags;
use vmm_core_defs::regs::x86_64::segment_attributes;

const RFLAGS_LEGAL: u64 = 0x3f_7fd7;
/// Bits 12, 14 and 15 (SDM volume 3, "Debug Control Register"). KVM stores them, although no guest can set them.
const DR7_RESERVED: u64 = 0xd000;
const SEGMENT_LEGAL: u32 = 0x1_f0ff;
const SEGMENT_GRANULAR: u32 = 1 << 15;

/// What a vCPU's CPUID allows its registers to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) paging: PagingLimits,
    efer: u64,
    features: XFeatures,
}

impl Limits {
    pub(super) fn from_cpuid(entries: &[kvm_cpuid_entry2], features: XFeatures) -> Self {
        let leaf = |function| entries.iter().find(|e| e.function == function);
        let physical_bits = leaf(0x8000_0008).map_or(0, |e| e.eax.to_le_bytes()[0]);
        let (edx, ecx) = leaf(0x8000_0001).map_or((0, 0), |e| (e.edx, e.ecx));
        let amd21 = leaf(0x8000_0021).map_or(0, |e| e.eax);
        // SDM volume 3 and APM volume 2, "Extended Feature Enable Register"; each bit with the CPUID bit that brings it.
        let efer = [
            (1 << 0, edx >> 11 & 1),
            (1 << 8 | 1 << 10, edx >> 29 & 1),
            (1 << 11, edx >> 20 & 1),
            (1 << 12, ecx >> 2 & 1),
            (1 << 14, edx >> 25 & 1),
            (1 << 15, ecx >> 17 & 1),
            (1 << 21, amd21 >> 8 & 1),
        ]
        .iter()
        .filter(|(_, enabled)| *enabled != 0)
        .fold(0, |mask, (bits, _)| mask | bits);
        Self {
            paging: PagingLimits::new(physical_bits, edx >> 26 & 1 != 0),
            efer,
            features,
        }
    }

    /// Checks every register in which `new` differs from `old`.
    pub(super) fn check(&self, old: &X86VpState, new: &X86VpState) -> Result<(), DebugError> {
        self.check_general(old, new)?;
        self.check_control(old, new)?;
        self.check_segments(old, new)?;
        self.check_debug(old, new)?;
        self.check_vectors(old, new)
    }

    fn check_general(&self, old: &X86VpState, new: &X86VpState) -> Result<(), DebugError> {
        if old.rip != new.rip {
            if cpu_mode(new) == CpuMode::Long64 {
                canonical("rip", new.rip, new)?;
            } else {
                no_bits("rip", new.rip, !u64::from(u32::MAX))?;
            }
        }
        if old.rflags != new.rflags {
            no_bits("rflags", new.rflags, !RFLAGS_LEGAL)?;
            if new.efer & efer::LMA != 0 {
                // There is no virtual-8086 mode in long mode, and KVM drops the bit without an error.
                no_bits("rflags", new.rflags, rflags::VM)?;
            }
            if new.rflags & rflags::FIXED == 0 {
                return Err(bad("rflags", BadRegisterReason::BitIsAlwaysOne { bit: 1 }));
            }
        }
        Ok(())
    }

    fn check_control(&self, old: &X86VpState, new: &X86VpState) -> Result<(), DebugError> {
        if old.cr0 != new.cr0 {
            no_bits("cr0", new.cr0, !u64::from(u32::MAX))?;
            if new.cr0 & cr0::NW != 0 && new.cr0 & cr0::CD == 0 {
                return Err(bad(
                    "cr0",
                    BadRegisterReason::BitRequires {
                        bit: 29,
                        requires: 30,
                    },
                ));
            }
            if new.cr0 & cr0::PG != 0 && new.cr0 & cr0::PE == 0 {
                return Err(bad(
                    "cr0",
                    BadRegisterReason::BitRequires {
                        bit: 31,
                        requires: 0,
                    },
                ));
            }
        }
        if old.cr3 != new.cr3 {
            no_bits("cr3", new.cr3, u64::MAX << self.paging.physical_bits())?;
        }
        if old.cr8 != new.cr8 && new.cr8 > 15 {
            return Err(bad("cr8", BadRegisterReason::TooWide { bits: 4 }));
        }
        if old.efer != new.efer {
            no_bits("efer", new.efer, !self.efer)?;
        }
        if old.kernel_gs_base != new.kernel_gs_base {
            canonical("k_gs_base", new.kernel_gs_base, new)?;
        }
        Ok(())
    }

    fn check_segments(&self, old: &X86VpState, new: &X86VpState) -> Result<(), DebugError> {
        for (name, old, segment) in [
            ("es", &old.es, &new.es),
            ("cs", &old.cs, &new.cs),
            ("ss", &old.ss, &new.ss),
            ("ds", &old.ds, &new.ds),
        ] {
            if old != segment {
                no_bits(&format!("{name}_base"), segment.base, !u64::from(u32::MAX))?;
                legal_segment(name, segment)?;
            }
        }
        for (name, old, segment) in [
            ("fs", &old.fs, &new.fs),
            ("gs", &old.gs, &new.gs),
            ("tr", &old.tr, &new.tr),
            ("ldtr", &old.ldtr, &new.ldtr),
        ] {
            if old != segment {
                canonical(&format!("{name}_base"), segment.base, new)?;
                legal_segment(name, segment)?;
            }
        }
        for (name, old, table) in [
            ("gdtr_base", &old.gdtr, &new.gdtr),
            ("idtr_base", &old.idtr, &new.idtr),
        ] {
            if old != table {
                canonical(name, table.base, new)?;
            }
        }
        Ok(())
    }

    fn check_debug(&self, old: &X86VpState, new: &X86VpState) -> Result<(), DebugError> {
        for (name, old, value, reserved) in [
            ("dr6", old.debug.dr6, new.debug.dr6, 0),
            ("dr7", old.debug.dr7, new.debug.dr7, DR7_RESERVED),
        ] {
            if old != value {
                no_bits(name, value, !u64::from(u32::MAX) | reserved)?;
            }
        }
        Ok(())
    }

    fn check_vectors(&self, old: &X86VpState, new: &X86VpState) -> Result<(), DebugError> {
        for (name, present, given) in [
            ("ymm", self.features.avx, new.avx.is_some()),
            ("zmm", self.features.avx512, new.avx512.is_some()),
            ("pkru", self.features.pkru, new.pkru.is_some()),
            ("xcr0", old.xcr0.is_some(), new.xcr0.is_some()),
        ] {
            match (present, given) {
                (false, true) => return Err(bad(name, BadRegisterReason::Absent)),
                (true, false) => {
                    return Err(bad(name, BadRegisterReason::NoValue));
                }
                _ => {}
            }
        }
        for (n, (old, st)) in old.x87.st.iter().zip(new.x87.st).enumerate() {
            if *old != st && st >> 80 != 0 {
                return Err(bad(
                    &format!("st{n}"),
                    BadRegisterReason::TooWide { bits: 80 },
                ));
            }
        }
        if old.x87.fop != new.x87.fop && new.x87.fop > 0x7ff {
            return Err(bad("fop", BadRegisterReason::TooWide { bits: 11 }));
        }
        Ok(())
    }
}

/// The registers of `KVM_SET_SREGS` that differ, for the message when KVM refuses them without saying which.
pub(super) fn changed_system(old: &X86VpState, new: &X86VpState) -> String {
    let mut names = Vec::new();
    for (name, changed) in [
        ("cr0", old.cr0 != new.cr0),
        ("cr3", old.cr3 != new.cr3),
        ("cr4", old.cr4 != new.cr4),
        ("efer", old.efer != new.efer),
        ("apic_base", old.apic_base != new.apic_base),
        ("cs", old.cs != new.cs),
    ] {
        if changed {
            names.push(name);
        }
    }
    if names.is_empty() {
        names.push("a segment or descriptor table");
    }
    names.join(", ")
}

pub(super) fn bad(name: &str, reason: BadRegisterReason) -> DebugError {
    DebugError::BadRegister {
        name: name.into(),
        reason,
    }
}

pub(super) fn no_bits(name: &str, value: u64, reserved: u64) -> Result<(), DebugError> {
    match value & reserved {
        0 => Ok(()),
        reserved => Err(bad(
            name,
            BadRegisterReason::ReservedBits { value, reserved },
        )),
    }
}

fn canonical(name: &str, address: u64, state: &X86VpState) -> Result<(), DebugError> {
    let bits = if state.cr4 & cr4::LA57 != 0 { 57 } else { 48 };
    let unused = 64 - bits;
    if (address << unused).cast_signed() >> unused == address.cast_signed() {
        return Ok(());
    }
    Err(bad(name, BadRegisterReason::NotCanonical { address, bits }))
}

/// What VM entry checks of a usable segment in every mode (SDM volume 3, "Checks on Guest Segment Registers").
fn legal_segment(name: &str, segment: &SegmentRegister) -> Result<(), DebugError> {
    let attributes = segment.attributes;
    let reserved = attributes & !SEGMENT_LEGAL;
    if reserved != 0 {
        return Err(bad(
            name,
            BadRegisterReason::ReservedAttributes { reserved },
        ));
    }
    if attributes & segment_attributes::UNUSABLE != 0 {
        return Ok(());
    }
    let granular = attributes & SEGMENT_GRANULAR != 0;
    if granular && segment.limit & 0xfff != 0xfff {
        return Err(bad(name, BadRegisterReason::LimitNotInPages));
    }
    if !granular && segment.limit > 0xf_ffff {
        return Err(bad(name, BadRegisterReason::LimitTooLarge));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
