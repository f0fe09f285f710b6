//! Tracepoints: addresses at which VPs record registers and memory, and go on.

use crate::addr::Gva;
use crate::addr::VpIndex;
use crate::condition::Condition;
use serde::Deserialize;
use serde::Serialize;

/// The largest buffer of a trace, in bytes.
pub const MOST_TRACE_BUFFER: u64 = 64 << 20;

/// The most bytes of memory that one hit records.
pub const MOST_TRACE_MEMORY: usize = 64 << 10;

/// The most bytes of [`TraceStart::client`].
pub const MOST_TRACE_CLIENT: usize = 256 << 10;

/// The most tracepoints of a trace.
pub const MOST_TRACEPOINTS: usize = 1024;

/// What a trace records, and where.
///
/// A VP that reaches a tracepoint records on its own thread, and goes on; no hit is a stop. The frames of all VPs are in one buffer, in the order of the hits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceStart {
    /// The tracepoints.
    pub tracepoints: Vec<Tracepoint>,
    /// The size of the buffer, in bytes; more than [`MOST_TRACE_BUFFER`] counts as that many.
    pub buffer: u64,
    /// A frame for which the buffer has no room replaces the oldest ones. Otherwise the trace stops.
    pub circular: bool,
    /// The client's own data about this trace, for a client that comes later. The VM does not read the data.
    pub client: String,
}

/// One tracepoint. Several may have the same number, or the same address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tracepoint {
    /// The client's number.
    pub number: u32,
    /// The linear address of an instruction.
    pub address: Gva,
    /// Whether hits count.
    pub enabled: bool,
    /// The trace stops at this number of hits; 0: at none.
    pub pass_count: u64,
    /// A hit counts only if the condition holds. If the condition cannot be evaluated, the trace stops.
    pub condition: Option<Condition>,
    /// The registers to record, by [`ConditionRegister`](crate::condition::ConditionRegister).
    pub registers: Vec<u16>,
    /// Expressions that record memory. What cannot be read is not recorded.
    pub expressions: Vec<Condition>,
}

/// Whether a trace runs, or why it does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TraceState {
    /// No trace was started since the VM began.
    NotStarted,
    /// VPs record.
    Running,
    /// A client has stopped the trace.
    Stopped,
    /// The session that started the trace has ended.
    Disconnected,
    /// The buffer is full.
    Full,
    /// A tracepoint has reached its pass count.
    PassCount {
        /// The number of the tracepoint.
        number: u32,
    },
    /// A condition could not be evaluated.
    Failed {
        /// The number of the tracepoint.
        number: u32,
        /// The reason.
        problem: String,
    },
}

/// The trace of the VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceStatus {
    /// Whether the trace runs.
    pub state: TraceState,
    /// The number of frames in the buffer.
    pub frames: u64,
    /// The number of frames that were recorded, with those that newer ones have replaced.
    pub created: u64,
    /// The bytes of the buffer that are used.
    pub used: u64,
    /// The size of the buffer, in bytes.
    pub size: u64,
    /// Whether new frames replace old ones.
    pub circular: bool,
    /// The tracepoints in the order of [`TraceStart::tracepoints`].
    pub tracepoints: Vec<TracepointStatus>,
    /// [`TraceStart::client`].
    pub client: String,
}

/// How often a tracepoint was hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracepointStatus {
    /// The client's number.
    pub number: u32,
    /// The address.
    pub address: Gva,
    /// Whether hits count.
    pub enabled: bool,
    /// The hits that counted.
    pub hits: u64,
    /// The bytes of the buffer that the frames of this tracepoint took, with those that newer ones have replaced.
    pub bytes: u64,
}

/// Enables or disables the tracepoints with this number and address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracepointSwitch {
    /// The client's number.
    pub number: u32,
    /// The address.
    pub address: Gva,
    /// Whether hits count from now on.
    pub enabled: bool,
}

/// Which frame a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameSearch {
    /// The index of the first frame to look at; 0 is the oldest frame.
    pub from: u64,
    /// The frame.
    pub which: WhichFrame,
}

/// A property of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum WhichFrame {
    /// Any frame.
    Any,
    /// A frame of the tracepoint with this number.
    Tracepoint {
        /// The number.
        number: u32,
    },
    /// A frame of a tracepoint at one of these addresses.
    Inside {
        /// The first address.
        first: Gva,
        /// The last address.
        last: Gva,
    },
    /// A frame of a tracepoint at any other address.
    Outside {
        /// The first address.
        first: Gva,
        /// The last address.
        last: Gva,
    },
}

/// The first frame with the property, if there is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundFrame {
    /// The frame.
    pub frame: Option<TraceFrame>,
}

/// What one hit has recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceFrame {
    /// The index in the buffer.
    pub index: u64,
    /// The number of the tracepoint.
    pub number: u32,
    /// The address of the tracepoint.
    pub address: Gva,
    /// The VP.
    pub vp: VpIndex,
    /// The registers.
    pub registers: Vec<TracedRegister>,
    /// The memory, in the order in which it was read. Ranges may overlap.
    pub memory: Vec<TracedMemory>,
}

/// The value of a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracedRegister {
    /// The number as a [`ConditionRegister`](crate::condition::ConditionRegister).
    pub register: u16,
    /// The value.
    pub value: u64,
}

/// A piece of memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracedMemory {
    /// The linear address.
    pub address: Gva,
    /// The bytes.
    pub data: Vec<u8>,
}
