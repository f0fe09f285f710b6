//! What a packet says: one file for each group of packets, each parser under its syntax as the GDB manual gives it (appendix
//! "Remote Protocol", nodes "Packets", "General Query Packets" and "vCont"). Nothing here knows of a session or a guest.

mod breakpoints;
mod features;
mod lldb;
mod memory;
mod qemu;
mod query;
mod registers;
mod resume;
mod syntax;
mod threads;

pub use features::ClientFeatures;
pub use memory::MemoryFormat;
pub use query::TransferObject;
pub use resume::VCont;
pub use threads::ThreadSelector;

pub(crate) use features::supported;
pub(crate) use lldb::NO_ALLOCATION;
pub(crate) use memory::max_read;
pub(crate) use qemu::FEATURES as QEMU_FEATURES;
pub(crate) use qemu::STEP_BITS;
pub(crate) use qemu::step_flags;
pub(crate) use resume::VCONT_ACTIONS;

use crate::target::Breakpoint;
use crate::target::ResumeAction;
use crate::target::StepInterrupts;
use crate::target::Tid;
use std::borrow::Cow;

/// A packet, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command<'a> {
    /// `?`
    StopReason,
    /// `g`
    ReadRegisters,
    /// `G`
    WriteRegisters {
        /// All registers, in hex.
        hex: &'a [u8],
    },
    /// `p`
    ReadRegister(u64),
    /// `P`
    WriteRegister {
        /// Which.
        num: u64,
        /// The value, little-endian.
        value: Vec<u8>,
    },
    /// `m` and `x`
    ReadMemory {
        /// First byte.
        address: u64,
        /// As asked for; nothing is checked.
        len: u64,
        /// How the reply is written.
        format: MemoryFormat,
    },
    /// `M` and `X`
    WriteMemory {
        /// First byte.
        address: u64,
        /// The bytes; `address + data.len()` does not wrap.
        data: Cow<'a, [u8]>,
    },
    /// `c`, `C`, `s` and `S`
    Resume {
        /// Continue or step.
        action: ResumeAction,
        /// Where to, when it is not to go on where it stopped.
        address: Option<u64>,
    },
    /// `vCont`
    VCont(VCont),
    /// `vCont?`
    VContQuery,
    /// `vCtrlC`
    Interrupt,
    /// `Z`
    InsertBreakpoint(Breakpoint),
    /// `z`
    RemoveBreakpoint(Breakpoint),
    /// `Hg`
    SelectThread(ThreadSelector),
    /// `Hc`
    SelectResumedThread(ThreadSelector),
    /// `T`
    ThreadAlive(Tid),
    /// `qC`
    CurrentThread,
    /// `qfThreadInfo`
    FirstThreads,
    /// `qsThreadInfo`
    MoreThreads,
    /// `qThreadExtraInfo`
    ThreadExtraInfo(Tid),
    /// `qThreadStopInfo`
    ThreadStopInfo(Tid),
    /// `jThreadsInfo`
    ThreadsInfo,
    /// `qAttached`
    Attached,
    /// `qSupported`, with the client's features, or without any: plug-ins send it so in the middle of a session, to read the reply.
    Supported(Option<ClientFeatures>),
    /// A packet without effect here that LLDB alone sends, each time it connects: `QThreadSuffixSupported`.
    OfLldb,
    /// `QStartNoAckMode`
    StartNoAckMode,
    /// `qXfer:OBJECT:read`
    Transfer {
        /// What.
        object: TransferObject,
        /// First byte of the document that is asked for.
        offset: u64,
        /// At most that many bytes.
        len: u64,
    },
    /// `qMemoryRegionInfo`
    MemoryRegion(u64),
    /// `qMemoryRegionInfo` without an address.
    HasMemoryRegions,
    /// `_M` and `_m`
    Allocation,
    /// `qRcmd`
    Monitor(String),
    /// `qqemu.sstepbits`
    StepBits,
    /// `qqemu.sstep`
    StepInterrupts,
    /// `Qqemu.sstep`
    SetStepInterrupts(StepInterrupts),
    /// `qqemu.Supported`
    QemuFeatures,
    /// `qqemu.PhyMemMode`
    PhysicalMemory,
    /// `Qqemu.PhyMemMode`
    SetPhysicalMemory(bool),
    /// `D`
    Detach,
    /// `k`
    Kill,
    /// `vKill`
    KillWithReply,
    /// Anything else: the reply is an empty packet.
    Unknown,
}

/// Why a packet cannot be carried out, whatever the guest is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// It is not what the manual says.
    #[error("malformed packet; its form is: {0}")]
    Syntax(&'static str),
    /// A breakpoint with conditions or commands, which were not announced.
    #[error(
        "conditions and commands of breakpoints are not supported here; GDB checks them itself after: set breakpoint condition-evaluation host"
    )]
    BreakpointConditions,
    /// A range that goes past the end of the address space.
    #[error("the range goes past the last address")]
    Wraps,
}

impl<'a> Command<'a> {
    /// Reads a packet: what was between `$` and `#`.
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
            b'M' => memory::write_hex(rest),
            b'X' => memory::write_binary(rest),
            b'c' | b's' => resume::plain(first, rest),
            b'C' | b'S' => resume::with_signal(first, rest),
            b'Z' => breakpoints::parse(rest).map(Self::InsertBreakpoint),
            b'z' => breakpoints::parse(rest).map(Self::RemoveBreakpoint),
            b'H' => threads::select(rest),
            b'T' => threads::alive(rest),
            b'j' if rest == b"ThreadsInfo" => Ok(Self::ThreadsInfo),
            b'_' if lldb::is_allocation(rest) => Ok(Self::Allocation),
            b'D' if rest.is_empty() || Self::is_process(rest) => Ok(Self::Detach),
            b'D' => Err(CommandError::Syntax("D or D;PROCESS")),
            b'k' if rest.is_empty() => Ok(Self::Kill),
            b'k' => Err(CommandError::Syntax("k")),
            b'q' | b'Q' | b'v' => Self::named(packet),
            _ => Ok(Self::Unknown),
        }
    }

    /// `;` and the number of a process, whichever: there is but one.
    fn is_process(arguments: &[u8]) -> bool {
        let number = arguments.strip_prefix(b";").and_then(syntax::number);
        number.is_some()
    }

    /// Packets with a name, which ends at the first `:`, `;`, `,` or `?`, or at the end.
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
            (b"QThreadSuffixSupported", b"") => Ok(Self::OfLldb),
            (b"QStartNoAckMode", b"") => Ok(Self::StartNoAckMode),
            (b"qXfer", _) => query::transfer(arguments),
            (b"qRcmd", _) => query::monitor(arguments),
            (b"qMemoryRegionInfo", _) => lldb::memory_region(arguments),
            // Scripts write the questions with either letter.
            (b"qqemu.sstepbits" | b"Qqemu.sstepbits", b"") => Ok(Self::StepBits),
            (b"qqemu.sstep" | b"Qqemu.sstep", b"") => Ok(Self::StepInterrupts),
            (b"qqemu.Supported" | b"Qqemu.Supported", b"") => Ok(Self::QemuFeatures),
            (b"qqemu.PhyMemMode" | b"Qqemu.PhyMemMode", b"") => Ok(Self::PhysicalMemory),
            (b"Qqemu.PhyMemMode", _) => qemu::set_physical_memory(arguments),
            (_, b"") if let Some(flags) = name.strip_prefix(b"Qqemu.sstep=") => {
                qemu::set_step(flags)
            }
            // `vMustReplyEmpty` is among these by design.
            _ => Ok(Self::Unknown),
        }
    }
}

#[cfg(test)]
mod tests;
