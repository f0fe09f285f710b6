//! A temporary VM with one vCPU and a little RAM at address 0, for the capability probe, for measurements and for tests.

use crate::kvm::ram::RegisteredRam;
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_bindings::kvm_regs;
use kvm_bindings::kvm_segment;
use kvm_bindings::kvm_sregs;
use kvm_ioctls::Kvm;
use kvm_ioctls::VcpuFd;
use kvm_ioctls::VmFd;
use std::sync::Arc;
use vm_memory::Bytes;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryMmap;

/// The VM.
pub struct ScratchVm {
    vcpu: VcpuFd,
    vm: Arc<VmFd>,
    ram: RegisteredRam,
    power_on: kvm_sregs,
}

/// The processor mode a guest program starts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StartIn {
    /// 16-bit real mode, all segments at 0.
    Real,
    /// 32-bit protected mode with flat segments, without paging.
    Protected32,
    /// 64-bit long mode. The first page is mapped at address 0, and is also the page table of every level.
    Long,
}

/// Why there is no VM.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScratchVmError {
    /// The host has no memory for it.
    #[error("no memory for a guest of {bytes} bytes: {why}")]
    Memory {
        /// How much.
        bytes: usize,
        /// What the host said.
        why: String,
    },
    /// KVM refused a step.
    #[error("KVM refused to {step}")]
    Kvm {
        /// What was asked.
        step: &'static str,
        /// What it said.
        #[source]
        source: std::io::Error,
    },
}

impl ScratchVmError {
    fn at(step: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |error| Self::Kvm {
            step,
            source: error.into(),
        }
    }
}

/// Entry 0 of every level of a page table that is all of its levels at once: present, writable, at address 0.
const SELF_MAP: u64 = 0b11;

impl ScratchVm {
    /// Makes a VM with `bytes` of RAM (a multiple of 4096) and one vCPU that has all the CPUID features the host supports.
    ///
    /// # Errors
    /// [`ScratchVmError`].
    pub fn new(kvm: &Kvm, bytes: usize) -> Result<Self, ScratchVmError> {
        Self::with_vm(kvm, bytes, |_| Ok(()))
    }

    /// As [`new`](Self::new), with a PC's interrupt controllers in the kernel.
    ///
    /// # Errors
    /// [`ScratchVmError`].
    pub fn with_irqchip(kvm: &Kvm, bytes: usize) -> Result<Self, ScratchVmError> {
        Self::with_vm(kvm, bytes, |vm| {
            vm.create_irq_chip()
                .map_err(ScratchVmError::at("make interrupt controllers"))
        })
    }

    fn with_vm(
        kvm: &Kvm,
        bytes: usize,
        prepare: impl FnOnce(&VmFd) -> Result<(), ScratchVmError>,
    ) -> Result<Self, ScratchVmError> {
        let ram =
            GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), bytes)]).map_err(|err| {
                ScratchVmError::Memory {
                    bytes,
                    why: err.to_string(),
                }
            })?;
        // A kick meant for the scenario before interrupts this as well, and Linux does not start it again by itself.
        let vm = loop {
            match kvm.create_vm() {
                Err(err) if err.errno() == libc::EINTR => {}
                made => break made.map_err(ScratchVmError::at("make a virtual machine"))?,
            }
        };
        let vm = Arc::new(vm);
        // Intel processors without unrestricted guests need three free pages somewhere (api.rst, KVM_SET_TSS_ADDR).
        vm.set_tss_address(0xfffb_d000)
            .map_err(ScratchVmError::at("place the TSS"))?;
        let ram = RegisteredRam::new(vm.clone(), Arc::new(ram))
            .map_err(ScratchVmError::at("give the guest memory"))?;
        prepare(&vm)?;
        let vcpu = vm
            .create_vcpu(0)
            .map_err(ScratchVmError::at("make a virtual CPU"))?;
        let cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(ScratchVmError::at("list the CPU features it supports"))?;
        vcpu.set_cpuid2(&cpuid)
            .map_err(ScratchVmError::at("set the CPU features"))?;
        let power_on = vcpu
            .get_sregs()
            .map_err(ScratchVmError::at("read system registers"))?;
        Ok(Self {
            vcpu,
            vm,
            ram,
            power_on,
        })
    }

    /// The VM.
    pub fn vm(&self) -> &VmFd {
        &self.vm
    }

    /// The vCPU.
    pub fn vcpu(&self) -> &VcpuFd {
        &self.vcpu
    }

    /// The vCPU, to run it.
    pub fn vcpu_mut(&mut self) -> &mut VcpuFd {
        &mut self.vcpu
    }

    /// The RAM.
    pub fn ram(&self) -> &GuestMemoryMmap {
        self.ram.memory()
    }

    /// Copies bytes to a guest physical address.
    ///
    /// # Errors
    /// [`ScratchVmError::Memory`] where they do not fit the RAM.
    pub fn load(&self, bytes: &[u8], gpa: u64) -> Result<(), ScratchVmError> {
        self.ram()
            .write_slice(bytes, GuestAddress(gpa))
            .map_err(|err| ScratchVmError::Memory {
                bytes: bytes.len(),
                why: err.to_string(),
            })
    }

    /// Puts the vCPU into a mode, whatever it was in before, at `rip`, with the stack below `rsp`. [`StartIn::Long`] takes the first 8 bytes of RAM for its page table.
    ///
    /// # Errors
    /// [`ScratchVmError::Kvm`].
    pub fn start(&self, mode: StartIn, rip: u64, rsp: u64) -> Result<(), ScratchVmError> {
        let mut sregs = self.power_on;
        match mode {
            StartIn::Real => {
                sregs.cs.base = 0;
                sregs.cs.selector = 0;
            }
            StartIn::Protected32 | StartIn::Long => {
                let long = u8::from(mode == StartIn::Long);
                let code = kvm_segment {
                    limit: u32::MAX,
                    selector: 8,
                    type_: 11,
                    present: 1,
                    db: 1 - long,
                    s: 1,
                    l: long,
                    g: 1,
                    ..Default::default()
                };
                let data = kvm_segment {
                    selector: 16,
                    type_: 3,
                    db: 1,
                    l: 0,
                    ..code
                };
                sregs.cs = code;
                for segment in [
                    &mut sregs.ds,
                    &mut sregs.es,
                    &mut sregs.fs,
                    &mut sregs.gs,
                    &mut sregs.ss,
                ] {
                    *segment = data;
                }
                sregs.cr0 = 0x33;
            }
        }
        if mode == StartIn::Long {
            self.load(&SELF_MAP.to_le_bytes(), 0)?;
            sregs.cr3 = 0;
            sregs.cr4 = 0x20;
            sregs.cr0 = 0x8000_0033;
            sregs.efer = 0x500;
        }
        self.vcpu
            .set_sregs(&sregs)
            .map_err(ScratchVmError::at("set the processor mode"))?;
        let regs = kvm_regs {
            rip,
            rsp,
            rflags: 2,
            ..Default::default()
        };
        self.vcpu
            .set_regs(&regs)
            .map_err(ScratchVmError::at("set general registers"))
    }
}

/// `/dev/kvm` for a test, or `None` after saying why the test is skipped.
#[cfg(test)]
pub(crate) fn kvm_for_test() -> Option<Kvm> {
    Kvm::new()
        .inspect_err(|err| eprintln!("skipped: cannot open /dev/kvm: {err}"))
        .ok()
}
