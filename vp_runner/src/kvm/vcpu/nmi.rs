//! Non-maskable interrupts.

use super::Vcpu;
use super::refused;
use vmm_core_defs::debug_rpc::DebugError;

impl Vcpu {
    /// Raises a non-maskable interrupt (`KVM_NMI`).
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(crate) fn raise_nmi(&mut self) -> Result<(), DebugError> {
        let fd = self.vcpu.fd();
        fd.nmi().map_err(|err| refused("raise an NMI", err))
    }
}
