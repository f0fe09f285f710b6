//! Errors as a client sees them: a number, and words that say what to do next.

use crate::deadline::CallError;
use gdb_frontend::target::TargetError;
use vmm_core_defs::debug_rpc::DebugError;

/// GDB's numbers for errors are those of Linux (GDB manual, node "Errno Values"), which it shows only as a number.
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

/// The one place where an error gets its number.
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
        },
    };
    TargetError {
        errno,
        text: error.to_string(),
    }
}

/// For what the worker itself finds wrong with a request.
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

    #[test]
    fn errors_keep_their_words_and_get_the_number_gdb_expects() {
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
