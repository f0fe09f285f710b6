//! The start of a PVH kernel (Xen's "x86/HVM direct boot ABI"): the contents of memory, and the registers of the first CPU.

use kvm_bindings::CpuId;
use kvm_bindings::kvm_regs;
use kvm_bindings::kvm_segment;
use kvm_bindings::kvm_sregs;
use linux_loader::loader::Elf;
use linux_loader::loader::KernelLoader as _;
use linux_loader::loader::elf::PvhBootCapability;
use linux_loader::loader::elf::start_info::hvm_start_info;
use std::error::Error;
use std::io::Cursor;
use vm_memory::Bytes as _;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryMmap;

/// KVM's pages for the real mode of Intel CPUs (KVM api.rst, `KVM_SET_IDENTITY_MAP_ADDR` and `KVM_SET_TSS_ADDR`), outside the memory.
pub(crate) const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;
pub(crate) const KVM_TSS: usize = 0xfffb_d000;

const START_INFO: u64 = 0x6000;
const COMMAND_LINE: u64 = 0x2_0000;
const START_MAGIC: u32 = 0x336e_c578;

/// CPUID leaf 1, EBX: the initial APIC id in bits 24-31.
const LEAF_FEATURES: u32 = 1;
/// CPUID leaf 0xb, EDX: the x2APIC id.
const LEAF_TOPOLOGY: u32 = 0xb;

pub(crate) fn memory() -> Result<GuestMemoryMmap, Box<dyn Error>> {
    let size = usize::try_from(demo_guest::MIN_MEMORY)?;
    Ok(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), size)])?)
}

/// Loads the demo guest. Returns the address of its first instruction.
pub(crate) fn load(memory: &GuestMemoryMmap, command_line: &str) -> Result<u64, Box<dyn Error>> {
    let loaded = Elf::load(memory, None, &mut Cursor::new(demo_guest::ELF), None)?;
    let PvhBootCapability::PvhEntryPresent(entry) = loaded.pvh_boot_cap else {
        return Err("the kernel has no PVH entry; give it a note XEN_ELFNOTE_PHYS32_ENTRY".into());
    };
    let info = hvm_start_info {
        magic: START_MAGIC,
        cmdline_paddr: COMMAND_LINE,
        ..Default::default()
    };
    memory.write_obj(info, GuestAddress(START_INFO))?;
    let line = [command_line.as_bytes(), &[0]].concat();
    memory.write_slice(&line, GuestAddress(COMMAND_LINE))?;
    Ok(entry.0)
}

/// The host's CPUID with the number of this CPU.
pub(crate) fn cpuid_of(host: &CpuId, index: u8) -> CpuId {
    let mut cpuid = host.clone();
    for entry in cpuid.as_mut_slice() {
        match entry.function {
            LEAF_FEATURES => entry.ebx = entry.ebx & 0xff_ffff | u32::from(index) << 24,
            LEAF_TOPOLOGY => entry.edx = index.into(),
            _ => {}
        }
    }
    cpuid
}

/// EBX has the address of the start info.
pub(crate) fn start_general(entry: u64) -> kvm_regs {
    kvm_regs {
        rip: entry,
        rbx: START_INFO,
        rflags: 2,
        ..Default::default()
    }
}

/// Protected mode without paging, and flat segments. The kernel loads a descriptor table of its own before it loads a segment.
pub(crate) fn start_system(sregs: &mut kvm_sregs) {
    let data = kvm_segment {
        limit: u32::MAX,
        selector: 0x18,
        type_: 3,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    sregs.cs = kvm_segment {
        selector: 0x10,
        type_: 0xb,
        ..data
    };
    (sregs.ds, sregs.es, sregs.ss) = (data, data, data);
    // PE and ET.
    sregs.cr0 = 0x11;
}
