//! The debugging features of this host's KVM.

use kvm_bindings::KVM_CAP_SYNC_REGS;
use kvm_bindings::KVM_GUESTDBG_BLOCKIRQ;
use kvm_bindings::KVM_SYNC_X86_REGS;
use kvm_bindings::KVM_SYNC_X86_SREGS;
use kvm_ioctls::VmFd;

/// The capability with the bits of `kvm_guest_debug::control` that KVM knows (api.rst). The bindings do not have this number.
const KVM_CAP_SET_GUEST_DEBUG2: u64 = 195;

/// Whether KVM knows `KVM_GUESTDBG_BLOCKIRQ`. Otherwise KVM ignores the bit.
pub(crate) fn offers_block_irq(vm: &VmFd) -> bool {
    let known = vm.check_extension_raw(KVM_CAP_SET_GUEST_DEBUG2);
    known > 0 && known & KVM_GUESTDBG_BLOCKIRQ.cast_signed() != 0
}

/// The debugging features of this host's KVM, read once for all vCPUs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KvmFeatures {
    pub(super) sync_regs: bool,
    pub(super) block_irq: bool,
    /// Whether DR7.GD of the debugger's set makes the guest's accesses to debug registers exits.
    pub(super) register_access: bool,
}

/// The features that a probe has seen work. A capability bit shows only that KVM accepts a flag.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SeenToWork {
    /// `KVM_GUESTDBG_BLOCKIRQ`.
    pub(crate) block_irq: bool,
    /// DR7.GD of the debugger's set.
    pub(crate) register_access: bool,
}

impl KvmFeatures {
    pub(crate) fn of(vm: &VmFd, seen: SeenToWork) -> Self {
        let wanted = (KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS).cast_signed();
        let sync = vm.check_extension_raw(KVM_CAP_SYNC_REGS.into());
        Self {
            sync_regs: sync > 0 && sync & wanted == wanted,
            block_irq: offers_block_irq(vm) && seen.block_irq,
            register_access: seen.register_access,
        }
    }
}
