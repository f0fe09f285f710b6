//! A VP's own clocks over a stop: its time-stamp counter, its local timer, and telling its guest that it stood still.
//!
//! | stop | clocks that the guest reads | its timers |
//! |---|---|---|
//! | any that ends with a VP that could look at a clock | go on from where they stood | |
//! | shorter than [`HOLD_AFTER`] | | run on, and come early by as much as the stop took |
//! | longer | | are held, and come when they are due |
//!
//! A deadline timer that came through many short stops is armed anew when they add up to [`REARM_AFTER`].

mod telling;

use super::*;
use crate::arch::x86_64::guest_time::Look;
use crate::arch::x86_64::guest_time::apic_timer::CountLeft;
use crate::arch::x86_64::guest_time::clock_code::may_look_at_a_clock;
use crate::kvm::timekeeper::Counter;
use std::time::Duration;
use std::time::Instant;
use telling::Telling;
use vmm_core_defs::debug_rpc::FreezeTime;
use vmm_core_defs::debug_rpc::StepInterrupts;
use vmm_core_defs::regs::x86_64::bits::msr;

/// Holding the timers costs some system calls, which only a stop that somebody looks at is worth.
const HOLD_AFTER: Duration = Duration::from_millis(5);
/// How early a deadline timer may come, in ns.
const REARM_AFTER: u64 = 1_000_000;
/// A deadline this near is met while it is looked at, in ns.
const TOO_NEAR: u64 = 200_000;

/// What is known of the VP's clocks.
#[derive(Debug, Default)]
pub(super) struct VpTime {
    /// What has been taken out of its time-stamp counter, of what the VM's timekeeper has taken out.
    taken_out: u64,
    /// What has been since its deadline timer was last armed.
    early: u64,
    held: Option<Held>,
    telling: Telling,
}

/// Timers of a VP in a stop that lasts.
#[derive(Debug)]
struct Held {
    /// An armed deadline, which KVM was told to forget: it would be met by the host's time.
    deadline: Option<u64>,
    /// What a counting timer had left. KVM counts on, to be told when the stop ends.
    count: Option<CountLeft>,
}

fn is_one_instruction(enter: &Enter) -> bool {
    enter.action == VpAction::Step || enter.at.first() == FirstInstruction::OthersStopped
}

impl Vp {
    /// The VP is about to run.
    pub(super) fn time_goes_on(&mut self, enter: &Enter) {
        let one = is_one_instruction(enter);
        let look = match one {
            true => self.look(enter),
            false => Look::Possible,
        };
        let taken_out = self.around.time.enter(look);
        if look == Look::Possible
            && let Err(err) = self.catch_up(taken_out)
        {
            tracing::error!(vp = %self.around.index, error = %err, "a VP's clocks go on from another time");
        }
        // A single instruction barks at nobody; the next run is told of all of it.
        if !one && self.time.telling.is_due(Instant::now()) {
            let told = self.vcpu.tell_of_pause();
            self.time.telling.done(told);
        }
    }

    /// The VP has left the guest.
    pub(super) fn time_stands(&mut self) {
        self.around.time.leave();
        self.time.telling.stands(Instant::now());
    }

    /// Waits for the next command; holds the timers when none comes for a while.
    pub(super) fn next_command(&mut self, commands: &mpsc::Receiver<Command>) -> Option<Command> {
        let since = Instant::now();
        let soon = self.next;
        let soon = soon.and_then(|next| next.awake(|| commands.try_recv().ok()));
        let command = soon.or_else(|| self.sleep(commands));
        self.next = self.next.map(|_| Expected::after(since));
        command
    }

    fn sleep(&mut self, commands: &mpsc::Receiver<Command>) -> Option<Command> {
        if self.time.held.is_none() {
            match commands.recv_timeout(HOLD_AFTER) {
                Ok(command) => return Some(command),
                Err(mpsc::RecvTimeoutError::Disconnected) => return None,
                Err(mpsc::RecvTimeoutError::Timeout) => self.hold_timers(),
            }
        }
        commands.recv().ok()
    }

    /// Steps follow each other fast, and setting clocks takes longer than they do: it is left to the first entry that needs it.
    fn look(&mut self, enter: &Enter) -> Look {
        // An interrupt's handler may look at anything; and where nothing is put back there is nothing to save.
        let takes_interrupts =
            !self.vcpu.holds_interrupts() || enter.arms.step_interrupts == StepInterrupts::Taken;
        if self.time.held.is_some() || takes_interrupts || !self.around.time.freezes() {
            return Look::Possible;
        }
        let Ok(place) = self.place() else {
            return Look::Possible;
        };
        let code = self.breakpoints().code_at(&self.around.ram, &place);
        match may_look_at_a_clock(&code) {
            true => Look::Possible,
            false => Look::Impossible,
        }
    }

    fn catch_up(&mut self, taken_out: u64) -> Result<(), DebugError> {
        // What a stop was not taken out of, by choice, is not made up for.
        let behind = taken_out.saturating_sub(self.time.taken_out);
        self.time.taken_out = taken_out;
        self.time.early += behind;
        let held = self.time.held.take();
        if held.as_ref().is_some_and(|held| held.count.is_some()) {
            // Held when the controller had asked already. It counts on, and comes early by as much as the stop took.
            self.around.time.note_counter(Counter::WrittenBack);
        }
        if behind != 0 {
            let early = self.time.early > self.around.time.ticks(REARM_AFTER);
            let armed = match held {
                None if early => self.armed_deadline()?,
                _ => None,
            };
            self.vcpu.put_back_tsc(behind)?;
            if let Some(deadline) = armed {
                self.vcpu.set_clock_msr(msr::TSC_DEADLINE, deadline)?;
            }
            if early {
                self.time.early = 0;
            }
        }
        self.release_deadline(held.as_ref())
    }

    fn release_deadline(&mut self, held: Option<&Held>) -> Result<(), DebugError> {
        match held.and_then(|held| held.deadline) {
            Some(deadline) => self.vcpu.set_clock_msr(msr::TSC_DEADLINE, deadline),
            None => Ok(()),
        }
    }

    /// The deadline that the VP waits for. `None`: there is none, or it is as good as met.
    fn armed_deadline(&mut self) -> Result<Option<u64>, DebugError> {
        let vcpu = self.vcpu.for_reading();
        // A guest whose CPUID has no such timer.
        let Ok(deadline) = crate::kvm::x86_64::read_msr(vcpu, msr::TSC_DEADLINE) else {
            return Ok(None);
        };
        if deadline == 0 {
            return Ok(None);
        }
        let now = crate::kvm::x86_64::read_msr(vcpu, msr::TSC)?;
        let near = now.saturating_add(self.around.time.ticks(TOO_NEAR));
        Ok((deadline > near).then_some(deadline))
    }

    fn hold_timers(&mut self) {
        if self.around.time.freeze() == FreezeTime::Off {
            return;
        }
        self.around.time.hold_pit();
        match self.hold_own_timer() {
            Ok(held) => {
                if held.count.is_some() {
                    self.around.time.note_counter(Counter::Kept);
                }
                self.time.held = Some(held);
            }
            Err(err) => {
                tracing::error!(vp = %self.around.index, error = %err, "a VP's timer could not be held");
            }
        }
    }

    fn hold_own_timer(&mut self) -> Result<Held, DebugError> {
        let deadline = self.armed_deadline()?;
        if deadline.is_some() {
            self.vcpu.set_clock_msr(msr::TSC_DEADLINE, 0)?;
        }
        let count = match (deadline, self.around.time.standing_ns()) {
            // A VM whose local APICs are not KVM's has none of its timers.
            (None, Some(late)) => self
                .vcpu
                .for_reading()
                .get_lapic()
                .ok()
                .and_then(|page| CountLeft::read(&page, late)),
            _ => None,
        };
        Ok(Held { deadline, count })
    }

    /// See [`ParkedVp::restart_counter`].
    pub(super) fn write_count_back(&mut self) -> Result<(), DebugError> {
        let Some(count) = self.time.held.as_mut().and_then(|held| held.count.take()) else {
            return Ok(());
        };
        self.around.time.note_counter(Counter::WrittenBack);
        match self.around.time.freeze() {
            FreezeTime::On => self.vcpu.change_lapic(|page| count.write(page)),
            FreezeTime::Off => Ok(()),
        }
    }

    /// As if the stop ended: before the VM's power-on state is set, which may leave timers alone.
    pub(super) fn release_timers(&mut self) -> Result<(), DebugError> {
        self.write_count_back()?;
        let held = self.time.held.take();
        self.release_deadline(held.as_ref())
    }

    /// Does what may set the time-stamp counter. What it is set to is right as of `now`, in the timekeeper's terms.
    pub(super) fn with_tsc_set<R>(&mut self, now: u64, set: impl FnOnce(&mut Self) -> R) -> R {
        let before = self.vcpu.tsc_offset();
        let result = set(self);
        if self.vcpu.tsc_offset() != before {
            self.time.taken_out = now;
        }
        result
    }

    /// What the guest would read in an MSR that is a clock, where KVM has something else while the guest stands.
    pub(super) fn clock_msr(&self, msr: u32, kvm_has: u64) -> u64 {
        match (msr, &self.time.held) {
            (msr::TSC, _) => {
                let pending = self.around.time.taken_out_now();
                kvm_has.wrapping_sub(pending.saturating_sub(self.time.taken_out))
            }
            (msr::TSC_DEADLINE, Some(held)) => held.deadline.unwrap_or(kvm_has),
            _ => kvm_has,
        }
    }

    /// The debugger sets the deadline itself.
    pub(super) fn forget_deadline(&mut self, msr: u32) {
        if let (msr::TSC_DEADLINE, Some(held)) = (msr, &mut self.time.held) {
            held.deadline = None;
        }
    }
}
