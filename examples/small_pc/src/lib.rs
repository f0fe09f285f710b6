//! The part of a VMM that knows nothing of a debugger: memory with the demo guest in it, the start state of its CPUs, and a few devices. The examples add the rest.
#![forbid(unsafe_code)]

mod boot;
mod devices;

pub use devices::Devices;
pub use devices::Request;

use kvm_bindings::CpuId;
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_ioctls::Kvm;
use kvm_ioctls::VcpuFd;
use kvm_ioctls::VmFd;
use std::error::Error;
use std::sync::Arc;
use vm_memory::GuestMemoryMmap;
use vp_runner::kvm::ram::RegisteredRam;

/// A PC with the demo guest in its memory.
pub struct SmallPc {
    /// `/dev/kvm`.
    pub kvm: Kvm,
    /// The VM.
    pub vm: Arc<VmFd>,
    /// The devices at I/O ports.
    pub devices: Arc<Devices>,
    ram: RegisteredRam,
    cpuid: CpuId,
    entry: u64,
}

impl SmallPc {
    /// A PC whose serial port writes to standard output.
    ///
    /// # Errors
    /// The error of KVM, of the host's memory, or of the loader.
    pub fn new(command_line: &str) -> Result<Self, Box<dyn Error>> {
        let kvm = vp_runner::probe::open_kvm()?;
        let vm = Arc::new(kvm.create_vm()?);
        let memory = Arc::new(boot::memory()?);
        let entry = boot::load(&memory, command_line)?;
        let ram = RegisteredRam::new(vm.clone(), memory)?;
        vm.set_identity_map_address(boot::KVM_IDENTITY_MAP)?;
        vm.set_tss_address(boot::KVM_TSS)?;
        // Before the first vCPU, or KVM gives the vCPU no local APIC.
        vm.create_irq_chip()?;
        Ok(Self {
            cpuid: kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?,
            devices: Arc::default(),
            kvm,
            vm,
            ram,
            entry,
        })
    }

    /// The guest's memory.
    pub fn memory(&self) -> &Arc<GuestMemoryMmap> {
        self.ram.memory()
    }

    /// Gives a new vCPU its CPUID and, if it is the first one, the state in which a kernel starts. The other vCPUs wait for the start-up message of the first one.
    ///
    /// # Errors
    /// The error of KVM.
    pub fn power_on(&self, index: u8, vcpu: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
        vcpu.set_cpuid2(&boot::cpuid_of(&self.cpuid, index))?;
        if index == 0 {
            let mut sregs = vcpu.get_sregs()?;
            boot::start_system(&mut sregs);
            vcpu.set_sregs(&sregs)?;
            vcpu.set_regs(&boot::start_general(self.entry))?;
        }
        Ok(())
    }
}
