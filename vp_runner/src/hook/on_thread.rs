//! The calling thread as the thread of a VP: kicks and the flag `immediate_exit` reach it.

use super::HookedVp;
use crate::kvm::hooked_vcpu::HookedVcpu;
use crate::kvm::immediate_exit::BoundFlag;
use crate::kvm::kick::Kick;
use std::io;
use std::sync::Arc;
use vmm_core_defs::addr::VpIndex;

/// See the module. Bound to its thread.
pub(crate) struct OnThread {
    kick: Arc<dyn Kick>,
    vp: VpIndex,
    _flag: BoundFlag,
}

impl OnThread {
    /// Makes the calling thread the VP's.
    ///
    /// # Errors
    /// The error of the host.
    pub(crate) fn new<V: HookedVcpu>(
        vp: &mut HookedVp<V>,
        kick: Arc<dyn Kick>,
    ) -> io::Result<Self> {
        let index = vp.index;
        let flag = vp.vcpu().bind()?;
        kick.register(index)?;
        Ok(Self {
            kick,
            vp: index,
            _flag: flag,
        })
    }
}

impl Drop for OnThread {
    fn drop(&mut self) {
        self.kick.unregister(self.vp);
    }
}
