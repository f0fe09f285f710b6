//! Guest RAM that is registered with KVM, and removed from KVM before it is unmapped.
#![expect(
    unsafe_code,
    reason = "KVM is given addresses of this process, which it uses until told otherwise"
)]

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use std::sync::Arc;
use vm_memory::Address;
use vm_memory::GuestMemoryBackend;
use vm_memory::GuestMemoryMmap;
use vm_memory::GuestMemoryRegion;
use vm_memory::MemoryRegionAddress;

/// RAM that is registered with a VM. Dropping this value removes the RAM from the VM.
pub struct RegisteredRam {
    vm: Arc<VmFd>,
    memory: Arc<GuestMemoryMmap>,
    slots: u32,
}

impl RegisteredRam {
    /// Registers every region of `memory` with the VM, at its own guest address, in slots from 0 on. No other slots may be in use.
    ///
    /// # Errors
    /// The error of KVM (`KVM_SET_USER_MEMORY_REGION` in api.rst).
    pub fn new(vm: Arc<VmFd>, memory: Arc<GuestMemoryMmap>) -> Result<Self, kvm_ioctls::Error> {
        let mut registered = Self {
            vm,
            memory,
            slots: 0,
        };
        let memory = registered.memory.clone();
        for region in memory.iter() {
            let host = region
                .get_host_address(MemoryRegionAddress(0))
                .map_err(|_| kvm_ioctls::Error::new(libc::EFAULT))?;
            let slot = kvm_userspace_memory_region {
                slot: registered.slots,
                flags: 0,
                guest_phys_addr: region.start_addr().raw_value(),
                memory_size: region.len(),
                userspace_addr: host as u64,
            };
            // SAFETY: the region is mapped at `host` for all of its length; `registered` keeps it mapped and removes the slot
            // before it lets go of the mapping.
            unsafe { registered.vm.set_user_memory_region(slot) }?;
            registered.slots += 1;
        }
        Ok(registered)
    }

    /// The RAM.
    pub fn memory(&self) -> &Arc<GuestMemoryMmap> {
        &self.memory
    }
}

impl Drop for RegisteredRam {
    fn drop(&mut self) {
        for slot in 0..self.slots {
            let none = kvm_userspace_memory_region {
                slot,
                ..Default::default()
            };
            // SAFETY: a slot of size 0 removes it; KVM is given no address.
            if let Err(error) = unsafe { self.vm.set_user_memory_region(none) } {
                tracing::error!(%error, slot, "KVM keeps guest RAM; it stays mapped");
                // The mapping has to exist as long as KVM uses it.
                std::mem::forget(self.memory.clone());
            }
        }
    }
}
