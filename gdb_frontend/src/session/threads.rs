//! The threads of the guest, which may change at a stop.

use super::Core;
use super::Guest;
use crate::command::ThreadSelector;
use crate::target::Tid;

/// The threads in the order of their ids. There is at least one.
#[derive(Debug)]
pub(super) struct Threads(Vec<Tid>);

impl Threads {
    /// A guest without threads is shown with thread 1, because GDB ends a session without threads.
    pub(super) fn new(mut threads: Vec<Tid>) -> Self {
        threads.sort_unstable();
        threads.dedup();
        if threads.is_empty() {
            threads.extend(Tid::new(1));
        }
        Self(threads)
    }

    pub(super) fn first(&self) -> Tid {
        self.0[0]
    }

    pub(super) fn contains(&self, thread: Tid) -> bool {
        self.0.binary_search(&thread).is_ok()
    }

    /// The next thread in the order of the ids.
    pub(super) fn after(&self, thread: Tid) -> Option<Tid> {
        let next = self.0.partition_point(|other| *other <= thread);
        self.0.get(next).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Tid> + '_ {
        self.0.iter().copied()
    }
}

impl Core {
    /// The guest has other threads now. A selection of a thread that is gone goes to the first thread, or to all.
    pub(super) fn set_threads(&mut self, threads: Vec<Tid>) {
        let before = std::mem::replace(&mut self.threads, Threads::new(threads));
        if let Guest::NonStop(non_stop) = &mut self.guest {
            non_stop.set_threads(&before, &self.threads);
        }
        let first = self.threads.first();
        for selected in [&mut self.current, &mut self.interrupt_thread] {
            if !self.threads.contains(*selected) {
                *selected = first;
            }
        }
        if let ThreadSelector::One(thread) = self.resumed
            && !self.threads.contains(thread)
        {
            self.resumed = ThreadSelector::All;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_walked_in_order_over_gaps_and_there_is_always_one() {
        let tid = |id| Tid::new(id).unwrap();
        let threads = Threads::new([7, 1, 3].map(tid).to_vec());
        assert_eq!(threads.iter().map(Tid::get).collect::<Vec<_>>(), [1, 3, 7]);
        assert_eq!(threads.after(tid(1)), Some(tid(3)));
        assert_eq!(threads.after(tid(4)), Some(tid(7)));
        assert_eq!(threads.after(tid(7)), None);
        assert!(threads.contains(tid(3)) && !threads.contains(tid(2)));
        assert_eq!(Threads::new(Vec::new()).first(), tid(1));
    }
}
