//! The boot parameters of a PVH kernel: Xen's `hvm_start_info` with the memory map, the initial RAM disk, the command
//! line and the ACPI root.

use super::layout;
use crate::kernel::InitrdPlace;
use crate::memory::MemorySize;
use linux_loader::loader::elf::start_info::hvm_memmap_table_entry;
use linux_loader::loader::elf::start_info::hvm_modlist_entry;
use linux_loader::loader::elf::start_info::hvm_start_info;
use vm_memory::Address as _;
use vm_memory::Bytes as _;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryError;
use vm_memory::GuestMemoryMmap;

const START_MAGIC: u32 = 0x336e_c578;
/// Version 1 has a memory map.
const START_VERSION: u32 = 1;

/// Writes the start info. EBX contains its address at the entry.
pub(crate) fn write(
    memory: &GuestMemoryMmap,
    size: MemorySize,
    initrd: Option<InitrdPlace>,
    rsdp: GuestAddress,
) -> Result<(), GuestMemoryError> {
    let mut info = hvm_start_info {
        magic: START_MAGIC,
        version: START_VERSION,
        cmdline_paddr: layout::COMMAND_LINE.raw_value(),
        rsdp_paddr: rsdp.raw_value(),
        memmap_paddr: layout::PVH_MEMORY_MAP.raw_value(),
        ..Default::default()
    };
    let mut at = layout::PVH_MEMORY_MAP;
    for region in size.map() {
        let entry = hvm_memmap_table_entry {
            addr: region.start,
            size: region.len,
            type_: region.kind as u32,
            reserved: 0,
        };
        memory.write_obj(entry, at)?;
        at = at.unchecked_add(size_of_val(&entry) as u64);
        info.memmap_entries += 1;
    }
    if let Some(initrd) = initrd {
        let module = hvm_modlist_entry {
            paddr: initrd.start,
            size: initrd.len,
            ..Default::default()
        };
        memory.write_obj(module, layout::PVH_MODULES)?;
        info.nr_modules = 1;
        info.modlist_paddr = layout::PVH_MODULES.raw_value();
    }
    memory.write_obj(info, layout::PVH_START_INFO)
}
