//! The reasons why a guest stopped, for programs.

use std::fmt;
use vmm_core_defs::stop::DebugStopReason;
use vmm_core_defs::stop::GuestEventKind;
use vmm_core_defs::stop::StopEvent;
use vmm_core_defs::stop::StopOn;
use vmm_core_defs::vp_set::VpSet;

/// A stop of the guest. Its text is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stop {
    /// The reason, with all its details.
    pub reason: DebugStopReason,
    /// The VPs that the guest has.
    pub vps: VpSet,
    /// The number of instructions that [`step_n`](crate::Debugger::step_n) has executed, if that request asked for more than one.
    pub steps: Option<u64>,
    /// For a stop at a breakpoint with conditions, one of which could not be evaluated: the problem.
    // A pointer, because errors contain stops and are to stay small.
    pub condition_failure: Option<Box<String>>,
}

impl Stop {
    /// The kind of the reason.
    pub const fn kind(&self) -> StopKind {
        match self.reason {
            DebugStopReason::Break => StopKind::Interrupt,
            DebugStopReason::SingleStep { .. } => StopKind::Step,
            DebugStopReason::Breakpoint { .. } => StopKind::Breakpoint,
            DebugStopReason::Watchpoint { .. } => StopKind::Watchpoint,
            DebugStopReason::TripleFault { .. } => StopKind::TripleFault,
            DebugStopReason::Reset { .. } => StopKind::Reset,
            DebugStopReason::PowerOff { .. } => StopKind::PowerOff,
            DebugStopReason::Crashed { .. } => StopKind::Crash,
            DebugStopReason::Panic { .. } => StopKind::Panic,
            _ => StopKind::Other,
        }
    }

    /// The index of the VP with the event. `None` if the event concerns the whole guest.
    pub fn vp(&self) -> Option<u32> {
        self.reason.vp().map(|vp| vp.index())
    }
}

impl From<StopEvent> for Stop {
    fn from(event: StopEvent) -> Self {
        let StopEvent {
            reason,
            vps,
            steps,
            condition_failure,
            ..
        } = event;
        Self {
            reason,
            vps,
            steps,
            condition_failure: condition_failure.map(Box::new),
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            DebugStopReason::Breakpoint { vp, breakpoint } => {
                write!(
                    f,
                    "VP {vp} reached the breakpoint at {}",
                    breakpoint.address
                )
            }
            DebugStopReason::Watchpoint { vp, address, .. } => {
                write!(f, "VP {vp} accessed the watched bytes at {address}")
            }
            reason => match reason.vp() {
                Some(vp) => write!(f, "{} of VP {vp}", self.kind()),
                None => self.kind().fmt(f),
            },
        }
    }
}

/// The kinds of stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StopKind {
    /// [`interrupt`](crate::Debugger::interrupt), or the stop by the attach.
    Interrupt,
    /// A step has ended.
    Step,
    /// A VP is about to execute the instruction at a breakpoint.
    Breakpoint,
    /// A VP accessed watched memory.
    Watchpoint,
    /// A VP had a triple fault. The next resume acts upon it.
    TripleFault,
    /// The guest asked for a reset, which the next resume carries out.
    Reset,
    /// The guest asked for a power-off, which the next resume carries out.
    PowerOff,
    /// The hypervisor cannot run a VP any more.
    Crash,
    /// The guest's kernel reported a panic. It is a stop only if [`stop_on`](crate::Debugger::stop_on) asks for it.
    Panic,
    /// A stop that this version does not know.
    Other,
}

impl StopKind {
    /// The events of a set, with the kinds of their stops.
    pub(crate) fn of_events(events: StopOn) -> impl Iterator<Item = (GuestEventKind, Self)> {
        [
            (GuestEventKind::Reset, Self::Reset),
            (GuestEventKind::PowerOff, Self::PowerOff),
            (GuestEventKind::TripleFault, Self::TripleFault),
            (GuestEventKind::Panic, Self::Panic),
        ]
        .into_iter()
        .filter(move |(event, _)| events.contains(*event))
    }
}

impl fmt::Display for StopKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "an interruption",
            Self::Step => "the end of a step",
            Self::Breakpoint => "a breakpoint",
            Self::Watchpoint => "an access to watched memory",
            Self::TripleFault => "a triple fault",
            Self::Reset => "a reset",
            Self::PowerOff => "a power-off",
            Self::Crash => "a crash",
            Self::Panic => "a panic of the guest's kernel",
            Self::Other => "a stop that this version does not know",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm_core_defs::addr::VpIndex;

    #[test]
    fn the_text_of_a_stop_names_its_vp() {
        let vps = VpSet::first(2);
        let vp = VpIndex::new(1);
        for (reason, text) in [
            (
                DebugStopReason::SingleStep { vp },
                "the end of a step of VP 1",
            ),
            (DebugStopReason::Reset { vp: None }, "a reset"),
            (DebugStopReason::Break, "an interruption"),
        ] {
            let stop = Stop {
                reason,
                vps: vps.clone(),
                steps: None,
                condition_failure: None,
            };
            assert_eq!(stop.to_string(), text);
        }
    }
}
