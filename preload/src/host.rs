//! What the interposed functions need of the debug server of each VM. Tests have one that writes down its calls.

use crate::tracker::Slot;
use crate::tracker::Vcpu;
use crate::tracker::VmNumber;
use std::io;
use std::os::fd::BorrowedFd;

/// Hosts the debug servers. The calls come from threads of the VMM.
pub(crate) trait Host: Sync {
    /// The VMM creates the first vCPU of a VM: starts the debug server. Called once for each VM, on a thread that may still make any system call: a VMM that
    /// restricts a vCPU's thread does so later. `kvm` is `/dev/kvm`.
    fn vm_starts(&self, vm: VmNumber, kvm: BorrowedFd<'_>, fd: BorrowedFd<'_>);

    /// A slot of a VM that has started becomes this, or is gone. Returns when the former memory is no longer in use.
    fn slot(&self, vm: VmNumber, number: u32, slot: Option<Slot>);

    /// The VMM begins to log which pages of a VM the guest writes, which leaves out those that a debugger writes.
    fn log_begins(&self, vm: VmNumber);

    /// The guest physical addresses of the pages of the slot that a debugger has written since the last call.
    fn written_pages(&self, vm: VmNumber, slot: Slot) -> Vec<u64>;

    /// The VMM has created a vCPU of a VM that has started.
    fn vcpu_created(&self, vcpu: Vcpu);

    /// The VMM has set the CPUID of a vCPU of a VM that has started. A debugger may see the vCPU from now on, before it runs for the first time.
    fn vcpu_described(&self, vcpu: Vcpu, fd: BorrowedFd<'_>);

    /// The calling thread is about to run the vCPU for the first time. `None`: it runs without a debugger.
    fn vcpu_thread(&self, vcpu: Vcpu, fd: BorrowedFd<'_>) -> Option<Box<dyn VcpuThread>>;

    /// All descriptors of the VM are closed.
    fn vm_is_gone(&self, vm: VmNumber);

    /// The VMM debugs a guest by itself.
    fn vmm_debugs_itself(&self, vm: VmNumber);

    /// The VMM is about to forbid system calls.
    fn system_calls_are_filtered(&self);

    /// The signal that brings a vCPU out of the guest.
    fn kick_signal(&self) -> i32;
}

/// A vCPU on its thread. Dropped on that thread, at the latest when the thread ends.
pub(crate) trait VcpuThread {
    /// The VMM calls `KVM_RUN`. `kvm_run` makes the real call, any number of times.
    fn run(&mut self, kvm_run: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()>;
}
