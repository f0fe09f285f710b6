//! The report in words for a person.

use super::Finding;
use super::Int3;
use super::Report;
use super::Seen;
use std::fmt;
use vmm_core_defs::debug_rpc::Capability;

/// The name of the capability without which watchpoints are refused.
pub(crate) const DATA_WATCHPOINTS: &str = "data watchpoints";

impl Report {
    /// One row for each thing tried, with what it means for the user.
    pub fn capabilities(&self) -> Vec<Capability> {
        let row = |name: &str, works: bool, seen: String, good: &str, bad: &str| Capability {
            name: name.into(),
            works,
            seen,
            meaning: if works { good } else { bad }.into(),
        };
        let finding = |name, finding: &Finding, good, bad| {
            row(name, finding.works, finding.seen.to_string(), good, bad)
        };
        vec![
            row(
                "software breakpoints in real mode",
                self.int3_real.traps(),
                self.int3_real.to_string(),
                "`break` works before the guest has left real mode.",
                "`break` in real-mode code needs a debug register each, four at most; `hbreak` says so plainly.",
            ),
            row(
                "software breakpoints in protected and long mode",
                self.int3_protected.traps() && self.int3_long.traps(),
                format!(
                    "32-bit: {}; 64-bit: {}",
                    self.int3_protected, self.int3_long
                ),
                "`break` works anywhere, with no limit on their number.",
                "`break` needs a debug register each, four at most; delete one that is not needed before setting a fifth.",
            ),
            finding(
                "hardware execution breakpoints",
                &self.execution_breakpoints,
                "`hbreak` works, also on code that is not in memory yet; four at once.",
                "`hbreak` does not stop the guest: use `break`, and update the host's kernel if that does not work either.",
            ),
            finding(
                DATA_WATCHPOINTS,
                &self.data_watchpoints,
                "`watch`, `rwatch` and `awatch` on 1, 2, 4 or 8 bytes work; four at once.",
                "`watch`, `rwatch` and `awatch` are refused: this KVM accepts them and never reports a hit. Break where the data is used, step, or use another host \
                 (the project's nested KVM has working ones).",
            ),
            finding(
                "single step",
                &self.single_step,
                "`stepi`, `step` and `next` work.",
                "`stepi`, `step` and `next` do not work, and `continue` cannot get past a breakpoint: update the host's kernel.",
            ),
            finding(
                "interrupts held while stepping",
                &self.interrupts_held,
                "A step stays in the code it is in; a pending interrupt is delivered when the guest next runs.",
                match self.interrupts_held.seen {
                    _ if self.shadow_holds.works => {
                        "A step stays in the code it is in all the same: an interrupt shadow is cast before each step, which costs two more system calls."
                    }
                    Seen::NotOffered => {
                        "A step can end in an interrupt handler: `finish` leaves it. The host's kernel does not offer KVM_GUESTDBG_BLOCKIRQ: update it to Linux 5.15 or later."
                    }
                    _ => {
                        "A step can end in an interrupt handler: `finish` leaves it. The host's KVM offers KVM_GUESTDBG_BLOCKIRQ, but it has no effect here."
                    }
                },
            ),
            finding(
                "debug-register accesses reported",
                &self.register_access,
                "A debug register that a guest sets for itself is in force at once beside an `hbreak` or `watch` of yours.",
                "A debug register that a guest sets for itself may not fire for the first 25 ms beside an `hbreak` or `watch` of yours. Nothing else depends on it.",
            ),
            finding(
                "resume flag",
                &self.resume_flag,
                "RFLAGS.RF gets past an armed breakpoint.",
                "Nothing you will notice: breakpoints are taken out for one step instead, which costs some microseconds each time.",
            ),
            finding(
                "registers with each exit",
                &self.sync_regs,
                "Registers come with each stop (KVM_CAP_SYNC_REGS), without a system call.",
                "Nothing you will notice: registers are fetched by system calls, which costs some microseconds at each stop.",
            ),
            finding(
                "time that stands while stopped",
                &self.frozen_time,
                "The guest's clocks and timers stand while it is stopped (`--freeze-time`, `monitor freeze-time`).",
                clocks_go_on(self.frozen_time.seen),
            ),
        ]
    }
}

/// What it means that a guest's clocks cannot be put back, and what helps: that depends on why they cannot.
pub(crate) const fn clocks_go_on(seen: Seen) -> &'static str {
    match seen {
        Seen::ClockScaled => {
            "The guest's clocks go on while it is stopped, and its timers fire at once afterwards: this host's KVM scales the guest's time-stamp counter. Use a \
             host that lets it run at its own rate."
        }
        Seen::ClockKept => {
            "The guest's clocks go on while it is stopped, and its timers fire at once afterwards: this host's KVM accepts a new time and does not keep it, and no \
             update is known to help. Use another host if the guest must not notice its stops."
        }
        // The attribute that sets the counter's offset is missing, or the call that sets the clock.
        _ => {
            "The guest's clocks go on while it is stopped, and its timers fire at once afterwards: this host's KVM refuses to set them, as kernels before Linux \
             5.16 do. Update an older kernel; on a newer one, use another host."
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
