//! The duration of stops, and how far the guest's clocks are set back for them. Pure: no clock is read or set here.
//!
//! Guest time flows while any VP is in the guest. It stands from the moment at which the last VP leaves the guest until the next VP enters. The whole duration
//! of a stop is taken out of the clocks when the stop ends, and never later, because a guest that has read its clock must never see the clock go back.
//!
//! ```text
//!             the first VP enters: Entered::Resumed
//!   Standing --------------------------------------> Flowing
//!      |  ^                                             |
//!      |  +---------------------------------------------+
//!      |           the last VP leaves
//!      +-- a VP that cannot read a clock enters and leaves: the time that it ran counts as guest time, and the stop continues
//! ```
//!
//! Setting the clocks takes longer than a step. A single instruction that reads no clock cannot detect that the clocks are wrong. So a series of such steps is
//! one long stop: the time in which the instructions ran is guest time, and all time between them is taken out when the stop ends.

pub(crate) mod apic_timer;
pub(crate) mod clock_code;
#[cfg(test)]
pub(crate) mod fake_clocks;
pub(crate) mod pit;
pub(crate) mod timekeeper;

use vmm_core_defs::debug_rpc::FreezeTime;

/// The moment at which a stop began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    /// The host's time-stamp counter.
    pub(crate) tsc: u64,
    /// The guest's kvmclock in ns, if `KVM_GET_CLOCK` returned it.
    pub(crate) kvmclock: Option<u64>,
}

/// Whether a VP that enters may read a clock before it stops again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClockAccess {
    /// The VP may execute any instruction.
    Possible,
    /// The VP executes one instruction, which reads no clock.
    Impossible,
}

/// The effect of an entry on the VM's clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entered {
    /// The clocks need no change.
    AsTheyAre,
    /// The stop ends here. No time is taken out, because freezing is off.
    Passed,
    /// The stop ends here. The clocks continue from the moment at which the stop began.
    Resumed {
        /// The moment at which the stop began.
        stood: Moment,
        /// The guest time since then, in ticks of the time-stamp counter.
        ran: u64,
    },
}

/// The time of one VM.
#[derive(Debug)]
pub(crate) struct GuestTime {
    freeze: FreezeTime,
    flow: Flow,
    taken_out: u64,
}

#[derive(Debug)]
enum Flow {
    Flowing {
        vps: u32,
    },
    Standing {
        stood: Moment,
        ran: u64,
        /// The number of VPs in the guest that cannot read a clock, and the time since which there are any.
        clockless: u32,
        clockless_since: u64,
    },
}

impl GuestTime {
    /// A guest that has not run.
    pub(crate) fn new(freeze: FreezeTime, now: Moment) -> Self {
        Self {
            freeze,
            flow: Flow::standing(now),
            taken_out: 0,
        }
    }

    pub(crate) fn freeze(&self) -> FreezeTime {
        self.freeze
    }

    /// Sets whether time is frozen, from the end of the present stop on.
    pub(crate) fn set_freeze(&mut self, freeze: FreezeTime) {
        self.freeze = freeze;
    }

    /// The ticks that were taken out of the time-stamp counter so far.
    pub(crate) fn taken_out(&self) -> u64 {
        self.taken_out
    }

    /// The ticks that would have been taken out if the present stop ended now.
    pub(crate) fn taken_out_by(&self, now: u64) -> u64 {
        match (&self.flow, self.freeze) {
            (Flow::Standing { .. }, FreezeTime::On) => {
                self.taken_out.wrapping_add(self.flow.stood_for(now))
            }
            _ => self.taken_out,
        }
    }

    /// The duration of the present stop, in ticks. `None` if a VP is in the guest.
    pub(crate) fn standing_for(&self, now: u64) -> Option<u64> {
        match self.flow {
            Flow::Standing { clockless: 0, .. } => Some(self.flow.stood_for(now)),
            Flow::Standing { .. } | Flow::Flowing { .. } => None,
        }
    }

    /// A VP is about to enter the guest.
    pub(crate) fn enter(&mut self, now: u64, look: ClockAccess) -> Entered {
        let stood_for = self.flow.stood_for(now);
        match (&mut self.flow, look) {
            (Flow::Flowing { vps }, _) => {
                *vps += 1;
                Entered::AsTheyAre
            }
            (
                Flow::Standing {
                    clockless,
                    clockless_since,
                    ..
                },
                ClockAccess::Impossible,
            ) => {
                if *clockless == 0 {
                    *clockless_since = now;
                }
                *clockless += 1;
                Entered::AsTheyAre
            }
            (
                Flow::Standing {
                    stood,
                    ran,
                    clockless,
                    clockless_since,
                },
                ClockAccess::Possible,
            ) => {
                let stood = *stood;
                let ran = match *clockless {
                    0 => *ran,
                    _ => *ran + now.saturating_sub(*clockless_since),
                };
                self.flow = Flow::Flowing {
                    vps: *clockless + 1,
                };
                match self.freeze {
                    FreezeTime::Off => Entered::Passed,
                    FreezeTime::On => {
                        self.taken_out = self.taken_out.wrapping_add(stood_for);
                        Entered::Resumed { stood, ran }
                    }
                }
            }
        }
    }

    /// The clocks were set `ticks` after the entry that ended the stop, so the stop was longer by `ticks`.
    pub(crate) fn set_late_by(&mut self, ticks: u64) {
        self.taken_out = self.taken_out.wrapping_add(ticks);
    }

    /// A VP has left the guest. The clocks are read only after the last VP has left, and kvmclock only if the guest may have read it.
    pub(crate) fn leave(&mut self, both: impl FnOnce() -> Moment, tsc: impl FnOnce() -> u64) {
        match &mut self.flow {
            Flow::Flowing { vps } => {
                *vps = vps.saturating_sub(1);
                if *vps == 0 {
                    self.flow = Flow::standing(both());
                }
            }
            Flow::Standing {
                ran,
                clockless,
                clockless_since,
                ..
            } => {
                *clockless = clockless.saturating_sub(1);
                if *clockless == 0 {
                    *ran += tsc().saturating_sub(*clockless_since);
                }
            }
        }
    }
}

impl Flow {
    fn standing(stood: Moment) -> Self {
        Self::Standing {
            stood,
            ran: 0,
            clockless: 0,
            clockless_since: 0,
        }
    }

    /// The time since the stop began that is not guest time.
    fn stood_for(&self, now: u64) -> u64 {
        match *self {
            Self::Flowing { .. } => 0,
            Self::Standing {
                stood,
                ran,
                clockless,
                clockless_since,
            } => {
                let inside = match clockless {
                    0 => 0,
                    _ => now.saturating_sub(clockless_since),
                };
                now.saturating_sub(stood.tsc)
                    .saturating_sub(ran)
                    .saturating_sub(inside)
            }
        }
    }
}

/// The rate of the host's time-stamp counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TscRate {
    /// In kHz, as `KVM_GET_TSC_KHZ` returns it; never 0.
    khz: u32,
}

impl TscRate {
    /// `None` for 0.
    pub(crate) fn from_khz(khz: u32) -> Option<Self> {
        (khz != 0).then_some(Self { khz })
    }

    /// Ticks as nanoseconds.
    pub(crate) fn ns(self, ticks: u64) -> u64 {
        let ns = u128::from(ticks) * 1_000_000 / u128::from(self.khz);
        u64::try_from(ns).unwrap_or(u64::MAX)
    }

    /// Nanoseconds as ticks.
    pub(crate) fn ticks(self, ns: u64) -> u64 {
        let ticks = u128::from(ns) * u128::from(self.khz) / 1_000_000;
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests;
