//! File descriptors of a VM and of vCPUs that the VMM has created.
#![expect(unsafe_code, reason = "kvm-ioctls takes file descriptors as numbers")]

use kvm_ioctls::Kvm;
use kvm_ioctls::VcpuFd;
use kvm_ioctls::VmFd;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::IntoRawFd;

/// A second descriptor of the VM.
///
/// # Errors
/// The error of the host.
pub(crate) fn vm(kvm: BorrowedFd<'_>, vm: BorrowedFd<'_>) -> io::Result<VmFd> {
    let kvm = kvm.try_clone_to_owned()?.into_raw_fd();
    // SAFETY: the descriptor is a new one, which nothing else closes.
    let kvm = unsafe { <Kvm as std::os::fd::FromRawFd>::from_raw_fd(kvm) };
    let vm = vm.try_clone_to_owned()?.into_raw_fd();
    // SAFETY: as above. If `vm` is no VM, the calls on it fail.
    Ok(unsafe { kvm.create_vmfd_from_rawfd(vm) }?)
}

/// A second descriptor of the vCPU, with a second mapping of its `kvm_run`, which is the same memory as the VMM's mapping.
///
/// # Errors
/// The error of the host.
pub(crate) fn vcpu(vm: &VmFd, vcpu: BorrowedFd<'_>) -> io::Result<VcpuFd> {
    let vcpu = vcpu.try_clone_to_owned()?.into_raw_fd();
    // SAFETY: the descriptor is a new one, which nothing else closes. If it is no vCPU, the mapping fails.
    Ok(unsafe { vm.create_vcpu_from_rawfd(vcpu) }?)
}

/// The descriptor of a value of kvm-ioctls.
pub(crate) fn borrowed(fd: &impl AsRawFd) -> BorrowedFd<'_> {
    // SAFETY: the types of kvm-ioctls own their descriptors, so the descriptor is open as long as the borrow lasts.
    unsafe { BorrowedFd::borrow_raw(fd.as_raw_fd()) }
}
