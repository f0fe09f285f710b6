//! The errors that answer debug requests.

use crate::addr::Gpa;
use crate::addr::Gva;
use crate::addr::VpIndex;
use crate::bad_message::BadMessage;
use crate::capability::Capability;
use crate::capability::CapabilityKind;
#[cfg(doc)]
use crate::debug_rpc::DebugRequest;
use crate::hypervisor_call::HypervisorCall;
use crate::hypervisor_call::OsError;
use crate::machine_call::MachineCall;
use crate::machine_call::MachineFailure;
use crate::memory::WalkFaultReason;
use crate::stop::GuestEnd;
use serde::Deserialize;
use serde::Serialize;
use thiserror::Error;

/// The reason why a request failed, as facts. The text of an error is for logs and for programs. A server that talks to
/// a debugger's user adds the commands that the user can type.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DebugError {
    /// `Attach` failed because another debugger is attached to the guest.
    #[error("another debugger is attached to this guest; detach it first")]
    AlreadyAttached,
    /// The request needs an attached debugger, and no debugger is attached.
    #[error("no debugger is attached; attach first")]
    NotAttached,
    /// The request names another session than the one that is attached.
    #[error(
        "another debugger is attached to this guest, and this request is not of its session; attach again once that debugger has detached"
    )]
    NotYourSession,
    /// The debugger detached while a `Resume` was waiting for a stop.
    #[error("the debugger detached before the guest stopped")]
    Detached,
    /// The guest has ended for good, so a `Resume` gets no stop.
    #[error("the guest has ended: {how}")]
    Ended {
        /// How the guest ended.
        how: GuestEnd,
    },
    /// The request is legal only while the guest is stopped.
    #[error("the guest is running; interrupt it first")]
    NotStopped,
    /// The guest has no VP with this index: its number is too large, or its thread has ended.
    #[error("there is no VP {vp}, or not any more: this guest has {count}")]
    NoSuchVp {
        /// The index in the request.
        vp: VpIndex,
        /// The number of VPs that the guest has.
        count: u32,
    },
    /// The `Resume` names no VP that is to run or step.
    #[error("no VP is to run: resume or step at least one")]
    NothingToRun,
    /// No page maps the virtual address.
    #[error("no page maps {gva} on VP {vp}: {why}")]
    NotMapped {
        /// The VP whose page tables were walked.
        vp: VpIndex,
        /// The first byte that is not mapped.
        gva: Gva,
        /// The reason why the page walk ended.
        why: WalkFaultReason,
    },
    /// The physical address has neither RAM nor a device.
    #[error("neither memory nor a device is at physical address {gpa}")]
    NoMemory {
        /// The first byte without RAM and without a device.
        gpa: Gpa,
    },
    /// The physical address has RAM, but the VMM's mapping of the RAM does not allow the access.
    #[error(
        "the memory at physical address {gpa} is out of reach: the VMM has mapped it read-only or without access, or the file behind it has shrunk; \
         a breakpoint there needs a debug register"
    )]
    MemoryOutOfReach {
        /// The first byte that could not be accessed.
        gpa: Gpa,
    },
    /// The length is more than [`MAX_TRANSFER`](crate::memory::MAX_TRANSFER), or the range passes the end of the
    /// address space.
    #[error(
        "{len} bytes from {address:#x} is too long for one request or passes the end of the address space; ask for less"
    )]
    BadLength {
        /// The address of the first byte, virtual or physical as in the request.
        address: u64,
        /// The length in the request, in bytes.
        len: u64,
    },
    /// The hardware cannot watch this length at this address.
    #[error(
        "cannot watch {len} bytes at {address}: x86 watches 1, 2, 4 or 8 bytes at a multiple of that length"
    )]
    BadBreakpoint {
        /// The address of the first byte.
        address: Gva,
        /// The length in the request, in bytes.
        len: u64,
    },
    /// A condition or a command of a breakpoint cannot be evaluated: its code is wrong, or names a register that conditions do not have.
    #[error("a condition or a command of the breakpoint at {address} is refused: {problem}")]
    BadCondition {
        /// The address of the breakpoint.
        address: Gva,
        /// The problem in words.
        problem: String,
    },
    /// The session already has the number of breakpoints that the VMM permits.
    #[error("{limit} breakpoints are set, and this VMM permits no more: remove some first")]
    TooManyBreakpoints {
        /// The number of breakpoints that a session may have.
        limit: u32,
    },
    /// All debug registers hold breakpoints of the debugger.
    #[error("all {slots} debug registers are in use; remove a breakpoint that has one")]
    NoFreeSlot {
        /// The number of debug registers.
        slots: u32,
    },
    /// The guest uses some debug registers itself, and breakpoints of the debugger hold the others. The runner never
    /// takes a debug register from the guest.
    #[error(
        "of the {slots} debug registers the guest uses {guest} for breakpoints of its own and yours have {yours}: use a software breakpoint, remove \
         one of yours, or let the guest remove one of its own"
    )]
    GuestUsesSlots {
        /// The number of debug registers.
        slots: u32,
        /// The number of debug registers that the guest uses, on the VP that uses most.
        guest: u32,
        /// The number of debug registers that hold breakpoints of the debugger.
        yours: u32,
    },
    /// The page is not executable, so a breakpoint instruction on it would never execute, and no debug register is
    /// free.
    #[error(
        "the page of {address} is not executable: a breakpoint there needs a debug register, and none is free; remove a hardware breakpoint or a \
         watchpoint"
    )]
    NotExecutable {
        /// The address of the breakpoint.
        address: Gva,
    },
    /// The breakpoint to remove is not set.
    #[error("no such breakpoint at {address} is set")]
    NoSuchBreakpoint {
        /// The address of the breakpoint.
        address: Gva,
    },
    /// The VP lacks the register, or refuses the value.
    #[error("register {name}: {reason}")]
    BadRegister {
        /// The name of the register, as the target description of the protocol names it, or `MSR` and the number. Several names, with
        /// commas, if the hypervisor does not say which of the registers it refuses.
        name: String,
        /// The reason for the refusal.
        reason: BadRegisterReason,
    },
    /// The host or the VMM cannot carry out the request.
    #[error("not possible here: {0}")]
    Unsupported(#[from] Unsupported),
    /// A method of the VMM for a device or for a reset has not returned.
    #[error("{call} has not returned for {seconds} s: the VMM's code blocks there")]
    Overdue {
        /// The call that has not returned.
        call: MachineCall,
        /// The time since the call of the method, in seconds.
        seconds: u64,
    },
    /// A method of the VMM for a device or for a reset failed.
    #[error(
        "{call} {how}: the fault is in the VMM's code; see the VMM's log, then try again or start the guest again"
    )]
    MachineFailed {
        /// The call that failed.
        call: MachineCall,
        /// How the call failed.
        how: MachineFailure,
    },
    /// The host refused the thread on which the runner calls a method of the VMM. The method was not called.
    #[error(
        "the host refused a thread for {call}: {error}; raise the limit on processes (`ulimit -u`), then try again"
    )]
    NoThread {
        /// The call that was to be made.
        call: MachineCall,
        /// The host's error.
        error: OsError,
    },
    /// The thread of the VP has ended: code of the VMM panicked on it, or the VMM is ending the guest.
    #[error(
        "the thread of VP {vp} has ended, so the guest cannot continue: code of the VMM panicked on this thread, or the VMM is ending the guest; see the VMM's \
         log, then start the guest again"
    )]
    VpThreadEnded {
        /// The VP whose thread has ended.
        vp: VpIndex,
    },
    /// The VMM has the thread of the VP, because it has paused the VM or works on the vCPU.
    #[error(
        "VP {vp} is held by the VMM, which has paused the VM or works on the vCPU; continue the VM in the VMM, then try again"
    )]
    HeldByVmm {
        /// The VP that the VMM holds.
        vp: VpIndex,
    },
    /// The VMM gives debuggers no access to its devices.
    #[error(
        "there is no RAM at {gpa}, and this VMM gives debuggers no access to devices; read the device with an instruction of the guest"
    )]
    NoDeviceAccess {
        /// The address without RAM.
        gpa: Gpa,
    },
    /// The hypervisor refused a call of the runner.
    #[error(
        "the hypervisor refused to {call}: {error}; try again, and look at the log of the host's kernel"
    )]
    Hypervisor {
        /// The purpose of the call.
        call: HypervisorCall,
        /// The hypervisor's error.
        error: OsError,
    },
    /// The runner has a fault. The request had no effect.
    #[error(
        "{0}: this is a bug of the runner; report it with the VMM's log, then detach and attach again"
    )]
    RunnerBug(RunnerBug),
    /// A message of a client in another process could not be used, or its answer could not. The request had no effect if the VMM reports this error.
    #[error("the message could not be used: {0}")]
    BadMessage(#[from] BadMessage),
}

/// A fault of the runner.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RunnerBug {
    /// The controller gave run control an input that is not legal in its phase.
    #[error("{input} is not legal in phase {phase} of run control")]
    IllegalInput {
        /// The input.
        input: String,
        /// The phase in which the input came.
        phase: String,
    },
    /// The registers of a VP were asked for before the runner knew which registers its VPs have.
    #[error("the registers of a VP were asked for before the runner had started")]
    NotStarted,
}

/// The reason why a VP refuses a register or its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum BadRegisterReason {
    /// The registers in the request are those of another architecture than the guest's.
    #[error("the guest has another architecture")]
    OtherArchitecture,
    /// The request has a value for a register that the VP lacks, because the guest's CPUID lacks the feature.
    #[error("this VP has no such register")]
    Absent,
    /// The request has no value for a register that the VP has.
    #[error("the request has no value for it")]
    NoValue,
    /// The value sets bits that are reserved on this VP.
    #[error("bits {reserved:#x} of {value:#x} are reserved")]
    ReservedBits {
        /// The value in the request.
        value: u64,
        /// The reserved bits that the value sets.
        reserved: u64,
    },
    /// The value clears a bit that is always 1.
    #[error("bit {bit} is always 1")]
    BitIsAlwaysOne {
        /// The number of the bit.
        bit: u8,
    },
    /// The value sets a bit without another bit that the first one requires (SDM volume 3, "Control Registers").
    #[error("bit {bit} requires bit {requires}")]
    BitRequires {
        /// The number of the bit that is set.
        bit: u8,
        /// The number of the bit that is clear.
        requires: u8,
    },
    /// The value has more bits than the register.
    #[error("the register has {bits} bits")]
    TooWide {
        /// The number of bits of the register.
        bits: u8,
    },
    /// The address is not canonical: the bits above the virtual address are not all equal to its highest bit.
    #[error("{address:#x} is not canonical: bits {} to 63 must be equal", bits - 1)]
    NotCanonical {
        /// The address in the request.
        address: u64,
        /// The width of a virtual address in bits: 48, or 57 with CR4.LA57.
        bits: u8,
    },
    /// The attributes of the segment set reserved bits (SDM volume 3, "Checks on Guest Segment Registers").
    #[error("bits {reserved:#x} of the segment's attributes are reserved")]
    ReservedAttributes {
        /// The reserved bits that the attributes set.
        reserved: u32,
    },
    /// The segment has G set (bit 15 of the attributes), and the low 12 bits of its limit are not all 1.
    #[error("with G set (bit 15 of the attributes), the low 12 bits of the limit must be 1")]
    LimitNotInPages,
    /// The segment has G clear (bit 15 of the attributes), and its limit has more than 20 bits.
    #[error("with G clear (bit 15 of the attributes), the limit must be at most 0xfffff")]
    LimitTooLarge,
    /// The hypervisor has no such MSR for this guest.
    #[error("the hypervisor has no such MSR for this guest")]
    UnknownMsr,
    /// The hypervisor refused to write the MSR. It does not report a reason.
    #[error("the hypervisor refused to write {value:#x} to the MSR")]
    MsrRefused {
        /// The value in the request.
        value: u64,
    },
    /// The hypervisor refused this value of XCR0. It does not report a reason.
    #[error("the hypervisor refused the value {value:#x}")]
    Xcr0Refused {
        /// The value in the request.
        value: u64,
    },
    /// The hypervisor refused the system registers, or kept other values. It does not report a reason.
    #[error("the hypervisor refused the value")]
    SystemRefused,
}

/// What a host, a VMM, or a guest in its present state cannot do.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Unsupported {
    /// The host lacks a feature that the request needs.
    #[error("this host lacks {0}")]
    Host(Capability),
    /// The VMM has not tried whether the host has the feature that the request needs.
    #[error("{0}: the VMM has not probed this host")]
    NotProbed(CapabilityKind),
    /// The VMM has set the rate of the guest's time-stamp counter to another rate than the host's.
    #[error(
        "{}: the guest's time-stamp counter runs at another rate than the host's, because the VMM has set that rate",
        CapabilityKind::FrozenTime
    )]
    ClockRateSet,
    /// The hypervisor does not report the rate of the guest's time-stamp counter.
    #[error(
        "{}: the hypervisor does not say how fast the guest's time-stamp counter runs",
        CapabilityKind::FrozenTime
    )]
    ClockRateUnknown,
    /// The VMM runs the vCPUs, and owns the clocks of the guest.
    #[error(
        "{}: the VMM owns the clocks of this guest: the VMM sets kvmclock itself when it pauses the guest, and its devices and timers go on during a stop",
        CapabilityKind::FrozenTime
    )]
    ClocksOfVmm,
    /// The VMM lets no debugger reset its machine.
    #[error("a reset: this VMM lets no debugger reset its machine")]
    ResetOfVmm,
    /// The guest has not started the VP, so an interrupt would have no effect.
    #[error("an NMI for VP {vp}: the guest has not started that VP (INIT-SIPI)")]
    NotStarted {
        /// The VP in the request.
        vp: VpIndex,
    },
    /// The VMM does not implement the request.
    #[error("{request}: this VMM does not implement the request")]
    Request {
        /// The name of the request, as in [`DebugRequest::NAMES`].
        request: String,
    },
}
