//! The host's KVM: whether it is there, and what it offers.

use kvm_bindings::CpuId;
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_ioctls::Cap;
use kvm_ioctls::Kvm;
use std::io;
use thiserror::Error;
use vp_runner::probe;
use vp_runner::probe::ProbeError;

/// An open /dev/kvm and what it said about itself.
pub(crate) struct KvmHost {
    /// The device.
    pub kvm: Kvm,
    /// vCPUs a guest may have.
    pub max_vcpus: u32,
    /// The CPUID that guests may be given.
    pub cpuid: CpuId,
    /// Whether the local APIC's timer has its deadline mode.
    pub tsc_deadline: bool,
    /// MSRs that make up a vCPU's state.
    pub msrs: Vec<u32>,
}

/// No KVM to be had.
#[derive(Debug, Error)]
pub(crate) enum KvmHostError {
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] ProbeError),
    /// It does not answer.
    #[error(
        "/dev/kvm does not work: {what}: {why}; is the module for this CPU loaded (`lsmod | grep kvm`)?"
    )]
    Broken {
        /// What was tried.
        what: &'static str,
        /// What the host said.
        why: io::Error,
    },
    /// KVM lacks what a PC needs.
    #[error("this host's KVM has no {0}, and Trapgate cannot do without; use a newer kernel")]
    Lacks(&'static str),
}

/// What a PC cannot do without.
const NEEDED: [(Cap, &str); 6] = [
    (
        Cap::Irqchip,
        "interrupt controllers of its own (KVM_CAP_IRQCHIP)",
    ),
    (Cap::Pit2, "timer of its own (KVM_CAP_PIT2)"),
    (Cap::UserMemory, "user memory slots (KVM_CAP_USER_MEMORY)"),
    (Cap::Irqfd, "interrupts by eventfd (KVM_CAP_IRQFD)"),
    (
        Cap::SetTssAddr,
        "place for its task state (KVM_CAP_SET_TSS_ADDR)",
    ),
    (Cap::ExtCpuid, "CPUID for guests (KVM_CAP_EXT_CPUID)"),
];

impl KvmHost {
    /// Opens /dev/kvm and asks.
    pub(crate) fn open() -> Result<Self, KvmHostError> {
        let broken = |what| {
            move |why: kvm_ioctls::Error| KvmHostError::Broken {
                what,
                why: why.into(),
            }
        };
        let kvm = probe::open_kvm()?;
        if let Some((_, name)) = NEEDED
            .into_iter()
            .find(|(cap, _)| !kvm.check_extension(*cap))
        {
            return Err(KvmHostError::Lacks(name));
        }
        let cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(broken("ask which CPUID it supports"))?;
        let msrs = kvm
            .get_msr_index_list()
            .map_err(broken("ask which MSRs it keeps"))?;
        Ok(Self {
            max_vcpus: u32::try_from(kvm.get_max_vcpus()).unwrap_or(u32::MAX),
            tsc_deadline: kvm.check_extension(Cap::TscDeadlineTimer),
            cpuid,
            msrs: msrs.as_slice().to_vec(),
            kvm,
        })
    }
}
