//! Parses packets. Each group of packets has a file, and each parser has the packet's syntax from the GDB manual above
//! it (appendix "Remote Protocol", nodes "Packets", "General Query Packets" and "vCont"). The parsers do not depend on
//! a session or a guest.

mod breakpoints;
mod extended;
mod features;
mod files;
mod lldb;
mod memory;
mod qemu;
mod query;
mod registers;
mod resume;
mod syntax;
mod threads;
mod trace;

pub(crate) use features::ClientFeatures;
pub(crate) use files::FileRequest;
pub(crate) use lldb::MOST_RANGES;
pub(crate) use lldb::NO_ALLOCATION;
pub(crate) use lldb::thread_suffix;
pub(crate) use memory::MemoryFormat;
pub(crate) use memory::max_read;
pub(crate) use qemu::FEATURES as QEMU_FEATURES;
pub(crate) use qemu::STEP_BITS;
pub(crate) use qemu::step_flags;
pub(crate) use query::TableName;
pub(crate) use query::TransferObject;
pub(crate) use resume::VCONT_ACTIONS;
pub(crate) use resume::VCont;
pub(crate) use resume::VContAction;
pub(crate) use threads::ThreadSelector;

use crate::target::Breakpoint;
use crate::target::ResumeAction;
use crate::target::StepInterrupts;
use crate::target::Tid;
use crate::target::TraceOp;
use std::borrow::Cow;

/// A parsed packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command<'a> {
    /// `?`: the reason of the last stop.
    StopReason,
    /// `g`: reads all registers.
    ReadRegisters,
    /// `G`: writes all registers.
    WriteRegisters {
        /// The values of all registers, in hex.
        hex: &'a [u8],
    },
    /// `p`: reads the register with this number.
    ReadRegister(u64),
    /// `P`: writes one register.
    WriteRegister {
        /// The number of the register.
        num: u64,
        /// The value, little-endian.
        value: Vec<u8>,
    },
    /// `m` and `x`: reads memory.
    ReadMemory {
        /// The address of the first byte.
        address: u64,
        /// The length as the client sent it. Nothing is checked.
        len: u64,
        /// The encoding of the reply.
        format: MemoryFormat,
    },
    /// `M` and `X`: writes memory.
    WriteMemory {
        /// The address of the first byte.
        address: u64,
        /// The bytes to write. The range does not pass the end of the address space.
        data: Cow<'a, [u8]>,
    },
    /// `qSearch:memory`: searches memory for bytes.
    SearchMemory {
        /// The address of the first byte.
        address: u64,
        /// The length of the range, at least 1. The range does not pass the end of the address space.
        len: u64,
        /// The bytes to find, at least one.
        pattern: Cow<'a, [u8]>,
    },
    /// `qCRC`: returns the checksum of memory.
    Checksum {
        /// The address of the first byte.
        address: u64,
        /// The length of the range, at least 1. The range does not pass the end of the address space.
        len: u64,
    },
    /// `c`, `C`, `s` and `S`: continues or steps.
    Resume {
        /// Continue or step.
        action: ResumeAction,
        /// The new program counter, if the packet has one.
        address: Option<u64>,
    },
    /// `vCont`: continues or steps, with an action for each thread.
    VCont(VCont),
    /// `vCont?`: the supported actions of `vCont`.
    VContQuery,
    /// `QNonStop`: turns non-stop mode on or off.
    SetNonStop(bool),
    /// `vStopped`: the client has seen the last stop in non-stop mode.
    StopSeen,
    /// `vCtrlC`: stops the guest, or one thread in non-stop mode.
    Interrupt,
    /// `Z`: inserts a breakpoint or watchpoint.
    InsertBreakpoint {
        /// The breakpoint.
        breakpoint: Breakpoint,
        /// The bytecode of its conditions.
        conditions: Vec<Vec<u8>>,
        /// The bytecode of its commands.
        commands: Vec<Vec<u8>>,
    },
    /// `z`: removes a breakpoint or watchpoint.
    RemoveBreakpoint(Breakpoint),
    /// `Hg`: selects the thread of `g`, `m` and similar packets.
    SelectThread(ThreadSelector),
    /// `Hc`: selects the thread of `c` and `s`.
    SelectResumedThread(ThreadSelector),
    /// `T`: whether the thread exists.
    ThreadAlive(Tid),
    /// `qC`: the current thread.
    CurrentThread,
    /// `qfThreadInfo`: the first part of the list of threads.
    FirstThreads,
    /// `qsThreadInfo`: the next part of the list of threads.
    MoreThreads,
    /// `qThreadExtraInfo`: a text about a thread.
    ThreadExtraInfo(Tid),
    /// `qThreadStopInfo`: the stop reply of a thread.
    ThreadStopInfo(Tid),
    /// `jThreadsInfo`: the stop reasons of all threads.
    ThreadsInfo,
    /// `qAttached`: whether the server attached to an existing process.
    Attached,
    /// `qSupported` with the client's features. Plug-ins send `qSupported` without features in the middle of a session,
    /// to read the reply.
    Supported(Option<ClientFeatures>),
    /// `QThreadSuffixSupported`: `g`, `G`, `p` and `P` may name a thread. Only LLDB sends this packet, each time it
    /// connects.
    ThreadSuffixSupported,
    /// `QListThreadsInStopReply`: stop replies contain the ids and program counters of all threads.
    ListThreadsInStopReply,
    /// `QEnableErrorStrings`: error replies contain a text.
    EnableErrorStrings,
    /// `qHostInfo`: what the client needs to know about the machine.
    HostInfo,
    /// `qProcessInfo`: what the client needs to know about the guest.
    ProcessInfo,
    /// `qGDBServerVersion`: the name and the version of the server.
    ServerVersion,
    /// `qWatchpointSupportInfo`: the number of debug registers.
    WatchpointSupport,
    /// `MultiMemRead`: reads ranges of memory, each an address and a length.
    ReadRanges(Vec<(u64, u64)>),
    /// `jMultiBreakpoint`: inserts and removes breakpoints. Each is a `Z` or `z` packet, which is not parsed yet.
    Breakpoints(Vec<Vec<u8>>),
    /// `QStartNoAckMode`: turns acknowledgements off.
    StartNoAckMode,
    /// `qXfer:OBJECT:read`: reads a part of a document.
    Transfer {
        /// The document.
        object: TransferObject,
        /// The offset of the first byte.
        offset: u64,
        /// The maximum number of bytes.
        len: u64,
    },
    /// `qXfer:osdata:read`: reads a part of a table of `info os`.
    Table {
        /// The table.
        name: TableName,
        /// The offset of the first byte.
        offset: u64,
        /// The maximum number of bytes.
        len: u64,
    },
    /// `vFile`: an operation on a file of the machine of the server.
    File(FileRequest),
    /// `qMemoryRegionInfo`: the memory region around an address.
    MemoryRegion(u64),
    /// `qMemoryRegionInfo` without an address: whether the server supports the packet.
    HasMemoryRegions,
    /// `_M` and `_m`: allocates or frees memory in the guest.
    Allocation,
    /// `qRcmd`: a `monitor` command.
    Monitor(String),
    /// `qqemu.sstepbits`: the supported step flags.
    StepBits,
    /// `qqemu.sstep`: the present step flags.
    StepInterrupts,
    /// `Qqemu.sstep`: sets the step flags.
    SetStepInterrupts(StepInterrupts),
    /// `qqemu.Supported`: the supported packets of QEMU.
    QemuFeatures,
    /// `qqemu.PhyMemMode`: whether memory packets use physical addresses.
    PhysicalMemory,
    /// `Qqemu.PhyMemMode`: sets whether memory packets use physical addresses.
    SetPhysicalMemory(bool),
    /// `D`: detaches.
    Detach,
    /// `k`: kills the guest, or what the policy says instead. It has no reply.
    Kill,
    /// `!`: turns extended mode on.
    Extend,
    /// `vRun`: starts the program, which is the machine.
    Run {
        /// The bytes of the name of the program's file.
        file: Vec<u8>,
        /// Whether the client gives arguments to the program.
        has_arguments: bool,
    },
    /// `R`: as `vRun`, without a reply.
    Restart,
    /// `vAttach`: attaches to the machine.
    Attach,
    /// `qExecAndArgs`: the program and the arguments with which the server was started.
    ExecAndArgs,
    /// `vKill`: as `k`, with a reply.
    KillWithReply,
    /// A packet of tracepoints.
    Trace(TraceOp),
    /// Any other packet. The reply is empty.
    Unknown,
}

/// The reason why a packet is invalid in every state of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The packet does not have the syntax of the manual. The text is the correct syntax.
    #[error("malformed packet; its form is: {0}")]
    Syntax(&'static str),
    /// The range passes the end of the address space.
    #[error("the range passes the end of the address space; use a smaller length")]
    Wraps,
    /// A tracepoint with `while-stepping`.
    #[error("a tracepoint cannot step; use no `while-stepping`")]
    WhileStepping,
    /// A tracepoint that jumps.
    #[error("there are no fast tracepoints; use `trace`")]
    FastTracepoint,
    /// A tracepoint with a marker.
    #[error("there are no static tracepoints; use `trace`")]
    StaticTracepoint,
}

impl<'a> Command<'a> {
    /// Parses a packet: the bytes between `$` and `#`.
    pub fn parse(packet: &'a [u8]) -> Result<Self, CommandError> {
        let Some((&first, rest)) = packet.split_first() else {
            return Ok(Self::Unknown);
        };
        match first {
            b'?' if rest.is_empty() => Ok(Self::StopReason),
            b'g' if rest.is_empty() => Ok(Self::ReadRegisters),
            b'G' => Ok(Self::WriteRegisters { hex: rest }),
            b'p' => registers::read_one(rest),
            b'P' => registers::write_one(rest),
            b'm' => memory::read(rest, MemoryFormat::Hex),
            b'x' => memory::read(rest, MemoryFormat::Binary),
            b'M' if let Some(arguments) = packet.strip_prefix(b"MultiMemRead") => {
                lldb::read_ranges(arguments)
            }
            b'M' => memory::write_hex(rest),
            b'X' => memory::write_binary(rest),
            b'c' | b's' => resume::plain(first, rest),
            b'C' | b'S' => resume::with_signal(first, rest),
            b'Z' => breakpoints::insert(rest),
            b'z' => breakpoints::parse(rest).map(Self::RemoveBreakpoint),
            b'H' => threads::select(rest),
            b'T' => threads::alive(rest),
            b'j' if rest == b"ThreadsInfo" => Ok(Self::ThreadsInfo),
            b'j' if let Some(arguments) = packet.strip_prefix(b"jMultiBreakpoint") => {
                lldb::breakpoints(arguments)
            }
            b'_' if lldb::is_allocation(rest) => Ok(Self::Allocation),
            b'D' if rest.is_empty() || Self::is_process(rest) => Ok(Self::Detach),
            b'D' => Err(CommandError::Syntax("D or D;PROCESS")),
            b'!' if rest.is_empty() => Ok(Self::Extend),
            b'R' => Ok(extended::restart(rest)),
            b'k' if rest.is_empty() => Ok(Self::Kill),
            b'k' => Err(CommandError::Syntax("k")),
            b'q' | b'Q' | b'v' => Self::named(packet),
            _ => Ok(Self::Unknown),
        }
    }

    /// Whether `arguments` is `;` and a process number. Any number is accepted, because there is only one process.
    fn is_process(arguments: &[u8]) -> bool {
        let number = arguments.strip_prefix(b";").and_then(syntax::number);
        number.is_some()
    }

    /// Parses a packet with a name. The name ends at the first `:`, `;`, `,` or `?`, or at the end of the packet.
    fn named(packet: &'a [u8]) -> Result<Self, CommandError> {
        let end = packet
            .iter()
            .position(|byte| b":;,?".contains(byte))
            .unwrap_or(packet.len());
        let (name, arguments) = packet.split_at(end);
        match (name, arguments) {
            (b"vCont", b"?") => Ok(Self::VContQuery),
            (b"vCont", _) => resume::vcont(arguments),
            (b"vCtrlC", b"") => Ok(Self::Interrupt),
            (b"vStopped", b"") => Ok(Self::StopSeen),
            (b"QNonStop", b":0") => Ok(Self::SetNonStop(false)),
            (b"QNonStop", b":1") => Ok(Self::SetNonStop(true)),
            (b"QNonStop", _) => Err(CommandError::Syntax("QNonStop:1 or QNonStop:0")),
            (b"vRun", _) => extended::run(arguments),
            (b"vAttach", _) => extended::attach(arguments),
            (b"qExecAndArgs", b"") => Ok(Self::ExecAndArgs),
            (b"vKill", process) if Self::is_process(process) => Ok(Self::KillWithReply),
            (b"vKill", _) => Err(CommandError::Syntax("vKill;PROCESS")),
            (b"qC", b"") => Ok(Self::CurrentThread),
            (b"qfThreadInfo", b"") => Ok(Self::FirstThreads),
            (b"qsThreadInfo", b"") => Ok(Self::MoreThreads),
            (b"qThreadExtraInfo", _) => threads::extra_info(arguments),
            (name, b"") if name.starts_with(b"qThreadStopInfo") => {
                threads::stop_info(&name[b"qThreadStopInfo".len()..])
            }
            (b"qAttached", _) => Ok(Self::Attached),
            (b"qSupported", b"") => Ok(Self::Supported(None)),
            (b"qSupported", _) => Ok(Self::Supported(Some(ClientFeatures::parse(arguments)))),
            (b"QThreadSuffixSupported", b"") => Ok(Self::ThreadSuffixSupported),
            (b"QListThreadsInStopReply", b"") => Ok(Self::ListThreadsInStopReply),
            (b"QEnableErrorStrings", b"") => Ok(Self::EnableErrorStrings),
            (b"qHostInfo", b"") => Ok(Self::HostInfo),
            (b"qProcessInfo", b"") => Ok(Self::ProcessInfo),
            (b"qGDBServerVersion", b"") => Ok(Self::ServerVersion),
            (b"qWatchpointSupportInfo", _) => Ok(Self::WatchpointSupport),
            (b"QStartNoAckMode", b"") => Ok(Self::StartNoAckMode),
            (b"vFile", _) => Ok(files::request(arguments)),
            (b"qXfer", _) => query::transfer(arguments),
            (b"qRcmd", _) => query::monitor(arguments),
            (b"qSearch", _) => memory::search(arguments),
            (b"qCRC", _) => memory::checksum(arguments),
            (b"qMemoryRegionInfo", _) => lldb::memory_region(arguments),
            // Scripts write these queries with either letter.
            (b"qqemu.sstepbits" | b"Qqemu.sstepbits", b"") => Ok(Self::StepBits),
            (b"qqemu.sstep" | b"Qqemu.sstep", b"") => Ok(Self::StepInterrupts),
            (b"qqemu.Supported" | b"Qqemu.Supported", b"") => Ok(Self::QemuFeatures),
            (b"qqemu.PhyMemMode" | b"Qqemu.PhyMemMode", b"") => Ok(Self::PhysicalMemory),
            (b"Qqemu.PhyMemMode", _) => qemu::set_physical_memory(arguments),
            (_, b"") if let Some(flags) = name.strip_prefix(b"Qqemu.sstep=") => {
                qemu::set_step(flags)
            }
            (name, _) if name.starts_with(b"QT") || name.starts_with(b"qT") => {
                trace::parse(name, arguments)
            }
            // `vMustReplyEmpty` belongs here: its reply has to be empty.
            _ => Ok(Self::Unknown),
        }
    }
}

#[cfg(test)]
mod tests;
