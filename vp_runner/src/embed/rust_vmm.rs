//! The same interface with types of kvm-ioctls and vm-memory.

use super::EmbedParams;
use super::VmHandle;
use super::VpHook;
use crate::kvm::adopt;
use kvm_ioctls::Kvm;
use kvm_ioctls::VcpuFd;
use kvm_ioctls::VmFd;
use std::io;
use std::sync::Arc;
use vm_memory::GuestMemoryMmap;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::debug_rpc::DebugMessage;

impl EmbedParams {
    /// [`EmbedParams::new`] for a VM of kvm-ioctls.
    ///
    /// # Errors
    /// As [`EmbedParams::new`].
    pub fn of_kvm_ioctls(
        kvm: &Kvm,
        vm: &VmFd,
        debug: mesh::Receiver<DebugMessage>,
    ) -> io::Result<Self> {
        Self::new(adopt::borrowed(kvm), adopt::borrowed(vm), debug)
    }
}

impl VmHandle {
    /// [`VmHandle::register_vp`] for a vCPU of kvm-ioctls.
    ///
    /// # Errors
    /// As [`VmHandle::register_vp`].
    pub fn register_vcpu(&self, id: u32, vcpu: &VcpuFd) -> io::Result<VpHook> {
        self.register_vp(id, adopt::borrowed(vcpu))
    }

    /// Makes the regions of `memory` the memory slots, in the place of all slots so far. The memory stays mapped until it is replaced.
    pub fn set_guest_memory(&self, memory: Arc<GuestMemoryMmap>) {
        let everything = Gpa::new(0)..=Gpa::new(u64::MAX);
        self.change_slots(everything, |slots| slots.set_all(memory));
    }
}
