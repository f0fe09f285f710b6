//! The debug state that a vCPU is entered with, and the events that come before its next instruction.

use crate::arch::x86_64::debug_registers::DebugRegisters;
use crate::arch::x86_64::stop_cause::SingleStepping;
use crate::control::enter::Int3Exits;

/// The debug state of one vCPU for one entry (api.rst, `KVM_SET_GUEST_DEBUG`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DebugState {
    pub(crate) registers: DebugRegisters,
    pub(crate) int3_exits: Int3Exits,
    pub(crate) stepping: SingleStepping,
    pub(crate) interrupts: Interrupts,
}

/// Whether KVM delivers interrupts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interrupts {
    /// KVM holds back the interrupts that it has not begun to deliver, if this host can hold them.
    Held,
    /// KVM delivers them as they come.
    Free,
}

/// An event that KVM delivers when the VP next enters, before its next instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Undelivered {
    /// An exception of this vector.
    Exception(u8),
    /// An interrupt of this vector, which its controller counts as delivered.
    Interrupt(u8),
    /// An interrupt of this vector, if nothing holds it back.
    Deliverable(u8),
}
