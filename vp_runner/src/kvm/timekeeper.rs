//! The time of one VM in KVM: `guest_time` decides, this reads and sets the clocks.
//!
//! VP threads call it on their way into the guest and out of it; the clocks that belong to one vCPU are `vp_thread`'s. The lock is held over the
//! ioctls, so that no VP enters before the VM's clocks are set.

use crate::arch::x86_64::guest_time::Entered;
use crate::arch::x86_64::guest_time::GuestTime;
use crate::arch::x86_64::guest_time::Look;
use crate::arch::x86_64::guest_time::Moment;
use crate::arch::x86_64::guest_time::TscRate;
use crate::arch::x86_64::guest_time::pit::Pit;
use crate::kvm::x86_64::clocks;
use crate::kvm::x86_64::clocks::BothClocks;
use crate::kvm::x86_64::clocks::TscOffsets;
use crate::kvm::x86_64::clocks::host_tsc;
use crate::probe::Report;
use kvm_ioctls::VcpuFd;
use kvm_ioctls::VmFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use vmm_core_defs::capability::CapabilityKind;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::FreezeTime;
use vmm_core_defs::debug_rpc::Unsupported;

/// The PIT's interrupt line.
const PIT_LINE: u32 = 0;

/// The clocks that all VPs share.
#[derive(Debug)]
pub(crate) struct Timekeeper {
    vm: Arc<VmFd>,
    rate: Result<TscRate, DebugError>,
    state: Mutex<State>,
    /// Local timers whose count is to be written back before any VP enters.
    counters: AtomicU32,
}

#[derive(Debug)]
struct State {
    time: GuestTime,
    pit: Pit,
    reset_at: u64,
}

impl Timekeeper {
    /// For a VM whose guest stands since now. `vcpu` is any of its vCPUs. What the probe has not seen to work is not relied on.
    pub(crate) fn new(
        vm: Arc<VmFd>,
        vcpu: &VcpuFd,
        wanted: FreezeTime,
        report: Option<&Report>,
    ) -> Self {
        let rate = rate(vcpu, report);
        let freeze = match &rate {
            Ok(_) => wanted,
            Err(err) => {
                if wanted == FreezeTime::On && report.is_some() {
                    tracing::info!(error = %err, "the guest's clocks go on while it is stopped");
                }
                FreezeTime::Off
            }
        };
        let time = GuestTime::new(freeze, moment(&vm));
        Self {
            vm,
            rate,
            state: Mutex::new(State {
                time,
                pit: Pit::default(),
                reset_at: 0,
            }),
            counters: AtomicU32::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether stops are taken out.
    pub(crate) fn freeze(&self) -> FreezeTime {
        self.state().time.freeze()
    }

    /// From the end of the present stop on.
    ///
    /// # Errors
    /// [`DebugError::Unsupported`] where this host cannot.
    pub(crate) fn set_freeze(&self, freeze: FreezeTime) -> Result<(), DebugError> {
        if freeze == FreezeTime::On {
            self.rate.clone()?;
        }
        self.state().time.set_freeze(freeze);
        Ok(())
    }

    /// A VP is about to enter. Says what has been taken out of the time-stamp counter so far.
    pub(crate) fn enter(&self, look: Look) -> u64 {
        let mut state = self.state();
        let now = host_tsc();
        match state.time.enter(now, look) {
            Entered::AsTheyAre | Entered::Passed => {}
            Entered::Thawed { stood, ran } => {
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

    /// Sets kvmclock. Returns by how many ticks later than `now` it was `clock`.
    ///
    /// The time-stamp counter has to go on from that very moment: Linux gives up a counter that kvmclock runs ahead of, or behind, by more than
    /// 125 us in half a second (`CONFIG_CLOCKSOURCE_WATCHDOG_MAX_SKEW_US`), which many stops add up to, and one in which this thread is preempted.
    fn put_back_kvmclock(&self, clock: u64, rate: TscRate, now: u64) -> u64 {
        if let Err(err) = clocks::set_kvmclock(&self.vm, clock) {
            tracing::error!(error = %err, "kvmclock could not be put back");
            return 0;
        }
        BothClocks::look(&self.vm).map_or(0, |both| {
            let since = rate.ticks(both.kvmclock.saturating_sub(clock));
            both.host_tsc.saturating_sub(since).saturating_sub(now)
        })
    }

    /// A VP has left the guest.
    pub(crate) fn leave(&self) {
        let both = || match &self.rate {
            Ok(_) => moment(&self.vm),
            Err(_) => Moment {
                tsc: host_tsc(),
                kvmclock: None,
            },
        };
        self.state().time.leave(both, host_tsc);
    }

    /// What would have been taken out of the time-stamp counter if the present stop ended now.
    pub(crate) fn taken_out_now(&self) -> u64 {
        self.state().time.taken_out_by(host_tsc())
    }

    /// How long every VP has been out of the guest, in ns. `None`: one is inside, or time is not frozen.
    pub(crate) fn standing_ns(&self) -> Option<u64> {
        let rate = self.rate.as_ref().ok()?;
        let time = &self.state().time;
        match time.freeze() {
            FreezeTime::On => time.standing_for(host_tsc()).map(|ticks| rate.ns(ticks)),
            FreezeTime::Off => None,
        }
    }

    /// Whether this host lets the guest's clocks be put back, and it is wanted.
    pub(crate) fn freezes(&self) -> bool {
        self.rate.is_ok() && self.freeze() == FreezeTime::On
    }

    /// Time as ticks of the counter.
    pub(crate) fn ticks(&self, ns: u64) -> u64 {
        self.rate.as_ref().map_or(0, |rate| rate.ticks(ns))
    }

    /// A stop that lasts: holds the PIT.
    pub(crate) fn hold_pit(&self) {
        let mut state = self.state();
        if state.time.standing_for(0).is_none() {
            return;
        }
        // A VM without a PIT in KVM has none to hold.
        let still = self.vm.get_pit2().ok().and_then(|now| state.pit.hold(now));
        if let Some(still) = still
            && let Err(err) = self.vm.set_pit2(&still)
        {
            tracing::error!(error = %err, "the PIT could not be held");
        }
    }

    fn start_pit(&self, state: &mut State) {
        let Ok(rate) = &self.rate else {
            return;
        };
        let guest = host_tsc().wrapping_sub(state.time.taken_out());
        let Some(restart) = state.pit.release(rate.ns(guest)) else {
            return;
        };
        let started = self.vm.set_pit2(&restart.state).and_then(|()| {
            if restart.tick {
                self.vm.set_irq_line(PIT_LINE, true)?;
                self.vm.set_irq_line(PIT_LINE, false)?;
            }
            Ok(())
        });
        if let Err(err) = started {
            tracing::error!(error = %err, "the PIT could not be started again");
        }
    }

    /// The machine is about to be reset, and its devices are to be found as the guest left them.
    pub(crate) fn before_reset(&self) {
        let mut state = self.state();
        self.start_pit(&mut state);
        state.pit.forget();
        state.reset_at = state.time.taken_out_by(host_tsc());
    }

    /// What would have been taken out if the stop had ended at the last reset: one value for all VPs, whose counters stay alike.
    pub(crate) fn reset_at(&self) -> u64 {
        self.state().reset_at
    }

    /// A VP keeps the count of its local timer, or has written it back.
    pub(crate) fn note_counter(&self, kept: Counter) {
        match kept {
            Counter::Kept => self.counters.fetch_add(1, Ordering::Relaxed),
            Counter::WrittenBack => self.counters.fetch_sub(1, Ordering::Relaxed),
        };
    }

    /// Whether any does.
    pub(crate) fn has_counters(&self) -> bool {
        self.counters.load(Ordering::Relaxed) != 0
    }
}

/// The host's counter, and kvmclock where there is one.
fn moment(vm: &VmFd) -> Moment {
    BothClocks::look(vm).map_or_else(
        || Moment {
            tsc: host_tsc(),
            kvmclock: None,
        },
        |both| Moment {
            tsc: both.host_tsc,
            kvmclock: Some(both.kvmclock),
        },
    )
}

/// What a VP did with the count of its local timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counter {
    Kept,
    WrittenBack,
}

/// How fast the guest's counter counts, where it can be put back.
fn rate(vcpu: &VcpuFd, report: Option<&Report>) -> Result<TscRate, DebugError> {
    let report = report.ok_or(Unsupported::NotProbed(CapabilityKind::FrozenTime))?;
    if let Some(missing) = report.capabilities().missing(CapabilityKind::FrozenTime) {
        return Err(Unsupported::Host(missing.clone()).into());
    }
    if TscOffsets::of(vcpu) != TscOffsets::Settable {
        return Err(Unsupported::ClockRateSet.into());
    }
    let khz = vcpu.get_tsc_khz().unwrap_or_default();
    let rate = TscRate::from_khz(khz).ok_or(Unsupported::ClockRateUnknown)?;
    Ok(rate)
}
