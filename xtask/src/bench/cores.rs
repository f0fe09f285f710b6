//! Which cores the floor is measured on.
//!
//! Two processes that take turns run now on one core and now on two, as the kernel has it. On one, a round trip is two context switches, a third of
//! what it is on two, where each has to wake the other's core. A debug server has threads that run beside the client, so its floor is the one on two.

use rustix::thread::CpuSet;
use rustix::thread::sched_getaffinity;
use rustix::thread::sched_setaffinity;

/// This thread is on the first core it may use as long as this lives.
pub struct OnFirst(CpuSet);

impl OnFirst {
    /// Goes there.
    pub fn go() -> anyhow::Result<Self> {
        let before = sched_getaffinity(None)?;
        stay_on(allowed(&before).next())?;
        Ok(Self(before))
    }
}

impl Drop for OnFirst {
    fn drop(&mut self) {
        // Where it cannot go back it stays: a floor is no worse for that.
        let _ = sched_setaffinity(None, &self.0);
    }
}

/// This thread stays on the last core that it may use: another than the first, where there are two.
pub fn stay_on_last() -> anyhow::Result<()> {
    stay_on(allowed(&sched_getaffinity(None)?).last())
}

fn allowed(cores: &CpuSet) -> impl Iterator<Item = usize> {
    (0..CpuSet::MAX_CPU).filter(|core| cores.is_set(*core))
}

fn stay_on(core: Option<usize>) -> anyhow::Result<()> {
    let mut only = CpuSet::new();
    only.set(core.unwrap_or(0));
    Ok(sched_setaffinity(None, &only)?)
}
