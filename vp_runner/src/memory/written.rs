//! The pages of guest memory that this crate has written, for a VMM that copies the memory of a running guest. KVM's log of dirty pages contains only the writes of the
//! guest and of KVM.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

/// The size of a page in bytes, as in KVM's log.
const PAGE: u64 = 4096;

/// The numbers of the pages that were written since the last [`take`](Self::take), from the first [`keep`](Self::keep) on.
#[derive(Debug, Default)]
pub(crate) struct WrittenPages {
    are_kept: AtomicBool,
    pages: Mutex<BTreeSet<u64>>,
}

impl WrittenPages {
    fn pages(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, writes are noted.
    pub(crate) fn keep(&self) {
        self.are_kept.store(true, Ordering::SeqCst);
    }

    /// `len` bytes from `gpa` on were written.
    pub(crate) fn note(&self, gpa: u64, len: usize) {
        if len == 0 || !self.are_kept.load(Ordering::SeqCst) {
            return;
        }
        let last = gpa.saturating_add(len as u64 - 1);
        self.pages().extend(gpa / PAGE..=last / PAGE);
    }

    /// The addresses of the pages in this range that were written. They are forgotten.
    pub(crate) fn take(&self, range: Range<u64>) -> Vec<u64> {
        let inside = range.start / PAGE..range.end.div_ceil(PAGE);
        if inside.is_empty() {
            return Vec::new();
        }
        let mut pages = self.pages();
        let taken = pages.extract_if(inside, |_| true);
        taken.map(|page| page * PAGE).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_of_a_write_is_told_once_to_the_one_who_asks_for_it() {
        let written = WrittenPages::default();
        written.note(0x1000, 1);
        written.keep();
        written.note(0x2fff, 2);
        written.note(0x8000, 0);
        written.note(0x1_0000, 1);
        assert_eq!(written.take(0..0x1_0000), [0x2000, 0x3000]);
        assert!(written.take(0..0x1_0000).is_empty());
        assert_eq!(written.take(0x1_0000..0x2_0000), [0x1_0000]);
        written.note(u64::MAX, 8);
        assert_eq!(written.take(0..u64::MAX), [u64::MAX - 0xfff]);
        let (start, end) = (0x5000, 0x3000);
        assert!(written.take(start..end).is_empty());
    }
}
