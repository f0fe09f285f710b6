//! The operations that the protocol needs of the guest, and their results.
//!
//! The driver of the session carries out one operation at a time and answers it with a [`TargetReply`]. A stop is no
//! reply: the driver reports it at any time by [`Session::stopped`](crate::session::Session::stopped).

mod trace;

pub use trace::FrameSelection;
pub use trace::TraceAction;
pub use trace::TraceOp;
pub use trace::TraceReply;
pub use trace::TraceState;
pub use trace::TraceStatus;
pub use trace::TracepointId;

use crate::regs::RegNum;
use crate::regs::RegisterBlock;

/// A GDB thread id. Thread `n` is VP `n - 1`. The values 0 and -1 of the protocol are not thread ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tid(std::num::NonZeroU32);

impl Tid {
    /// The thread with this id. `None` for 0.
    pub const fn new(id: u32) -> Option<Self> {
        match std::num::NonZeroU32::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// The id as a plain number, starting at 1.
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

/// The properties of the guest that a session needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetInfo {
    /// The threads at the beginning. [`Session::set_threads`](crate::session::Session::set_threads) changes them.
    pub threads: Vec<Tid>,
    /// The register table of the session. It is constant during the session.
    pub layout: crate::regs::Layout,
    /// The reason why the guest is stopped when the session begins: the reply to the first `?`.
    pub stop: Stop,
    /// A text about that stop for the user. The protocol does not allow text before the reply to `?`, so the session
    /// shows the text with the next `monitor` command that no script sends, or at the next resume.
    pub explanation: Option<String>,
    /// The file with the symbols of the guest, which the client may read. With `None` it may read no file.
    pub symbols: Option<SymbolFile>,
}

/// A file that the client may read. The driver has opened the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SymbolFile {
    /// The bytes of the absolute path. The client has to write the path in the same way.
    pub name: Vec<u8>,
    /// The number of bytes in the file.
    pub len: u64,
    /// The time of the last change of the file, in seconds since 1970.
    pub modified: u32,
}

/// An operation on the guest. The driver answers each operation once, by
/// [`Session::complete`](crate::session::Session::complete).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TargetOp {
    /// Reads all registers of a thread. Answer: [`TargetReply::Registers`].
    ReadRegisters {
        /// The thread whose registers are read.
        thread: Tid,
    },
    /// Writes registers of a thread, all of them or none. Answer: [`TargetReply::Done`].
    WriteRegisters {
        /// The thread whose registers are written.
        thread: Tid,
        /// The number and the new value of each register. The value has the register's length and is little-endian.
        values: Vec<(RegNum, Vec<u8>)>,
    },
    /// Reads memory in the address space of a thread. Answer: [`TargetReply::Memory`], which may be shorter than
    /// requested.
    ReadMemory {
        /// The thread whose page tables translate the address.
        thread: Tid,
        /// The virtual address of the first byte.
        address: u64,
        /// The length in bytes, at least 1. The last byte, at `address + len - 1`, is in the address space, and the
        /// reply fits in a packet.
        len: usize,
    },
    /// Reads memory by guest physical addresses. Answer: [`TargetReply::Memory`], which may be shorter than requested.
    ReadPhysical {
        /// The physical address of the first byte.
        address: u64,
        /// The length in bytes, as in [`ReadMemory`](Self::ReadMemory).
        len: usize,
    },
    /// Reads from the file with the symbols. Answer: [`TargetReply::FileBytes`], which is empty at the end of the file.
    ReadSymbolFile {
        /// The offset of the first byte. A client may send any.
        offset: u64,
        /// The maximum number of bytes, at least 1. They fit in a packet.
        len: usize,
    },
    /// Searches RAM for bytes. The parts of the range that are no RAM are left out. Answer: [`TargetReply::Found`]. The
    /// search may take long; the driver may give it up if the client goes away.
    SearchMemory {
        /// The range, which may be as long as the address space.
        range: MemoryRange,
        /// The bytes to find: at least one, and no more than fit in a packet.
        pattern: Vec<u8>,
    },
    /// Computes the CRC-32 of memory that GDB's `compare-sections` uses: polynomial 0x04c11db7, the most significant bit
    /// of each byte first, initial value 0xffffffff, result not inverted. Answer: [`TargetReply::Checksum`], or an error
    /// if a byte of the range is no RAM. As a search, it may take long.
    Checksum(MemoryRange),
    /// Writes memory by guest physical addresses. Answer: [`TargetReply::Done`].
    WritePhysical {
        /// The physical address of the first byte.
        address: u64,
        /// The bytes to write, at least one.
        data: Vec<u8>,
    },
    /// Writes memory in the address space of a thread. Answer: [`TargetReply::Done`].
    WriteMemory {
        /// The thread whose page tables translate the address.
        thread: Tid,
        /// The virtual address of the first byte.
        address: u64,
        /// The bytes to write, at least one.
        data: Vec<u8>,
    },
    /// Inserts a breakpoint, or replaces the conditions of one that is there. Answer: [`TargetReply::Done`].
    InsertBreakpoint {
        /// The breakpoint.
        breakpoint: Breakpoint,
        /// Bytecode of conditions: a hit is a stop if one of them holds, or if there is none. A stop without need is permitted, because the client evaluates the
        /// conditions again.
        conditions: Vec<Vec<u8>>,
        /// Bytecode that is executed at a hit that would be a stop, instead of stopping. What the code prints goes to [`Session::print`](crate::session::Session::print).
        commands: Vec<Vec<u8>>,
    },
    /// Removes a breakpoint. Answer: [`TargetReply::Done`].
    RemoveBreakpoint(Breakpoint),
    /// Resumes threads. Answer: [`TargetReply::Done`] when the threads run, or an error; the stop comes later.
    Resume(Resume),
    /// Turns non-stop mode on, with this thread stopped, or off. In this mode threads are resumed and stopped by [`Schedule`](Self::Schedule) only, a stop is that of one
    /// thread, and every other operation is carried out whatever threads run. No thread has run yet: the other threads go on when a schedule first resumes a thread.
    /// Answer: [`TargetReply::Done`].
    NonStop(Option<Tid>),
    /// Resumes and stops threads in non-stop mode. Answer: [`TargetReply::Done`].
    Schedule(Schedule),
    /// Stops all threads. Answer: [`TargetReply::Done`]. The stop itself is reported as a stop.
    Interrupt,
    /// Returns a line of text about a thread. Answer: [`TargetReply::Text`].
    ThreadExtraInfo {
        /// The thread that the text describes.
        thread: Tid,
    },
    /// Returns the rows of a table about the guest. Answer: [`TargetReply::Rows`].
    Table(GuestTable),
    /// Returns the stop reason of a thread, if it has one of its own. A later stop does not report a hit again that
    /// this operation has reported. Answer:
    /// [`TargetReply::StopReason`].
    StopReason {
        /// The thread, which is stopped.
        thread: Tid,
    },
    /// Returns the memory region around an address, in the address space of a thread. Answer:
    /// [`TargetReply::MemoryRegion`].
    MemoryRegion {
        /// The thread whose page tables are used.
        thread: Tid,
        /// A virtual address.
        address: u64,
    },
    /// A `monitor` command. Answer: [`TargetReply::Text`] or [`TargetReply::Listing`], which is shown to the user
    /// unchanged, also if it is an error.
    Monitor {
        /// The thread selected by `Hg`, to which the command may refer.
        thread: Tid,
        /// The command line.
        line: String,
    },
    /// Resets the guest, which stays stopped at its first instruction. Answer: [`TargetReply::Done`].
    Reset,
    /// Sets whether steps take interrupts, or only returns the setting. Answer: [`TargetReply::StepInterrupts`] with
    /// the present setting.
    StepInterrupts(Option<StepInterrupts>),
    /// An operation of tracepoints.
    Trace(TraceOp),
    /// Ends the session; the guest runs on. Answer: [`TargetReply::Done`], after which the session closes.
    Detach,
    /// Ends the session by `k` or `vKill`. The driver's policy decides what happens to the guest. Answer:
    /// [`TargetReply::Done`].
    Kill,
}

/// The result of a [`TargetOp`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TargetReply {
    /// The operation succeeded without a value.
    Done,
    /// All registers, in the order of the table.
    Registers(RegisterBlock),
    /// The bytes from the requested address on.
    Memory(Vec<u8>),
    /// The bytes of the file from the requested offset on.
    FileBytes(Vec<u8>),
    /// The address of the first match of a search. `None` if there is no match.
    Found(Option<u64>),
    /// A checksum of memory.
    Checksum(u32),
    /// The region that contains the requested address.
    MemoryRegion(MemoryRegion),
    /// The rows of a table, each with the values of [`GuestTable::columns`].
    Rows(Vec<Vec<String>>),
    /// A text for a person.
    Text(String),
    /// A text that scripts parse. No other text may come with it.
    Listing(String),
    /// Whether steps take interrupts.
    StepInterrupts(StepInterrupts),
    /// The stop reason of a thread. `None` if the thread stopped only because other threads stopped.
    StopReason(Option<StopReason>),
    /// The result of an operation of tracepoints.
    Trace(TraceReply),
    /// The operation failed.
    Error(TargetError),
}

/// A table about the guest, which GDB's `info os` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestTable {
    /// The VPs and their states.
    Vps,
    /// The breakpoints in the guest, and the breakpoints that were hit.
    Breakpoints,
    /// The ranges of physical RAM.
    Memory,
}

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryRange {
    /// The kind of the addresses.
    pub space: AddressSpace,
    /// The address of the first byte.
    pub first: u64,
    /// The address of the last byte. The address behind it may not fit in 64 bits.
    pub last: u64,
}

/// The kind of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressSpace {
    /// A virtual address, which the page tables of this thread translate.
    Virtual(Tid),
    /// A guest physical address.
    Physical,
}

/// A range of addresses with the same properties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryRegion {
    /// The address of the region's first byte.
    pub first: u64,
    /// The address of the region's last byte. The address behind it may not fit in 64 bits.
    pub last: u64,
    /// The allowed accesses. `None` if the region is not mapped.
    pub access: Option<RegionAccess>,
}

/// The allowed accesses to a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegionAccess {
    /// Whether the region is RAM. Otherwise it is mapped to a device or to nothing.
    pub read: bool,
    /// Whether writes are allowed.
    pub write: bool,
    /// Whether code can be executed.
    pub execute: bool,
}

/// What a step does with a pending interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StepInterrupts {
    /// The interrupt stays pending.
    #[default]
    Held,
    /// The step delivers the interrupt and ends at its handler.
    Taken,
}

/// The reason why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetError {
    /// The number for clients that accept only a number: 14 not mapped, 22 bad argument, 28 no free debug register, 95
    /// not supported, 110 timed out, 5 any other error.
    pub errno: u8,
    /// The text for clients that accept a text. It says what happened and what to do next.
    pub text: String,
}

/// A breakpoint or watchpoint (GDB manual, node "Packets", `Z`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Breakpoint {
    /// The type digit of the packet.
    pub kind: BreakpointKind,
    /// The address of the first byte.
    pub address: u64,
    /// The `kind` field of the packet: the number of watched bytes, or the length of a breakpoint instruction.
    pub len: u64,
}

/// The type digit of `Z` and `z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BreakpointKind {
    /// `Z0`: a software breakpoint.
    Software,
    /// `Z1`: a hardware breakpoint.
    Hardware,
    /// `Z2`: a write watchpoint.
    Write,
    /// `Z3`: a read watchpoint.
    Read,
    /// `Z4`: an access watchpoint.
    Access,
}

/// The action of each thread in a resume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// The action of the threads that `actions` does not name.
    pub others: ResumeAction,
    /// The actions of single threads, at most one for each thread.
    pub actions: Vec<(Tid, ResumeAction)>,
    /// The new program counter of a thread, from `c ADDR` or `s ADDR`.
    pub jump: Option<(Tid, u64)>,
}

/// What threads do from now on in non-stop mode. Other threads go on with what they do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// Threads that are stopped, with what they do. None [stays](ResumeAction::Stay).
    pub run: Vec<(Tid, ResumeAction)>,
    /// Threads that run, and stop. The session reports these stops itself.
    pub stop: Vec<Tid>,
    /// The new program counter of a thread, from `c ADDR` or `s ADDR`.
    pub jump: Option<(Tid, u64)>,
}

/// The action of one thread in a resume. The parser drops the signal of `C` and `S`, because a guest has no signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResumeAction {
    /// The thread stays stopped.
    Stay,
    /// `c`: the thread runs.
    Continue,
    /// `s`: the thread executes one instruction.
    Step,
    /// `r START,END`: the thread executes instructions until the program counter is outside the range.
    StepRange {
        /// The first address inside the range.
        start: u64,
        /// The first address behind the range.
        end: u64,
    },
}

/// A stop of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// The thread with the event. `None` if the event concerns all threads.
    pub thread: Option<Tid>,
    /// The reason of the stop.
    pub reason: StopReason,
}

/// The signal that a client shows for a guest that ended abnormally.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndSignal {
    /// SIGABRT: the hypervisor could not run the guest any more.
    Abort,
    /// SIGKILL: the debugger ended the guest, or the reason is unknown.
    Kill,
    /// SIGSEGV: the guest had a triple fault.
    Fault,
    /// SIGTERM: the VMM was told to end.
    Terminate,
}

/// The reason in a stop reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// An interrupt: SIGINT.
    Interrupt,
    /// A step ended, or the session began: SIGTRAP.
    Trap,
    /// A software breakpoint: SIGTRAP with `swbreak`.
    SoftwareBreakpoint,
    /// A hardware breakpoint: SIGTRAP with `hwbreak`.
    HardwareBreakpoint,
    /// A watchpoint: SIGTRAP with `watch`, `rwatch` or `awatch`, according to `kind`.
    Watchpoint {
        /// Write, Read or Access.
        kind: BreakpointKind,
        /// The watched address.
        address: u64,
    },
    /// The guest asked for a reset: SIGQUIT with console text.
    Reset,
    /// The guest asked to be powered off: SIGQUIT with console text. The session goes on, and state can be read.
    PowerOff,
    /// The guest had a triple fault: SIGSEGV with console text.
    TripleFault,
    /// The hypervisor cannot run the guest any more: SIGABRT with console text.
    Crashed,
    /// The guest's kernel reported a panic: SIGABRT with console text.
    Panic,
    /// The guest has ended: `W` with this exit status. The session ends.
    Exited(u8),
    /// The guest has ended: `X` with GDB's number of this signal. The session ends.
    Terminated(EndSignal),
}
