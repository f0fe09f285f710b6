//! `kvm_run.immediate_exit` of the calling thread's vCPU: who has set the flag, and who may clear it.
#![expect(
    unsafe_code,
    reason = "a signal handler writes to the kvm_run page of the thread it interrupts"
)]

use crate::sync::a_signal_may_arrive;
use crate::sync::thread_local;
use std::cell::Cell;
use std::marker::PhantomData;
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

/// The flag of the calling thread's vCPU.
fn flag() -> Option<&'static AtomicU8> {
    let flag = IMMEDIATE_EXIT.with(Cell::get);
    // SAFETY: `ImmediateExit` set the pointer to a byte that is mapped for as long as that value lives, and clears the pointer at its end. The callers do not keep the
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

/// The flag of the calling thread's vCPU, for as long as this exists.
#[derive(Debug)]
pub(crate) struct ImmediateExit {
    /// This type must be dropped on the thread that created it.
    _not_send: PhantomData<*const ()>,
}

impl ImmediateExit {
    /// Binds the flag to the calling thread, which must not have another.
    ///
    /// # Safety
    /// The byte is mapped until the value is dropped.
    pub(super) unsafe fn bind(flag: *mut u8) -> Self {
        IMMEDIATE_EXIT.with(|bound| bound.set(flag));
        SET_HERE.with(|here| here.set(false));
        let _not_send = PhantomData;
        Self { _not_send }
    }

    /// Binds the flag of a test's vCPU.
    #[cfg(all(test, shuttle))]
    pub(crate) fn of_test(flag: &'static AtomicU8) -> Self {
        // SAFETY: the reference says so.
        unsafe { Self::bind(flag.as_ptr()) }
    }

    /// Makes the next `KVM_RUN` return at once, after it has completed the last exit.
    pub(crate) fn set(&self) {
        on_kick_signal();
    }

    /// Clears the flag if this module has set it. Returns whether it had. The VMM may have set the flag as well in the meantime, so the caller then lets the VMM look
    /// for work before the VP enters the guest or waits.
    pub(crate) fn clear(&self) -> bool {
        a_signal_may_arrive();
        let was_set = SET_HERE.with(|here| here.replace(false));
        // A kick between the two finds the flag set, and leaves `SET_HERE` clear as well.
        a_signal_may_arrive();
        if was_set && let Some(flag) = flag() {
            flag.store(0, Ordering::Relaxed);
        }
        was_set
    }

    /// Whether the VMM has set the flag, because it wants its thread.
    pub(crate) fn is_wanted_by_vmm(&self) -> bool {
        a_signal_may_arrive();
        let is_set = flag().is_some_and(|flag| flag.load(Ordering::Relaxed) != 0);
        // A kick after this look sets a flag that was clear, or leaves one alone that the VMM has set.
        a_signal_may_arrive();
        is_set && !SET_HERE.with(Cell::get)
    }
}

impl Drop for ImmediateExit {
    fn drop(&mut self) {
        IMMEDIATE_EXIT.with(|bound| bound.set(null_mut()));
    }
}
