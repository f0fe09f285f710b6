//! The PIT's periodic tick over a stop. Pure.
//!
//! `KVM_SET_PIT2` restarts the period of channel 0. The phase can be neither set nor read. So a guest that is stopped more often than its timer ticks would
//! get no ticks. This module therefore adds up the parts of the period that the guest has run, and injects a tick when they make a whole period.

use kvm_bindings::kvm_pit_state2;

const HZ: u64 = 1_193_182;
/// KVM's own limit (`min_timer_period_us`).
const SHORTEST_NS: u64 = 200_000;
/// A mode in which channel 0 has no timer in KVM.
const STILL: u8 = 5;

/// The PIT during a stop, and the phase of its period between stops.
#[derive(Debug, Default)]
pub(crate) struct Pit {
    held: Option<kvm_pit_state2>,
    phase: Option<Phase>,
}

/// The phase of channel 0, in guest time.
#[derive(Debug, Clone, Copy)]
struct Phase {
    period: u64,
    /// The time since the last tick, at the moment at which the timer was last started.
    kept: u64,
    /// This moment.
    started: u64,
}

/// The changes when the guest continues.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Restart {
    /// The state for `KVM_SET_PIT2`.
    pub(crate) state: kvm_pit_state2,
    /// Whether a tick is due.
    pub(crate) tick: bool,
}

impl Pit {
    /// Keeps the PIT's state, and returns a state without ticks for KVM. `None` if channel 0 has no periodic timer, or is held already.
    pub(crate) fn hold(&mut self, state: kvm_pit_state2) -> Option<kvm_pit_state2> {
        period(&state)?;
        if self.held.is_some() {
            return None;
        }
        self.held = Some(state);
        let mut still = state;
        still.channels[0].mode = STILL;
        Some(still)
    }

    /// The machine was reset, so the kept state is dropped.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// The guest continues. `guest_now` is the guest time in ns.
    pub(crate) fn release(&mut self, guest_now: u64) -> Option<Restart> {
        let state = self.held.take()?;
        let period = period(&state)?;
        let known = self.phase.filter(|phase| phase.period == period);
        let gone = known.map_or(0, |phase| {
            phase.kept + guest_now.saturating_sub(phase.started) % period
        });
        self.phase = Some(Phase {
            period,
            kept: gone % period,
            started: guest_now,
        });
        let tick = gone >= period;
        Some(Restart { state, tick })
    }
}

/// Channel 0's period in ns, in the two modes that have one.
fn period(state: &kvm_pit_state2) -> Option<u64> {
    let channel = &state.channels[0];
    let count = match channel.count {
        0 => 0x1_0000,
        count => u64::from(count),
    };
    matches!(channel.mode, 2 | 3).then(|| (count * 1_000_000_000 / HZ).max(SHORTEST_NS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mode: u8, count: u32) -> kvm_pit_state2 {
        let mut state = kvm_pit_state2::default();
        state.channels[0].mode = mode;
        state.channels[0].count = count;
        state
    }

    #[test]
    fn it_is_still_while_held_and_as_it_was_afterwards() {
        let mut pit = Pit::default();
        let before = at(2, 1193);
        let still = pit.hold(before).expect("it ticks");
        assert_eq!((still.channels[0].mode, still.channels[0].count), (5, 1193));
        assert!(pit.hold(still).is_none(), "held once");
        let restart = pit.release(0).expect("it was held");
        assert_eq!(restart.state, before);
        assert!(pit.release(0).is_none());
    }

    #[test]
    fn a_timer_that_fires_once_is_left_alone() {
        for mode in [0, 1, 4, 5, 0xff] {
            assert!(Pit::default().hold(at(mode, 1193)).is_none(), "{mode}");
        }
    }

    #[test]
    fn runs_shorter_than_a_period_add_up_to_its_ticks() {
        let mut pit = Pit::default();
        let state = at(2, 1193);
        let period = period(&state).unwrap();
        let (mut guest, mut ticks, mut by_timer) = (0, 0, 0);
        for stop in 0..1000_u64 {
            let ran = stop * 7919 % (period * 3 / 2);
            by_timer += ran / period;
            guest += ran;
            pit.hold(state).expect("it ticks");
            ticks += u64::from(pit.release(guest).expect("it was held").tick);
        }
        let all = ticks + by_timer;
        assert!(
            (guest / period).abs_diff(all) <= 1,
            "{all} of {}",
            guest / period
        );
        assert!(ticks > 300, "it was to matter");
    }

    #[test]
    fn another_period_begins_anew() {
        let mut pit = Pit::default();
        pit.hold(at(2, 1193));
        pit.release(0);
        pit.hold(at(2, 1193));
        assert!(!pit.release(900_000).expect("held").tick);
        pit.hold(at(3, 2386));
        assert!(!pit.release(2_500_000).expect("held").tick);
        pit.forget();
        assert!(pit.release(0).is_none());
    }
}
