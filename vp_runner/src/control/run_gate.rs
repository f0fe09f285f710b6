//! The kick protocol: how the controller brings a VP thread out of the guest, or keeps it from entering, without losing a kick (I4).
//!
//! ```text
//!                 enter                      kick: signal
//!      Idle ------------------> InGuest ----------------------> InGuestKicked
//!       |  ^  <----------------                                      |
//!  kick |  | clear  leave                                      leave |
//!       v  |                                                         |
//!      Kicked <------------------------------------------------------+        enter in Kicked: refused
//! ```
//!
//! The state of the gate is one atomic. The signal only ends a `KVM_RUN` that is in progress. A kick stays set until the kicker clears it with
//! [`RunGate::clear`], after the VP has parked and before the next entry. So a kick of a VP that has just parked by itself does no harm.
//!
//! Why no kick is lost. [`RunGate::kick`] is one read-modify-write, so it falls into one of three places:
//! 1. before [`RunGate::enter`]: the VP sees `Kicked` there and does not enter;
//! 2. between `enter` and [`RunGate::leave`]: the kicker sees `InGuest` and sends the signal. Its handler sets `immediate_exit`, which
//!    makes `KVM_RUN` return `EINTR` whether it had begun or not (KVM api.rst, `kvm_run.immediate_exit`). The VP thread clears
//!    `immediate_exit` only *before* `enter`, so the VP thread cannot undo the kick;
//! 3. after `leave`: as in 1, for the next `enter`.
//!
//! A signal that is delivered late, after `leave`, leaves `immediate_exit` set. Then one `KVM_RUN` may return `EINTR` without a kick. The VP thread finds
//! no kick at the gate and enters again.
//!
//! Ordering: all operations are `AcqRel`, so a VP that was stopped by a kick sees everything that the kicker wrote before the kick. There is one kicker
//! (the controller) and one VP thread. `loom` explores their interleavings in the tests of this module.
//!
//! Any thread of the VMM may hold the gate ([`RunGate::hold`]), because a device has caused an event. A hold works as a kick until the controller has taken the event.
//! [`RunGate::clear`] leaves holds in place: the controller may enter the VP again for another reason before it learns of the event. There may be several holds, so the
//! state has their number beside the two bits.

use crate::sync::atomic::AtomicU32;
use crate::sync::atomic::Ordering;

const IDLE: u32 = 0;
const KICKED: u32 = 1;
const IN_GUEST: u32 = 2;
const IN_GUEST_KICKED: u32 = 3;
/// One hold.
const HOLD: u32 = 4;

/// The gate of one VP between user space and guest.
#[derive(Debug)]
pub(crate) struct RunGate(AtomicU32);

/// Where the VP was when it was kicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a VP in the guest needs the signal"]
pub(crate) enum Kick {
    /// The VP is in the guest, or between `enter` and `KVM_RUN`: send its thread the signal.
    Signal,
    /// The VP is in user space and will not enter, or an earlier kick has sent the signal already.
    Noted,
}

/// The gate is closed, because the VP was kicked before it entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kicked;

impl Default for RunGate {
    fn default() -> Self {
        Self::new()
    }
}

impl RunGate {
    /// An open gate.
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(IDLE))
    }

    /// Called by the VP thread with `immediate_exit` clear, directly before `KVM_RUN`.
    ///
    /// # Errors
    /// [`Kicked`]: the VP must not enter the guest.
    pub(crate) fn enter(&self) -> Result<(), Kicked> {
        match self
            .0
            .compare_exchange(IDLE, IN_GUEST, Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) => Ok(()),
            Err(_) => Err(Kicked),
        }
    }

    /// Called by the VP thread after `KVM_RUN` has returned.
    pub(crate) fn leave(&self) {
        // Only kicks and holds can have changed the state since `enter`. Neither changes the bit that is cleared here.
        self.0.fetch_and(!IN_GUEST, Ordering::AcqRel);
    }

    /// Whether a kick or a hold is set.
    pub(crate) fn is_kicked(&self) -> bool {
        self.0.load(Ordering::Acquire) & !IN_GUEST != 0
    }

    /// Whether the VP is in the guest. The answer may be outdated at once.
    pub(crate) fn is_in_guest(&self) -> bool {
        self.0.load(Ordering::Acquire) & IN_GUEST != 0
    }

    /// Called by the kicker. Keeps the VP from entering the guest, or tells the kicker to send the signal.
    pub(crate) fn kick(&self) -> Kick {
        match self.0.fetch_or(KICKED, Ordering::AcqRel) {
            IN_GUEST => Kick::Signal,
            _ => Kick::Noted,
        }
    }

    /// Called by the kicker when the VP has parked. Clears the kick.
    pub(crate) fn clear(&self) {
        self.0.fetch_and(!KICKED, Ordering::AcqRel);
    }

    /// Keeps the VP out of the guest as a kick does, until [`take_hold`](Self::take_hold).
    pub(crate) fn hold(&self) -> Kick {
        match self.0.fetch_add(HOLD, Ordering::AcqRel) {
            IN_GUEST => Kick::Signal,
            _ => Kick::Noted,
        }
    }

    /// Called by the kicker. A hold, of which the kicker has learned, becomes a kick.
    pub(crate) fn take_hold(&self) {
        self.0.fetch_or(KICKED, Ordering::AcqRel);
        self.0.fetch_sub(HOLD, Ordering::AcqRel);
    }

    /// Clears kicks and holds: no kicker is left.
    pub(crate) fn open(&self) {
        self.0.store(IDLE, Ordering::Release);
    }
}

// `leave` and `kick` rely on this: the states consist of two independent bits, below the number of holds.
const _: () = assert!(IN_GUEST_KICKED == IN_GUEST | KICKED && IDLE == 0 && HOLD > IN_GUEST_KICKED);

#[cfg(test)]
mod tests;
