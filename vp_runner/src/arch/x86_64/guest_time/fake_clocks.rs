//! The clocks of a VM for unit tests: a host's counter that a test moves, and no other clock.

use super::Moment;
use super::timekeeper::VmClocks;
use kvm_bindings::kvm_pit_state2;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct FakeClocks(Arc<AtomicU64>);

impl FakeClocks {
    pub(crate) fn pass(&self, ticks: u64) {
        self.0.fetch_add(ticks, Ordering::Relaxed);
    }
}

impl VmClocks for FakeClocks {
    fn host_tsc(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn now(&self) -> Moment {
        Moment {
            tsc: self.host_tsc(),
            kvmclock: None,
        }
    }

    fn set_kvmclock(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn pit(&self) -> Option<kvm_pit_state2> {
        None
    }

    fn set_pit(&self, _: &kvm_pit_state2) -> io::Result<()> {
        Ok(())
    }

    fn tick_pit(&self) -> io::Result<()> {
        Ok(())
    }
}
