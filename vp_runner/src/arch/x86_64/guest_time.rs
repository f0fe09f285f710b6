//! How long the guest stood still, and what is to be taken out of its clocks for it. Pure: no clock is read or set here.
//!
//! Guest time flows while any VP is in the guest, and stands from the moment the last one leaves it until the next one enters. What a stop took
//! is taken out when it ends, whole, and never later: a guest that has seen its clock once must never see it go back.
//!
//! ```text
//!             the first VP enters: Entered::Resumed
//!   Standing --------------------------------------> Flowing
//!      |  ^                                             |
//!      |  +---------------------------------------------+
//!      |           the last VP leaves
//!      +-- a VP that cannot look at a clock enters and leaves: what it ran is kept, the rest of the stop goes on
//! ```
//!
//! Setting clocks costs more than a step does. A single instruction that reads no clock cannot see that they are wrong, so a series of such steps is
//! one long stop: the time that the instructions themselves ran is the guest's, and everything between them is taken out at its end, exactly.

pub(crate) mod apic_timer;
pub(crate) mod clock_code;
#[cfg(test)]
pub(crate) mod fake_clocks;
pub(crate) mod pit;
pub(crate) mod timekeeper;

use vmm_core_defs::debug_rpc::FreezeTime;

/// When the guest came to stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    /// The host's time-stamp counter.
    pub(crate) tsc: u64,
    /// What `KVM_GET_CLOCK` said, in ns, where it said something.
    pub(crate) kvmclock: Option<u64>,
}

/// Whether a VP that enters could look at a clock before it stops again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClockAccess {
    /// It could.
    Possible,
    /// It executes one instruction, which reads no clock.
    Impossible,
}

/// What an entry means for the VM's clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entered {
    /// Nothing is to be set.
    AsTheyAre,
    /// The stop ends here; nothing is taken out, by choice.
    Passed,
    /// The stop ends here: the clocks go on from where they stood.
    Resumed {
        /// When they came to stand.
        stood: Moment,
        /// What the guest ran since, in ticks of the time-stamp counter.
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
        /// VPs in the guest that cannot look at a clock, and since when there are any.
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

    /// In force from the end of the present stop on.
    pub(crate) fn set_freeze(&mut self, freeze: FreezeTime) {
        self.freeze = freeze;
    }

    /// What has been taken out of the time-stamp counter so far, in its ticks.
    pub(crate) fn taken_out(&self) -> u64 {
        self.taken_out
    }

    /// What would have been, if the present stop ended now.
    pub(crate) fn taken_out_by(&self, now: u64) -> u64 {
        match (&self.flow, self.freeze) {
            (Flow::Standing { .. }, FreezeTime::On) => {
                self.taken_out.wrapping_add(self.flow.stood_for(now))
            }
            _ => self.taken_out,
        }
    }

    /// How long the present stop has lasted, in ticks. `None`: some VP is in the guest.
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

    /// The clocks were set so many ticks after the entry that ended the stop, and go on from then.
    pub(crate) fn set_late_by(&mut self, ticks: u64) {
        self.taken_out = self.taken_out.wrapping_add(ticks);
    }

    /// A VP has left the guest. The clocks are looked at by the last one only, and kvmclock where the guest could have looked at it.
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

    /// What of the time since the stop began is not the guest's.
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

/// How fast the host's time-stamp counter counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TscRate {
    /// In kHz, as `KVM_GET_TSC_KHZ` gives it; never 0.
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
