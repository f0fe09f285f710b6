//! The boot parameters of Linux's 64-bit entry: the zero page (Linux's `Documentation/arch/x86/zero-page.rst`).

use super::layout;
use crate::kernel::InitrdPlace;
use crate::memory::MemorySize;
use linux_loader::loader::bootparam::boot_e820_entry;
use linux_loader::loader::bootparam::boot_params;
use linux_loader::loader::bootparam::setup_header;
use vm_memory::Address as _;
use vm_memory::Bytes as _;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryError;
use vm_memory::GuestMemoryMmap;

/// "HdrS" and the boot sector's signature, for a kernel without a setup header.
const HEADER_MAGIC: u32 = 0x5372_6448;
const BOOT_FLAG: u16 = 0xaa55;
/// The type of a boot loader without an assigned number.
const LOADER_UNDEFINED: u8 = 0xff;

/// Writes the zero page. RSI contains its address at the entry.
pub(crate) fn write(
    memory: &GuestMemoryMmap,
    size: MemorySize,
    header: Option<setup_header>,
    initrd: Option<InitrdPlace>,
    rsdp: GuestAddress,
) -> Result<(), GuestMemoryError> {
    let below_4g = |address: u64| u32::try_from(address).expect("the loader places it below 3 GiB");
    let mut params = boot_params {
        hdr: header.unwrap_or(setup_header {
            header: HEADER_MAGIC,
            boot_flag: BOOT_FLAG,
            ..Default::default()
        }),
        acpi_rsdp_addr: rsdp.raw_value(),
        ..Default::default()
    };
    params.hdr.type_of_loader = LOADER_UNDEFINED;
    params.hdr.cmd_line_ptr = below_4g(layout::COMMAND_LINE.raw_value());
    if let Some(initrd) = initrd {
        params.hdr.ramdisk_image = below_4g(initrd.start);
        params.hdr.ramdisk_size = below_4g(initrd.len);
    }
    for (entry, region) in params.e820_table.iter_mut().zip(size.map()) {
        *entry = boot_e820_entry {
            addr: region.start,
            size: region.len,
            r#type: region.kind as u32,
        };
        params.e820_entries += 1;
    }
    memory.write_obj(params, layout::ZERO_PAGE)
}
