//! The parts of a PC that a kernel needs if no firmware runs: tables, start state, CPUID.

pub(crate) mod acpi;
pub(crate) mod cpuid;
pub(crate) mod linux_boot;
pub(crate) mod power_on;
pub(crate) mod pvh_boot;
pub(crate) mod start_state;

use vm_memory::GuestAddress;

/// The addresses of the data that the loader writes for the guest. They are below 1 MiB, in pages that kernels treat as
/// free or as the firmware's.
pub(crate) mod layout {
    use super::GuestAddress;

    /// Global descriptor table of the start state.
    pub(crate) const GDT: GuestAddress = GuestAddress(0x500);
    /// PVH `hvm_start_info`, followed by its memory map and module list.
    pub(crate) const PVH_START_INFO: GuestAddress = GuestAddress(0x6000);
    /// PVH memory map.
    pub(crate) const PVH_MEMORY_MAP: GuestAddress = GuestAddress(0x6100);
    /// PVH module list.
    pub(crate) const PVH_MODULES: GuestAddress = GuestAddress(0x6f00);
    /// Linux's `boot_params`.
    pub(crate) const ZERO_PAGE: GuestAddress = GuestAddress(0x7000);
    /// Page tables of the 64-bit entry: one PML4, one PDPT and four page directories.
    pub(crate) const PAGE_TABLES: GuestAddress = GuestAddress(0x9000);
    /// Kernel command line.
    pub(crate) const COMMAND_LINE: GuestAddress = GuestAddress(0x2_0000);
    /// The size of the command line area in bytes, including the terminating zero.
    pub(crate) const COMMAND_LINE_SIZE: usize = 0x1_0000;
    /// The end of RAM that a PC's BIOS leaves free.
    pub(crate) const LOW_RAM_END: u64 = 0x9_fc00;
    /// The ACPI root pointer (RSDP). Kernels without a pointer to it search this area.
    pub(crate) const RSDP: GuestAddress = GuestAddress(0xe_0000);
    /// The first byte behind the legacy hole.
    pub(crate) const HIGH_RAM_START: u64 = 0x10_0000;
    /// The beginning of the device addresses below 4 GiB. RAM above this size continues at 4 GiB.
    pub(crate) const DEVICE_HOLE_START: u64 = 0xc000_0000;
    /// The end of the device addresses below 4 GiB.
    pub(crate) const DEVICE_HOLE_END: u64 = 0x1_0000_0000;
    /// KVM's page for real mode on Intel hosts (KVM api.rst, `KVM_SET_IDENTITY_MAP_ADDR`).
    pub(crate) const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;
    /// KVM's three pages for the task state of real mode (`KVM_SET_TSS_ADDR`).
    pub(crate) const KVM_TSS: usize = 0xfffb_d000;
    /// The I/O APIC.
    pub(crate) const IO_APIC: u32 = 0xfec0_0000;
    /// The local APIC of each CPU.
    pub(crate) const LOCAL_APIC: u32 = 0xfee0_0000;
}
