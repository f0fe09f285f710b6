//! The numbers and the arguments of the KVM ioctls that the library looks at (Linux, `include/uapi/linux/kvm.h`).

use crate::tracker::Slot;

/// Creates a VM. `_IO(KVMIO, 0x01)`.
pub(crate) const CREATE_VM: u32 = 0xae01;
/// Creates a vCPU. `_IO(KVMIO, 0x41)`.
pub(crate) const CREATE_VCPU: u32 = 0xae41;
/// Sets a memory slot. `_IOW(KVMIO, 0x46, struct kvm_userspace_memory_region)`.
pub(crate) const SET_USER_MEMORY_REGION: u32 = 0x4020_ae46;
/// Sets a memory slot. `_IOW(KVMIO, 0x49, struct kvm_userspace_memory_region2)`.
pub(crate) const SET_USER_MEMORY_REGION2: u32 = 0x40a0_ae49;
/// Reads which pages of a slot were written since the last call. `_IOW(KVMIO, 0x42, struct kvm_dirty_log)`.
pub(crate) const GET_DIRTY_LOG: u32 = 0x4010_ae42;
/// Runs a vCPU. `_IO(KVMIO, 0x80)`.
pub(crate) const RUN: u32 = 0xae80;
/// Sets the signals that stay blocked during `KVM_RUN`. `_IOW(KVMIO, 0x8b, struct kvm_signal_mask)`.
pub(crate) const SET_SIGNAL_MASK: u32 = 0x4004_ae8b;
/// Sets the CPUID of a vCPU. `_IOW(KVMIO, 0x90, struct kvm_cpuid2)`.
pub(crate) const SET_CPUID2: u32 = 0x4008_ae90;
/// Sets the debugging of a vCPU. `_IOW(KVMIO, 0x9b, struct kvm_guest_debug)`.
pub(crate) const SET_GUEST_DEBUG: u32 = 0x4048_ae9b;

/// KVM logs which pages the guest writes.
const MEM_LOG_DIRTY_PAGES: u32 = 1;
/// The guest may not write to the slot.
const MEM_READONLY: u32 = 1 << 1;
/// The number of the address space is above the number of the slot. An x86 CPU in system-management mode uses address space 1.
const ADDRESS_SPACE_SHIFT: u32 = 16;

/// The beginning of `struct kvm_userspace_memory_region`, which `struct kvm_userspace_memory_region2` has too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct MemoryRegion {
    pub(crate) slot: u32,
    pub(crate) flags: u32,
    pub(crate) guest_phys_addr: u64,
    /// In bytes. 0 removes the slot.
    pub(crate) memory_size: u64,
    pub(crate) userspace_addr: u64,
}

impl MemoryRegion {
    /// The slot after the call. `None` if the call removes the slot.
    pub(crate) fn wanted(&self) -> Option<Slot> {
        (self.memory_size != 0).then_some(Slot {
            gpa: self.guest_phys_addr,
            size: self.memory_size,
            host: self.userspace_addr,
            writable: self.flags & MEM_READONLY == 0,
        })
    }

    /// Whether KVM logs which pages of the slot are written.
    pub(crate) fn is_logged(&self) -> bool {
        self.flags & MEM_LOG_DIRTY_PAGES != 0
    }

    /// Whether the slot is in the address space in which CPUs run.
    pub(crate) fn is_of_the_guest(&self) -> bool {
        self.slot >> ADDRESS_SPACE_SHIFT == 0
    }
}

/// `struct kvm_dirty_log`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct DirtyLog {
    pub(crate) slot: u32,
    pub(crate) padding: u32,
    /// The address of the bitmap: bit n is page n of the slot.
    pub(crate) bitmap: u64,
}

/// The size of a page in the bitmap, in bytes.
const LOG_PAGE: u64 = 4096;

/// The byte of the bitmap for a page at this distance from the start of its slot, and the bit in it.
pub(crate) fn log_bit(distance: u64) -> (u64, u8) {
    let page = distance / LOG_PAGE;
    (page / 8, 1 << (page % 8))
}

/// The bits of `control` in `struct kvm_guest_debug`: whether the vCPU is debugged at all.
pub(crate) const GUESTDBG_ENABLE: u32 = 1;

/// A set of signals as the kernel has it: bit n - 1 is signal n.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SignalSet(pub(crate) u64);

impl SignalSet {
    /// The set without this signal.
    pub(crate) fn without(self, signal: i32) -> Self {
        let bit = u32::try_from(signal - 1)
            .ok()
            .and_then(|shift| 1_u64.checked_shl(shift))
            .unwrap_or(0);
        Self(self.0 & !bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGION: MemoryRegion = MemoryRegion {
        slot: 3,
        flags: 0,
        guest_phys_addr: 0xf000,
        memory_size: 0x1000,
        userspace_addr: 0x7000_0000,
    };

    /// The size of the argument is a part of an `_IOW` number (`asm-generic/ioctl.h`).
    #[test]
    fn the_numbers_have_the_sizes_of_their_arguments() {
        assert_eq!(SET_USER_MEMORY_REGION >> 16 & 0x3fff, 32);
        assert_eq!(size_of::<MemoryRegion>(), 32);
        // Eight bytes of guest_memfd's offset, four of its descriptor and four of padding, and 14 reserved words.
        assert_eq!(SET_USER_MEMORY_REGION2 >> 16 & 0x3fff, 32 + 16 + 14 * 8);
        assert_eq!(GET_DIRTY_LOG >> 16 & 0x3fff, 16);
        assert_eq!(size_of::<DirtyLog>(), 16);
        // Control and padding, then eight debug registers.
        assert_eq!(SET_GUEST_DEBUG >> 16 & 0x3fff, 8 + 8 * 8);
    }

    #[test]
    fn a_region_is_a_slot_or_removes_one() {
        let slot = REGION.wanted().expect("it has a size");
        assert_eq!(
            (slot.gpa, slot.size, slot.host),
            (0xf000, 0x1000, 0x7000_0000)
        );
        assert!(slot.writable);
        // The log of dirty pages is bit 0.
        let logged = MemoryRegion { flags: 1, ..REGION };
        assert_eq!(logged.wanted(), Some(slot));
        assert!(logged.is_logged() && !REGION.is_logged());
        let rom = MemoryRegion { flags: 3, ..REGION };
        assert!(rom.wanted().is_some_and(|slot| !slot.writable));
        let gone = MemoryRegion {
            memory_size: 0,
            ..REGION
        };
        assert_eq!(gone.wanted(), None);
    }

    #[test]
    fn a_page_has_its_bit_in_the_log() {
        assert_eq!(log_bit(0), (0, 1));
        assert_eq!(log_bit(0x7fff), (0, 0x80));
        assert_eq!(log_bit(0x8000), (1, 1));
    }

    #[test]
    fn memory_of_system_management_mode_is_not_the_guests() {
        assert!(REGION.is_of_the_guest());
        let smm = MemoryRegion {
            slot: 1 << 16 | 3,
            ..REGION
        };
        assert!(!smm.is_of_the_guest());
    }

    #[test]
    fn a_signal_is_taken_out_of_a_set() {
        assert_eq!(SignalSet(u64::MAX).without(1), SignalSet(u64::MAX - 1));
        assert_eq!(SignalSet(u64::MAX).without(64), SignalSet(u64::MAX >> 1));
        assert_eq!(SignalSet(0).without(34), SignalSet(0));
        assert_eq!(SignalSet(7).without(0), SignalSet(7));
        assert_eq!(SignalSet(7).without(65), SignalSet(7));
    }
}
