//! The requests a debugger sends to a VMM, and how they are answered.
//!
//! The sender is a debug worker or a program; the receiver is the actor that owns the VPs (`vp_runner`'s controller). Every
//! request carries its reply, and every reply can say why not: nothing is fire-and-forget.
//!
//! ```text
//!              Attach                     Resume
//!  Detached ------------> Stopped ----------------------> Running
//!     ^                    |  ^                              |
//!     |      Detach        |  |  a stop answers the Resume   |
//!     +--------------------+  +------------------------------+
//!     |                          Detach                      |
//!     +------------------------------------------------------+
//! ```
//!
//! The states named in the requests' documentation are these three. [`DebugMessage::Attach`] returns the [session](crate::session) that every other
//! request needs, reads included. A session that is dropped means the same as [`DebugRequest::Detach`] with what its `Attach` said. Where the last sender
//! is dropped, the guest runs, unless it is held before its first instruction.

use crate::addr::GuestAddress;
use crate::addr::Gva;
use crate::addr::VpIndex;
use crate::breakpoint::BreakpointChange;
use crate::breakpoint::BreakpointStatus;
use crate::capability::Capabilities;
use crate::memory::MappedPages;
use crate::memory::MemoryRegion;
use crate::memory::RamRange;
use crate::memory::Translation;
use crate::regs::DebuggerVpState;
use crate::regs::XFeatures;
use crate::session::AttachRequest;
use crate::session::Attached;
use crate::session::SessionId;
use crate::stop::DebugStopReason;
use crate::stop::StopEvent;
use crate::stop::StopOn;
use mesh::rpc::Rpc;
use serde::Deserialize;
use serde::Serialize;

pub use crate::debug_error::DebugError;
pub use crate::debug_error::Unsupported;

/// A request with an answer that may be an error a client can be told.
pub type DebugRpc<I, R> = Rpc<I, Result<R, DebugError>>;

/// What a debugger sends to the VMM.
#[derive(Debug)]
pub enum DebugMessage {
    /// Makes the sender the guest's debugger and stops the guest. [`DebugSession::attach`](crate::session::DebugSession::attach) sends this.
    ///
    /// Legal when Detached. The answer comes when every VP is parked.
    /// Errors: [`DebugError::AlreadyAttached`].
    Attach(DebugRpc<AttachRequest, Attached>),

    /// A request of the session that `Attach` returned. [`DebugSession`](crate::session::DebugSession) sends these.
    ///
    /// Errors besides those of the request: [`DebugError::NotAttached`] where nobody is attached, [`DebugError::NotYourSession`] where another session is.
    /// The request does nothing then.
    InSession(SessionId, DebugRequest),

    /// The session was dropped. Where it has not ended before, it ends as [`AttachRequest::if_lost`] says.
    Lost(SessionId),
}

/// A request from the debugger that is attached.
#[derive(Debug)]
pub enum DebugRequest {
    /// Ends the debug session: breakpoints, step flags and debug registers of ours are gone when the answer comes
    /// (invariant I6). A pending `Resume` is answered with [`DebugError::Detached`].
    ///
    /// Legal when Stopped or Running; [`DebugError::NotAttached`] otherwise.
    Detach(DebugRpc<DetachAction, ()>),

    /// Lets VPs go as `ResumeRequest` says. The answer is the next stop (invariant I1: one for each).
    ///
    /// Legal when Stopped. Errors: [`DebugError::NotAttached`], [`DebugError::NotStopped`], [`DebugError::NoSuchVp`],
    /// [`DebugError::NothingToRun`] where no VP is to run. The answer names a VP that this request lets go, or none. A stop of such a VP
    /// that already waits (a second VP hit at the same time) is answered at once, without any VP running (invariant I7). Where the guest ends instead of stopping, the answer is
    /// [`DebugError::Ended`].
    Resume(DebugRpc<ResumeRequest, StopEvent>),

    /// Stops the guest. Answered when every VP is parked; the pending `Resume` is answered before it, with
    /// [`DebugStopReason::Break`] unless something else stopped the guest first.
    ///
    /// A VP whose thread is in the VMM's own code, such as a device that blocks, parks when that code returns. The answer waits for it without a limit; the runner
    /// logs which VP is awaited. A caller that cannot wait drops the answer.
    ///
    /// Legal when Stopped (nothing happens) or Running. Errors: [`DebugError::NotAttached`].
    Break(DebugRpc<(), ()>),

    /// Changes the breakpoint table. The changes are made in order up to the first that fails; it is undone whole then.
    ///
    /// A software breakpoint at an address that is not mapped yet is accepted and waits; [`DebugRequest::Breakpoints`] tells.
    ///
    /// Legal when Stopped or Running (VPs are parked for the change where they have to be, invariant I3).
    /// Errors: [`DebugError::NotAttached`], [`DebugError::BadBreakpoint`], [`DebugError::TooManyBreakpoints`], [`DebugError::NoFreeSlot`],
    /// [`DebugError::GuestUsesSlots`], [`DebugError::NotExecutable`], [`DebugError::NoSuchBreakpoint`], [`DebugError::Unsupported`].
    SetDebugState(DebugRpc<Vec<BreakpointChange>, ()>),

    /// Says of each breakpoint how it is armed, in the order of insertion, for people. Legal in every state but Detached.
    Breakpoints(DebugRpc<(), Vec<BreakpointStatus>>),

    /// Sets whether steps take interrupts, where something is given, and says what is in force then. A session begins with
    /// [`StepInterrupts::Held`].
    ///
    /// Legal when Stopped. Errors: [`DebugError::NotAttached`], [`DebugError::NotStopped`].
    StepInterrupts(DebugRpc<Option<StepInterrupts>, StepInterrupts>),

    /// Reads a VP's whole register file.
    ///
    /// Legal when Stopped. Errors: [`DebugError::NotAttached`], [`DebugError::NotStopped`], [`DebugError::NoSuchVp`],
    /// [`DebugError::Hypervisor`].
    GetVpState(DebugRpc<VpIndex, Box<DebuggerVpState>>),

    /// Writes a VP's register file. Only what differs from the present state is written to the hypervisor.
    ///
    /// Legal when Stopped. Errors: as `GetVpState`, and [`DebugError::BadRegister`] where the VP has no such register or
    /// refuses the value; nothing is changed then.
    ///
    /// A breakpoint at a new RIP is met when the VP goes on. So is one at the same RIP where the stack pointer is another, as for a call of the function
    /// at whose breakpoint the VP stands.
    SetVpState(DebugRpc<(VpIndex, Box<DebuggerVpState>), ()>),

    /// Says that the client has set the VP's RIP, perhaps to the value that it had: the breakpoint there is met again when the VP goes on.
    ///
    /// Legal when Stopped. Errors: [`DebugError::NotAttached`], [`DebugError::NotStopped`], [`DebugError::NoSuchVp`].
    Redirect(DebugRpc<VpIndex, ()>),

    /// Says why a VP stopped, where the last `Resume` let the VP go and the VP was not only stopped with the others. A hit of such a VP that waits for a
    /// later `Resume` (invariant I7) is told by this request, and is not told again. Where the VP is just about to meet a breakpoint, the breakpoint counts
    /// as met.
    ///
    /// Legal when Stopped. Errors: [`DebugError::NotAttached`], [`DebugError::NotStopped`], [`DebugError::NoSuchVp`].
    StopReason(DebugRpc<VpIndex, Option<DebugStopReason>>),

    /// Reads a model-specific register by number.
    ///
    /// Legal when Stopped. Errors: as `GetVpState`, and [`DebugError::BadRegister`] where the hypervisor knows no such MSR.
    ReadMsr(DebugRpc<(VpIndex, u32), u64>),

    /// Writes a model-specific register by number. Legal and failing as `ReadMsr`.
    WriteMsr(DebugRpc<(VpIndex, u32, u64), ()>),

    /// Reads memory: the bytes up to the first one that cannot be read, which may be fewer than asked for.
    ///
    /// Legal when Stopped or Running; a `Gva` read needs its VP's paging state and is [`DebugError::NotStopped`] when Running.
    /// Bytes that no RAM backs are read from the device there, in naturally aligned pieces of 8, 4, 2 or 1. The requests that follow do not wait for
    /// the device; where it does not answer within 2 s the error is [`DebugError::Overdue`], as for each further request that needs a device.
    /// Errors, when not even the first byte can be read: [`DebugError::NotMapped`], [`DebugError::NoMemory`], [`DebugError::MemoryOutOfReach`]; also
    /// [`DebugError::NotAttached`], [`DebugError::NoSuchVp`], [`DebugError::BadLength`].
    ReadMemory(DebugRpc<(GuestAddress, usize), Vec<u8>>),

    /// Writes memory, ignoring the page's write protection as debuggers do. All or nothing as far as translation goes: every page
    /// is translated before the first byte is written. Legal and failing as `ReadMemory`.
    WriteMemory(DebugRpc<(GuestAddress, Vec<u8>), ()>),

    /// Translates a guest virtual address with the paging state of a VP.
    ///
    /// Legal when Stopped. Errors: as `GetVpState`, and [`DebugError::NotMapped`].
    Translate(DebugRpc<(VpIndex, Gva), Translation>),

    /// Lists what a VP's page tables map from an address on: as much as can be looked at in a few milliseconds. Nothing where paging is off.
    ///
    /// Legal when Stopped. Errors: as `GetVpState`.
    MappedPages(DebugRpc<(VpIndex, Gva), MappedPages>),

    /// Says which virtual addresses around one are alike to a VP: a range that is not mapped, or one that is mapped with the same rights and to RAM, or not
    /// to RAM. Where paging is off every physical address is mapped. What takes longer to find than some milliseconds is left out: a range may then be a
    /// part of a longer one, but answers that begin where the last one ended never overlap.
    ///
    /// Legal when Stopped. Errors: as `GetVpState`.
    MemoryRegion(DebugRpc<(VpIndex, Gva), MemoryRegion>),

    /// Says where RAM is, in the order of its addresses. Legal in every state but Detached.
    RamRanges(DebugRpc<(), Vec<RamRange>>),

    /// Raises a non-maskable interrupt on a VP. The VP takes it when it runs.
    ///
    /// Legal when Stopped. Errors: as `GetVpState`, and [`DebugError::Unsupported`] where the guest has not started the VP.
    Nmi(DebugRpc<VpIndex, ()>),

    /// Sets whether the guest's clocks stand while it is stopped, in force from the end of the present or next stop on; `None` only asks. The answer
    /// is what is in force. It outlives the session.
    ///
    /// Legal in every state but Detached. Errors: [`DebugError::NotAttached`], [`DebugError::Unsupported`] where this host cannot freeze them.
    FreezeTime(DebugRpc<Option<FreezeTime>, FreezeTime>),

    /// Says what each VP is doing, for people. Legal in every state but Detached.
    Status(DebugRpc<(), VmStatus>),

    /// Says which of the guest's own doings are stops, after setting it where there is something to set. It holds until the session ends; the next
    /// one begins with [`StopOn::default`].
    ///
    /// Legal when Stopped or Running. Errors: [`DebugError::NotAttached`].
    StopOn(DebugRpc<Option<StopOn>, StopOn>),

    /// Resets the guest as its reset button would, keeping breakpoints. The guest stays stopped, at its first instruction.
    ///
    /// Legal when Stopped. Errors: [`DebugError::NotAttached`], [`DebugError::NotStopped`], [`DebugError::Unsupported`] where
    /// the VMM cannot, [`DebugError::Hypervisor`], [`DebugError::Overdue`] where the VMM's code has not returned after 2 s: until it has, a `Resume` gets the same
    /// error, and a guest that is detached runs only then.
    Reset(DebugRpc<(), ()>),
}

/// What is the same for every request.
macro_rules! for_every_request {
    ($($request:ident)*) => {
        impl DebugRequest {
            /// The name of every request.
            pub const NAMES: &[&str] = &[$(stringify!($request)),*];

            /// The request's name.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$request(_) => stringify!($request),)*
                }
            }

            /// Answers with an error.
            pub fn refuse(self, error: DebugError) {
                match self {
                    $(Self::$request(rpc) => rpc.complete(Err(error)),)*
                }
            }
        }
    };
}

// A request that is missing here does not compile.
for_every_request! {
    Detach
    Resume
    Break
    SetDebugState
    Breakpoints
    StepInterrupts
    GetVpState
    SetVpState
    Redirect
    StopReason
    ReadMsr
    WriteMsr
    ReadMemory
    WriteMemory
    Translate
    MappedPages
    MemoryRegion
    RamRanges
    Nmi
    FreezeTime
    Status
    StopOn
    Reset
}

/// What a debugger learns when it attaches. It stays true until it detaches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachInfo {
    /// The guest's architecture.
    pub arch: GuestArch,
    /// How many VPs there are, started or not: indexes 0 up to this less one.
    pub vp_count: u32,
    /// Which extended register sets the VPs have; it decides the layout of the register file for the whole session.
    pub xfeatures: XFeatures,
    /// What works on this host, as found by trying.
    pub capabilities: Capabilities,
    /// Why the guest stands still now: [`DebugStopReason::Break`], or what had stopped it before.
    pub stop: StopEvent,
}

/// The guest's instruction set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuestArch {
    /// x86 in all its modes.
    X86_64,
    /// 64-bit Arm.
    Aarch64,
}

/// What becomes of the guest when its debugger leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DetachAction {
    /// It runs on. A reset or power-off it had asked for is carried out, and a crash that the debugger was told of ends it.
    Resume,
    /// It stays stopped until the next debugger attaches.
    Stay,
    /// It ends, with [`GuestEnd::Killed`](crate::stop::GuestEnd::Killed).
    Kill,
    /// As [`Resume`](Self::Resume), but a guest that is held before its first instruction, and that nobody has resumed, stays held (I6).
    ResumeUnlessHeld,
    /// As [`Kill`](Self::Kill), but a guest that is held before its first instruction, and that nobody has resumed, stays held (I6).
    KillUnlessHeld,
    /// As [`Resume`](Self::Resume), but a guest that has crashed stays stopped where the VMM keeps crashed guests for a debugger.
    /// [`ResumeUnlessHeld`](Self::ResumeUnlessHeld) does the same.
    ResumeUnlessCrashed,
}

impl DetachAction {
    /// The same action for a debugger that was lost and did not say that it leaves.
    #[must_use]
    pub const fn unless_held(self) -> Self {
        match self {
            Self::Resume | Self::ResumeUnlessHeld | Self::ResumeUnlessCrashed => {
                Self::ResumeUnlessHeld
            }
            Self::Kill | Self::KillUnlessHeld => Self::KillUnlessHeld,
            Self::Stay => Self::Stay,
        }
    }

    /// The same action for a debugger that leaves without a word on what becomes of a guest that has crashed.
    #[must_use]
    pub const fn unless_crashed(self) -> Self {
        match self {
            Self::Resume => Self::ResumeUnlessCrashed,
            other => other,
        }
    }
}

/// Whether the guest's clocks (its time-stamp counters, paravirtual clock and timers) stand while every VP is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FreezeTime {
    /// They do: a stop takes no time that the guest could see.
    On,
    /// They go on: a stop is time in which the guest did nothing.
    Off,
}

/// What each VP is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumeRequest {
    /// For the VPs that `actions` does not name.
    pub others: VpAction,
    /// At most one entry for each VP.
    pub actions: Vec<(VpIndex, VpAction)>,
}

/// What one VP is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum VpAction {
    /// Stay parked.
    Stay,
    /// Run until something stops it.
    Run,
    /// Execute one instruction.
    Step,
    /// Execute instructions until RIP is outside `start..end` (linear addresses; at least one instruction).
    StepRange {
        /// The first address inside.
        start: Gva,
        /// The first address after it.
        end: Gva,
    },
}

/// What becomes of an interrupt that may be delivered when a VP is to step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum StepInterrupts {
    /// It waits until the VP runs: steps stay in the code they are in.
    #[default]
    Held,
    /// The step delivers it, and ends before the first instruction of its handler.
    Taken,
}

/// What the guest is doing, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmStatus {
    /// One for each VP, in order.
    pub vps: Vec<VpStatus>,
}

/// What one VP is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VpStatus {
    /// Whether it runs guest code.
    pub activity: VpActivity,
    /// The processor mode when parked; `None` when it runs, for then nobody knows.
    pub mode: Option<CpuMode>,
    /// The current privilege level when parked: 0 (kernel) to 3 (user).
    pub privilege: Option<u8>,
}

/// Whether a VP runs guest code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum VpActivity {
    /// In the guest, or about to be.
    Running,
    /// Parked by the debugger.
    Stopped,
    /// Parked by the debugger, while the guest had it waiting for an interrupt (`hlt`).
    Halted,
    /// Never started by the guest: it waits for its start-up message (INIT-SIPI on x86).
    WaitingForStart,
}

/// How an x86 VP decodes instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CpuMode {
    /// CR0.PE is clear.
    Real,
    /// EFLAGS.VM is set.
    Virtual8086,
    /// Protected mode, 16-bit code segment.
    Protected16,
    /// Protected mode, 32-bit code segment.
    Protected32,
    /// Long mode, 16-bit code segment.
    Compatibility16,
    /// Long mode, 32-bit code segment.
    Compatibility32,
    /// Long mode, 64-bit code segment.
    Long64,
    /// 64-bit Arm.
    Aarch64,
}
