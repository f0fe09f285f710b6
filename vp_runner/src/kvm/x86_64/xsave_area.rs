//! `KVM_GET_XSAVE`, `KVM_GET_XSAVE2` and `KVM_SET_XSAVE` as bytes: the only `unsafe` the register file needs. VMMs may want it for
//! their power-on state, since `KVM_SET_FPU` leaves the upper halves of vector registers alone.
#![expect(
    unsafe_code,
    reason = "kvm-ioctls marks the XSAVE ioctls unsafe: the kernel's idea of the size has to be kept"
)]

use crate::kvm::hypervisor_error;
use kvm_bindings::Xsave;
use kvm_bindings::kvm_xsave;
use kvm_ioctls::Cap;
use kvm_ioctls::VcpuFd;
use kvm_ioctls::VmFd;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::HypervisorCall;

const PLAIN_WORDS: usize = 1024;

/// How large a VM's XSAVE areas are, asked of KVM once.
#[derive(Debug, Clone, Copy)]
pub struct XsaveSize {
    /// 32-bit words past the 4096 bytes of `kvm_xsave`; `None` where KVM has only the plain ioctls.
    extra_words: Option<usize>,
}

/// One vCPU's area, in the standard format (SDM volume 1, "XSAVE Area").
pub struct XsaveArea {
    raw: Raw,
    bytes: Vec<u8>,
}

enum Raw {
    Plain(Box<kvm_xsave>),
    Sized(Xsave),
}

impl XsaveSize {
    /// Asks KVM, once the VM has a vCPU.
    pub fn of(vm: &VmFd) -> Self {
        // api.rst, KVM_GET_XSAVE2: at least 4096 where the capability exists, 0 where not.
        let len = usize::try_from(vm.check_extension_int(Cap::Xsave2)).unwrap_or(0);
        Self {
            extra_words: (len != 0).then(|| (len / 4).saturating_sub(PLAIN_WORDS)),
        }
    }

    /// Of a KVM with only the plain ioctls.
    #[cfg(test)]
    pub(super) fn plain() -> Self {
        Self { extra_words: None }
    }

    pub(super) fn len(self) -> usize {
        4 * (PLAIN_WORDS + self.extra_words.unwrap_or(0))
    }

    /// Reads a vCPU's area.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub fn get(self, vcpu: &VcpuFd) -> Result<XsaveArea, DebugError> {
        let failed = |err| hypervisor_error(HypervisorCall::ReadVectorRegisters, err);
        let raw = match self.extra_words {
            None => Raw::Plain(Box::new(vcpu.get_xsave().map_err(failed)?)),
            Some(extra) => {
                let mut area = Xsave::new(extra).expect(
                    "KVM reports the size as an i32, and an area may have u32::MAX extra words",
                );
                // SAFETY: the area has the size that KVM_CAP_XSAVE2 gave for this VM. That size grows only by `arch_prctl` on a thread of this
                // process before the VM's vCPUs are created, and `XsaveSize::of` is called with a vCPU present.
                unsafe { vcpu.get_xsave2(&mut area) }.map_err(failed)?;
                Raw::Sized(area)
            }
        };
        let bytes = raw.bytes();
        Ok(XsaveArea { raw, bytes })
    }
}

impl XsaveArea {
    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What [`set`](Self::set) is to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Writes the area to the vCPU it was read from, or another of the same VM.
    ///
    /// # Errors
    /// What KVM says to it.
    pub fn set(&mut self, vcpu: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
        self.raw.copy_from(&self.bytes);
        self.write_back(vcpu)
    }

    /// Writes the area as it was read or last set.
    ///
    /// # Errors
    /// What KVM says to it.
    pub fn write_back(&self, vcpu: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
        match &self.raw {
            // SAFETY: without KVM_CAP_XSAVE2 the kernel reads the 4096 bytes of `kvm_xsave` and no more.
            Raw::Plain(area) => unsafe { vcpu.set_xsave(area) },
            // SAFETY: the area has the size that KVM_CAP_XSAVE2 gave for this VM (see `XsaveSize::get`).
            Raw::Sized(area) => unsafe { vcpu.set_xsave2(area) },
        }
    }
}

impl Raw {
    fn bytes(&self) -> Vec<u8> {
        let (region, extra): (&[u32], &[u32]) = match self {
            Self::Plain(area) => (&area.region, &[]),
            Self::Sized(area) => (&area.as_fam_struct_ref().xsave.region, area.as_slice()),
        };
        region
            .iter()
            .chain(extra)
            .flat_map(|word| word.to_le_bytes())
            .collect()
    }

    fn copy_from(&mut self, bytes: &[u8]) {
        let (words, _) = bytes.as_chunks::<4>();
        let mut words = words.iter().map(|word| u32::from_le_bytes(*word));
        let mut fill = |slots: &mut [u32]| {
            for (slot, word) in slots.iter_mut().zip(&mut words) {
                *slot = word;
            }
        };
        match self {
            Self::Plain(area) => fill(&mut area.region),
            Self::Sized(area) => {
                // SAFETY: only `region` is written; the length field of the structure stays as it is.
                fill(&mut unsafe { area.as_mut_fam_struct() }.xsave.region);
                fill(area.as_mut_slice());
            }
        }
    }
}
