//! Whether any vCPU of a VM is in `KVM_RUN`, or is held there for a debugger.
//!
//! A VMM that has paused its guest may read the guest's memory at once, for a snapshot, and tells nobody. So breakpoint bytes are in memory only while a vCPU is
//! inside: the last one that leaves takes them out, and the first one that comes in again puts them back. This holds without any byte as well: a debugger may
//! insert a breakpoint while no vCPU is inside.

use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

/// Guest memory with breakpoint bytes, which can be taken out.
pub(crate) trait Quiesce {
    /// The bytes are out of memory as long as it exists.
    type Quiesced;

    /// Takes them out. None is written until the result is dropped.
    fn quiesce(&self) -> Self::Quiesced;
}

/// See the module.
pub(crate) struct Presence<M: Quiesce> {
    memory: M,
    /// The vCPUs that are inside.
    inside: AtomicUsize,
    /// Whether `quiesced` is there, or is about to be.
    is_quiesced: AtomicBool,
    quiesced: Mutex<Option<M::Quiesced>>,
}

/// A vCPU is inside until the value is dropped.
#[must_use]
pub(crate) struct Inside<'a, M: Quiesce>(&'a Presence<M>);

impl<M: Quiesce> Presence<M> {
    /// Without vCPUs.
    pub(crate) fn new(memory: M) -> Self {
        let quiesced = Mutex::new(Some(memory.quiesce()));
        Self {
            memory,
            inside: AtomicUsize::new(0),
            is_quiesced: AtomicBool::new(true),
            quiesced,
        }
    }

    fn quiesced(&self) -> MutexGuard<'_, Option<M::Quiesced>> {
        self.quiesced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A vCPU comes in. Returns when the breakpoint bytes are in memory.
    pub(crate) fn enter(&self) -> Inside<'_, M> {
        // The count first, and then the flag. The other side sets the flag first, and looks at the count then. So one of the two sees the other.
        self.inside.fetch_add(1, Ordering::SeqCst);
        if self.is_quiesced.load(Ordering::SeqCst) {
            let mut quiesced = self.quiesced();
            *quiesced = None;
            self.is_quiesced.store(false, Ordering::SeqCst);
        }
        Inside(self)
    }

    fn all_have_left(&self) {
        let mut quiesced = self.quiesced();
        self.is_quiesced.store(true, Ordering::SeqCst);
        match self.inside.load(Ordering::SeqCst) {
            0 if quiesced.is_none() => *quiesced = Some(self.memory.quiesce()),
            0 => {}
            // One has come in meanwhile. It waits for the lock, or has not seen the flag.
            _ => {
                *quiesced = None;
                self.is_quiesced.store(false, Ordering::SeqCst);
            }
        }
    }
}

impl<M: Quiesce> Drop for Inside<'_, M> {
    fn drop(&mut self) {
        if self.0.inside.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.all_have_left();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::thread;

    /// Guest memory with one breakpoint byte.
    #[derive(Clone)]
    struct Memory {
        is_byte_there: Arc<AtomicBool>,
    }

    struct ByteIsOut(Arc<AtomicBool>);

    impl Drop for ByteIsOut {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    impl Quiesce for Memory {
        type Quiesced = ByteIsOut;

        fn quiesce(&self) -> ByteIsOut {
            let was_there = self.is_byte_there.swap(false, Ordering::SeqCst);
            assert!(was_there, "taken out twice");
            ByteIsOut(self.is_byte_there.clone())
        }
    }

    fn presence() -> (Presence<Memory>, Arc<AtomicBool>) {
        let is_byte_there = Arc::new(AtomicBool::new(true));
        let memory = Memory {
            is_byte_there: is_byte_there.clone(),
        };
        (Presence::new(memory), is_byte_there)
    }

    #[test]
    fn a_byte_is_in_memory_as_long_as_anyone_is_inside() {
        let (presence, byte) = presence();
        let there = || byte.load(Ordering::SeqCst);
        assert!(!there(), "nobody has come in yet");
        let first = presence.enter();
        let second = presence.enter();
        drop(first);
        assert!(there());
        drop(second);
        assert!(!there());
        let again = presence.enter();
        assert!(there());
        drop(again);
        assert!(!there());
    }

    #[test]
    fn whoever_is_inside_finds_the_byte_however_many_come_and_go() {
        let (presence, byte) = presence();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        let _inside = presence.enter();
                        assert!(byte.load(Ordering::SeqCst));
                    }
                });
            }
        });
        assert!(!byte.load(Ordering::SeqCst));
    }
}
