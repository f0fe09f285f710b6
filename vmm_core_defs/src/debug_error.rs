//! Why a request was not carried out.

use crate::addr::Gpa;
use crate::addr::Gva;
use crate::addr::VpIndex;
use crate::capability::Capability;
use crate::capability::CapabilityKind;
#[cfg(doc)]
use crate::debug_rpc::DebugRequest;
use crate::memory::WalkFaultReason;
use crate::stop::GuestEnd;
use serde::Deserialize;
use serde::Serialize;
use thiserror::Error;

/// Why a request was not carried out: what is wrong, as facts. The text of an error is for logs and for programs; a server that talks to a debugger's user adds
/// what the user can type.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum DebugError {
    /// Another debugger is attached.
    #[error("another debugger is attached to this guest; detach it first")]
    AlreadyAttached,
    /// No debugger is attached.
    #[error("no debugger is attached; attach first")]
    NotAttached,
    /// Another session is attached than the one that the request names.
    #[error(
        "another debugger is attached to this guest, and this request is not of its session; attach again once that debugger has detached"
    )]
    NotYourSession,
    /// The debugger detached while its request waited.
    #[error("the debugger detached before the guest stopped")]
    Detached,
    /// The guest has ended for good: a `Resume` has no stop then.
    #[error("the guest has ended: {how}")]
    Ended {
        /// In which way.
        how: GuestEnd,
    },
    /// It needs a stopped guest.
    #[error("the guest is running; interrupt it first")]
    NotStopped,
    /// There is no such VP.
    #[error("there is no VP {vp}: this guest has {count}, counted from 0")]
    NoSuchVp {
        /// The index asked for.
        vp: VpIndex,
        /// How many there are.
        count: u32,
    },
    /// Every VP was to stay stopped.
    #[error("no VP is to run: resume or step at least one")]
    NothingToRun,
    /// The address has no mapping.
    #[error("no page maps {gva} on VP {vp}: {why}")]
    NotMapped {
        /// Whose page tables were asked.
        vp: VpIndex,
        /// The first byte that has none.
        gva: Gva,
        /// Where the walk ended.
        why: WalkFaultReason,
    },
    /// Neither memory nor a device is there.
    #[error("neither memory nor a device is at physical address {gpa}")]
    NoMemory {
        /// The first byte where nothing is.
        gpa: Gpa,
    },
    /// RAM is there, and the VMM's mapping of it does not allow the access.
    #[error(
        "the memory at physical address {gpa} is out of reach: the VMM has mapped it read-only or without access, or the file behind it has shrunk; \
         a breakpoint there needs a debug register"
    )]
    MemoryOutOfReach {
        /// The first byte that could not be accessed.
        gpa: Gpa,
    },
    /// A length of more than [`MAX_TRANSFER`](crate::memory::MAX_TRANSFER), or one that wraps around the address space.
    #[error(
        "{len} bytes from {address:#x} is too long for one request or passes the end of the address space; ask for less"
    )]
    BadLength {
        /// The first byte.
        address: u64,
        /// The bytes asked for.
        len: u64,
    },
    /// The hardware cannot watch that.
    #[error(
        "cannot watch {len} bytes at {address}: x86 watches 1, 2, 4 or 8 bytes at a multiple of that length"
    )]
    BadBreakpoint {
        /// The first byte.
        address: Gva,
        /// The bytes asked for.
        len: u64,
    },
    /// The session has as many breakpoints as the VMM permits.
    #[error("{limit} breakpoints are set, and this VMM permits no more: remove some first")]
    TooManyBreakpoints {
        /// How many are permitted.
        limit: u32,
    },
    /// All debug registers are in use.
    #[error("all {slots} debug registers are in use; remove a breakpoint that has one")]
    NoFreeSlot {
        /// How many there are.
        slots: u32,
    },
    /// The guest uses some debug registers itself, and breakpoints have the others. They are never taken from the guest.
    #[error(
        "of the {slots} debug registers the guest uses {guest} for breakpoints of its own and yours have {yours}: use a software breakpoint, remove \
         one of yours, or let the guest remove one of its own"
    )]
    GuestUsesSlots {
        /// How many there are.
        slots: u32,
        /// How many the guest uses, on the VP where it uses most.
        guest: u32,
        /// How many the debugger's breakpoints have.
        yours: u32,
    },
    /// A breakpoint on a page that is not executable, where an `INT3` is never met, and there is no debug register for it.
    #[error(
        "the page of {address} is not executable: a breakpoint there needs a debug register, and none is free; remove a hardware breakpoint or a \
         watchpoint"
    )]
    NotExecutable {
        /// The address asked for.
        address: Gva,
    },
    /// There is no such breakpoint.
    #[error("no such breakpoint at {address} is set")]
    NoSuchBreakpoint {
        /// The address asked for.
        address: Gva,
    },
    /// A register that the VP lacks, or a value it refuses.
    #[error("register {name}: {why}")]
    BadRegister {
        /// The register.
        name: String,
        /// What is wrong, and what would be right.
        why: String,
    },
    /// This host or this VMM cannot do it.
    #[error("not possible here: {0}")]
    Unsupported(#[from] Unsupported),
    /// The VMM's own code for a device or a reset blocks.
    #[error(
        "{what} has not returned for {seconds} s: the VMM's code blocks there. Requests that need no device are served meanwhile; ask again later, and look \
         for a deadlock in this method of the VMM"
    )]
    Overdue {
        /// The method of the VMM's, and the address if there is one.
        what: String,
        /// How long ago the call was made.
        seconds: u64,
    },
    /// The hypervisor refused.
    #[error("the hypervisor refused to {what}: {why}; see the VMM's log")]
    Hypervisor {
        /// What was asked of it.
        what: String,
        /// What it said.
        why: String,
    },
}

/// What a host, a VMM or a guest in its present state cannot do.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Unsupported {
    /// The host was found to lack what the request needs.
    #[error("this host lacks {0}")]
    Host(Capability),
    /// The VMM has not tried whether the host has what the request needs.
    #[error("{0}: the VMM has not probed this host")]
    NotProbed(CapabilityKind),
    /// The VMM gave the guest's time-stamp counter another rate than the host's.
    #[error(
        "{}: the guest's time-stamp counter runs at another rate than the host's, because the VMM has set that rate",
        CapabilityKind::FrozenTime
    )]
    ClockRateSet,
    /// The hypervisor does not say how fast the guest's time-stamp counter runs.
    #[error(
        "{}: the hypervisor does not say how fast the guest's time-stamp counter runs",
        CapabilityKind::FrozenTime
    )]
    ClockRateUnknown,
    /// The guest has not started the VP, so an interrupt would have no effect.
    #[error("an NMI for VP {vp}: the guest has not started that VP (INIT-SIPI)")]
    NotStarted {
        /// The VP asked for.
        vp: VpIndex,
    },
    /// The VMM has no such operation.
    #[error("{request}: this VMM does not implement the request")]
    Request {
        /// The request's name, as in [`DebugRequest::NAMES`].
        request: String,
    },
}
