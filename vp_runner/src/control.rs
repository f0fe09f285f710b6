//! Run control: which VPs run, what they stop for, and which stop is reported. Pure decisions, without KVM and without IO.

pub(crate) mod at_breakpoint;
pub(crate) mod enter;
pub(crate) mod entry;
pub(crate) mod exit;
pub(crate) mod guest_event;
pub(crate) mod run_gate;
pub(crate) mod run_state;
