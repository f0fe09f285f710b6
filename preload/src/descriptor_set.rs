//! A set of file descriptors without a lock: `close` looks here first, in any thread and in any signal handler.

use crate::tracker::Fd;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// The kernel's own limit on the numbers of descriptors, unless an administrator has raised it (`/proc/sys/fs/nr_open`).
const NUMBERS: usize = 1 << 20;
const BITS: usize = 64;

/// A set of file descriptors. It is a static, so it costs memory only for the pages with numbers in use.
pub(crate) struct DescriptorSet {
    words: [AtomicU64; NUMBERS / BITS],
}

impl DescriptorSet {
    pub(crate) const fn new() -> Self {
        Self {
            words: [const { AtomicU64::new(0) }; NUMBERS / BITS],
        }
    }

    /// A number without room is left out: the end of its object is seen when the number comes up again.
    pub(crate) fn insert(&self, fd: Fd) {
        if let Some((word, bit)) = self.place(fd) {
            word.fetch_or(bit, Ordering::SeqCst);
        }
    }

    pub(crate) fn remove(&self, fd: Fd) {
        if let Some((word, bit)) = self.place(fd) {
            word.fetch_and(!bit, Ordering::SeqCst);
        }
    }

    /// One atomic load.
    pub(crate) fn contains(&self, fd: Fd) -> bool {
        self.place(fd)
            .is_some_and(|(word, bit)| word.load(Ordering::SeqCst) & bit != 0)
    }

    fn place(&self, fd: Fd) -> Option<(&AtomicU64, u64)> {
        let number = usize::try_from(fd).ok()?;
        let word = self.words.get(number / BITS)?;
        Some((word, 1 << (number % BITS)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_and_go() {
        static SET: DescriptorSet = DescriptorSet::new();
        let last = Fd::try_from(NUMBERS - 1).expect("a number");
        for fd in [0, 63, 64, last] {
            assert!(!SET.contains(fd));
            SET.insert(fd);
            assert!(SET.contains(fd));
        }
        SET.remove(63);
        assert!(!SET.contains(63));
        assert!(SET.contains(64));
    }

    #[test]
    fn numbers_without_room_are_not_in_it() {
        static SET: DescriptorSet = DescriptorSet::new();
        for fd in [-1, 1 << 20, Fd::MAX] {
            SET.insert(fd);
            assert!(!SET.contains(fd));
            SET.remove(fd);
        }
    }
}
