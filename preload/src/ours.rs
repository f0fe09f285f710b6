//! Which calls of the interposed functions are the library's own: those of its threads, and those that the debug core makes on a thread of the VMM. These calls
//! go to the kernel unchanged, and the tracker ignores the descriptors that they open and close.

use std::cell::Cell;

thread_local! {
    /// Constant and without a destructor: a signal handler may read it, and so may a thread that ends.
    static OURS: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is in code of the library.
pub(crate) fn is_ours() -> bool {
    OURS.get()
}

/// This thread is in code of the library until the value is dropped.
#[must_use]
pub(crate) struct Ours {
    before: bool,
}

impl Ours {
    pub(crate) fn enter() -> Self {
        Self {
            before: OURS.replace(true),
        }
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        OURS.set(self.before);
    }
}

/// Whether the library has started this thread, or one of its threads has. The library's copy of the standard library knows the names of its own threads only, and
/// all of these have one.
#[cfg(not(test))]
pub(crate) fn is_started_by_us() -> bool {
    std::thread::current().name().is_some()
}
