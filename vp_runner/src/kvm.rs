//! Everything that talks to KVM. The only place with `unsafe`.

pub(crate) mod adopt;
pub(crate) mod exit_decode;
mod guarded;
pub(crate) mod guest_ram;
pub(crate) mod hooked_vcpu;
pub(crate) mod immediate_exit;
pub(crate) mod kick;
mod memory_slot;
mod pending_interrupt;
pub mod ram;
pub(crate) mod vcpu;
#[cfg(not(all(test, shuttle)))]
pub(crate) mod wake;
pub mod x86_64;

#[cfg(all(test, shuttle))]
pub(crate) use crate::sync::wake;
pub(crate) use x86_64::RegisterFile;
pub use x86_64::system_calls;

use std::io;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::HypervisorCall;

/// The error of a failed ioctl.
fn hypervisor_error(call: HypervisorCall, err: kvm_ioctls::Error) -> DebugError {
    let error = io::Error::from_raw_os_error(err.errno()).into();
    DebugError::Hypervisor { call, error }
}
