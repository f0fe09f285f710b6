//! Telling the guest that it stood still.
//!
//! A Linux guest's soft-lockup watchdog (20 s by default) and its like excuse a pause that the hypervisor tells of (KVM api.rst, `KVM_KVMCLOCK_CTRL`).
//! The ioctl costs more than half a step, so short pauses are added up and told of together, long before a watchdog could bark.

use crate::kvm::vcpu::Vcpu;
use std::time::Duration;
use std::time::Instant;

/// A hundredth of what the strictest watchdog allows.
const TELL_AFTER: Duration = Duration::from_millis(100);

/// How long the VP has stood still without the guest being told.
#[derive(Debug, Default)]
pub(super) struct Pause {
    untold: Duration,
    began: Option<Instant>,
}

impl Pause {
    /// The VP parks.
    pub(super) fn begin(&mut self) {
        self.began = Some(Instant::now());
    }

    /// The VP is about to run.
    pub(super) fn over(&mut self, vcpu: &mut Vcpu) {
        if self.is_due(Instant::now()) {
            vcpu.tell_of_pause();
        }
    }

    fn is_due(&mut self, now: Instant) -> bool {
        if let Some(began) = self.began.take() {
            self.untold += now.saturating_duration_since(began);
        }
        let due = self.untold >= TELL_AFTER;
        if due {
            self.untold = Duration::ZERO;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_pause_is_told_of_and_short_ones_when_they_add_up() {
        let start = Instant::now();
        let mut pause = Pause::default();
        assert!(!pause.is_due(start), "it has not run yet");
        let mut told = 0;
        for step in 1..=1000 {
            pause.began = Some(start);
            told += u32::from(pause.is_due(start + Duration::from_millis(1)));
            assert!(pause.untold < TELL_AFTER, "step {step}");
        }
        assert_eq!(told, 10);
        pause.began = Some(start);
        assert!(pause.is_due(start + Duration::from_secs(60)));
        assert!(!pause.is_due(start + Duration::from_secs(61)), "told once");
    }
}
