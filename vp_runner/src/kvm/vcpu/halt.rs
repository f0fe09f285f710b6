//! `hlt`, carried out in place of the VP.

use super::Vcpu;
use kvm_bindings::KVM_MP_STATE_HALTED;
use kvm_bindings::kvm_mp_state;
use vmm_core_defs::debug_rpc::DebugError;

impl Vcpu {
    /// Halts the VP, with RIP behind the `hlt`. `false`, with nothing changed: KVM has no interrupt controllers that would wake the VP, and refuses
    /// (api.rst, `KVM_SET_MP_STATE`).
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(crate) fn halt_at(&mut self, next_rip: u64) -> Result<bool, DebugError> {
        let halted = kvm_mp_state {
            mp_state: KVM_MP_STATE_HALTED,
        };
        if self.vcpu.fd().set_mp_state(halted).is_err() {
            return Ok(false);
        }
        self.skip_to(next_rip)?;
        Ok(true)
    }
}
