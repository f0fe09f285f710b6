//! A VP's own clocks over a stop: its time-stamp counter, its local timer, and the notice to its guest that it was paused.
//!
//! | stop | clocks that the guest reads | the guest's timers |
//! |---|---|---|
//! | any stop that ends with a VP that could read a clock | go on from where they stood | |
//! | shorter than [`HOLD_AFTER`] | | run on, and fire early by as much as the stop took |
//! | longer | | are held, and fire when they are due |
//!
//! A deadline timer that came through many short stops is armed anew when these add up to [`REARM_AFTER`].

mod pause_notice;

use super::vcpu::VcpuClocks;
use crate::arch::x86_64::guest_time::ClockAccess;
use crate::arch::x86_64::guest_time::apic_timer::CountLeft;
use crate::arch::x86_64::guest_time::timekeeper::Counter;
use crate::arch::x86_64::guest_time::timekeeper::Timekeeper;
use pause_notice::PauseNotice;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::FreezeTime;
use vmm_core_defs::regs::x86_64::bits::msr;

/// Holding the timers costs several system calls, so it is done only for a stop that somebody looks at.
pub(crate) const HOLD_AFTER: Duration = Duration::from_millis(5);
/// How early a deadline timer may fire, in ns.
const REARM_AFTER: u64 = 1_000_000;
/// A deadline this near passes while the runner looks at it, in ns.
const TOO_NEAR: u64 = 200_000;

/// The clocks of one VP.
#[derive(Debug)]
pub(super) struct Clocks {
    vp: VpIndex,
    vm: Arc<Timekeeper>,
    /// How many ticks were taken out of the VP's time-stamp counter, of those that the timekeeper has taken out of the VM's.
    taken_out: u64,
    /// How many of these were taken out since the VP's deadline timer was last armed.
    early: u64,
    held: Option<Held>,
    notice: PauseNotice,
}

/// The timers of a VP in a stop that lasts.
#[derive(Debug)]
struct Held {
    /// An armed deadline. The runner has disarmed the timer in KVM, because KVM's timer runs by the host's time.
    deadline: Option<u64>,
    /// What a counting timer had left. KVM counts on, and gets this count when the stop ends.
    count: Option<CountLeft>,
}

/// How much the VP executes before it parks again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// One instruction.
    OneInstruction,
    /// Any number of instructions.
    Open,
}

impl Clocks {
    pub(super) fn new(vp: VpIndex, vm: Arc<Timekeeper>) -> Self {
        Self {
            vp,
            vm,
            taken_out: 0,
            early: 0,
            held: None,
            notice: PauseNotice::default(),
        }
    }

    /// Whether setting the clocks may be left to a later entry, if the next instruction reads no clock. Steps follow each other fast, and setting clocks takes longer
    /// than a step.
    pub(super) fn may_wait(&self) -> bool {
        self.held.is_none() && self.vm.freezes()
    }

    /// The VP is about to run.
    pub(super) fn go_on(
        &mut self,
        access: ClockAccess,
        extent: Extent,
        vcpu: &mut impl VcpuClocks,
    ) {
        let taken_out = self.vm.enter(access);
        if access == ClockAccess::Possible
            && let Err(err) = self.catch_up(taken_out, vcpu)
        {
            tracing::error!(vp = %self.vp, error = %err, "a VP's clocks go on from another time");
        }
        // No guest watchdog can fire within one instruction. The notice before the next run reports the whole pause.
        if extent == Extent::Open && self.notice.is_due(Instant::now()) {
            self.notice.done(vcpu.tell_of_pause());
        }
    }

    /// The VP has left the guest.
    pub(super) fn stand(&mut self) {
        self.vm.leave();
        self.notice.stands(Instant::now());
    }

    /// Whether the timers are held.
    pub(super) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    fn catch_up(&mut self, taken_out: u64, vcpu: &mut impl VcpuClocks) -> Result<(), DebugError> {
        // A stop that was not taken out, because the client turned freezing off, is not made up for.
        let behind = taken_out.saturating_sub(self.taken_out);
        self.taken_out = taken_out;
        self.early += behind;
        let held = self.held.take();
        if held.as_ref().is_some_and(|held| held.count.is_some()) {
            // The timer was held after the controller had asked for the counts. It counts on, and fires early by as much as the stop took.
            self.vm.note_counter(Counter::WrittenBack);
        }
        if behind != 0 {
            let early = self.early > self.vm.ticks(REARM_AFTER);
            let armed = match held {
                None if early => self.armed_deadline(vcpu)?,
                _ => None,
            };
            vcpu.put_back_tsc(behind)?;
            if let Some(deadline) = armed {
                vcpu.write_clock_msr(msr::TSC_DEADLINE, deadline)?;
            }
            if early {
                self.early = 0;
            }
        }
        release_deadline(held.as_ref(), vcpu)
    }

    /// The deadline that the VP waits for. `None`: there is none, or it is about to pass.
    fn armed_deadline(&self, vcpu: &mut impl VcpuClocks) -> Result<Option<u64>, DebugError> {
        // The CPUID of the guest may have no such timer.
        let Ok(deadline) = vcpu.read_msr(msr::TSC_DEADLINE) else {
            return Ok(None);
        };
        if deadline == 0 {
            return Ok(None);
        }
        let now = vcpu.read_msr(msr::TSC)?;
        let near = now.saturating_add(self.vm.ticks(TOO_NEAR));
        Ok((deadline > near).then_some(deadline))
    }

    /// The stop lasts: the guest's timers are not to fire while it stands.
    pub(super) fn hold_timers(&mut self, vcpu: &mut impl VcpuClocks) {
        if self.vm.freeze() == FreezeTime::Off {
            return;
        }
        self.vm.hold_pit();
        match self.hold_own_timer(vcpu) {
            Ok(held) => {
                if held.count.is_some() {
                    self.vm.note_counter(Counter::Kept);
                }
                self.held = Some(held);
            }
            Err(err) => {
                tracing::error!(vp = %self.vp, error = %err, "a VP's timer could not be held");
            }
        }
    }

    fn hold_own_timer(&self, vcpu: &mut impl VcpuClocks) -> Result<Held, DebugError> {
        let deadline = self.armed_deadline(vcpu)?;
        if deadline.is_some() {
            vcpu.write_clock_msr(msr::TSC_DEADLINE, 0)?;
        }
        let count = match (deadline, self.vm.standing_ns()) {
            // If the local APICs are not KVM's, their timers are not KVM's either.
            (None, Some(late)) => vcpu
                .local_apic()
                .and_then(|page| CountLeft::read(&page, late)),
            _ => None,
        };
        Ok(Held { deadline, count })
    }

    /// Writes back what the VP's local timer had left when a long stop began.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(super) fn write_count_back(
        &mut self,
        vcpu: &mut impl VcpuClocks,
    ) -> Result<(), DebugError> {
        let Some(count) = self.held.as_mut().and_then(|held| held.count.take()) else {
            return Ok(());
        };
        self.vm.note_counter(Counter::WrittenBack);
        match self.vm.freeze() {
            FreezeTime::On => vcpu.change_local_apic(|page| count.write(page)),
            FreezeTime::Off => Ok(()),
        }
    }

    /// Releases the timers as if the stop ended. Comes before the machine sets the VP's power-on state, which may leave timers alone.
    ///
    /// # Errors
    /// [`DebugError::Hypervisor`].
    pub(super) fn release_timers(&mut self, vcpu: &mut impl VcpuClocks) -> Result<(), DebugError> {
        self.write_count_back(vcpu)?;
        let held = self.held.take();
        release_deadline(held.as_ref(), vcpu)
    }

    /// Puts the VP into its power-on state by `set`, which may set the time-stamp counter.
    pub(super) fn reset<V: VcpuClocks, R>(
        &mut self,
        vcpu: &mut V,
        set: impl FnOnce(&mut V) -> R,
    ) -> R {
        if let Err(err) = self.release_timers(vcpu) {
            tracing::error!(vp = %self.vp, error = %err, "a VP's timer before its reset");
        }
        self.with_tsc_set(self.vm.reset_at(), vcpu, set)
    }

    /// Writes an MSR for the client. The MSR may be the time-stamp counter or the deadline.
    ///
    /// # Errors
    /// [`DebugError::BadRegister`] where the VP has no such MSR.
    pub(super) fn write_msr(
        &mut self,
        msr: u32,
        value: u64,
        vcpu: &mut impl VcpuClocks,
    ) -> Result<(), DebugError> {
        if let (msr::TSC_DEADLINE, Some(held)) = (msr, &mut self.held) {
            held.deadline = None;
        }
        self.with_tsc_set(self.vm.taken_out_now(), vcpu, |vcpu| {
            vcpu.write_msr(msr, value)
        })
    }

    /// Does `set`, which may set the time-stamp counter. The counter that it sets is right as of `now`, in the timekeeper's count of ticks taken out.
    fn with_tsc_set<V: VcpuClocks, R>(
        &mut self,
        now: u64,
        vcpu: &mut V,
        set: impl FnOnce(&mut V) -> R,
    ) -> R {
        let before = vcpu.tsc_offset();
        let result = set(vcpu);
        if vcpu.tsc_offset() != before {
            self.taken_out = now;
        }
        result
    }

    /// Reads an MSR for the client as the guest would read it. KVM has another value for a clock while the guest stands.
    ///
    /// # Errors
    /// [`DebugError::BadRegister`] where the VP has no such MSR.
    pub(super) fn read_msr(&self, msr: u32, vcpu: &mut impl VcpuClocks) -> Result<u64, DebugError> {
        let kvm_has = vcpu.read_msr(msr)?;
        Ok(match (msr, &self.held) {
            (msr::TSC, _) => {
                let pending = self.vm.taken_out_now();
                kvm_has.wrapping_sub(pending.saturating_sub(self.taken_out))
            }
            (msr::TSC_DEADLINE, Some(held)) => held.deadline.unwrap_or(kvm_has),
            _ => kvm_has,
        })
    }
}

fn release_deadline(held: Option<&Held>, vcpu: &mut impl VcpuClocks) -> Result<(), DebugError> {
    match held.and_then(|held| held.deadline) {
        Some(deadline) => vcpu.write_clock_msr(msr::TSC_DEADLINE, deadline),
        None => Ok(()),
    }
}
