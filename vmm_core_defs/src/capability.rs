//! The features of a host that a debugger depends on, and whether they work. The runner finds out by trying each
//! feature.

use serde::Deserialize;
use serde::Serialize;
use std::fmt;

/// A feature of the host's hypervisor that a debugger depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CapabilityKind {
    /// A breakpoint instruction in memory stops a VP in real mode.
    SoftwareBreakpointsInRealMode,
    /// A breakpoint instruction in memory stops a VP in protected mode and in long mode.
    SoftwareBreakpoints,
    /// A debug register stops a VP before the VP executes the instruction at an address.
    ExecutionBreakpoints,
    /// A debug register stops a VP after the VP has accessed an address.
    DataWatchpoints,
    /// A VP can stop after one instruction.
    SingleStep,
    /// Breakpoint instructions, execution breakpoints and steps stop a VP in 64-bit code in ring 3 too.
    UserMode,
    /// A step does not deliver pending interrupts.
    InterruptsHeld,
    /// An access of a VP to its debug registers exits to the runner before it takes effect.
    RegisterAccessReported,
    /// With RFLAGS.RF set, a VP executes the instruction at an armed execution breakpoint.
    ResumeFlag,
    /// The hypervisor passes the registers to the runner with each exit, so no system call is needed to read them.
    RegistersWithExit,
    /// The guest's clocks can be set back after a stop.
    FrozenTime,
}

impl CapabilityKind {
    /// All kinds, in the order in which reports list them.
    pub const ALL: &[Self] = &[
        Self::SoftwareBreakpointsInRealMode,
        Self::SoftwareBreakpoints,
        Self::ExecutionBreakpoints,
        Self::DataWatchpoints,
        Self::SingleStep,
        Self::UserMode,
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
            Self::UserMode => "breakpoints and steps in 64-bit user code",
            Self::InterruptsHeld => "interrupts held while stepping",
            Self::RegisterAccessReported => "debug-register accesses reported",
            Self::ResumeFlag => "resume flag",
            Self::RegistersWithExit => "registers with each exit",
            Self::FrozenTime => "time that stands while stopped",
        })
    }
}

/// Whether a host has a feature, and the reason if it has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Support {
    /// The feature works.
    Works,
    /// The feature does not work. The runner has the same effect in another way, which is slower.
    Replaced,
    /// The hypervisor does not offer the feature, or refuses to use it. A newer hypervisor may have it.
    NotOffered,
    /// The hypervisor accepts the feature without the promised effect. No hypervisor version is known to differ.
    NoEffect,
    /// The guest's clock counts at another rate than the host's, so the runner cannot set it back.
    ClockScaled,
}

/// A feature, and the result of trying it on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capability {
    /// The feature that was tried.
    pub kind: CapabilityKind,
    /// The result.
    pub support: Support,
    /// The observation on which the result is based, in the hypervisor's terms.
    pub seen: String,
}

impl Capability {
    /// Whether the feature works.
    pub fn works(&self) -> bool {
        self.support == Support::Works
    }

    /// Whether users have to do without the feature: it does not work, and the runner has no replacement.
    pub fn is_wanting(&self) -> bool {
        !matches!(self.support, Support::Works | Support::Replaced)
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.seen)
    }
}

/// The features that were tried on a host, each once. The set is empty if the VMM has not probed its host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities(Vec<Capability>);

impl Capabilities {
    /// The result for a feature. `None` if it was not tried.
    pub fn get(&self, kind: CapabilityKind) -> Option<&Capability> {
        self.0.iter().find(|capability| capability.kind == kind)
    }

    /// The result for a feature, if it was tried and does not work.
    pub fn missing(&self, kind: CapabilityKind) -> Option<&Capability> {
        self.get(kind).filter(|capability| !capability.works())
    }

    /// All results, in the order of insertion.
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
