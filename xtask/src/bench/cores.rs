//! Chooses the cores on which the floor is measured.
//!
//! The kernel places two processes that take turns sometimes on one core and sometimes on two. On one core, a round trip costs two context switches. On two cores it
//! takes three times as long, because each process has to wake the core of the other. A debug server has threads that run beside the client, so its floor is the round trip on two cores.

use rustix::thread::CpuSet;
use rustix::thread::sched_getaffinity;
use rustix::thread::sched_setaffinity;

/// A core that the calling thread may use.
#[derive(Clone, Copy)]
pub(super) enum Core {
    First,
    /// The last core, which is not the first one if the thread may use two.
    Last,
}

/// Binds this thread to one core until the value is dropped.
pub(super) struct Pinned(CpuSet);

impl Pinned {
    /// Binds the calling thread to the core.
    pub(super) fn to(core: Core) -> anyhow::Result<Self> {
        let before = sched_getaffinity(None)?;
        let mut allowed = (0..CpuSet::MAX_CPU).filter(|core| before.is_set(*core));
        let number = match core {
            Core::First => allowed.next(),
            Core::Last => allowed.next_back(),
        };
        let mut only = CpuSet::new();
        only.set(number.unwrap_or(0));
        sched_setaffinity(None, &only)?;
        Ok(Self(before))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // If the thread cannot be released, it stays on this core. The floor does not become worse.
        let _ = sched_setaffinity(None, &self.0);
    }
}
