//! What a vCPU keeps of the guest's time: its counter, its clock, its timer.

use super::*;
use crate::kvm::x86_64::clocks;
use crate::kvm::x86_64::write_msr;

impl Vcpu {
    /// What KVM adds to the host's time-stamp counter for this VP, where it says so.
    pub(crate) fn tsc_offset(&mut self) -> Option<u64> {
        clocks::tsc_offset(self.vcpu.fd()).ok()
    }

    /// Puts the time-stamp counter back by so many ticks.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(crate) fn put_back_tsc(&mut self, ticks: u64) -> Result<(), DebugError> {
        let fd = self.vcpu.fd();
        clocks::tsc_offset(fd)
            .and_then(|offset| clocks::set_tsc_offset(fd, offset.wrapping_sub(ticks)))
            .map_err(|err| refused("put a time-stamp counter back", err))
    }

    /// Writes an MSR that is a clock, which is in nothing that is remembered.
    ///
    /// # Errors
    /// As [`write_msr`].
    pub(crate) fn set_clock_msr(&mut self, msr: u32, value: u64) -> Result<(), DebugError> {
        write_msr(self.vcpu.fd(), msr, value)
    }

    /// Reads the local APIC's registers and writes them changed. An interrupt that arrives in between is lost.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(crate) fn change_lapic(
        &mut self,
        change: impl FnOnce(&mut kvm_lapic_state),
    ) -> Result<(), DebugError> {
        let fd = self.vcpu.fd();
        let failed = |err| refused("set a local APIC", err);
        let mut page = fd.get_lapic().map_err(failed)?;
        change(&mut page);
        fd.set_lapic(&page).map_err(failed)
    }

    /// Tells the guest that it stood still, or its soft-lockup watchdog would find out by itself (KVM api.rst, `KVM_KVMCLOCK_CTRL`).
    ///
    /// Returns whether there was somebody to tell: a guest without kvmclock has no watchdog that asks (`EINVAL`).
    pub(crate) fn tell_of_pause(&mut self) -> bool {
        let told = self.vcpu.fd().kvmclock_ctrl();
        if let Err(err) = &told {
            tracing::trace!(error = %err, "KVM_KVMCLOCK_CTRL");
        }
        told.is_ok()
    }
}
