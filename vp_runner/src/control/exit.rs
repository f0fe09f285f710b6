//! Exits from the guest, as the VP core sees them. This module does not use KVM, so the tests construct the exits.

use crate::arch::DebugExit;
use crate::control::guest_event::GuestEvent;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::stop::CrashCause;
use vmm_core_defs::stop::FaultRegisters;

/// Why the VP left the guest (KVM api.rst, section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The guest accesses a device, which the VMM serves before the VP enters again. KVM completes the instruction only at that entry. Until then the registers
    /// of the VP are not those at an instruction boundary (KVM api.rst, section 5, note on `KVM_EXIT_IO` and `KVM_EXIT_MMIO`).
    Device,
    /// A debug exception that KVM does not deliver to the guest.
    Debug(DebugExit),
    /// `hlt`, on a VM without an in-kernel interrupt controller.
    Halted,
    /// Triple fault.
    Shutdown(FaultRegisters),
    /// `KVM_SYSTEM_EVENT_RESET`.
    SystemReset,
    /// `KVM_SYSTEM_EVENT_SHUTDOWN`.
    SystemPowerOff,
    /// `KVM_SYSTEM_EVENT_CRASH`.
    SystemCrash,
    /// `EINTR`: a signal, or `immediate_exit`.
    Interrupted,
    /// An exit that needs no action, or `EAGAIN`: a waiting VP got its start-up message.
    Nothing,
    /// The VP cannot continue.
    Failed(CrashCause),
}

/// What an exit means for the VP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The VP may enter again.
    Nothing,
    /// The guest has halted, and no interrupt of the hypervisor can wake it.
    Halted,
    /// The debug exception is the guest's or the debugger's.
    Debug(DebugExit),
    /// All VPs stop for this event.
    Event(GuestEvent),
}

impl Exit {
    /// What this exit means for `vp`.
    pub(crate) fn meaning(self, vp: VpIndex) -> Meaning {
        match self {
            Self::Device | Self::Interrupted | Self::Nothing => Meaning::Nothing,
            Self::Halted => Meaning::Halted,
            Self::Debug(debug) => Meaning::Debug(debug),
            Self::Shutdown(registers) => Meaning::Event(GuestEvent::TripleFault { vp, registers }),
            Self::SystemReset => Meaning::Event(GuestEvent::Reset { vp: Some(vp) }),
            Self::SystemPowerOff => Meaning::Event(GuestEvent::PowerOff { vp: Some(vp) }),
            Self::SystemCrash => Meaning::Event(GuestEvent::Panicked { vp }),
            Self::Failed(cause) => Meaning::Event(GuestEvent::Crashed { vp, cause }),
        }
    }
}

#[cfg(test)]
mod tests;
