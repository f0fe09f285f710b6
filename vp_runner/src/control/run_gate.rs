//! The kick protocol: how a VP thread is kept out of the guest, or brought out of it, without a window in which a kick is lost (I4).
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
//! The gate's one atomic holds the truth; the signal only ends a `KVM_RUN` that is under way. A kick is sticky: it stays until
//! the kicker takes it back with [`RunGate::clear`], which it does when it knows the VP parked and before it lets it go again.
//! So a kick of a VP that had just parked by itself does no harm either.
//!
//! Why no kick is lost. [`RunGate::kick`] is one read-modify-write, so it falls into one of three places:
//! 1. before [`RunGate::enter`]: the VP sees `Kicked` there and does not enter;
//! 2. between `enter` and [`RunGate::leave`]: the kicker sees `InGuest` and sends the signal. Its handler sets `immediate_exit`, which
//!    makes `KVM_RUN` return `EINTR` whether it had begun or not (KVM api.rst, `kvm_run.immediate_exit`). The VP thread clears
//!    `immediate_exit` only *before* `enter`, so nothing of this can be undone;
//! 3. after `leave`: as 1, for the next `enter`.
//!
//! A signal that is delivered late, after `leave`, leaves `immediate_exit` set: at worst one `KVM_RUN` returns `EINTR` for
//! nothing, and the VP thread, finding no kick at the gate, enters again.
//!
//! Ordering: `AcqRel` throughout, so that what the kicker wrote before the kick is seen by the VP that was stopped by it. There is one kicker
//! (the controller) and one VP thread; `loom` explores their interleavings in this module's tests.

#[cfg(loom)]
use loom::sync::atomic::AtomicU8;
#[cfg(loom)]
use loom::sync::atomic::Ordering;
#[cfg(loom)]
use loom::thread;
#[cfg(not(loom))]
use std::sync::atomic::AtomicU8;
#[cfg(not(loom))]
use std::sync::atomic::Ordering;
#[cfg(not(loom))]
use std::thread;

const IDLE: u8 = 0;
const KICKED: u8 = 1;
const IN_GUEST: u8 = 2;
const IN_GUEST_KICKED: u8 = 3;

/// The gate of one VP between user space and guest.
#[derive(Debug)]
pub(crate) struct RunGate(AtomicU8);

/// What a kick found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a VP in the guest needs the signal"]
pub(crate) enum Kick {
    /// The VP is in the guest, or between `enter` and `KVM_RUN`: send its thread the signal.
    Signal,
    /// The VP is in user space and will be kept there, or an earlier kick is on its way already.
    Noted,
}

/// The gate was shut: a kick came first.
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
        Self(AtomicU8::new(IDLE))
    }

    /// VP thread, with `immediate_exit` clear: the next thing it does is `KVM_RUN`.
    ///
    /// # Errors
    /// [`Kicked`]: it must not enter the guest.
    pub(crate) fn enter(&self) -> Result<(), Kicked> {
        match self
            .0
            .compare_exchange(IDLE, IN_GUEST, Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) => Ok(()),
            Err(_) => Err(Kicked),
        }
    }

    /// VP thread, after `KVM_RUN` returned.
    pub(crate) fn leave(&self) {
        // Only a kick can have come in between, and that changes IN_GUEST to IN_GUEST_KICKED: what is cleared is the same bit.
        self.0.fetch_and(!IN_GUEST, Ordering::AcqRel);
    }

    /// Whether a kick waits to be taken back.
    pub(crate) fn is_kicked(&self) -> bool {
        self.0.load(Ordering::Acquire) & KICKED != 0
    }

    /// VP thread whose guest has halted: sleeps until it is kicked. The kicker unparks the thread after its kick.
    pub(crate) fn wait_for_kick(&self) {
        while !self.is_kicked() {
            thread::park();
        }
    }

    /// Whether the VP was in the guest just now.
    pub(crate) fn is_in_guest(&self) -> bool {
        self.0.load(Ordering::Acquire) & IN_GUEST != 0
    }

    /// Kicker: keeps the VP out of the guest, or brings it out.
    pub(crate) fn kick(&self) -> Kick {
        match self.0.fetch_or(KICKED, Ordering::AcqRel) {
            IN_GUEST => Kick::Signal,
            _ => Kick::Noted,
        }
    }

    /// Kicker, knowing the VP parked: takes the kick back.
    pub(crate) fn clear(&self) {
        self.0.store(IDLE, Ordering::Release);
    }
}

// The states are two independent bits, which `leave` and `kick` rely on.
const _: () = assert!(IN_GUEST_KICKED == IN_GUEST | KICKED && IDLE == 0);

#[cfg(test)]
mod tests;
