//! The order in which vCPUs register. A debugger numbers vCPUs by this order, and the threads of a VMM begin in any order, so a thread waits a moment for those
//! whose vCPUs were created before its own.

use crate::tracker::Vcpu;
use std::collections::VecDeque;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

/// A VMM may run its first vCPU much later, or never: the others do not wait longer.
const LIMIT: Duration = Duration::from_millis(100);

/// The vCPUs that were created and have not registered yet, in the order of their creation.
#[derive(Default)]
pub(super) struct VcpuOrder {
    expected: Mutex<VecDeque<Vcpu>>,
    changed: Condvar,
}

impl VcpuOrder {
    fn expected(&self) -> MutexGuard<'_, VecDeque<Vcpu>> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The vCPU was created.
    pub(super) fn expect(&self, vcpu: Vcpu) {
        self.expected().push_back(vcpu);
    }

    /// Waits until no vCPU is expected before this one, or for the limit.
    pub(super) fn wait_for_turn(&self, vcpu: Vcpu) {
        let others_first = |expected: &mut VecDeque<Vcpu>| {
            expected.contains(&vcpu) && expected.front() != Some(&vcpu)
        };
        drop(
            self.changed
                .wait_timeout_while(self.expected(), LIMIT, others_first),
        );
    }

    /// The vCPU has registered, or failed to.
    pub(super) fn has_come(&self, vcpu: Vcpu) {
        self.expected().retain(|other| *other != vcpu);
        self.changed.notify_all();
    }
}
