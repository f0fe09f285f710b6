//! One model-specific register by number.

use crate::kvm::hypervisor_error;
use kvm_bindings::Msrs;
use kvm_bindings::kvm_msr_entry;
use kvm_ioctls::VcpuFd;
use vmm_core_defs::debug_rpc::BadRegisterReason;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::HypervisorCall;

/// Reads an MSR.
///
/// # Errors
/// [`DebugError::BadRegister`] where this KVM or the guest's CPUID has no such MSR (unless the host administrator set
/// `kvm.ignore_msrs`, with which KVM itself answers 0).
pub fn read_msr(vcpu: &VcpuFd, index: u32) -> Result<u64, DebugError> {
    let mut msrs = one(index, 0);
    let read = vcpu
        .get_msrs(&mut msrs)
        .map_err(|err| hypervisor_error(HypervisorCall::ReadMsr { index }, err))?;
    match msrs.as_slice() {
        [entry] if read == 1 => Ok(entry.data),
        _ => Err(DebugError::BadRegister {
            name: name(index),
            reason: BadRegisterReason::UnknownMsr,
        }),
    }
}

/// Writes an MSR.
///
/// # Errors
/// [`DebugError::BadRegister`] where there is no such MSR, or it is read-only or refuses the value.
pub fn write_msr(vcpu: &VcpuFd, index: u32, value: u64) -> Result<(), DebugError> {
    let written = vcpu
        .set_msrs(&one(index, value))
        .map_err(|err| hypervisor_error(HypervisorCall::WriteMsr { index }, err))?;
    if written == 1 {
        return Ok(());
    }
    Err(DebugError::BadRegister {
        name: name(index),
        reason: BadRegisterReason::MsrRefused { value },
    })
}

fn name(index: u32) -> String {
    format!("MSR {index:#x}")
}

fn one(index: u32, data: u64) -> Msrs {
    Msrs::from_entries(&[kvm_msr_entry {
        index,
        data,
        ..Default::default()
    }])
    .expect("one entry is within the limit of the list")
}
