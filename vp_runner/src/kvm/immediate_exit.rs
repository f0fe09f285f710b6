//! `kvm_run.immediate_exit` of the calling thread's vCPU: who has set the flag, and who may clear it.
#![expect(
    unsafe_code,
    reason = "a signal handler writes to the kvm_run page of the thread it interrupts"
)]

use crate::sync::a_signal_may_arrive;
use crate::sync::thread_local;
use kvm_bindings::kvm_run;
use std::cell::Cell;
use std::ffi::c_void;
use std::io;
use std::marker::PhantomData;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::ptr::null_mut;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;

thread_local! {
    /// The flag of this thread's vCPU, and null on every other thread. With constant initialisation and without a destructor, the signal handler reads this variable by
    /// a plain load.
    static IMMEDIATE_EXIT: Cell<*mut u8> = const { Cell::new(null_mut()) };
    /// Whether this module has set the flag. The VMM may set the flag too, and only the VMM clears a flag that the VMM has set.
    static SET_HERE: Cell<bool> = const { Cell::new(false) };
}

/// The least length of a mapping, in bytes.
const PAGE: usize = 4096;

/// The flag of the calling thread's vCPU.
fn flag() -> Option<&'static AtomicU8> {
    let flag = IMMEDIATE_EXIT.with(Cell::get);
    // SAFETY: `BoundFlag` set the pointer to a byte that is mapped for as long as that value lives, and clears the pointer at its end. The callers do not keep the
    // reference. The byte is shared with the kernel and with the VMM, which access it as a whole.
    (!flag.is_null()).then(|| unsafe { AtomicU8::from_ptr(flag) })
}

/// Makes the calling thread's `KVM_RUN` return `EINTR`, whether it has begun or not. For the signal handler of a VMM that implements [`Kick`](super::kick::Kick).
///
/// Async-signal-safe: loads and stores of thread-local variables and of one atomic. Has no effect on a thread without a registered vCPU.
pub fn on_kick_signal() {
    if let Some(flag) = flag()
        && flag.swap(1, Ordering::Relaxed) == 0
    {
        SET_HERE.with(|here| here.set(true));
    }
}

/// The flag of the calling thread's vCPU, for as long as this exists. The functions of this module are about this flag, and have no effect on a thread without one.
#[derive(Debug)]
pub(crate) struct BoundFlag {
    /// A mapping of the `kvm_run` page of this type's own, so that the vCPU may go away first. `None`: the flag is a test's.
    page: Option<NonNull<c_void>>,
    /// This type must be dropped on the thread that created it.
    _not_send: PhantomData<*const ()>,
}

impl BoundFlag {
    /// Binds the flag of the vCPU to the calling thread, which must not have another.
    ///
    /// # Errors
    /// The error of `mmap`.
    pub(crate) fn bind(vcpu: &impl AsRawFd) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let (fd, shared) = (vcpu.as_raw_fd(), libc::MAP_SHARED);
        // SAFETY: a new mapping, at an address of the kernel's choice. The flag is in its first page (KVM api.rst, `struct kvm_run`).
        let page = unsafe { libc::mmap(null_mut(), PAGE, access, shared, fd, 0) };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let page = NonNull::new(page).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let run = page.cast::<kvm_run>().as_ptr();
        // SAFETY: the flag is in the mapping, which this value owns.
        let flag = unsafe { &raw mut (*run).immediate_exit };
        Ok(Self::of(flag, Some(page)))
    }

    fn of(flag: *mut u8, page: Option<NonNull<c_void>>) -> Self {
        IMMEDIATE_EXIT.with(|bound| bound.set(flag));
        SET_HERE.with(|here| here.set(false));
        let _not_send = PhantomData;
        Self { page, _not_send }
    }

    /// Binds the flag of a test's vCPU.
    #[cfg(test)]
    pub(crate) fn of_test(flag: &'static AtomicU8) -> Self {
        Self::of(flag.as_ptr(), None)
    }
}

impl Drop for BoundFlag {
    fn drop(&mut self) {
        IMMEDIATE_EXIT.with(|bound| bound.set(null_mut()));
        if let Some(page) = self.page {
            // SAFETY: `bind` has made the mapping, and the thread's pointer into it has just been cleared.
            unsafe { libc::munmap(page.as_ptr(), PAGE) };
        }
    }
}

/// Makes the calling thread's next `KVM_RUN` return at once, after it has completed the last exit.
pub(crate) fn set() {
    on_kick_signal();
}

/// Clears the calling thread's flag if this module has set it. Returns whether it had. The VMM may have set the flag as well in the meantime, so the caller then lets
/// the VMM look for work before the VP enters the guest or waits.
pub(crate) fn clear() -> bool {
    a_signal_may_arrive();
    let was_set = SET_HERE.with(|here| here.replace(false));
    // A kick between the two finds the flag set, and leaves `SET_HERE` clear as well.
    a_signal_may_arrive();
    if was_set && let Some(flag) = flag() {
        flag.store(0, Ordering::Relaxed);
    }
    was_set
}

/// Whether the VMM has set the calling thread's flag, because it wants its thread.
pub(crate) fn is_wanted_by_vmm() -> bool {
    a_signal_may_arrive();
    let is_set = flag().is_some_and(|flag| flag.load(Ordering::Relaxed) != 0);
    // A kick after this look sets a flag that was clear, or leaves one alone that the VMM has set.
    a_signal_may_arrive();
    is_set && !SET_HERE.with(Cell::get)
}
