//! The clocks of a vCPU, by ioctls.

use super::KvmVcpu;
use crate::arch::x86_64::vp::vcpu::VcpuClocks;
use crate::kvm::hypervisor_error;
use crate::kvm::x86_64::clocks;
use crate::kvm::x86_64::read_msr;
use crate::kvm::x86_64::write_msr;
use kvm_bindings::kvm_lapic_state;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::HypervisorCall;

impl VcpuClocks for KvmVcpu {
    fn read_msr(&mut self, msr: u32) -> Result<u64, DebugError> {
        read_msr(&self.fd, msr)
    }

    fn write_clock_msr(&mut self, msr: u32, value: u64) -> Result<(), DebugError> {
        write_msr(&self.fd, msr, value)
    }

    fn write_msr(&mut self, msr: u32, value: u64) -> Result<(), DebugError> {
        write_msr(self.raw(), msr, value)
    }

    fn tsc_offset(&mut self) -> Option<u64> {
        clocks::tsc_offset(&self.fd).ok()
    }

    fn put_back_tsc(&mut self, ticks: u64) -> Result<(), DebugError> {
        let fd = &mut self.fd;
        clocks::tsc_offset(fd)
            .and_then(|offset| clocks::set_tsc_offset(fd, offset.wrapping_sub(ticks)))
            .map_err(|err| hypervisor_error(HypervisorCall::SetBackCounter, err))
    }

    fn local_apic(&mut self) -> Option<kvm_lapic_state> {
        self.fd.get_lapic().ok()
    }

    fn change_local_apic(
        &mut self,
        change: impl FnOnce(&mut kvm_lapic_state),
    ) -> Result<(), DebugError> {
        let fd = &mut self.fd;
        let failed = |err| hypervisor_error(HypervisorCall::WriteLocalApic, err);
        let mut page = fd.get_lapic().map_err(failed)?;
        change(&mut page);
        fd.set_lapic(&page).map_err(failed)
    }

    /// `EINVAL`: the guest has not turned kvmclock on.
    fn tell_of_pause(&mut self) -> bool {
        let told = self.fd.kvmclock_ctrl();
        if let Err(err) = &told {
            tracing::trace!(error = %err, "KVM_KVMCLOCK_CTRL");
        }
        told.is_ok()
    }
}
