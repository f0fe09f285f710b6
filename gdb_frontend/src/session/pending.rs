//! What the session does with the result of an operation.

use super::expedited::Expedited;
use super::lldb::Breakpoints;
use super::lldb::Ranges;
use crate::command::MemoryFormat;
use crate::regs::RegNum;
use crate::target::Breakpoint;
use crate::target::GuestTable;
use crate::target::StopReason;
use crate::target::Tid;

/// Whether an operation that succeeds gets the reply `OK`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    Ok,
    None,
}

/// What the session does with the result of the operation in progress.
#[derive(Debug)]
pub(super) enum Pending {
    /// Replies `OK`.
    Ok,
    /// Replies `OK`, or an error whose text the user gets later.
    Insert(Breakpoint),
    /// Replies `OK`, or an error whose text the user gets later where the client does not show the text.
    RegistersWritten,
    /// Replies with all registers, in hex.
    Registers,
    /// Replies with one register, in hex.
    Register(RegNum),
    /// Compares the registers with these values and writes those that differ.
    WriteDifferent {
        thread: Tid,
        /// The new values, in the format of a `g` reply.
        hex: Vec<u8>,
    },
    /// Replies with memory.
    Memory(MemoryFormat),
    /// Replies with at most this number of bytes of the file with the symbols.
    FileRead(usize),
    /// Replies with the address of a match.
    Search,
    /// Replies with a checksum.
    Checksum,
    /// Replies with the region that contains an address.
    MemoryRegion,
    /// Sends no reply, because the guest runs now.
    Resume,
    /// Replies `OK`, with non-stop mode on or off.
    NonStop(bool),
    /// These threads run, and others have stopped, for this reason. Ctrl-C gets no reply, other packets get `OK`.
    Schedule {
        run: Vec<Tid>,
        stop: Vec<Tid>,
        reason: Option<StopReason>,
        reply: Reply,
    },
    /// Sends no reply; the stop reply follows.
    Interrupt,
    /// Replies with a text in hex.
    ExtraInfo,
    /// Adds the text to the list of threads, which is complete up to this thread.
    Threads {
        thread: Tid,
        /// The list up to this thread.
        list: Vec<u8>,
        /// The part of the list that the client asked for.
        offset: u64,
        len: u64,
    },
    /// Replies with at most this number of bytes of the table.
    Table(GuestTable, u64),
    /// Replies with the stop reply of this thread.
    StopInfo(Tid),
    /// Adds the stop reason to the list of threads, which is complete up to this thread.
    ThreadsInfo {
        thread: Tid,
        /// The list up to this thread.
        list: String,
    },
    /// Adds the registers to the list of threads, which is complete up to this thread.
    ThreadRegisters {
        thread: Tid,
        /// The list up to this thread.
        list: String,
        reason: Option<StopReason>,
    },
    /// Adds the thread with its text to the list of threads, which is complete up to this thread.
    ThreadName {
        thread: Tid,
        /// The list up to this thread.
        list: String,
        reason: Option<StopReason>,
        /// The thread's registers, as a JSON dictionary.
        registers: String,
    },
    /// Sends a stop reply when the registers of all its threads are there.
    Stop(Expedited),
    /// Sends the bytes of several ranges of memory when all ranges were read.
    Ranges(Ranges),
    /// Sends the results of several breakpoints when all were inserted or removed.
    Breakpoints(Breakpoints),
    /// Shows the text on the console, then replies `OK`.
    Monitor,
    /// Replies with the result of an operation of tracepoints.
    Trace,
    /// Replies with the part of the document about the selected frame.
    FrameInfo { offset: u64, len: u64 },
    /// Replies with the stop reply of the guest after its reset.
    Run,
    /// Sends no reply after a reset.
    Restart,
    /// Replies with QEMU's step flags.
    StepFlags,
    /// Replies `OK` and ends the session.
    Detach,
    /// Ends the session without a reply.
    Kill,
    /// Replies `OK` and ends the session.
    KillWithReply,
}
