//! Errors in the form that a client sees: a number, and a text that says what to do next with the commands of GDB and
//! of `monitor`.

use crate::capability_text::capability_meaning;
use crate::deadline::CallError;
use gdb_frontend::target::TargetError;
use gdb_frontend::target::TargetOp;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::Unsupported;

/// Error numbers of the protocol are those of Linux (GDB manual, node "Errno Values"). GDB shows only the number.
mod errno {
    pub(super) const EIO: u8 = 5;
    pub(super) const EFAULT: u8 = 14;
    pub(super) const EBUSY: u8 = 16;
    pub(super) const ENODEV: u8 = 19;
    pub(super) const EINVAL: u8 = 22;
    pub(super) const ENOSPC: u8 = 28;
    pub(super) const EOPNOTSUPP: u8 = 95;
    pub(super) const ETIMEDOUT: u8 = 110;
}

/// The one place that assigns a number to an error.
#[deny(clippy::wildcard_enum_match_arm)]
pub(crate) fn target_error(error: &CallError) -> TargetError {
    let errno = match error {
        CallError::TimedOut(_) => errno::ETIMEDOUT,
        CallError::Gone => errno::ENODEV,
        CallError::Refused(refused) => match refused {
            DebugError::NotMapped { .. }
            | DebugError::NoMemory { .. }
            | DebugError::MemoryOutOfReach { .. } => errno::EFAULT,
            DebugError::NoSuchVp { .. }
            | DebugError::NothingToRun
            | DebugError::BadLength { .. }
            | DebugError::BadBreakpoint { .. }
            | DebugError::NoSuchBreakpoint { .. }
            | DebugError::BadRegister { .. } => errno::EINVAL,
            DebugError::TooManyBreakpoints { .. }
            | DebugError::NoFreeSlot { .. }
            | DebugError::GuestUsesSlots { .. }
            | DebugError::NotExecutable { .. } => errno::ENOSPC,
            DebugError::Unsupported { .. } => errno::EOPNOTSUPP,
            DebugError::Overdue { .. } => errno::ETIMEDOUT,
            DebugError::AlreadyAttached | DebugError::NotStopped => errno::EBUSY,
            DebugError::Ended { .. } => errno::ENODEV,
            DebugError::NotAttached
            | DebugError::NotYourSession
            | DebugError::Detached
            | DebugError::Hypervisor { .. } => errno::EIO,
            // An error of a newer VMM; its own words follow.
            _ => errno::EIO,
        },
    };
    TargetError {
        errno,
        text: error.to_string(),
    }
}

/// Says what went wrong, and what GDB's user can type next.
pub(crate) fn text_for_gdb(error: &DebugError) -> String {
    match error {
        DebugError::NoSuchVp { vp, count } => {
            format!("there is no VP {vp}: this guest has {count}; see `info threads`")
        }
        DebugError::MemoryOutOfReach { gpa } => format!(
            "the memory at physical address {gpa} cannot be accessed: the VMM has mapped it read-only or without access, or the file behind it has shrunk; use \
             `hbreak` for code there"
        ),
        DebugError::TooManyBreakpoints { limit } => format!(
            "{limit} breakpoints are set, and this VMM permits no more; `delete` some first"
        ),
        DebugError::NoFreeSlot { slots } => {
            format!("all {slots} debug registers are in use; `info breakpoints`, then `delete` one")
        }
        DebugError::GuestUsesSlots {
            slots,
            guest,
            yours,
        } => format!(
            "the guest uses {guest} of the {slots} debug registers for its own breakpoints, and your breakpoints use {yours}; use `break` instead of `hbreak`, \
             `delete` one of your breakpoints, or let the guest's own debugger (ptrace, perf, kgdb) remove one of its breakpoints"
        ),
        DebugError::NotExecutable { address } => format!(
            "the page of {address} is not executable, so a breakpoint there needs a debug register, and none is free; `info breakpoints`, then `delete` a \
             hardware breakpoint or a watchpoint"
        ),
        DebugError::NoSuchBreakpoint { address } => format!(
            "no such breakpoint is set at {address}; `monitor breakpoints` lists the breakpoints"
        ),
        DebugError::Unsupported(Unsupported::Host(missing)) => format!(
            "not possible here: {}. {}",
            missing.kind,
            capability_meaning(missing)
        ),
        DebugError::Unsupported(why @ Unsupported::NotStarted { .. }) => {
            format!("not possible here: {why}; choose another VP, or let the guest start this VP")
        }
        other => other.to_string(),
    }
}

/// For an operation of a `gdb_frontend` that is newer than this crate.
pub(crate) fn not_known(operation: &TargetOp) -> TargetError {
    TargetError {
        errno: errno::EOPNOTSUPP,
        text: format!(
            "this debug server does not know the operation {operation:?}: build it with the version of gdb_frontend that it is made for"
        ),
    }
}

/// The error for a request that the worker itself finds invalid.
pub(crate) fn bad_argument(text: impl Into<String>) -> TargetError {
    TargetError {
        errno: errno::EINVAL,
        text: text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use vmm_core_defs::addr::Gpa;
    use vmm_core_defs::capability::Capability;
    use vmm_core_defs::capability::CapabilityKind;
    use vmm_core_defs::capability::Support;

    #[test]
    fn errors_get_words_that_name_gdbs_commands_and_the_number_gdb_expects() {
        for (error, errno, text) in [
            (
                CallError::Refused(DebugError::NoMemory {
                    gpa: Gpa::new(0x1000),
                }),
                14,
                "physical address 0x1000",
            ),
            (
                CallError::Refused(DebugError::NoFreeSlot { slots: 4 }),
                28,
                "`info breakpoints`, then `delete`",
            ),
            (
                CallError::Refused(DebugError::Unsupported(Unsupported::Host(Capability {
                    kind: CapabilityKind::DataWatchpoints,
                    support: Support::NoEffect,
                    seen: "the guest ran on".to_owned(),
                }))),
                95,
                "not possible here: data watchpoints. `watch`",
            ),
            (
                CallError::TimedOut(Duration::from_millis(2500)),
                110,
                "within 2.5 s",
            ),
            (CallError::Gone, 19, "the guest is gone"),
        ] {
            let error = target_error(&error);
            assert_eq!(error.errno, errno);
            assert!(error.text.contains(text), "{}", error.text);
        }
    }
}
