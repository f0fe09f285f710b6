//! The time of one VM: [`GuestTime`] decides, and the timekeeper reads and sets the clocks that all VPs share.
//!
//! VP threads call the timekeeper before they enter the guest and after they leave it. The lock is held while clocks are set, so that no VP enters before the VM's
//! clocks are correct.

use super::ClockAccess;
use super::Entered;
use super::GuestTime;
use super::Moment;
use super::TscRate;
use super::pit::Pit;
use kvm_bindings::kvm_pit_state2;
use std::fmt::Debug;
use std::io;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::FreezeTime;

/// The clocks that all VPs of a VM share.
pub(crate) trait VmClocks: Debug + Send + Sync {
    /// The host's time-stamp counter.
    fn host_tsc(&self) -> u64;

    /// The host's time-stamp counter and the guest's kvmclock at one moment.
    fn now(&self) -> Moment;

    /// Sets the guest's kvmclock, in ns.
    ///
    /// # Errors
    /// The error of the hypervisor.
    fn set_kvmclock(&self, ns: u64) -> io::Result<()>;

    /// The state of the PIT. `None` if the hypervisor has none.
    fn pit(&self) -> Option<kvm_pit_state2>;

    /// Sets the state of the PIT.
    ///
    /// # Errors
    /// The error of the hypervisor.
    fn set_pit(&self, state: &kvm_pit_state2) -> io::Result<()>;

    /// Raises the PIT's interrupt once.
    ///
    /// # Errors
    /// The error of the hypervisor.
    fn tick_pit(&self) -> io::Result<()>;
}

/// The clocks that the VPs of one VM share.
#[derive(Debug)]
pub(crate) struct Timekeeper {
    clocks: Box<dyn VmClocks>,
    rate: Result<TscRate, DebugError>,
    state: Mutex<State>,
    /// The number of local timers whose count must be written back before any VP enters.
    counters: AtomicU32,
}

#[derive(Debug)]
struct State {
    time: GuestTime,
    pit: Pit,
    reset_at: u64,
}

impl Timekeeper {
    /// The timekeeper of a VM that is stopped. `rate` is the rate of the guest's time-stamp counter, or why this host cannot set the counter back.
    pub(crate) fn new(
        clocks: Box<dyn VmClocks>,
        wanted: FreezeTime,
        rate: Result<TscRate, DebugError>,
    ) -> Self {
        let freeze = match &rate {
            Ok(_) => wanted,
            Err(_) => FreezeTime::Off,
        };
        let time = GuestTime::new(freeze, clocks.now());
        Self {
            clocks,
            rate,
            state: Mutex::new(State {
                time,
                pit: Pit::default(),
                reset_at: 0,
            }),
            counters: AtomicU32::new(0),
        }
    }

    /// For a unit test whose VPs have no clocks.
    #[cfg(test)]
    pub(crate) fn without_clocks() -> Self {
        let clocks = Box::new(super::fake_clocks::FakeClocks::default());
        let rate = Err(vmm_core_defs::debug_rpc::Unsupported::ClockRateUnknown.into());
        Self::new(clocks, FreezeTime::Off, rate)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the duration of a stop is taken out of the guest's clocks.
    pub(crate) fn freeze(&self) -> FreezeTime {
        self.state().time.freeze()
    }

    /// Sets whether the duration of a stop is taken out, from the end of the present stop on.
    ///
    /// # Errors
    /// [`DebugError::Unsupported`] if this host cannot set the clocks back.
    pub(crate) fn set_freeze(&self, freeze: FreezeTime) -> Result<(), DebugError> {
        if freeze == FreezeTime::On {
            self.rate.clone()?;
        }
        self.state().time.set_freeze(freeze);
        Ok(())
    }

    /// A VP is about to enter. Returns how many ticks were taken out of the time-stamp counter so far.
    pub(crate) fn enter(&self, access: ClockAccess) -> u64 {
        let mut state = self.state();
        let now = self.clocks.host_tsc();
        match state.time.enter(now, access) {
            Entered::AsTheyAre | Entered::Passed => {}
            Entered::Resumed { stood, ran } => {
                if let (Some(clock), Ok(rate)) = (stood.kvmclock, &self.rate) {
                    let clock = clock.saturating_add(rate.ns(ran));
                    let late = self.put_back_kvmclock(clock, *rate, now);
                    state.time.set_late_by(late);
                }
            }
        }
        self.start_pit(&mut state);
        state.time.taken_out()
    }

    /// Sets kvmclock to `clock`. Returns how many ticks after `now` the clock had this value.
    ///
    /// The time-stamp counter has to continue from the same moment. Linux stops using a counter that differs from kvmclock by more than 125 us in half a second
    /// (`CONFIG_CLOCKSOURCE_WATCHDOG_MAX_SKEW_US`). Many stops, or one stop in which this thread is preempted, could add up to this difference.
    fn put_back_kvmclock(&self, clock: u64, rate: TscRate, now: u64) -> u64 {
        if let Err(err) = self.clocks.set_kvmclock(clock) {
            tracing::error!(error = %err, "kvmclock could not be put back");
            return 0;
        }
        let then = self.clocks.now();
        then.kvmclock.map_or(0, |kvmclock| {
            let since = rate.ticks(kvmclock.saturating_sub(clock));
            then.tsc.saturating_sub(since).saturating_sub(now)
        })
    }

    /// A VP has left the guest.
    pub(crate) fn leave(&self) {
        let now = || match &self.rate {
            Ok(_) => self.clocks.now(),
            Err(_) => Moment {
                tsc: self.clocks.host_tsc(),
                kvmclock: None,
            },
        };
        self.state().time.leave(now, || self.clocks.host_tsc());
    }

    /// The ticks that would have been taken out of the time-stamp counter if the present stop ended now.
    pub(crate) fn taken_out_now(&self) -> u64 {
        self.state().time.taken_out_by(self.clocks.host_tsc())
    }

    /// How long every VP has been out of the guest, in ns. `None` if a VP is in the guest, or if time is not frozen.
    pub(crate) fn standing_ns(&self) -> Option<u64> {
        let rate = self.rate.as_ref().ok()?;
        let time = &self.state().time;
        match time.freeze() {
            FreezeTime::On => time
                .standing_for(self.clocks.host_tsc())
                .map(|ticks| rate.ns(ticks)),
            FreezeTime::Off => None,
        }
    }

    /// Whether freezing is on, and this host can set the guest's clocks back.
    pub(crate) fn freezes(&self) -> bool {
        self.rate.is_ok() && self.freeze() == FreezeTime::On
    }

    /// Nanoseconds as ticks of the counter.
    pub(crate) fn ticks(&self, ns: u64) -> u64 {
        self.rate.as_ref().map_or(0, |rate| rate.ticks(ns))
    }

    /// Holds the PIT, in a long stop.
    pub(crate) fn hold_pit(&self) {
        let mut state = self.state();
        if state.time.standing_for(0).is_none() {
            return;
        }
        // This VM has no PIT in KVM.
        let still = self.clocks.pit().and_then(|now| state.pit.hold(now));
        if let Some(still) = still
            && let Err(err) = self.clocks.set_pit(&still)
        {
            tracing::error!(error = %err, "the PIT could not be held");
        }
    }

    fn start_pit(&self, state: &mut State) {
        let Ok(rate) = &self.rate else {
            return;
        };
        let guest = self.clocks.host_tsc().wrapping_sub(state.time.taken_out());
        let Some(restart) = state.pit.release(rate.ns(guest)) else {
            return;
        };
        let started = self
            .clocks
            .set_pit(&restart.state)
            .and_then(|()| match restart.tick {
                true => self.clocks.tick_pit(),
                false => Ok(()),
            });
        if let Err(err) = started {
            tracing::error!(error = %err, "the PIT could not be started again");
        }
    }

    /// Releases the PIT before the machine is reset, because the VMM expects the devices in the state in which the guest left them.
    pub(crate) fn before_reset(&self) {
        let mut state = self.state();
        self.start_pit(&mut state);
        state.pit.forget();
        state.reset_at = state.time.taken_out_by(self.clocks.host_tsc());
    }

    /// The ticks that would have been taken out if the stop had ended at the last reset. All VPs use this value, so that their counters stay equal.
    pub(crate) fn reset_at(&self) -> u64 {
        self.state().reset_at
    }

    /// A VP has read the count of its local timer to keep it, or has written the count back.
    pub(crate) fn note_counter(&self, kept: Counter) {
        match kept {
            Counter::Kept => self.counters.fetch_add(1, Ordering::Relaxed),
            Counter::WrittenBack => self.counters.fetch_sub(1, Ordering::Relaxed),
        };
    }

    /// Whether any VP keeps the count of its local timer.
    pub(crate) fn has_counters(&self) -> bool {
        self.counters.load(Ordering::Relaxed) != 0
    }
}

/// Whether a VP keeps the count of its local timer, or has written it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counter {
    Kept,
    WrittenBack,
}
