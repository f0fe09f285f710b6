//! The values that CPUID permits. Tests of `RegisterFile::write` on a real vCPU check that other values are refused.

use super::*;
use vmm_core_defs::regs::x86_64::bits::cr4;

fn leaf(function: u32, eax: u32, ecx: u32, edx: u32) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 {
        function,
        eax,
        ecx,
        edx,
        ..Default::default()
    }
}

fn limits(entries: &[kvm_cpuid_entry2]) -> Limits {
    Limits::from_cpuid(entries, XFeatures::default())
}

#[test]
fn physical_addresses_are_as_wide_as_cpuid_says_and_36_bits_where_it_says_nothing_sensible() {
    let bits = |eax| {
        limits(&[leaf(0x8000_0008, eax, 0, 0)])
            .paging
            .physical_bits()
    };
    assert_eq!(bits(0x3030), 48);
    assert_eq!((bits(0), bits(255)), (36, 36));
    assert_eq!(limits(&[]).paging.physical_bits(), 36);
}

#[test]
fn efer_has_the_bits_that_cpuid_brings() {
    let long_mode_nx = limits(&[leaf(0x8000_0001, 0, 0, 1 << 29 | 1 << 20 | 1 << 11)]);
    let with = |efer| X86VpState {
        efer,
        ..Default::default()
    };
    let check = |efer| long_mode_nx.check(&with(0), &with(efer));
    assert_eq!(check(0xd01), Ok(()));
    assert!(check(1 << 12).is_err(), "SVME without SVM");
    assert!(limits(&[]).check(&with(0), &with(1 << 11)).is_err());
}

#[test]
fn a_57_bit_address_is_canonical_only_with_five_levels() {
    let mut new = X86VpState {
        kernel_gs_base: 1 << 50,
        ..Default::default()
    };
    let old = X86VpState::default();
    assert!(limits(&[]).check(&old, &new).is_err());
    new.cr4 = cr4::LA57;
    assert_eq!(limits(&[]).check(&old, &new), Ok(()));
}

#[test]
fn virtual_8086_mode_is_refused_in_long_mode_and_reserved_bits_in_dr7_everywhere() {
    let state = |efer, rflags, dr7| {
        let mut state = X86VpState {
            efer,
            rflags,
            ..Default::default()
        };
        state.debug.dr7 = dr7;
        state
    };
    let check =
        |efer, rflags, dr7| limits(&[]).check(&state(efer, 2, 0x400), &state(efer, rflags, dr7));
    let reserved = |name, value, reserved| {
        Err(bad(
            name,
            BadRegisterReason::ReservedBits { value, reserved },
        ))
    };
    assert_eq!(check(0, 0x2_0002, 0x400), Ok(()));
    assert_eq!(check(efer::LMA, 0x1_0002, 0x400), Ok(()));
    assert_eq!(
        check(efer::LMA, 0x2_0002, 0x400),
        reserved("rflags", 0x2_0002, 0x2_0000)
    );
    assert_eq!(check(0, 2, 0xffff_2fff), Ok(()));
    for bit in [12, 14, 15] {
        let value = 0x400 | 1 << bit;
        assert_eq!(check(0, 2, value), reserved("dr7", value, 1 << bit));
    }
}

/// A guest may hold values that we would not write. A write of another register must not fail because of them.
#[test]
fn what_does_not_change_is_not_checked() {
    let mut old = X86VpState {
        rip: 1 << 60,
        rflags: 0,
        cr0: 1 << 31,
        cr8: 99,
        ..Default::default()
    };
    old.cs.limit = 0xffff_ffff;
    let mut new = old.clone();
    new.gp[0] = 1;
    assert_eq!(limits(&[]).check(&old, &new), Ok(()));
}
