//! The CPUID of the guest's CPUs: the host's CPUID as KVM supports it, with the number of each CPU.

use kvm_bindings::CpuId;
use kvm_bindings::kvm_cpuid_entry2;

/// Leaf 1 EBX: initial APIC id in bits 24-31, logical processors in bits 16-23.
const LEAF_FEATURES: u32 = 1;
/// Leaf 1 ECX: the local APIC timer supports the deadline mode.
const TSC_DEADLINE: u32 = 1 << 24;
/// Leaf 1 ECX: the CPU runs under a hypervisor.
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 1 EDX: EBX bits 16-23 are valid.
const HTT: u32 = 1 << 28;
/// Intel: cache parameters. EAX bits 26-31 contain the number of cores, bits 14-25 the number of processors that share
/// a cache.
const LEAF_CACHES: u32 = 4;
/// Extended topology, in both forms.
const LEAVES_TOPOLOGY: [u32; 2] = [0xb, 0x1f];
/// AMD: core count in ECX.
const LEAF_AMD_SIZES: u32 = 0x8000_0008;
/// AMD: extended APIC id, core and node.
const LEAF_AMD_TOPOLOGY: u32 = 0x8000_001e;

/// The topology that the guest sees: one package with `cpus` cores of one thread each. The APIC id is the index.
pub(crate) fn for_cpu(supported: &CpuId, index: u8, cpus: u8, tsc_deadline: bool) -> CpuId {
    let mut cpuid = supported.clone();
    let id_bits = u32::from(cpus).next_power_of_two().trailing_zeros();
    for entry in cpuid.as_mut_slice() {
        patch(
            entry,
            u32::from(index),
            u32::from(cpus),
            id_bits,
            tsc_deadline,
        );
    }
    cpuid
}

fn patch(entry: &mut kvm_cpuid_entry2, index: u32, cpus: u32, id_bits: u32, tsc_deadline: bool) {
    match entry.function {
        LEAF_FEATURES => {
            entry.ebx = (entry.ebx & 0xffff) | (cpus << 16) | (index << 24);
            entry.ecx |= HYPERVISOR;
            if tsc_deadline {
                entry.ecx |= TSC_DEADLINE;
            } else {
                entry.ecx &= !TSC_DEADLINE;
            }
            if cpus > 1 {
                entry.edx |= HTT;
            } else {
                entry.edx &= !HTT;
            }
        }
        LEAF_CACHES if entry.eax & 0x1f != 0 => {
            let level = (entry.eax >> 5) & 7;
            let sharing = if level >= 3 { (1 << id_bits) - 1 } else { 0 };
            let cores = ((1_u32 << id_bits) - 1).min(0x3f);
            entry.eax = (entry.eax & 0x3fff) | (sharing << 14) | (cores << 26);
        }
        leaf if LEAVES_TOPOLOGY.contains(&leaf) => {
            // EAX: number of bits by which the id is shifted for the next level; EBX: processors at this level; ECX:
            // level type and number.
            let (shift, count, kind) = match entry.index {
                0 => (0, 1, 1),
                1 => (id_bits, cpus, 2),
                _ => (0, 0, 0),
            };
            entry.eax = shift;
            entry.ebx = count;
            entry.ecx = entry.index | (kind << 8);
            entry.edx = index;
        }
        LEAF_AMD_SIZES => entry.ecx = (entry.ecx & !0xf0ff) | (cpus - 1) | (id_bits << 12),
        LEAF_AMD_TOPOLOGY => {
            entry.eax = index;
            entry.ebx = index & 0xff;
            entry.ecx = 0;
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(function: u32, index: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 {
            function,
            index,
            eax: 0xffff_ffff,
            ebx: 0xffff_ffff,
            ..Default::default()
        }
    }

    fn patched(function: u32, sub_leaf: u32, index: u8, cpus: u8) -> kvm_cpuid_entry2 {
        let supported = CpuId::from_entries(&[entry(function, sub_leaf)]).expect("one entry");
        for_cpu(&supported, index, cpus, true).as_slice()[0]
    }

    #[test]
    fn every_leaf_with_an_apic_id_names_this_cpu() {
        assert_eq!(patched(1, 0, 3, 4).ebx >> 16, 0x0304);
        assert_eq!(patched(0xb, 1, 3, 4).edx, 3);
        assert_eq!(patched(0x1f, 0, 3, 4).edx, 3);
        assert_eq!(patched(0x8000_001e, 0, 3, 4).eax, 3);
    }

    #[test]
    fn extended_topology_ends_after_the_core_level() {
        let levels: Vec<_> = (0..3).map(|level| patched(0xb, level, 0, 6)).collect();
        assert_eq!(
            levels
                .iter()
                .map(|e| (e.eax, e.ebx, e.ecx))
                .collect::<Vec<_>>(),
            [(0, 1, 0x100), (3, 6, 0x201), (0, 0, 2)]
        );
    }

    #[test]
    fn the_largest_guest_fits_every_field() {
        let caches = patched(4, 3, 253, 254);
        assert_eq!((caches.eax >> 14) & 0xfff, 255);
        assert_eq!(patched(1, 0, 253, 254).ebx >> 16, 0xfdfe);
        assert_eq!(patched(0x8000_0008, 0, 253, 254).ecx & 0xff, 253);
    }
}
