//! What this host's KVM offers to a debugger.

use crate::probe::Report;
use kvm_bindings::KVM_CAP_SYNC_REGS;
use kvm_bindings::KVM_GUESTDBG_BLOCKIRQ;
use kvm_bindings::KVM_SYNC_X86_REGS;
use kvm_bindings::KVM_SYNC_X86_SREGS;
use kvm_ioctls::VmFd;

/// Which bits of `kvm_guest_debug::control` KVM knows (api.rst). The bindings do not have the number.
const KVM_CAP_SET_GUEST_DEBUG2: u64 = 195;

/// Whether KVM knows `KVM_GUESTDBG_BLOCKIRQ`. One that does not takes no notice of the bit.
pub(crate) fn offers_block_irq(vm: &VmFd) -> bool {
    let known = vm.check_extension_raw(KVM_CAP_SET_GUEST_DEBUG2);
    known > 0 && known & KVM_GUESTDBG_BLOCKIRQ.cast_signed() != 0
}

/// What this host's KVM offers, asked once for all vCPUs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offers {
    pub(super) sync_regs: bool,
    pub(super) block_irq: bool,
    /// Whether DR7.GD of the debugger's set makes the guest's accesses to debug registers exits.
    pub(super) register_access: bool,
}

impl Offers {
    /// `report` is what the probe found, where there was one: the capability bit says what is accepted, not what works.
    pub(crate) fn of(vm: &VmFd, report: Option<&Report>) -> Self {
        let wanted = (KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS).cast_signed();
        let sync = vm.check_extension_raw(KVM_CAP_SYNC_REGS.into());
        Self {
            sync_regs: sync > 0 && sync & wanted == wanted,
            block_irq: offers_block_irq(vm)
                && report.is_none_or(|report| report.interrupts_held.works),
            register_access: report.is_some_and(|report| report.register_access.works),
        }
    }
}
