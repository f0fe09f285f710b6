//! The promise of a VMM about the addresses of a memory slot.
#![expect(
    unsafe_code,
    reason = "debuggers write to the addresses that the VMM names"
)]

use crate::memory::slots::MemorySlot;

impl MemorySlot {
    /// `size` bytes of memory at the guest physical address `gpa`, which are in this process from the address `host` on. `writable`: the guest may write the memory
    /// (`KVM_MEM_READONLY` is not set).
    ///
    /// # Safety
    /// Until the slot is changed or removed ([`VmHandle::set_slot`](crate::embed::VmHandle::set_slot)), this process uses the addresses for nothing but the guest's
    /// memory. They need not be mapped.
    pub const unsafe fn new(gpa: u64, size: u64, host: usize, writable: bool) -> Self {
        Self {
            gpa,
            size,
            host,
            writable,
        }
    }
}
