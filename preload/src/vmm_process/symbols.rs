//! The interposed functions. A call that has nothing to do with KVM goes straight to the real function.
//!
//! `ioctl` and `fcntl` take a variable argument in C. On x86-64 a variable argument of a register's size is passed like any other, so these definitions take it
//! as a third parameter. Each function has the contract of libc's function with its name.

use super::next_program_calls;
use super::real;
use crate::kvm_request;
use crate::kvm_request::DirtyLog;
use crate::kvm_request::MemoryRegion;
use crate::kvm_request::SignalSet;
use crate::ours;
use crate::process::INTERPOSER;
use crate::tracker::Fd;
use std::ffi::c_int;
use std::ffi::c_long;
use std::ffi::c_uint;
use std::ffi::c_ulong;
use std::io;
use std::os::fd::BorrowedFd;

/// KVM's numbers are all below 2^32, and some C libraries pass the number as a signed int.
const NUMBER: c_ulong = 0xffff_ffff;

/// A null pointer where a filter of system calls belongs: libseccomp asks in this way which flags the kernel knows.
const NO_FILTER: usize = 0;

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn ioctl(fd: c_int, request: c_ulong, argument: usize) -> c_int {
    // SAFETY: the caller's.
    let real = || unsafe { real::ioctl(fd, request, argument) };
    match u32::try_from(request & NUMBER) {
        Ok(kvm_request::RUN) => {
            // SAFETY: the VMM holds the descriptor open during the call. If it is not open, only its number is looked at.
            let fd = unsafe { BorrowedFd::borrow_raw(fd.max(0)) };
            returned(INTERPOSER.run(fd, || result(real()).map(drop)))
        }
        Ok(kvm_request::CREATE_VM) => {
            let vm = real();
            if vm >= 0 && !ours::is_started_by_us() {
                // SAFETY: the descriptor is open, because KVM has just used it.
                let kvm = unsafe { BorrowedFd::borrow_raw(fd) };
                keeping_errno(|| INTERPOSER.vm_created(kvm, vm));
            }
            vm
        }
        Ok(kvm_request::CREATE_VCPU) => {
            let vcpu = real();
            if vcpu >= 0 {
                // SAFETY: the descriptor is open, because KVM has just used it.
                let vm = unsafe { BorrowedFd::borrow_raw(fd) };
                // KVM refuses ids that do not fit.
                let id = u32::try_from(argument).unwrap_or(u32::MAX);
                keeping_errno(|| INTERPOSER.vcpu_created(vm, id, vcpu));
            }
            vcpu
        }
        Ok(kvm_request::SET_USER_MEMORY_REGION | kvm_request::SET_USER_MEMORY_REGION2)
            if INTERPOSER.knows(fd) && argument != 0 =>
        {
            let region = argument as *const MemoryRegion;
            // SAFETY: the argument of this ioctl on a VM points to a structure that begins with these fields; the VMM may have laid it anywhere.
            let region = unsafe { region.read_unaligned() };
            if !region.is_of_the_guest() {
                return real();
            }
            if region.is_logged() {
                INTERPOSER.log_begins(fd);
            }
            returned(INTERPOSER.set_slot(fd, region.slot, region.wanted(), || {
                result(real()).map(drop)
            }))
        }
        Ok(kvm_request::GET_DIRTY_LOG) if INTERPOSER.knows(fd) && argument != 0 => {
            let answer = real();
            if answer == 0 {
                // SAFETY: the argument of this ioctl on a VM points to this structure.
                let log = unsafe { (argument as *const DirtyLog).read_unaligned() };
                keeping_errno(|| {
                    for distance in INTERPOSER.pages_for_log(fd, log.slot) {
                        mark_dirty(&log, distance);
                    }
                });
            }
            answer
        }
        Ok(kvm_request::SET_CPUID2) if INTERPOSER.knows(fd) => {
            let answer = real();
            if answer == 0 {
                // SAFETY: the descriptor is open, because KVM has just used it.
                let vcpu = unsafe { BorrowedFd::borrow_raw(fd) };
                keeping_errno(|| INTERPOSER.vcpu_described(vcpu));
            }
            answer
        }
        Ok(kvm_request::SET_GUEST_DEBUG) if INTERPOSER.knows(fd) && argument != 0 => {
            // SAFETY: the argument of this ioctl on a vCPU points to a structure that begins with `control`.
            let control = unsafe { (argument as *const u32).read_unaligned() };
            returned(INTERPOSER.set_guest_debug(fd, control, || result(real()).map(drop)))
        }
        Ok(kvm_request::SET_SIGNAL_MASK) if INTERPOSER.knows(fd) && argument != 0 => {
            // SAFETY: the argument of this ioctl on a vCPU points to a length and as many bytes of signals.
            let mut mask = unsafe { (argument as *const SignalMask).read_unaligned() };
            if mask.length != 8 {
                return real();
            }
            mask.blocked = INTERPOSER
                .signal_mask(fd, SignalSet(u64::from_ne_bytes(mask.blocked)))
                .0
                .to_ne_bytes();
            // SAFETY: KVM reads the structure during the call.
            unsafe { real::ioctl(fd, request, &raw const mask as usize) }
        }
        _ => real(),
    }
}

/// Adds a page of the slot to the log.
fn mark_dirty(log: &DirtyLog, distance: u64) {
    let (byte, bit) = kvm_request::log_bit(distance);
    let Ok(address) = usize::try_from(log.bitmap.saturating_add(byte)) else {
        return;
    };
    // SAFETY: KVM has just written the bitmap, which has a bit for each page of the slot, and the page is in the slot. The VMM reads the bitmap after the ioctl.
    unsafe {
        let byte = address as *mut u8;
        byte.write(byte.read() | bit);
    }
}

/// `struct kvm_signal_mask` with the kernel's set of signals, the only length that KVM takes.
#[repr(C)]
struct SignalMask {
    length: u32,
    blocked: [u8; 8],
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn close(fd: c_int) -> c_int {
    INTERPOSER.closing(fd);
    // SAFETY: the caller's.
    unsafe { real::close(fd) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    // CLOSE_RANGE_UNSHARE gives the thread a table of its own, and CLOSE_RANGE_CLOEXEC closes nothing: neither closes the descriptors of the VMM.
    if flags == 0
        && let Ok(first) = Fd::try_from(first)
    {
        INTERPOSER.closing_range(first..=Fd::try_from(last).unwrap_or(Fd::MAX));
    }
    // SAFETY: the caller's.
    unsafe { real::close_range(first, last, flags) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn closefrom(first: c_int) {
    INTERPOSER.closing_range(first..=Fd::MAX);
    // SAFETY: the caller's.
    unsafe { real::closefrom(first) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn dup(old: c_int) -> c_int {
    // SAFETY: the caller's.
    duplicate(old, unsafe { real::dup(old) })
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn dup2(old: c_int, new: c_int) -> c_int {
    // SAFETY: the caller's.
    duplicate(old, unsafe { real::dup2(old, new) })
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int {
    // SAFETY: the caller's.
    duplicate(old, unsafe { real::dup3(old, new, flags) })
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn fcntl(fd: c_int, command: c_int, argument: usize) -> c_int {
    // SAFETY: the caller's.
    let value = unsafe { real::fcntl(fd, command, argument) };
    match command {
        libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => duplicate(fd, value),
        _ => value,
    }
}

/// `fcntl` of a program that is compiled with 64-bit offsets.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn fcntl64(fd: c_int, command: c_int, argument: usize) -> c_int {
    // SAFETY: the caller's.
    let value = unsafe { real::fcntl64(fd, command, argument) };
    match command {
        libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => duplicate(fd, value),
        _ => value,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn prctl(option: c_int, a: usize, b: usize, c: usize, d: usize) -> c_int {
    let is_filter = c_uint::try_from(a) == Ok(libc::SECCOMP_MODE_FILTER);
    if option == libc::PR_SET_SECCOMP && is_filter && b != NO_FILTER {
        keeping_errno(|| INTERPOSER.system_calls_are_filtered());
    }
    // SAFETY: the caller's.
    unsafe { real::prctl(option, [a, b, c, d]) }
}

/// The sixth argument lies in the caller's frame, which is there whether or not the caller has given that argument.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn syscall(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    let is_filter = c_uint::try_from(a) == Ok(libc::SECCOMP_SET_MODE_FILTER);
    if number == libc::SYS_seccomp && is_filter && c != NO_FILTER {
        keeping_errno(|| INTERPOSER.system_calls_are_filtered());
    }
    let arguments = [a, b, c, d, e, f];
    if matches!(number, libc::SYS_execve | libc::SYS_execveat) {
        // SAFETY: the caller's.
        return unsafe { next_program_calls::system_call(number, arguments) };
    }
    // SAFETY: the caller's.
    unsafe { real::syscall(number, arguments) }
}

fn duplicate(old: c_int, new: c_int) -> c_int {
    if new >= 0 {
        keeping_errno(|| INTERPOSER.duplicated(old, new));
    }
    new
}

fn result(value: c_int) -> io::Result<c_int> {
    match value {
        -1 => Err(io::Error::last_os_error()),
        value => Ok(value),
    }
}

/// What C expects of a call that answers 0.
fn returned(result: io::Result<()>) -> c_int {
    match result {
        Ok(()) => 0,
        Err(error) => {
            set_errno(error.raw_os_error().unwrap_or(libc::EIO));
            -1
        }
    }
}

fn set_errno(errno: c_int) {
    // SAFETY: the address is that of this thread's own variable.
    unsafe { *libc::__errno_location() = errno }
}

/// A call that succeeds leaves `errno` alone.
fn keeping_errno(act: impl FnOnce()) {
    let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
    act();
    set_errno(errno);
}
