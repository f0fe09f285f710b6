//! Memory that a process shares with its children that are copies of it (`fork`).

use std::ptr::null_mut;
use std::sync::atomic::AtomicBool;

/// A flag in memory that children share. `None` if the host gives no memory.
pub(super) fn flag() -> Option<&'static AtomicBool> {
    // SAFETY: the kernel chooses the address, so no memory of the process is replaced.
    let page = unsafe {
        libc::mmap(
            null_mut(),
            size_of::<AtomicBool>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    // SAFETY: the page is zeroed, which is `false`, it is never unmapped, and nobody else knows it.
    (page != libc::MAP_FAILED).then(|| unsafe { &*page.cast::<AtomicBool>() })
}
