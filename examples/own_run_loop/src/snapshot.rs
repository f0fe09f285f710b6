//! Saves and restores the guest: the memory and, of each vCPU, what the demo guest uses. (A guest that uses more than general registers needs the XSAVE area and MSRs
//! as well.)

use kvm_bindings::kvm_debugregs;
use kvm_bindings::kvm_lapic_state;
use kvm_bindings::kvm_mp_state;
use kvm_bindings::kvm_regs;
use kvm_bindings::kvm_sregs;
use kvm_bindings::kvm_vcpu_events;
use kvm_ioctls::VcpuFd;
use serde::Deserialize;
use serde::Serialize;
use std::error::Error;
use std::fs;
use std::fs::File;
use std::path::Path;
use vm_memory::Bytes as _;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryBackend as _;
use vm_memory::GuestMemoryMmap;
use vm_memory::GuestMemoryRegion as _;
use vp_runner::embed::VmHandle;

/// The file with the guest's memory, from address 0 on.
pub const MEMORY: &str = "memory";
/// The file with the state of the vCPUs.
pub const VCPUS: &str = "vcpus.json";

/// The state of one vCPU.
#[derive(Serialize, Deserialize)]
pub struct VcpuState {
    regs: kvm_regs,
    sregs: kvm_sregs,
    lapic: kvm_lapic_state,
    debug: kvm_debugregs,
    events: kvm_vcpu_events,
    run_state: kvm_mp_state,
}

impl VcpuState {
    /// Reads the state of a vCPU that is out of the guest.
    ///
    /// # Errors
    /// The error of KVM.
    pub fn read(vcpu: &VcpuFd) -> Result<Self, kvm_ioctls::Error> {
        Ok(Self {
            regs: vcpu.get_regs()?,
            sregs: vcpu.get_sregs()?,
            lapic: vcpu.get_lapic()?,
            debug: vcpu.get_debug_regs()?,
            events: vcpu.get_vcpu_events()?,
            run_state: vcpu.get_mp_state()?,
        })
    }

    fn write(&self, vcpu: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
        vcpu.set_sregs(&self.sregs)?;
        vcpu.set_regs(&self.regs)?;
        vcpu.set_lapic(&self.lapic)?;
        vcpu.set_debug_regs(&self.debug)?;
        vcpu.set_vcpu_events(&self.events)?;
        vcpu.set_mp_state(self.run_state)
    }
}

/// Saves a guest whose vCPUs are paused. A debugger may be attached, and may have breakpoints.
///
/// # Errors
/// The folder exists, or the files cannot be written.
pub fn write(
    folder: &Path,
    vcpus: &[VcpuState],
    memory: &GuestMemoryMmap,
    debugger: &VmHandle,
) -> Result<(), Box<dyn Error>> {
    fs::create_dir(folder)?;
    fs::write(folder.join(VCPUS), serde_json::to_vec(vcpus)?)?;
    let mut file = File::create_new(folder.join(MEMORY))?;
    // Until the end of the scope there is no breakpoint byte in the guest's memory.
    let _quiesced = debugger.quiesce();
    for region in memory.iter() {
        let len = usize::try_from(region.len())?;
        memory.write_all_volatile_to(region.start_addr(), &mut file, len)?;
    }
    Ok(())
}

/// Puts a saved guest into this VM, whose vCPUs have not run.
///
/// # Errors
/// The files are not those of such a guest.
pub fn restore(
    folder: &Path,
    memory: &GuestMemoryMmap,
    vcpus: &[VcpuFd],
) -> Result<(), Box<dyn Error>> {
    let bytes = fs::read(folder.join(MEMORY))?;
    memory.write_slice(&bytes, GuestAddress(0))?;
    let states: Vec<VcpuState> = serde_json::from_slice(&fs::read(folder.join(VCPUS))?)?;
    for (state, vcpu) in states.iter().zip(vcpus) {
        state.write(vcpu)?;
    }
    Ok(())
}
