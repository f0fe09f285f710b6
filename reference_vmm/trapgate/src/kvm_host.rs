//! The host's KVM and its features.

use kvm_bindings::CpuId;
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_ioctls::Cap;
use kvm_ioctls::Kvm;
use std::io;
use thiserror::Error;
use vp_runner::probe;
use vp_runner::probe::ProbeError;

/// An open /dev/kvm and its features.
pub(crate) struct KvmHost {
    /// The device.
    pub kvm: Kvm,
    /// The maximum number of vCPUs in a guest.
    pub max_vcpus: u32,
    /// The CPUID that KVM supports for guests.
    pub cpuid: CpuId,
    /// Whether the local APIC's timer supports the deadline mode.
    pub tsc_deadline: bool,
    /// The MSRs that belong to a vCPU's state.
    pub msrs: Vec<u32>,
}

/// The reason why KVM cannot be used.
#[derive(Debug, Error)]
pub(crate) enum KvmHostError {
    /// /dev/kvm cannot be opened.
    #[error(transparent)]
    Open(#[from] ProbeError),
    /// /dev/kvm does not answer.
    #[error(
        "/dev/kvm does not work: {what}: {why}; is the module for this CPU loaded (`lsmod | grep kvm`)?"
    )]
    Broken {
        /// The request that failed.
        what: &'static str,
        /// The host's error.
        why: io::Error,
    },
    /// KVM lacks a feature that a PC needs.
    #[error("this host's KVM has no {0}, which Trapgate needs; use a newer kernel")]
    Lacks(&'static str),
}

/// The features of KVM that a PC needs.
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
    /// Opens /dev/kvm and reads its features.
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
