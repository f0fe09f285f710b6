//! The report as a set of capabilities, with the observations as text.

use super::Finding;
use super::Int3;
use super::Report;
use super::Seen;
use super::UserMode;
use std::fmt;
use vmm_core_defs::capability::Capabilities;
use vmm_core_defs::capability::Capability;
use vmm_core_defs::capability::CapabilityKind;
use vmm_core_defs::capability::Support;

impl Report {
    /// All capabilities that were tested.
    pub fn capabilities(&self) -> Capabilities {
        let (protected, long) = (self.int3_protected, self.int3_long);
        let row = |kind, finding: &Finding| Capability {
            kind,
            support: finding.support(),
            seen: finding.seen.to_string(),
        };
        let mut held = row(CapabilityKind::InterruptsHeld, &self.interrupts_held);
        if !held.works() && self.shadow_holds.works {
            held.support = Support::Replaced;
            held.seen += "; an interrupt shadow holds them";
        }
        Capabilities::from_iter([
            traps(
                CapabilityKind::SoftwareBreakpointsInRealMode,
                self.int3_real.traps(),
                self.int3_real.to_string(),
            ),
            traps(
                CapabilityKind::SoftwareBreakpoints,
                protected.traps() && long.traps(),
                format!("32-bit: {protected}; 64-bit: {long}"),
            ),
            row(
                CapabilityKind::ExecutionBreakpoints,
                &self.execution_breakpoints,
            ),
            row(CapabilityKind::DataWatchpoints, &self.data_watchpoints),
            row(CapabilityKind::SingleStep, &self.single_step),
            traps(
                CapabilityKind::UserMode,
                self.user_mode.works(),
                self.user_mode.to_string(),
            ),
            held,
            row(
                CapabilityKind::RegisterAccessReported,
                &self.register_access,
            ),
            row(CapabilityKind::ResumeFlag, &self.resume_flag),
            row(CapabilityKind::RegistersWithExit, &self.sync_regs),
            row(CapabilityKind::FrozenTime, &self.frozen_time),
        ])
    }
}

fn traps(kind: CapabilityKind, works: bool, seen: String) -> Capability {
    let support = match works {
        true => Support::Works,
        false => Support::NoEffect,
    };
    Capability {
        kind,
        support,
        seen,
    }
}

impl Finding {
    fn support(&self) -> Support {
        match self.seen {
            _ if self.works => Support::Works,
            Seen::NotOffered | Seen::Refused { .. } => Support::NotOffered,
            Seen::ClockScaled => Support::ClockScaled,
            _ => Support::NoEffect,
        }
    }
}

impl fmt::Display for Int3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DebugExit => f.write_str("traps (KVM_EXIT_DEBUG)"),
            Self::InternalError => f.write_str("traps (KVM_EXIT_INTERNAL_ERROR with RIP on it)"),
            Self::NotTrapped(seen) => write!(f, "does not trap: {seen}"),
        }
    }
}

impl fmt::Display for UserMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.code_runs {
            f.write_str("the program did not run to its end without a debugger; ")?;
        }
        let (breakpoint, step) = (self.execution_breakpoints.seen, self.single_step.seen);
        write!(
            f,
            "INT3: {}; debug register: {breakpoint}; step: {step}",
            self.int3
        )
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Debug { vector, pc, dr6 } => {
                write!(f, "debug exit, vector {vector}, at {pc:#x}, DR6 {dr6:#x}")
            }
            Self::Ended => f.write_str("the guest ran on to its end"),
            Self::Handler => f.write_str("the guest's own handler ran"),
            Self::InternalError { rip } => write!(f, "KVM internal error at {rip:#x}"),
            Self::TripleFault => f.write_str("the guest met a triple fault"),
            Self::Overdue => f.write_str("the guest ran on until it was kicked"),
            Self::Refused { errno } => {
                write!(
                    f,
                    "KVM refused: {}",
                    std::io::Error::from_raw_os_error(*errno)
                )
            }
            Self::Other => f.write_str("an exit that has no place here"),
            Self::NotOffered => f.write_str("KVM does not offer it"),
            Self::WrongRegisters => f.write_str("the registers given were not the vCPU's"),
            Self::ClockSet => f.write_str("clocks went on from where they were set to"),
            Self::ClockKept => f.write_str("a clock took no notice of being set"),
            Self::ClockScaled => {
                f.write_str("the guest's time-stamp counter runs at another rate than the host's")
            }
        }
    }
}
