//! The operations of tracepoints, and their results.

/// An operation of tracepoints. The definitions up to [`Start`](Self::Start) belong to the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TraceOp {
    /// Forgets all definitions. Answer: Done.
    Init,
    /// Defines a tracepoint. Answer: Done.
    Define {
        /// The tracepoint.
        id: TracepointId,
        /// Whether hits count.
        enabled: bool,
        /// The number of hits at which the trace stops; 0: none.
        pass_count: u64,
        /// Bytecode.
        condition: Option<Vec<u8>>,
        /// The definition as [`FirstDefinition`](Self::FirstDefinition) returns it.
        text: String,
    },
    /// Adds actions to a tracepoint. Answer: Done.
    Actions {
        /// The tracepoint.
        id: TracepointId,
        /// What a hit records.
        actions: Vec<TraceAction>,
        /// The definition, as in `Define`.
        text: String,
    },
    /// Adds a text of the user's to a tracepoint. Answer: Done.
    Source {
        /// The tracepoint.
        id: TracepointId,
        /// The text, as in `Define`.
        text: String,
    },
    /// Defines a trace state variable.
    Variable,
    /// Ranges, from the first address up to the second one, that a selected frame shows from the present memory. Answer: Done.
    ReadOnly(Vec<(u64, u64)>),
    /// Whether the trace is to go on without the client. Answer: Done.
    Disconnected(bool),
    /// Whether new frames replace old ones. Answer: Done.
    Circular(bool),
    /// The size of the buffer in bytes. `None`: what the server likes. Answer: Done.
    BufferSize(Option<u64>),
    /// Texts about the trace, which are not kept. Answer: Done.
    Notes,
    /// Starts the trace. Answer: Done.
    Start,
    /// Stops the trace. Answer: Done.
    Stop,
    /// Answer: [`TraceReply::Status`].
    Status,
    /// How often a tracepoint was hit. Answer: [`TraceReply::Hits`].
    Hits(TracepointId),
    /// Enables or disables a tracepoint of the trace that runs. Answer: Done.
    Switch(TracepointId, bool),
    /// Selects a frame. Answer: [`TraceReply::Frame`]. While one is selected, registers and memory are those of the frame; a resume ends that.
    Select(FrameSelection),
    /// The first definition of the trace. Answer: [`TraceReply::Definition`].
    FirstDefinition,
    /// The definition behind the last one. Answer: [`TraceReply::Definition`].
    NextDefinition,
    /// The first trace state variable. Answer: [`TraceReply::Definition`].
    FirstVariable,
    /// A part of the buffer, in GDB's format of a trace file. Answer: [`TraceReply::Bytes`].
    Buffer {
        /// The offset of the first byte.
        offset: u64,
        /// The most bytes.
        len: u64,
    },
    /// What the selected frame has recorded. Answer: [`TraceReply::Collected`].
    Collected,
}

/// A tracepoint. A tracepoint of a user's may have several locations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TracepointId {
    /// The number.
    pub number: u32,
    /// The address.
    pub address: u64,
}

/// What a hit records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TraceAction {
    /// The registers with these numbers of the protocol.
    Registers(Vec<u16>),
    /// Memory.
    Memory {
        /// The register that is added to the offset.
        base: Option<u16>,
        /// The address, or the distance to the register.
        offset: u64,
        /// The number of bytes.
        len: u64,
    },
    /// Bytecode that records.
    Expression(Vec<u8>),
}

/// Which frame is selected. Searches begin behind the selected frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameSelection {
    /// No frame: the live guest.
    None,
    /// The frame with this number.
    Number(u64),
    /// A frame of this tracepoint.
    Tracepoint(u32),
    /// A frame whose program counter is one of these, the last one included.
    Inside(u64, u64),
    /// A frame whose program counter is none of these.
    Outside(u64, u64),
}

/// The result of a [`TraceOp`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TraceReply {
    /// See [`TraceOp::Status`].
    Status(TraceStatus),
    /// See [`TraceOp::Hits`].
    Hits {
        /// The number of hits.
        hits: u64,
        /// The bytes of their frames.
        bytes: u64,
    },
    /// The number of the frame, and of its tracepoint. `None` if there is no such frame, or no frame is selected now.
    Frame(Option<(u64, u32)>),
    /// A definition as the client sent it. `None` behind the last one.
    Definition(Option<String>),
    /// Bytes. None behind the end.
    Bytes(Vec<u8>),
    /// The first address and the length of each piece of memory that the selected frame has.
    Collected(Vec<(u64, u64)>),
}

/// The trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceStatus {
    /// Whether the trace runs, or why not.
    pub state: TraceState,
    /// The number of frames.
    pub frames: u64,
    /// The number of frames that were ever recorded.
    pub created: u64,
    /// The free bytes.
    pub free: u64,
    /// All bytes.
    pub size: u64,
    /// Whether new frames replace old ones.
    pub circular: bool,
}

/// Whether a trace runs, or why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TraceState {
    /// There was none.
    NotStarted,
    /// It runs.
    Running,
    /// A client has stopped it.
    Stopped,
    /// The buffer is full.
    Full,
    /// The client went away.
    Disconnected,
    /// A tracepoint has reached its pass count.
    PassCount(u32),
    /// An error at a tracepoint.
    Error(String, u32),
}
