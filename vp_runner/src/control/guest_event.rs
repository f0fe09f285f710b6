//! Events of the whole machine: a reset, a power-off, a panic, a triple fault, a VP that cannot continue.

use crate::machine::DeviceOutcome;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::stop::CrashCause;
use vmm_core_defs::stop::DebugStopReason;
use vmm_core_defs::stop::FaultRegisters;
use vmm_core_defs::stop::GuestEventKind;
use vmm_core_defs::stop::StopOn;

/// A request of the guest to the machine, or a failure that ends the run of one VP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum GuestEvent {
    /// A reset was asked for.
    Reset {
        /// The VP that asked. `None` if the debugger asked.
        vp: Option<VpIndex>,
    },
    /// A power-off was asked for.
    PowerOff {
        /// The VP that asked. `None` if the debugger asked.
        vp: Option<VpIndex>,
    },
    /// The guest's kernel reports a panic.
    Panicked {
        /// The VP that reported the panic.
        vp: VpIndex,
    },
    /// A VP met a triple fault.
    TripleFault {
        /// The VP that met the triple fault.
        vp: VpIndex,
        /// Whether KVM kept the registers of the VP.
        registers: FaultRegisters,
    },
    /// A VP cannot continue.
    Crashed {
        /// The VP that cannot continue.
        vp: VpIndex,
        /// The exit, or the failed call, after which the VP cannot continue.
        cause: CrashCause,
    },
}

impl GuestEvent {
    /// The event that an access of `vp` to a device asks for.
    pub(crate) fn of_device(outcome: DeviceOutcome, vp: VpIndex) -> Option<Self> {
        match outcome {
            DeviceOutcome::Done => None,
            DeviceOutcome::Reset => Some(Self::Reset { vp: Some(vp) }),
            DeviceOutcome::PowerOff => Some(Self::PowerOff { vp: Some(vp) }),
            DeviceOutcome::Panicked => Some(Self::Panicked { vp }),
        }
    }

    /// The event of this kind that a device of the VMM has caused. `None` for an event that no device causes, and for a panic that belongs to no VP.
    pub(crate) fn of_kind(kind: GuestEventKind, vp: Option<VpIndex>) -> Option<Self> {
        match kind {
            GuestEventKind::Reset => Some(Self::Reset { vp }),
            GuestEventKind::PowerOff => Some(Self::PowerOff { vp }),
            GuestEventKind::Panic => vp.map(|vp| Self::Panicked { vp }),
            GuestEventKind::TripleFault => None,
            // A kind of a newer vmm_core_defs.
            _ => None,
        }
    }

    /// The stop reason that is reported to a debugger.
    pub(crate) const fn reason(self) -> DebugStopReason {
        match self {
            Self::Reset { vp } => DebugStopReason::Reset { vp },
            Self::PowerOff { vp } => DebugStopReason::PowerOff { vp },
            Self::Panicked { vp } => DebugStopReason::Panic { vp },
            Self::TripleFault { vp, registers } => DebugStopReason::TripleFault { vp, registers },
            Self::Crashed { vp, cause } => DebugStopReason::Crashed { vp, cause },
        }
    }

    /// Whether the event is a stop for a debugger that asked for the events `on`.
    pub(crate) fn is_stop(self, on: StopOn) -> bool {
        self.kind().is_none_or(|kind| on.contains(kind))
    }

    /// The kind of the event. `None` for a crash, which is a stop in any case.
    pub(crate) const fn kind(self) -> Option<GuestEventKind> {
        match self {
            Self::Reset { .. } => Some(GuestEventKind::Reset),
            Self::PowerOff { .. } => Some(GuestEventKind::PowerOff),
            Self::TripleFault { .. } => Some(GuestEventKind::TripleFault),
            Self::Panicked { .. } => Some(GuestEventKind::Panic),
            Self::Crashed { .. } => None,
        }
    }

    /// Whether this event is done when `other` has been carried out.
    pub(crate) fn is_covered_by(self, other: Self) -> bool {
        match (self, other) {
            (Self::Reset { .. }, Self::Reset { .. })
            | (Self::PowerOff { .. }, Self::PowerOff { .. }) => true,
            _ => self == other,
        }
    }

    /// Whether the event has to be carried out before the guest continues.
    pub(crate) const fn needs_action(self) -> bool {
        !matches!(self, Self::Panicked { .. })
    }
}
