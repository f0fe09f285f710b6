//! Errors in the form that a client sees: a number, and a text that says what to do next with the commands of GDB and
//! of `monitor`.

use crate::capability_text::capability_meaning;
use crate::deadline::CallError;
use gdb_frontend::target::TargetError;
use gdb_frontend::target::TargetOp;
use vmm_core_defs::debug_rpc::BadRegisterReason;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::Unsupported;

/// Error numbers of the protocol are those of Linux (GDB manual, node "Errno Values"). GDB shows only the number.
mod errno {
    pub(super) const EIO: u8 = 5;
    pub(super) const EAGAIN: u8 = 11;
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
            | DebugError::MemoryOutOfReach { .. }
            | DebugError::NoDeviceAccess { .. } => errno::EFAULT,
            DebugError::NoSuchVp { .. }
            | DebugError::NothingToRun
            | DebugError::BadLength { .. }
            | DebugError::BadBreakpoint { .. }
            | DebugError::BadCondition { .. }
            | DebugError::NoSuchBreakpoint { .. }
            | DebugError::BadRegister { .. } => errno::EINVAL,
            DebugError::TooManyBreakpoints { .. }
            | DebugError::NoFreeSlot { .. }
            | DebugError::GuestUsesSlots { .. }
            | DebugError::NotExecutable { .. } => errno::ENOSPC,
            DebugError::Unsupported { .. } => errno::EOPNOTSUPP,
            DebugError::Overdue { .. } => errno::ETIMEDOUT,
            DebugError::NoThread { .. } => errno::EAGAIN,
            DebugError::AlreadyAttached | DebugError::NotStopped | DebugError::HeldByVmm { .. } => {
                errno::EBUSY
            }
            DebugError::Ended { .. } | DebugError::VpThreadEnded { .. } => errno::ENODEV,
            DebugError::NotAttached
            | DebugError::NotYourSession
            | DebugError::Detached
            | DebugError::MachineFailed { .. }
            | DebugError::RunnerBug(_)
            | DebugError::BadMessage(_)
            | DebugError::Hypervisor { .. } => errno::EIO,
            // An error of a newer vmm_core_defs. The text of the error says what it is.
            _ => errno::EIO,
        },
    };
    TargetError {
        errno,
        text: error.to_string(),
    }
}

/// Says what went wrong, and what GDB's user can type next.
#[deny(clippy::wildcard_enum_match_arm)]
pub(crate) fn text_for_gdb(error: &DebugError) -> String {
    match error {
        DebugError::AlreadyAttached => {
            "another debugger is attached to this guest; `detach` there, then connect again"
                .to_owned()
        }
        DebugError::NotAttached | DebugError::NotYourSession | DebugError::Detached => {
            "this debug session has ended, because the VMM or another debugger has detached it; connect again"
                .to_owned()
        }
        DebugError::Ended { .. } => format!("{error}; start the guest again, then connect again"),
        DebugError::NotStopped => "the guest is running; press Ctrl-C first".to_owned(),
        DebugError::NotMapped { .. } => format!(
            "{error}; check the address, and choose the VP whose page tables map it (`info threads`, `thread N`); `monitor info mem` lists what is mapped"
        ),
        DebugError::NoMemory { .. } => {
            format!("{error}; `monitor info mtree` lists the guest's memory")
        }
        DebugError::BadBreakpoint { .. } => {
            format!("{error}; watch a part of the data that has such a length and address")
        }
        DebugError::BadCondition { .. } => format!(
            "{error}; `set breakpoint condition-evaluation host`, and GDB evaluates conditions itself"
        ),
        DebugError::NoSuchVp { vp, count } => {
            format!(
                "there is no VP {vp}, or not any more: this guest has {count}; see `info threads`"
            )
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
        DebugError::BadRegister { reason, .. } => format!("{error}; {}", register_advice(reason)),
        DebugError::Overdue { .. } => format!(
            "{error}. Requests that need no device are served meanwhile; try again later, and look for a deadlock in this method of the VMM"
        ),
        DebugError::Unsupported(Unsupported::Host(missing)) => format!(
            "not possible here: {}. {}",
            missing.kind,
            capability_meaning(missing)
        ),
        DebugError::Unsupported(why) => format!("{error}; {}", unsupported_advice(why)),
        DebugError::VpThreadEnded { vp } => format!(
            "the guest cannot continue, because the thread of VP {vp} has ended: code of the VMM panicked on this thread, or the VMM is ending the guest; look for \
             the panic in the VMM's log, then start the guest again and connect again"
        ),
        DebugError::MachineFailed { call, how } => format!(
            "{call} {how}. This is code of the VMM, and neither the debugger nor KVM caused the error; if the error does not say what to do, see the VMM's log, then try again, or `kill` the guest and start it \
             again"
        ),
        DebugError::Hypervisor { call, error } => format!(
            "KVM refused to {call}: {error}; try again, and if KVM refuses again, see the log of the host's kernel (`dmesg`)"
        ),
        DebugError::RunnerBug(bug) => format!(
            "{bug}: this is a bug of the debug server; report it with the VMM's log, then `detach` and connect again"
        ),
        DebugError::NothingToRun
        | DebugError::BadLength { .. }
        | DebugError::HeldByVmm { .. }
        | DebugError::NoDeviceAccess { .. }
        | DebugError::BadMessage(_)
        | DebugError::NoThread { .. } => error.to_string(),
        // An error of a newer vmm_core_defs.
        other => other.to_string(),
    }
}

/// Says what GDB's user can do about a request that is not possible on this host, with this VMM or at this time.
const fn unsupported_advice(why: &Unsupported) -> &'static str {
    match why {
        Unsupported::NotStarted { .. } => "choose another VP, or let the guest start this VP",
        Unsupported::NotProbed(_) => {
            "the VMM has to give its runner the report of `vp_runner::probe::run`"
        }
        Unsupported::ClockRateSet | Unsupported::ClockRateUnknown | Unsupported::ClocksOfVmm => {
            "work with clocks that go on during a stop (`monitor freeze-time off`)"
        }
        Unsupported::ResetOfVmm => {
            "use the VMM's own command (in QEMU's monitor `system_reset`), and the debugger stays attached"
        }
        _ => "use a newer version of the VMM",
    }
}

/// The error for an operation that a newer `gdb_frontend` has and this crate does not know.
pub(crate) fn not_known(operation: &TargetOp) -> TargetError {
    TargetError {
        errno: errno::EOPNOTSUPP,
        text: format!(
            "this debug server does not know the operation {operation:?}: build the server with the version of gdb_frontend that it was written for"
        ),
    }
}

/// Says what GDB's user can do after a register or its value was refused.
const fn register_advice(reason: &BadRegisterReason) -> &'static str {
    match reason {
        BadRegisterReason::OtherArchitecture => "use a debugger for the guest's architecture",
        BadRegisterReason::Absent => "detach and connect again, to get the VP's list of registers",
        BadRegisterReason::NoValue => "read the registers again before you write them",
        BadRegisterReason::ReservedBits { .. } | BadRegisterReason::ReservedAttributes { .. } => {
            "clear these bits"
        }
        BadRegisterReason::BitIsAlwaysOne { .. } => "set this bit",
        BadRegisterReason::BitRequires { .. } => "set both bits",
        BadRegisterReason::TooWide { .. } => "use a smaller value",
        BadRegisterReason::NotCanonical { .. } => "check the address",
        BadRegisterReason::LimitNotInPages | BadRegisterReason::LimitTooLarge => {
            "change the limit or the attributes"
        }
        BadRegisterReason::UnknownMsr => "check the number of the MSR",
        BadRegisterReason::MsrRefused { .. } => {
            "check that the MSR exists and is writable, that the value sets no reserved bit, and that an address in it is canonical"
        }
        BadRegisterReason::Xcr0Refused { .. } => {
            "set bit 0 (x87), and set only bits that the guest's CPUID permits together"
        }
        BadRegisterReason::SystemRefused => {
            "clear reserved bits, make cr0, cr4, efer and cs agree on a mode, and check that this host's KVM has that mode"
        }
        _ => "see the VMM's log",
    }
}

/// The error for an address without RAM, or with RAM that cannot be read.
pub(crate) fn no_ram(address: u64) -> TargetError {
    TargetError {
        errno: errno::EFAULT,
        text: format!(
            "no RAM can be read at {address:#x}; `monitor info mem` lists the mapped ranges, and `monitor info mtree` the physical ones"
        ),
    }
}

/// The error for a file that the host cannot read.
pub(crate) fn not_read(error: &std::io::Error) -> TargetError {
    tracing::debug!(%error, "the file with the symbols cannot be read");
    TargetError {
        errno: errno::EIO,
        text: format!("the file with the symbols cannot be read: {error}"),
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
mod tests;
