//! Which cores the floor is measured on.
//!
//! Two processes that take turns run now on one core and now on two, as the kernel has it. On one, a round trip is two context switches, a third of
//! what it is on two, where each has to wake the other's core. A debug server has threads that run beside the client, so its floor is the one on two.

use rustix::thread::CpuSet;
use rustix::thread::sched_getaffinity;
use rustix::thread::sched_setaffinity;

/// One of the cores that a thread may use.
#[derive(Clone, Copy)]
pub(super) enum Core {
    First,
    /// Another than the first, where there are two.
    Last,
}

/// This thread is on one core as long as this lives.
pub(super) struct Pinned(CpuSet);

impl Pinned {
    /// Goes there.
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
        // Where it cannot go back it stays: a floor is no worse for that.
        let _ = sched_setaffinity(None, &self.0);
    }
}
