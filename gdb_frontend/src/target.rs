//! What the protocol asks of the guest: operations and their results.
//!
//! Whoever drives the session carries out one operation at a time and answers it with [`TargetReply`], in any way it likes.
//! Stops are no replies: they come whenever they come, through [`Session::stopped`](crate::session::Session::stopped).

use crate::regs::RegNum;
use crate::regs::RegisterBlock;

/// A GDB thread id. Thread `n` is VP `n - 1`; 0 and -1 never get here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tid(std::num::NonZeroU32);

impl Tid {
    /// The thread with this id, `None` for 0.
    pub const fn new(id: u32) -> Option<Self> {
        match std::num::NonZeroU32::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// The plain number, from 1.
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

/// What the driver must know of the guest before it can speak for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetInfo {
    /// Threads are 1 to this.
    pub thread_count: u32,
    /// Which register table the session uses; it never changes within a session.
    pub layout: crate::regs::Layout,
    /// Why the guest stands still as the session begins: what the first `?` is told.
    pub stop: Stop,
    /// Text about that stop for the user, where there is some. The protocol has no place for it before the answer to `?`, so it is shown with the next
    /// `monitor` command that is no script's, or the next resume.
    pub explanation: Option<String>,
}

/// One operation on the guest. Each is answered by [`Session::complete`](crate::session::Session::complete), once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetOp {
    /// All registers of a thread. Answer: [`TargetReply::Registers`].
    ReadRegisters {
        /// Whose.
        thread: Tid,
    },
    /// Some registers of a thread, all or none. Answer: [`TargetReply::Done`].
    WriteRegisters {
        /// Whose.
        thread: Tid,
        /// Number and new bytes, as long as the register is, little-endian.
        values: Vec<(RegNum, Vec<u8>)>,
    },
    /// Memory as this thread sees it. Answer: [`TargetReply::Memory`], possibly shorter than asked for.
    ReadMemory {
        /// Whose address space.
        thread: Tid,
        /// First byte.
        address: u64,
        /// Bytes, at least 1; the last one, at `address + len - 1`, is in the address space, and the reply fits a packet.
        len: usize,
    },
    /// Memory by guest physical addresses. Answer: [`TargetReply::Memory`], possibly shorter than asked for.
    ReadPhysical {
        /// First byte.
        address: u64,
        /// As for [`ReadMemory`](Self::ReadMemory).
        len: usize,
    },
    /// Memory by guest physical addresses. Answer: [`TargetReply::Done`].
    WritePhysical {
        /// First byte.
        address: u64,
        /// What to write; never empty.
        data: Vec<u8>,
    },
    /// Memory as this thread sees it. Answer: [`TargetReply::Done`].
    WriteMemory {
        /// Whose address space.
        thread: Tid,
        /// First byte.
        address: u64,
        /// What to write; never empty.
        data: Vec<u8>,
    },
    /// Answer: [`TargetReply::Done`].
    InsertBreakpoint(Breakpoint),
    /// Answer: [`TargetReply::Done`].
    RemoveBreakpoint(Breakpoint),
    /// Lets threads go. Answer: [`TargetReply::Done`] when they have been let go (or the error why not); the stop comes later.
    Resume(Resume),
    /// Stops every thread. Answer: [`TargetReply::Done`]; the stop itself comes as a stop.
    Interrupt,
    /// A line for people about a thread. Answer: [`TargetReply::Text`].
    ThreadExtraInfo {
        /// Which.
        thread: Tid,
    },
    /// Why a thread stands still, where it has a reason of its own; a hit that is told by this is not told by a later stop. Answer:
    /// [`TargetReply::StopReason`].
    StopReason {
        /// Which.
        thread: Tid,
    },
    /// What is around an address, as a thread sees it. Answer: [`TargetReply::MemoryRegion`].
    MemoryRegion {
        /// Whose address space.
        thread: Tid,
        /// A virtual address.
        address: u64,
    },
    /// A `monitor` command. Answer: [`TargetReply::Text`] or [`TargetReply::Listing`], shown to the user as it is (an error too).
    Monitor {
        /// The thread selected for `g`/`m`, which the command may refer to.
        thread: Tid,
        /// The command line.
        line: String,
    },
    /// Sets whether steps take interrupts, or asks. Answer: [`TargetReply::StepInterrupts`] with what is in force then.
    StepInterrupts(Option<StepInterrupts>),
    /// Ends the session, the guest runs on. Answer: [`TargetReply::Done`], after which the session closes.
    Detach,
    /// Ends the session by `k` or `vKill`. What it means for the guest is the driver's policy. Answer: [`TargetReply::Done`].
    Kill,
}

/// The result of a [`TargetOp`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetReply {
    /// It is done, there is nothing to say.
    Done,
    /// Registers, in the table's order.
    Registers(RegisterBlock),
    /// Memory, from the address asked for.
    Memory(Vec<u8>),
    /// The memory region that holds the address.
    MemoryRegion(MemoryRegion),
    /// Words for a person.
    Text(String),
    /// Text that scripts take apart: no other words may come with it.
    Listing(String),
    /// Whether steps take interrupts.
    StepInterrupts(StepInterrupts),
    /// Why a thread stands still; `None` where it was only stopped with the others.
    StopReason(Option<StopReason>),
    /// It was not done.
    Error(TargetError),
}

/// Addresses that follow each other and are all alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryRegion {
    /// The address of the region's first byte.
    pub first: u64,
    /// The address of the region's last byte. The address after it may not fit 64 bits.
    pub last: u64,
    /// What is there; `None` where nothing is mapped.
    pub access: Option<RegionAccess>,
}

/// What can be done with the memory of a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegionAccess {
    /// Whether there is memory to read. Elsewhere is a device, or nothing.
    pub read: bool,
    /// Whether a write is allowed.
    pub write: bool,
    /// Whether code can be executed.
    pub execute: bool,
}

/// What becomes of an interrupt that waits when a thread steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StepInterrupts {
    /// It goes on waiting.
    #[default]
    Held,
    /// The step ends at its handler.
    Taken,
}

/// Why an operation was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetError {
    /// The number for clients that take only that: 14 unmapped, 22 bad argument, 28 no slot free, 95 not supported, 110 timed out, 5 else.
    pub errno: u8,
    /// What happened and what to do, for clients that take text.
    pub text: String,
}

/// Where and on what to stop (GDB manual, node "Packets", `Z`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Breakpoint {
    /// The packet's type digit.
    pub kind: BreakpointKind,
    /// First byte.
    pub address: u64,
    /// The packet's `kind` field: bytes watched, or the length of a breakpoint instruction.
    pub len: u64,
}

/// The type digit of `Z` and `z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BreakpointKind {
    /// `Z0`.
    Software,
    /// `Z1`.
    Hardware,
    /// `Z2`.
    Write,
    /// `Z3`.
    Read,
    /// `Z4`.
    Access,
}

/// What each thread is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// For threads that `actions` does not name.
    pub others: ResumeAction,
    /// At most one for each thread.
    pub actions: Vec<(Tid, ResumeAction)>,
    /// `c ADDR`, `s ADDR` and the like: this thread's program counter is set first.
    pub jump: Option<(Tid, u64)>,
}

/// What one thread is to do. A signal to deliver (`C`, `S`) means nothing to a guest and is dropped before it gets here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResumeAction {
    /// Nothing.
    Stay,
    /// `c`.
    Continue,
    /// `s`.
    Step,
    /// `r START,END`.
    StepRange {
        /// First address inside.
        start: u64,
        /// First address after it.
        end: u64,
    },
}

/// Why the guest stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// The thread it happened on; `None` where it concerns all of them.
    pub thread: Option<Tid>,
    /// What happened.
    pub reason: StopReason,
}

/// What a guest that did not end by itself died of, in words a client knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndSignal {
    /// SIGABRT: the hypervisor gave up.
    Abort,
    /// SIGKILL: the debugger ended it, or nobody can tell.
    Kill,
    /// SIGSEGV: a triple fault.
    Fault,
    /// SIGTERM: the VMM was told to end.
    Terminate,
}

/// What the client is told about a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// An interrupt: SIGINT.
    Interrupt,
    /// A step ended, or the session began: SIGTRAP.
    Trap,
    /// SIGTRAP with `swbreak`.
    SoftwareBreakpoint,
    /// SIGTRAP with `hwbreak`.
    HardwareBreakpoint,
    /// SIGTRAP with `watch`, `rwatch` or `awatch`, as `kind` says.
    Watchpoint {
        /// Write, Read or Access.
        kind: BreakpointKind,
        /// The address watched.
        address: u64,
    },
    /// The guest asked for a reset: SIGQUIT, plus console text.
    Reset,
    /// The guest asked to be switched off: SIGQUIT too, plus console text. The session stays, state is readable.
    PowerOff,
    /// SIGSEGV, plus console text.
    TripleFault,
    /// The hypervisor gave up: SIGABRT, plus console text.
    Crashed,
    /// The guest's kernel gave up: SIGABRT, plus console text.
    Panic,
    /// There is no guest any more: `W`, with this exit status. It ends the session.
    Exited(u8),
    /// There is no guest any more: `X`, with GDB's number of this signal. It ends the session.
    Terminated(EndSignal),
}
