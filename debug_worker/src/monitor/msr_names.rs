//! Names of model-specific registers that are useful to debug a kernel (SDM volume 4, "Architectural MSRs"; APM volume
//! 2, appendix A; Documentation/virt/kvm/x86/msr.rst for the paravirtual registers).

use std::fmt::Write as _;

/// Sorted by number.
const NAMES: [(u32, &str); 45] = [
    (0x10, "tsc"),
    (0x1b, "apic_base"),
    (0x3a, "feature_control"),
    (0x3b, "tsc_adjust"),
    (0x48, "spec_ctrl"),
    (0x8b, "bios_sign_id"),
    (0xfe, "mtrrcap"),
    (0x10a, "arch_capabilities"),
    (0x174, "sysenter_cs"),
    (0x175, "sysenter_esp"),
    (0x176, "sysenter_eip"),
    (0x179, "mcg_cap"),
    (0x17a, "mcg_status"),
    (0x1a0, "misc_enable"),
    (0x1d9, "debugctl"),
    (0x277, "pat"),
    (0x2ff, "mtrr_def_type"),
    (0x6a0, "u_cet"),
    (0x6a2, "s_cet"),
    (0x6a4, "pl0_ssp"),
    (0x6a7, "pl3_ssp"),
    (0x6a8, "int_ssp_tab"),
    (0x6e0, "tsc_deadline"),
    (0x802, "x2apic_id"),
    (0x808, "x2apic_tpr"),
    (0x80f, "x2apic_sivr"),
    (0xda0, "xss"),
    (0x4b56_4d00, "kvm_wall_clock_new"),
    (0x4b56_4d01, "kvm_system_time_new"),
    (0x4b56_4d02, "kvm_async_pf_en"),
    (0x4b56_4d03, "kvm_steal_time"),
    (0x4b56_4d04, "kvm_pv_eoi_en"),
    (0x4b56_4d05, "kvm_poll_control"),
    (0xc000_0080, "efer"),
    (0xc000_0081, "star"),
    (0xc000_0082, "lstar"),
    (0xc000_0083, "cstar"),
    (0xc000_0084, "sfmask"),
    (0xc000_0100, "fs_base"),
    (0xc000_0101, "gs_base"),
    (0xc000_0102, "kernel_gs_base"),
    (0xc000_0103, "tsc_aux"),
    (0xc001_0015, "hwcr"),
    (0xc001_0114, "vm_cr"),
    (0xc001_0117, "vm_hsave_pa"),
];

/// Further names of these registers.
const SYNONYMS: [(&str, u32); 4] = [
    ("fmask", 0xc000_0084),
    ("syscall_mask", 0xc000_0084),
    ("apicbase", 0x1b),
    ("cr_pat", 0x277),
];

/// The number of a register by name. Accepts the spelling of Linux (`MSR_LSTAR`) and of the SDM (`IA32_LSTAR`) too.
pub(super) fn number(name: &str) -> Option<u32> {
    let mut name = &*name.to_ascii_lowercase();
    for prefix in ["msr_", "ia32_", "amd64_", "k8_"] {
        name = name.strip_prefix(prefix).unwrap_or(name);
    }
    let known = NAMES.into_iter().find(|(_, known)| *known == name);
    let synonym = || SYNONYMS.into_iter().find(|(known, _)| *known == name);
    known
        .map(|(number, _)| number)
        .or_else(|| synonym().map(|(_, number)| number))
}

/// The number of an MSR, with its name if the MSR has one.
pub(super) fn describe(number: u32) -> String {
    match NAMES.into_iter().find(|(known, _)| *known == number) {
        Some((_, name)) => format!("{number:#x} ({name})"),
        None => format!("{number:#x}"),
    }
}

pub(super) fn list() -> String {
    let mut text = String::new();
    for (number, name) in NAMES {
        let _ = writeln!(text, "{number:#010x}  {name}");
    }
    text.push_str("Use the number for any other MSR. Example: `monitor msr read lstar`\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_known_in_each_way_that_manuals_and_kernels_write_it() {
        for name in [
            "lstar",
            "LSTAR",
            "MSR_LSTAR",
            "IA32_LSTAR",
            "msr_ia32_lstar",
        ] {
            assert_eq!(number(name), Some(0xc000_0082), "{name}");
        }
        assert_eq!(number("MSR_SYSCALL_MASK"), Some(0xc000_0084));
        assert_eq!(number("MSR_AMD64_TSC_AUX"), number("tsc_aux"));
        assert_eq!(number("msr_"), None);
        assert_eq!(number("do_round"), None);
    }

    #[test]
    fn names_and_numbers_are_one_to_one_and_in_order() {
        assert!(NAMES.is_sorted_by(|(a, _), (b, _)| a < b));
        for (value, name) in NAMES {
            assert_eq!(number(name), Some(value), "{name}");
        }
        assert_eq!(describe(0xc000_0082), "0xc0000082 (lstar)");
        assert_eq!(describe(0x12345), "0x12345");
    }
}
