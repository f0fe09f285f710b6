//! What a host can do for a debugger, found by trying.

use serde::Deserialize;
use serde::Serialize;
use std::fmt;

/// One thing that a debugger may rely on or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CapabilityKind {
    /// A breakpoint instruction in memory stops a VP in real mode.
    SoftwareBreakpointsInRealMode,
    /// A breakpoint instruction in memory stops a VP in protected mode and in long mode.
    SoftwareBreakpoints,
    /// A debug register stops a VP before it executes an instruction.
    ExecutionBreakpoints,
    /// A debug register stops a VP after it accesses memory.
    DataWatchpoints,
    /// A VP stops after one instruction.
    SingleStep,
    /// Pending interrupts wait while a VP steps.
    InterruptsHeld,
    /// A VP that accesses its debug registers exits first.
    RegisterAccessReported,
    /// RFLAGS.RF gets a VP past a breakpoint that is armed.
    ResumeFlag,
    /// The hypervisor hands registers over with each exit.
    RegistersWithExit,
    /// The guest's clocks can be put back after a stop.
    FrozenTime,
}

impl CapabilityKind {
    /// Every kind, in the order in which people read about them.
    pub const ALL: &[Self] = &[
        Self::SoftwareBreakpointsInRealMode,
        Self::SoftwareBreakpoints,
        Self::ExecutionBreakpoints,
        Self::DataWatchpoints,
        Self::SingleStep,
        Self::InterruptsHeld,
        Self::RegisterAccessReported,
        Self::ResumeFlag,
        Self::RegistersWithExit,
        Self::FrozenTime,
    ];
}

impl fmt::Display for CapabilityKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SoftwareBreakpointsInRealMode => "software breakpoints in real mode",
            Self::SoftwareBreakpoints => "software breakpoints in protected and long mode",
            Self::ExecutionBreakpoints => "hardware execution breakpoints",
            Self::DataWatchpoints => "data watchpoints",
            Self::SingleStep => "single step",
            Self::InterruptsHeld => "interrupts held while stepping",
            Self::RegisterAccessReported => "debug-register accesses reported",
            Self::ResumeFlag => "resume flag",
            Self::RegistersWithExit => "registers with each exit",
            Self::FrozenTime => "time that stands while stopped",
        })
    }
}

/// Whether a host has a capability, and if not, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Support {
    /// The host has it.
    Works,
    /// The host lacks it, and the runner reaches the same by other means, at a cost.
    Replaced,
    /// The hypervisor does not offer it, or refuses to do it. A newer one may.
    NotOffered,
    /// The hypervisor accepts it and does something else. An update is not known to help.
    NoEffect,
    /// The guest's clock counts at another rate than the host's, so it cannot be put back.
    ClockScaled,
}

/// A capability, and what became of it when it was tried on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capability {
    /// Which one.
    pub kind: CapabilityKind,
    /// Whether the host has it.
    pub support: Support,
    /// What was seen, in the hypervisor's terms.
    pub seen: String,
}

impl Capability {
    /// Whether the host has it.
    pub fn works(&self) -> bool {
        self.support == Support::Works
    }

    /// Whether the user goes without it: the host lacks it, and the runner has nothing in its place.
    pub fn is_wanting(&self) -> bool {
        !matches!(self.support, Support::Works | Support::Replaced)
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.seen)
    }
}

/// The capabilities that were tried on a host, each once. Empty where the VMM has not probed its host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities(Vec<Capability>);

impl Capabilities {
    /// What is known of one.
    pub fn get(&self, kind: CapabilityKind) -> Option<&Capability> {
        self.0.iter().find(|capability| capability.kind == kind)
    }

    /// The capability where it was tried and the host lacks it.
    pub fn missing(&self, kind: CapabilityKind) -> Option<&Capability> {
        self.get(kind).filter(|capability| !capability.works())
    }

    /// All of them, in the order in which they were given.
    pub fn iter(&self) -> impl Iterator<Item = &Capability> {
        self.0.iter()
    }
}

impl FromIterator<Capability> for Capabilities {
    fn from_iter<I: IntoIterator<Item = Capability>>(capabilities: I) -> Self {
        let mut list: Vec<Capability> = Vec::new();
        for capability in capabilities {
            if list.iter().all(|known| known.kind != capability.kind) {
                list.push(capability);
            }
        }
        Self(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_set_has_each_kind_once_and_says_which_one_is_missing() {
        let one = |kind, support| Capability {
            kind,
            support,
            seen: "tried".to_owned(),
        };
        let set = Capabilities::from_iter([
            one(CapabilityKind::SingleStep, Support::Works),
            one(CapabilityKind::InterruptsHeld, Support::Replaced),
            one(CapabilityKind::SingleStep, Support::NotOffered),
        ]);
        assert_eq!(set.iter().count(), 2);
        assert!(set.missing(CapabilityKind::SingleStep).is_none());
        let replaced = set.missing(CapabilityKind::InterruptsHeld).unwrap();
        assert!(!replaced.is_wanting());
        assert!(one(CapabilityKind::SingleStep, Support::NoEffect).is_wanting());
        assert!(!one(CapabilityKind::SingleStep, Support::Works).is_wanting());
        assert!(set.missing(CapabilityKind::FrozenTime).is_none());
    }

    #[test]
    fn each_kind_has_a_name_of_its_own() {
        let names: HashSet<_> = CapabilityKind::ALL
            .iter()
            .map(|kind| kind.to_string())
            .collect();
        assert_eq!(names.len(), CapabilityKind::ALL.len());
    }
}
