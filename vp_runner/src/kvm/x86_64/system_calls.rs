//! The system calls that this crate makes on the thread of a vCPU, for the seccomp filter of a VMM with run loops of its own.
//!
//! The calls that stop the clocks of a guest are not among them: such a VMM owns the clocks, and only threads of this crate stop clocks.
//!
//! The VMM adds its own calls: `KVM_RUN`, and what its devices do. A filter for the threads on which [`Controller::run`](crate::embed::Controller::run) and the VMM's debug
//! server are polled is the VMM's matter: they make the calls of the executor, and those of [`VCPU_THREAD`].
//!
//! The numbers of the ioctls: Linux, include/uapi/linux/kvm.h.

use kvm_bindings::KVMIO;
use kvm_bindings::kvm_cpuid2;
use kvm_bindings::kvm_debugregs;
use kvm_bindings::kvm_device_attr;
use kvm_bindings::kvm_guest_debug;
use kvm_bindings::kvm_irqchip;
use kvm_bindings::kvm_lapic_state;
use kvm_bindings::kvm_mp_state;
use kvm_bindings::kvm_msrs;
use kvm_bindings::kvm_regs;
use kvm_bindings::kvm_sregs;
use kvm_bindings::kvm_vcpu_events;
use kvm_bindings::kvm_xcrs;
use kvm_bindings::kvm_xsave;
use std::ffi::c_ulong;
use std::mem::size_of;
use vmm_sys_util::ioctl::_IOC_NONE;
use vmm_sys_util::ioctl::_IOC_READ;
use vmm_sys_util::ioctl::_IOC_WRITE;
use vmm_sys_util::ioctl::ioctl_expr;

/// When a system call is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// In [`VmHandle::register_vp`](crate::embed::VmHandle::register_vp). A VMM that installs its filter after the registration need not allow the call.
    Register,
    /// In the hook, or when the hook is dropped.
    Hook,
}

/// A system call of a vCPU thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SystemCall {
    /// The name of the system call, without `SYS_`.
    pub name: &'static str,
    /// The number of the system call on this architecture.
    pub number: i64,
    /// The request, if the system call is `ioctl`.
    pub ioctl: Option<Ioctl>,
    /// When the system call is made.
    pub when: When,
    /// Whether a filter may refuse the system call with an error, such as `EACCES`. The caller then goes on without the call's effect.
    pub refusable: bool,
    /// Why a thread may end without having made the call, though a debugger has used every request. `None`: the tests show that the call is made.
    pub seldom: Option<&'static str>,
}

/// A request of `ioctl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ioctl {
    /// The name in `linux/kvm.h`.
    pub name: &'static str,
    /// The second argument of `ioctl`.
    pub request: c_ulong,
}

const fn call(name: &'static str, number: i64, when: When) -> SystemCall {
    SystemCall {
        name,
        number,
        ioctl: None,
        when,
        refusable: false,
        seldom: None,
    }
}

const fn refusable(call: SystemCall) -> SystemCall {
    SystemCall {
        refusable: true,
        ..call
    }
}

const fn seldom(why: &'static str, call: SystemCall) -> SystemCall {
    SystemCall {
        seldom: Some(why),
        ..call
    }
}

const fn at_registration(call: SystemCall) -> SystemCall {
    SystemCall {
        when: When::Register,
        ..call
    }
}

const fn kvm(name: &'static str, direction: u32, number: u32, size: usize) -> SystemCall {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the largest structure has 4 KiB"
    )]
    let request = ioctl_expr(direction, KVMIO, number, size as u32);
    SystemCall {
        name: "ioctl",
        number: libc::SYS_ioctl,
        ioctl: Some(Ioctl { name, request }),
        when: When::Hook,
        refusable: false,
        seldom: None,
    }
}

const BOTH: u32 = _IOC_READ | _IOC_WRITE;

/// The system calls of a vCPU thread, those of the memory allocator of glibc and of the standard library among them.
pub const VCPU_THREAD: &[SystemCall] = &[
    // The thread gets its event, its signal and its handler.
    call("eventfd2", libc::SYS_eventfd2, When::Register),
    call("rt_sigaction", libc::SYS_rt_sigaction, When::Register),
    // Once in a process: a copy of guest memory goes through a pipe if the VMM has replaced the handlers of faults.
    call("pipe2", libc::SYS_pipe2, When::Register),
    call("gettid", libc::SYS_gettid, When::Register),
    // Memory.
    seldom(
        "only a thread that uses the first heap of the process makes it, such as the first thread",
        call("brk", libc::SYS_brk, When::Hook),
    ),
    call("mmap", libc::SYS_mmap, When::Hook),
    call("mprotect", libc::SYS_mprotect, When::Hook),
    call("mremap", libc::SYS_mremap, When::Hook),
    call("munmap", libc::SYS_munmap, When::Hook),
    call("madvise", libc::SYS_madvise, When::Hook),
    // glibc opens /proc/sys/vm/overcommit_memory once in a process, when it first gives memory of another thread than the main thread back. Without the file glibc keeps the memory.
    refusable(call("openat", libc::SYS_openat, When::Hook)),
    // Without an answer glibc counts two processors.
    refusable(seldom(
        "glibc asks for the number of processors once in a process, when a thread makes the ninth arena of the heap",
        call("sched_getaffinity", libc::SYS_sched_getaffinity, When::Hook),
    )),
    // A parked VP waits, and wakes the controller.
    seldom(
        "only a host whose clock the vDSO cannot read needs the system call",
        call("clock_gettime", libc::SYS_clock_gettime, When::Hook),
    ),
    call("futex", libc::SYS_futex, When::Hook),
    call("ppoll", libc::SYS_ppoll, When::Hook),
    call("read", libc::SYS_read, When::Hook),
    seldom(
        "it copies guest memory if the VMM has replaced the handlers of faults, and wakes an executor that waits for an eventfd instead of a futex",
        call("write", libc::SYS_write, When::Hook),
    ),
    call("rt_sigprocmask", libc::SYS_rt_sigprocmask, When::Hook),
    call("rt_sigreturn", libc::SYS_rt_sigreturn, When::Hook),
    seldom(
        "only a VP whose last command came soon polls for the next command instead of sleeping",
        call("sched_yield", libc::SYS_sched_yield, When::Hook),
    ),
    // A device's event that a debugger holds brings the vCPU that caused the event out of its loop.
    call("getpid", libc::SYS_getpid, When::Hook),
    call("tgkill", libc::SYS_tgkill, When::Hook),
    // The hook is dropped. A standard library with debug assertions checks each descriptor by `F_GETFD` first. The registration duplicates the vCPU's descriptor.
    call("fcntl", libc::SYS_fcntl, When::Hook),
    call("close", libc::SYS_close, When::Hook),
    // The vCPU.
    at_registration(kvm("KVM_CHECK_EXTENSION", _IOC_NONE, 0x03, 0)),
    kvm("KVM_GET_REGS", _IOC_READ, 0x81, size_of::<kvm_regs>()),
    kvm("KVM_SET_REGS", _IOC_WRITE, 0x82, size_of::<kvm_regs>()),
    kvm("KVM_GET_SREGS", _IOC_READ, 0x83, size_of::<kvm_sregs>()),
    kvm("KVM_SET_SREGS", _IOC_WRITE, 0x84, size_of::<kvm_sregs>()),
    kvm("KVM_GET_MSRS", BOTH, 0x88, size_of::<kvm_msrs>()),
    kvm("KVM_SET_MSRS", _IOC_WRITE, 0x89, size_of::<kvm_msrs>()),
    at_registration(kvm("KVM_GET_CPUID2", BOTH, 0x91, size_of::<kvm_cpuid2>())),
    kvm(
        "KVM_GET_LAPIC",
        _IOC_READ,
        0x8e,
        size_of::<kvm_lapic_state>(),
    ),
    kvm(
        "KVM_GET_MP_STATE",
        _IOC_READ,
        0x98,
        size_of::<kvm_mp_state>(),
    ),
    kvm(
        "KVM_SET_MP_STATE",
        _IOC_WRITE,
        0x99,
        size_of::<kvm_mp_state>(),
    ),
    kvm("KVM_NMI", _IOC_NONE, 0x9a, 0),
    kvm(
        "KVM_SET_GUEST_DEBUG",
        _IOC_WRITE,
        0x9b,
        size_of::<kvm_guest_debug>(),
    ),
    kvm(
        "KVM_GET_VCPU_EVENTS",
        _IOC_READ,
        0x9f,
        size_of::<kvm_vcpu_events>(),
    ),
    kvm(
        "KVM_SET_VCPU_EVENTS",
        _IOC_WRITE,
        0xa0,
        size_of::<kvm_vcpu_events>(),
    ),
    kvm(
        "KVM_GET_DEBUGREGS",
        _IOC_READ,
        0xa1,
        size_of::<kvm_debugregs>(),
    ),
    kvm(
        "KVM_SET_DEBUGREGS",
        _IOC_WRITE,
        0xa2,
        size_of::<kvm_debugregs>(),
    ),
    seldom(
        "Linux has KVM_GET_XSAVE2 from 5.17 on",
        kvm("KVM_GET_XSAVE", _IOC_READ, 0xa4, size_of::<kvm_xsave>()),
    ),
    seldom(
        "Linux before 5.17 has only KVM_GET_XSAVE",
        kvm("KVM_GET_XSAVE2", _IOC_READ, 0xcf, size_of::<kvm_xsave>()),
    ),
    kvm("KVM_SET_XSAVE", _IOC_WRITE, 0xa5, size_of::<kvm_xsave>()),
    kvm("KVM_GET_XCRS", _IOC_READ, 0xa6, size_of::<kvm_xcrs>()),
    kvm("KVM_SET_XCRS", _IOC_WRITE, 0xa7, size_of::<kvm_xcrs>()),
    kvm("KVM_KVMCLOCK_CTRL", _IOC_NONE, 0xad, 0),
    // A debugger writes an MSR, which may be the time-stamp counter.
    kvm(
        "KVM_GET_DEVICE_ATTR",
        _IOC_WRITE,
        0xe2,
        size_of::<kvm_device_attr>(),
    ),
    // An external interrupt that waits.
    kvm("KVM_GET_IRQCHIP", BOTH, 0x62, size_of::<kvm_irqchip>()),
];
