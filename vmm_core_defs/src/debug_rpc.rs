//! The requests that a debugger sends to a VMM, and their replies.
//!
//! The sender is a debug worker or another program. The receiver is the actor that owns the VPs (`vp_runner`'s controller). Every request
//! has a reply, and every reply can be an error: no request is fire-and-forget.
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
//! The documentation of a request names the states in which the request is legal. [`DebugMessage::Attach`] returns the [session](crate::session) that
//! every other request needs, also a request that only reads. Dropping a session has the effect of [`DebugRequest::Detach`] with the action that
//! `Attach` named. When the last sender is dropped, the guest runs, unless it is held before its first instruction.

use crate::addr::GuestAddress;
use crate::addr::Gva;
use crate::addr::VpIndex;
use crate::breakpoint::BreakpointChange;
use crate::breakpoint::BreakpointHits;
use crate::breakpoint::BreakpointStatus;
use crate::capability::Capabilities;
use crate::condition::BreakpointConditions;
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
use crate::trace::FoundFrame;
use crate::trace::FrameSearch;
use crate::trace::TraceStart;
use crate::trace::TraceStatus;
use crate::trace::TracepointSwitch;
use mesh::rpc::Rpc;
use serde::Deserialize;
use serde::Serialize;
use std::num::NonZeroU64;

pub use crate::bad_message::BadMessage;
pub use crate::debug_error::BadRegisterReason;
pub use crate::debug_error::DebugError;
pub use crate::debug_error::RunnerBug;
pub use crate::debug_error::Unsupported;
pub use crate::hypervisor_call::HypervisorCall;
pub use crate::hypervisor_call::OsError;
pub use crate::machine_call::MachineCall;
pub use crate::machine_call::MachineFailure;
pub use crate::status::CpuMode;
pub use crate::status::VmStatus;
pub use crate::status::VpActivity;
pub use crate::status::VpStatus;

/// A request whose answer is a value or a [`DebugError`].
pub type DebugRpc<I, R> = Rpc<I, Result<R, DebugError>>;

/// A message of a debugger to the VMM.
#[derive(Debug)]
#[non_exhaustive]
pub enum DebugMessage {
    /// Makes the sender the guest's debugger and stops the guest.
    /// [`DebugSession::attach`](crate::session::DebugSession::attach) sends this message.
    ///
    /// Legal when Detached. The answer comes when every VP is parked. Errors: [`DebugError::AlreadyAttached`].
    Attach(DebugRpc<AttachRequest, Attached>),

    /// A request of the session that `Attach` returned. [`DebugSession`](crate::session::DebugSession) sends this
    /// message.
    ///
    /// Errors in addition to those of the request: [`DebugError::NotAttached`] if no debugger is attached,
    /// [`DebugError::NotYourSession`] if another session is attached. In both cases the request has no effect.
    InSession(SessionId, DebugRequest),

    /// The session was dropped. If it has not ended before, it ends as [`AttachRequest::if_lost`] says.
    Lost(SessionId),
}

impl DebugMessage {
    /// Answers the message with an error. [`Lost`](Self::Lost) has no answer. A VMM that does not know a message of a
    /// newer client answers with [`Unsupported::Request`].
    pub fn refuse(self, error: DebugError) {
        match self {
            Self::Attach(rpc) => rpc.complete(Err(error)),
            Self::InSession(_, request) => request.refuse(error),
            Self::Lost(_) => {}
        }
    }
}

/// A request of the attached debugger.
#[derive(Debug)]
#[non_exhaustive]
pub enum DebugRequest {
    /// Ends the debug session. When the answer comes, no breakpoint, no step flag and no debug register value of the
    /// debugger is left in the guest (invariant I6). A pending `Resume` is answered with [`DebugError::Detached`].
    ///
    /// Legal when Stopped or Running; [`DebugError::NotAttached`] otherwise.
    Detach(DebugRpc<DetachAction, ()>),

    /// Runs or steps the VPs that the `ResumeRequest` names. The answer is the next stop. Each `Resume` gets exactly
    /// one answer (invariant I1).
    ///
    /// Legal when Stopped. Errors: [`DebugError::NotAttached`], [`DebugError::NotStopped`], [`DebugError::NoSuchVp`],
    /// [`DebugError::NothingToRun`] if the request runs no VP. The answer names a VP that this request runs, or no VP. If such a VP has a stop that
    /// waits to be reported, because two VPs hit at the same time, this stop is the answer, and no VP runs (invariant
    /// I7). If the guest ends instead of stopping, the answer is
    /// [`DebugError::Ended`].
    Resume(DebugRpc<ResumeRequest, StopEvent>),

    /// Stops the guest. The answer comes when every VP is parked. The pending `Resume` is answered before it, with
    /// [`DebugStopReason::Break`] unless another event stopped the guest first.
    ///
    /// If the thread of a VP is in the VMM's own code, such as a device that blocks, the VP parks when that code
    /// returns. The answer waits for the VP without a limit, and the runner logs the VP. A caller that cannot wait
    /// drops the answer.
    ///
    /// Legal when Stopped (without effect) or Running. Errors: [`DebugError::NotAttached`].
    Break(DebugRpc<(), ()>),

    /// Changes the breakpoint table. The runner makes the changes in order, up to the first change that fails, and
    /// undoes a failed change completely.
    ///
    /// A software breakpoint at an address that is not mapped yet is accepted and waits. [`DebugRequest::Breakpoints`]
    /// shows that it waits.
    ///
    /// Legal when Stopped or Running. When Running, the runner parks the VPs for the change where it has to (invariant
    /// I3). Errors: [`DebugError::NotAttached`], [`DebugError::BadBreakpoint`], [`DebugError::TooManyBreakpoints`],
    /// [`DebugError::NoFreeSlot`],
    /// [`DebugError::GuestUsesSlots`], [`DebugError::NotExecutable`], [`DebugError::NoSuchBreakpoint`], [`DebugError::Unsupported`].
    SetDebugState(DebugRpc<Vec<BreakpointChange>, ()>),

    /// Sets the conditions of a breakpoint that is set. They replace those of the breakpoint before, and go with the
    /// breakpoint.
    ///
    /// Legal when Stopped or Running. Errors: [`DebugError::NotAttached`], [`DebugError::NoSuchBreakpoint`],
    /// [`DebugError::BadCondition`]. After an error the conditions are as before.
    SetConditions(DebugRpc<BreakpointConditions, ()>),

    /// Lists the breakpoints with how each is armed, in the order of insertion. The list is for people. Legal in every
    /// state but Detached.
    Breakpoints(DebugRpc<(), Vec<BreakpointStatus>>),
    /// How often VPs have hit each breakpoint since the attach, in the order of the first hit. Breakpoints without a hit are left out. The first
    /// [`MOST_COUNTED`](crate::breakpoint::MOST_COUNTED) breakpoints are counted. Legal whether or not the guest is stopped. Errors:
    /// [`DebugError::NotAttached`].
    BreakpointHits(DebugRpc<(), Vec<BreakpointHits>>),
    /// What commands of breakpoints have printed since the last answer to this request. While the guest runs, the answer comes when there is output; it comes at the latest
    /// before the next stop is reported, and may be empty then. One request waits at a time: an earlier one that waits is answered with nothing. Output that is not taken is
    /// kept up to [`MOST_OUTPUT`](crate::condition::MOST_OUTPUT) bytes; more is replaced by a text that says so. Legal whether or not the guest is stopped. Errors:
    /// [`DebugError::NotAttached`].
    CommandOutput(DebugRpc<(), Vec<u8>>),

    /// Starts a trace: empties the buffer, replaces the tracepoints, and lets VPs record. A trace that runs ends.
    ///
    /// Tracepoints are breakpoints of [`BreakpointKind::Trace`](crate::breakpoint::BreakpointKind::Trace), and go with the session. The trace stops then; its frames stay until
    /// the next `StartTrace`, and every session can read them.
    ///
    /// Legal when Stopped. Errors: [`DebugError::NotAttached`], [`DebugError::NotStopped`], [`DebugError::BadCondition`], those of `SetDebugState`. After an
    /// error there is no tracepoint and no frame.
    StartTrace(DebugRpc<TraceStart, ()>),
    /// Stops the trace, if one runs. The frames stay. Legal when Stopped or Running. Errors: [`DebugError::NotAttached`].
    StopTrace(DebugRpc<(), ()>),
    /// Returns whether a trace runs, and what it has recorded. Legal when Stopped or Running. Errors: [`DebugError::NotAttached`].
    TraceStatus(DebugRpc<(), TraceStatus>),
    /// Enables or disables tracepoints of the last `StartTrace`. Legal when Stopped or Running. Errors: [`DebugError::NotAttached`],
    /// [`DebugError::NoSuchBreakpoint`].
    SwitchTracepoint(DebugRpc<TracepointSwitch, ()>),
    /// Returns the first frame with a property, from an index on. In a circular buffer an index is that of another frame when a trace that runs replaces the oldest frame. Legal
    /// when Stopped or Running. Errors: [`DebugError::NotAttached`].
    FindFrame(DebugRpc<FrameSearch, FoundFrame>),

    /// Sets whether steps take interrupts, if the request contains a value, and returns the present setting. A session
    /// begins with
    /// [`StepInterrupts::Held`].
    ///
    /// Legal when Stopped. Errors: [`DebugError::NotAttached`], [`DebugError::NotStopped`].
    StepInterrupts(DebugRpc<Option<StepInterrupts>, StepInterrupts>),

    /// Reads the whole register file of a VP.
    ///
    /// Legal when Stopped. Errors: [`DebugError::NotAttached`], [`DebugError::NotStopped`], [`DebugError::NoSuchVp`],
    /// [`DebugError::Hypervisor`], [`DebugError::VpThreadEnded`].
    GetVpState(DebugRpc<VpIndex, Box<DebuggerVpState>>),

    /// Writes the register file of a VP. The runner writes only the registers that differ from the present state.
    ///
    /// Legal when Stopped. Errors: those of `GetVpState`, and [`DebugError::BadRegister`] if the VP lacks the register
    /// or refuses the value. After an error no register has changed.
    ///
    /// If the new RIP is at a breakpoint, the VP stops at the breakpoint when it runs. The VP also stops there if RIP
    /// is unchanged but the stack pointer differs: this is a call of the function at whose breakpoint the VP has
    /// stopped.
    SetVpState(DebugRpc<(VpIndex, Box<DebuggerVpState>), ()>),

    /// Reports that the client has set the VP's RIP, perhaps to its present value. If RIP is at a breakpoint, the VP
    /// stops there again when it runs.
    ///
    /// Legal when Stopped. Errors: [`DebugError::NotAttached`], [`DebugError::NotStopped`], [`DebugError::NoSuchVp`].
    Redirect(DebugRpc<VpIndex, ()>),

    /// Returns the reason why a VP stopped. The answer is `None` if the last `Resume` did not run the VP, or if the VP
    /// stopped only because other VPs stopped. If the VP has a hit that waits for a later `Resume` (invariant I7), this
    /// request reports the hit, and no `Resume` reports it again. If the VP is about to reach a breakpoint, the
    /// breakpoint counts as hit.
    ///
    /// Legal when Stopped. Errors: [`DebugError::NotAttached`], [`DebugError::NotStopped`], [`DebugError::NoSuchVp`].
    StopReason(DebugRpc<VpIndex, Option<DebugStopReason>>),

    /// Reads a model-specific register by its number.
    ///
    /// Legal when Stopped. Errors: those of `GetVpState`, and [`DebugError::BadRegister`] if the hypervisor does not
    /// know the MSR.
    ReadMsr(DebugRpc<(VpIndex, u32), u64>),

    /// Writes a model-specific register by its number. Legal when `ReadMsr` is legal, with the same errors.
    WriteMsr(DebugRpc<(VpIndex, u32, u64), ()>),

    /// Reads memory. The answer contains the bytes up to the first byte that cannot be read, which may be fewer bytes
    /// than requested.
    ///
    /// Legal when Stopped or Running. A read by a `Gva` needs the paging state of its VP, and is
    /// [`DebugError::NotStopped`] when Running. If an address has no RAM, the runner reads the device at the address,
    /// in naturally aligned accesses of 8, 4, 2 or 1 bytes. Other requests do not wait for the device. If the device
    /// does not answer within 2 s, the error is [`DebugError::Overdue`], also for each further request that needs a
    /// device. If the device panics, the error is [`DebugError::MachineFailed`]. Errors, if not even the first byte can be read: [`DebugError::NotMapped`], [`DebugError::NoMemory`],
    /// [`DebugError::MemoryOutOfReach`]; also
    /// [`DebugError::NotAttached`], [`DebugError::NoSuchVp`], [`DebugError::BadLength`].
    ReadMemory(DebugRpc<(GuestAddress, usize), Vec<u8>>),

    /// Writes memory, and ignores the write protection of pages, as debuggers do. The runner translates every page
    /// before it writes the first byte, so a translation error leaves memory unchanged. Legal when `ReadMemory` is
    /// legal, with the same errors.
    WriteMemory(DebugRpc<(GuestAddress, Vec<u8>), ()>),

    /// Translates a guest virtual address with the paging state of a VP.
    ///
    /// Legal when Stopped. Errors: those of `GetVpState`, and [`DebugError::NotMapped`].
    Translate(DebugRpc<(VpIndex, Gva), Translation>),

    /// Lists the pages that a VP's page tables map, from an address on. The runner ends the list after a few
    /// milliseconds. The list is empty if paging is off.
    ///
    /// Legal when Stopped. Errors: those of `GetVpState`.
    MappedPages(DebugRpc<(VpIndex, Gva), MappedPages>),

    /// Returns the region around a virtual address: the range of addresses with the same properties for a VP. A region
    /// is not mapped, or it is mapped with the same rights and completely to RAM or completely to other memory. If
    /// paging is off, every physical address is mapped. The runner ends the search after some milliseconds, so a region
    /// may be a part of a longer region. Regions of requests that begin where the last answer ended never overlap.
    ///
    /// Legal when Stopped. Errors: those of `GetVpState`.
    MemoryRegion(DebugRpc<(VpIndex, Gva), MemoryRegion>),

    /// Lists the RAM ranges in the order of their addresses. Legal in every state but Detached.
    RamRanges(DebugRpc<(), Vec<RamRange>>),

    /// Raises a non-maskable interrupt on a VP. The VP takes the interrupt when it runs.
    ///
    /// Legal when Stopped. Errors: those of `GetVpState`, and [`DebugError::Unsupported`] if the guest has not started
    /// the VP.
    Nmi(DebugRpc<VpIndex, ()>),

    /// Sets whether the guest's clocks stop while the guest is stopped, or only returns the setting (`None`). A change
    /// takes effect at the end of the present or next stop. The answer is the present setting. The setting outlives the
    /// session.
    ///
    /// Legal in every state but Detached. Errors: [`DebugError::NotAttached`], [`DebugError::Unsupported`] if this host
    /// cannot stop the clocks.
    FreezeTime(DebugRpc<Option<FreezeTime>, FreezeTime>),

    /// Returns the activity of each VP. The answer is for people. Legal in every state but Detached.
    Status(DebugRpc<(), VmStatus>),

    /// Sets which guest events are stops, if the request contains a value, and returns the present setting. The setting
    /// holds until the session ends. The next session begins with [`StopOn::default`].
    ///
    /// Legal when Stopped or Running. Errors: [`DebugError::NotAttached`].
    StopOn(DebugRpc<Option<StopOn>, StopOn>),

    /// Resets the guest as its reset button would, and keeps the breakpoints. The guest stays stopped, at its first
    /// instruction.
    ///
    /// Legal when Stopped. Errors: [`DebugError::NotAttached`], [`DebugError::NotStopped`], [`DebugError::Unsupported`]
    /// if the VMM has no reset, [`DebugError::MachineFailed`] if the VMM's code fails, [`DebugError::NoThread`],
    /// [`DebugError::Hypervisor`], [`DebugError::VpThreadEnded`], [`DebugError::Overdue`] if the VMM's code has not
    /// returned after 2 s. Until the code returns, a `Resume` gets the same error, and a detached guest does not run.
    Reset(DebugRpc<(), ()>),
}

/// Implements the methods that are the same for every request.
macro_rules! for_every_request {
    ($($request:ident)*) => {
        impl DebugRequest {
            /// The names of all requests.
            pub const NAMES: &[&str] = &[$(stringify!($request)),*];

            /// The name of this request.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$request(_) => stringify!($request),)*
                }
            }

            /// The place of this request in [`NAMES`](Self::NAMES).
            pub fn index(&self) -> usize {
                enum Place {
                    $($request),*
                }
                match self {
                    $(Self::$request(_) => Place::$request as usize,)*
                }
            }

            /// Answers the request with an error. A VMM that does not know a request of a newer client answers with
            /// [`DebugRequest::unknown`].
            pub fn refuse(self, error: DebugError) {
                match self {
                    $(Self::$request(rpc) => rpc.complete(Err(error)),)*
                }
            }

            /// Answers the request with [`Unsupported::Request`], because the receiver does not know the request.
            pub fn unknown(self) {
                let request = self.name().to_owned();
                self.refuse(Unsupported::Request { request }.into());
            }
        }
    };
}

// The match in `name` does not compile if a request is missing from this list.
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
    SetConditions
    BreakpointHits
    CommandOutput
    StartTrace
    StopTrace
    TraceStatus
    SwitchTracepoint
    FindFrame
}

/// The properties of the guest that a debugger gets when it attaches. All but `stop` are constant during the session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AttachInfo {
    /// The architecture of the guest.
    pub arch: GuestArch,
    /// The extended register sets that the VPs have. They decide the layout of the register file for the whole session.
    pub xfeatures: XFeatures,
    /// The features that work on this host. The set is empty if the VMM has not probed its host.
    pub capabilities: Capabilities,
    /// The reason why the guest is stopped: [`DebugStopReason::Break`], or an earlier stop. The stop says which VPs there are.
    pub stop: StopEvent,
    /// The VMM may change registers while the guest is stopped, because the VMM runs the vCPUs (a reset, a snapshot that is loaded). A client then keeps no registers from one request
    /// to the next.
    pub changes_while_stopped: bool,
}

impl AttachInfo {
    /// The properties of a guest.
    pub const fn new(
        arch: GuestArch,
        xfeatures: XFeatures,
        capabilities: Capabilities,
        stop: StopEvent,
    ) -> Self {
        Self {
            arch,
            xfeatures,
            capabilities,
            stop,
            changes_while_stopped: false,
        }
    }
}

/// The instruction set of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuestArch {
    /// x86 in all its modes.
    X86_64,
    /// 64-bit Arm.
    Aarch64,
}

/// What happens to the guest when its debugger detaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DetachAction {
    /// The guest runs. A reset or power-off that the guest has asked for is carried out. A crash that was reported to
    /// the debugger ends the guest.
    Resume,
    /// The guest stays stopped until the next debugger attaches.
    Stay,
    /// The guest ends with [`GuestEnd::Killed`](crate::stop::GuestEnd::Killed).
    Kill,
    /// As [`Resume`](Self::Resume), but a guest that is held before its first instruction, and that no client has
    /// resumed, stays held (I6).
    ResumeUnlessHeld,
    /// As [`Kill`](Self::Kill), but a guest that is held before its first instruction, and that no client has resumed,
    /// stays held (I6).
    KillUnlessHeld,
    /// As [`Resume`](Self::Resume), but a crashed guest stays stopped if the VMM keeps crashed guests for a debugger.
    /// [`ResumeUnlessHeld`](Self::ResumeUnlessHeld) does the same.
    ResumeUnlessCrashed,
}

impl DetachAction {
    /// The same action for a debugger that was lost without a detach.
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

    /// The same action for a debugger that detaches without choosing what happens to a crashed guest.
    #[must_use]
    pub const fn unless_crashed(self) -> Self {
        match self {
            Self::Resume => Self::ResumeUnlessCrashed,
            other => other,
        }
    }
}

/// Whether the guest's clocks (its time-stamp counters, paravirtual clock and timers) stop while every VP is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FreezeTime {
    /// The clocks stop: the guest sees no time pass during a stop.
    On,
    /// The clocks run on: the guest sees a stop as time in which it did not run.
    Off,
}

/// The input of [`DebugRequest::Resume`]: one action for each VP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ResumeRequest {
    /// The action of the VPs that `actions` does not name.
    pub others: VpAction,
    /// The actions of single VPs, at most one for each VP.
    pub actions: Vec<(VpIndex, VpAction)>,
}

impl ResumeRequest {
    /// The VPs in `actions` carry out their actions, and all other VPs carry out `others`.
    pub const fn new(others: VpAction, actions: Vec<(VpIndex, VpAction)>) -> Self {
        Self { others, actions }
    }

    /// Every VP carries out the same action.
    pub const fn every(action: VpAction) -> Self {
        Self::new(action, Vec::new())
    }
}

/// The action of one VP in a resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum VpAction {
    /// The VP stays parked.
    Stay,
    /// The VP runs until it stops or is stopped.
    Run,
    /// The VP executes one instruction.
    Step,
    /// The VP executes instructions until RIP is outside `start..end` (linear addresses), and at least one instruction.
    StepRange {
        /// The first address inside the range.
        start: Gva,
        /// The first address behind the range.
        end: Gva,
    },
    /// The VP executes this many instructions, as by [`Step`](Self::Step) each. A breakpoint ends the steps, but not one at the first instruction whose stop was
    /// reported.
    StepN {
        /// The number of instructions.
        count: NonZeroU64,
    },
}

/// What a step does with an interrupt that can be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum StepInterrupts {
    /// The step does not deliver the interrupt. The VP takes the interrupt when it runs.
    #[default]
    Held,
    /// The step delivers the interrupt, and ends before the first instruction of the interrupt handler.
    Taken,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::DebugSession;
    use std::pin::pin;
    use std::task::Context;
    use std::task::Poll;
    use std::task::Waker;

    /// The error of an answer that has come.
    fn error<R>(answer: mesh::OneshotReceiver<Result<R, DebugError>>) -> DebugError {
        let poll = pin!(answer).poll(&mut Context::from_waker(Waker::noop()));
        match poll {
            Poll::Ready(Ok(Err(error))) => error,
            _ => panic!("not answered with an error"),
        }
    }

    #[test]
    fn a_request_that_the_vmm_does_not_know_gets_an_error_with_its_name() {
        let (reply, answer) = mesh::oneshot();
        DebugRequest::Nmi(Rpc(VpIndex::BSP, reply)).unknown();
        let request = "Nmi".to_owned();
        assert_eq!(error(answer), Unsupported::Request { request }.into());
    }

    #[test]
    fn every_message_with_an_answer_can_be_refused() {
        let (requests, _receiver) = mesh::channel();
        let id = DebugSession::begin(requests.clone()).id();
        let (reply, answer) = mesh::oneshot();
        DebugMessage::InSession(id, DebugRequest::Break(Rpc((), reply)))
            .refuse(DebugError::NotStopped);
        assert_eq!(error(answer), DebugError::NotStopped);
        let (reply, answer) = mesh::oneshot();
        let if_lost = DetachAction::Stay;
        let requests = requests.into();
        let attach = Rpc(AttachRequest { if_lost, requests }, reply);
        DebugMessage::Attach(attach).refuse(DebugError::AlreadyAttached);
        assert_eq!(error(answer), DebugError::AlreadyAttached);
        DebugMessage::Lost(id).refuse(DebugError::NotStopped);
    }
}
