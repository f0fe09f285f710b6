//! What a guest does to the machine as a whole: a reset, a power-off, a panic, a triple fault, a VP that cannot go on.

use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::stop::CrashCause;
use vmm_core_defs::stop::DebugStopReason;
use vmm_core_defs::stop::FaultRegisters;
use vmm_core_defs::stop::GuestEventKind;
use vmm_core_defs::stop::StopOn;

/// What the guest asks of the whole machine, or what befell one VP for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum GuestEvent {
    /// It wants to start over.
    Reset {
        /// On this VP; `None` where a debugger asked.
        vp: Option<VpIndex>,
    },
    /// It wants to be switched off.
    PowerOff {
        /// On this VP; `None` where a debugger asked.
        vp: Option<VpIndex>,
    },
    /// Its kernel says that it cannot go on.
    Panicked {
        /// On this VP.
        vp: VpIndex,
    },
    /// A fault could not be delivered.
    TripleFault {
        /// On this VP.
        vp: VpIndex,
        /// What it has left of the VP's registers.
        registers: FaultRegisters,
    },
    /// A VP cannot go on.
    Crashed {
        /// This VP.
        vp: VpIndex,
        /// Why.
        cause: CrashCause,
    },
}

impl GuestEvent {
    /// How a debugger is told.
    pub(crate) const fn reason(self) -> DebugStopReason {
        match self {
            Self::Reset { vp } => DebugStopReason::Reset { vp },
            Self::PowerOff { vp } => DebugStopReason::PowerOff { vp },
            Self::Panicked { vp } => DebugStopReason::Panic { vp },
            Self::TripleFault { vp, registers } => DebugStopReason::TripleFault { vp, registers },
            Self::Crashed { vp, cause } => DebugStopReason::Crashed { vp, cause },
        }
    }

    /// Whether it is a stop for a debugger that asked for these.
    pub(crate) fn is_stop(self, on: StopOn) -> bool {
        on.contains(match self {
            Self::Reset { .. } => GuestEventKind::Reset,
            Self::PowerOff { .. } => GuestEventKind::PowerOff,
            Self::TripleFault { .. } => GuestEventKind::TripleFault,
            Self::Panicked { .. } => GuestEventKind::Panic,
            Self::Crashed { .. } => return true,
        })
    }

    /// Whether acting upon the other acts upon this too.
    pub(crate) fn is_met_by(self, other: Self) -> bool {
        match (self, other) {
            (Self::Reset { .. }, Self::Reset { .. })
            | (Self::PowerOff { .. }, Self::PowerOff { .. }) => true,
            _ => self == other,
        }
    }

    /// Whether something is to be done about it before the guest goes on.
    pub(crate) const fn is_acted_upon(self) -> bool {
        !matches!(self, Self::Panicked { .. })
    }
}
