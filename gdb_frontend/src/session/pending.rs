//! What becomes of the answer to an operation.

use crate::command::MemoryFormat;
use crate::regs::RegNum;
use crate::target::Breakpoint;
use crate::target::Tid;

/// What becomes of the answer to the operation that is out.
#[derive(Debug)]
pub(super) enum Pending {
    /// `OK` to the client.
    Ok,
    /// `OK`, or an error whose text is told to the user later.
    Insert(Breakpoint),
    /// Every register, in hex.
    Registers,
    /// One register, in hex.
    Register(RegNum),
    /// Compare with these and write those that differ.
    WriteDifferent {
        thread: Tid,
        /// A `g` reply with the wanted values.
        hex: Vec<u8>,
    },
    /// Memory.
    Memory(MemoryFormat),
    /// The region that holds an address.
    MemoryRegion,
    /// The guest runs now.
    Resume,
    /// No reply: the stop is one.
    Interrupt,
    /// Text in hex.
    ExtraInfo,
    /// Text for the list of threads, which is complete up to this thread.
    Threads {
        thread: Tid,
        /// The list up to here.
        list: Vec<u8>,
        /// What the client asked for of the whole list.
        offset: u64,
        len: u64,
    },
    /// Why this thread stands still, as a stop reply.
    StopInfo(Tid),
    /// The same for the list of threads, which is complete up to this thread.
    ThreadsInfo {
        thread: Tid,
        /// The list up to here.
        list: String,
    },
    /// Text for the console, then `OK`.
    Monitor,
    /// QEMU's flags of a step.
    StepFlags,
    /// `OK`, and the end of the session.
    Detach,
    /// The end of the session without a word.
    Kill,
    /// `OK`, and the end of the session.
    KillWithReply,
}
