//! The VM as a debug session uses it: requests with deadlines, a cache that is valid during a stop, and the duty to
//! detach.

use crate::deadline::CallError;
use crate::deadline::Deadline;
use crate::deadline::answer_within_turns;
use crate::registers;
use crate::statistics::RequestKind;
use crate::statistics::Statistics;
use gdb_frontend::regs::Layout;
use gdb_frontend::regs::RegisterBlock;
use mesh::rpc::PendingFailableRpc;
use mesh::rpc::RpcSend;
use std::collections::HashMap;
use std::time::Instant;
use tracing::Instrument as _;
use tracing::Span;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::AttachInfo;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::DebugRequest;
use vmm_core_defs::debug_rpc::DebugRpc;
use vmm_core_defs::debug_rpc::DetachAction;
use vmm_core_defs::debug_rpc::ResumeRequest;
use vmm_core_defs::debug_rpc::VmStatus;
use vmm_core_defs::debug_rpc::VpActivity;
use vmm_core_defs::debug_rpc::VpStatus;
use vmm_core_defs::regs::DebuggerVpState;
use vmm_core_defs::session::Attached;
use vmm_core_defs::session::DebugSession;
use vmm_core_defs::stop::StopEvent;
use vmm_core_defs::target::Target;

/// The pending answer to a `Resume`: the next stop.
pub(crate) type PendingStop = PendingFailableRpc<StopEvent, DebugError>;

/// The pending answer to a request for the output of commands.
pub(crate) type PendingOutput = PendingFailableRpc<Vec<u8>, DebugError>;

/// The state of a resume after other tasks had a turn.
#[derive(Debug)]
pub(crate) enum Resumed {
    /// The guest runs.
    Running(PendingStop),
    /// The guest has stopped again already, or it is gone for good.
    Over(Result<StopEvent, CallError>),
}

/// A VM to which this session is attached. Dropping it ends the session on the VM's side, with the action for lost
/// clients, and does not wait. This is the fallback for a session that is dropped before its end.
pub(crate) struct AttachedVm {
    session: DebugSession,
    deadline: Deadline,
    pub(crate) statistics: Statistics,
    /// What happens to the guest if the client is lost.
    on_disconnect: DetachAction,
    duty: DetachDuty,
    keeps: Keeps,
    cache: StopCache,
}

/// How long values of a stopped guest are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keeps {
    /// Until the client resumes the guest or changes it.
    UntilResumed,
    /// Not at all: the VMM may change them.
    Nothing,
}

/// Whether the session still has to send `Detach`. Each session sends `Detach` once, and again only if the VM said that
/// it did not carry it out (I6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DetachDuty {
    NotDetached,
    Detached,
}

/// Values that do not change while the guest is stopped.
#[derive(Debug, Default)]
struct StopCache {
    registers: HashMap<VpIndex, VpRegisters>,
    status: Option<VmStatus>,
}

/// The register file of a VP in the VM's form and, after the first use, in the protocol's form. The conversion takes as
/// long as a packet.
#[derive(Debug)]
pub(crate) struct VpRegisters {
    pub(crate) state: Box<DebuggerVpState>,
    block: Option<RegisterBlock>,
}

impl VpRegisters {
    /// All registers in the protocol's form.
    pub(crate) fn block(&mut self, layout: Layout) -> &RegisterBlock {
        self.block
            .get_or_insert_with(|| registers::read_all(layout, &mut self.state))
    }
}

impl AttachedVm {
    /// Attaches, which stops the guest.
    ///
    /// If the VM does not answer in time, or if this future is dropped before the answer, the session ends as soon as
    /// it begins, because the answer is dropped.
    pub(crate) async fn attach(
        requests: Target,
        deadline: Deadline,
        on_disconnect: DetachAction,
        statistics: Statistics,
    ) -> Result<(Self, AttachInfo), CallError> {
        let pending = DebugSession::attach(&requests, on_disconnect);
        let answer = deadline.answer(pending);
        let Attached { session, info } = counted(RequestKind::Attach, &statistics, answer).await?;
        let keeps = match info.changes_while_stopped {
            true => Keeps::Nothing,
            false => Keeps::UntilResumed,
        };
        let vm = Self {
            keeps,
            session,
            deadline,
            statistics,
            on_disconnect,
            duty: DetachDuty::NotDetached,
            cache: StopCache::default(),
        };
        Ok((vm, info))
    }

    /// Sends a request and waits for its answer until the deadline.
    pub(crate) async fn call<I, R>(
        &self,
        request: impl FnOnce(DebugRpc<I, R>) -> DebugRequest,
        input: I,
    ) -> Result<R, CallError> {
        let (kind, pending) = self.send(request, input);
        counted(kind, &self.statistics, self.deadline.answer(pending)).await
    }

    fn send<I, R>(
        &self,
        request: impl FnOnce(DebugRpc<I, R>) -> DebugRequest,
        input: I,
    ) -> (RequestKind, PendingFailableRpc<R, DebugError>) {
        let mut kind = None;
        let request = |rpc| {
            let request = request(rpc);
            kind = Some(RequestKind::of(&request));
            request
        };
        let pending = self.session.call_failable(request, input);
        let kind = kind.expect("`call_failable` has sent the request");
        (kind, pending)
    }

    /// As [`AttachedVm::call`], for a request that may change the registers, the mode or the activity of a VP. The next
    /// read requests them from the VM again.
    pub(crate) async fn change<I, R>(
        &mut self,
        request: impl FnOnce(DebugRpc<I, R>) -> DebugRequest,
        input: I,
    ) -> Result<R, CallError> {
        self.forget();
        self.call(request, input).await
    }

    /// Resumes the guest. The answer to a resume is the next stop, so a running guest has no answer. The few turns turn a
    /// refusal, which comes at once, into an error reply. Later, only a stop can tell the client of the refusal.
    pub(crate) async fn resume(&mut self, request: ResumeRequest) -> Result<Resumed, CallError> {
        self.forget();
        let (kind, mut pending) = self.send(DebugRequest::Resume, request);
        let began = Instant::now();
        let answer = answer_within_turns(&mut pending)
            .instrument(request_span(kind))
            .await;
        // The time in which the guest runs is no latency of the request.
        let failed = matches!(answer, Some(Err(_)));
        self.statistics.answered(kind, began.elapsed(), failed);
        match answer {
            None => Ok(Resumed::Running(pending)),
            Some(Err(error)) if !error.is_end() => Err(error),
            Some(over) => Ok(Resumed::Over(over)),
        }
    }

    /// Asks for the output of commands. The answer comes when there is output, and at a stop.
    pub(crate) fn output(&self) -> PendingOutput {
        self.send(DebugRequest::CommandOutput, ()).1
    }

    /// The registers of a VP. They are requested once per stop, unless the VMM may change them.
    pub(crate) async fn registers(&mut self, vp: VpIndex) -> Result<&mut VpRegisters, CallError> {
        self.forget_if_outdated();
        if !self.cache.registers.contains_key(&vp) {
            let state = self.call(DebugRequest::GetVpState, vp).await?;
            let block = None;
            self.cache
                .registers
                .insert(vp, VpRegisters { state, block });
        }
        // The entry is looked up again, because a reference from before the await would borrow `self` too long.
        self.cache.registers.get_mut(&vp).ok_or(CallError::Gone)
    }

    /// Writes the registers of a VP. The next read requests them from the VM again. The registers of the other VPs stay
    /// valid; the status of the VP contains its mode, which follows from its registers.
    pub(crate) async fn set_registers(
        &mut self,
        vp: VpIndex,
        state: DebuggerVpState,
    ) -> Result<(), CallError> {
        self.cache.registers.remove(&vp);
        self.cache.status = None;
        self.call(DebugRequest::SetVpState, (vp, Box::new(state)))
            .await
    }

    /// The status of every VP. It is requested once per stop, unless the VMM may change it.
    pub(crate) async fn status(&mut self) -> Result<VmStatus, CallError> {
        self.forget_if_outdated();
        if let Some(status) = &self.cache.status {
            return Ok(status.clone());
        }
        let status = self.call(DebugRequest::Status, ()).await?;
        // The status of a running guest is outdated when it arrives.
        let running = |vp: &VpStatus| vp.activity == VpActivity::Running;
        if !status.vps.iter().any(running) {
            self.cache.status = Some(status.clone());
        }
        Ok(status)
    }

    fn forget_if_outdated(&mut self) {
        if self.keeps == Keeps::Nothing {
            self.forget();
        }
    }

    /// Clears the cache, because the guest has run or was changed in another way.
    pub(crate) fn forget(&mut self) {
        self.cache = StopCache::default();
    }

    /// Ends the session on the VM's side: no breakpoint and no register value of the debugger stays in the guest. Has
    /// no effect after the first time.
    pub(crate) async fn detach(&mut self, action: DetachAction) -> Result<(), CallError> {
        if self.duty == DetachDuty::Detached {
            return Ok(());
        }
        self.forget();
        let (kind, pending) = self.send(DebugRequest::Detach, action);
        // The request is sent, whatever happens to the answer, so it must not be sent again.
        self.duty = DetachDuty::Detached;
        let result = counted(kind, &self.statistics, self.deadline.answer(pending)).await;
        match &result {
            Err(CallError::Refused(DebugError::NotAttached | DebugError::NotYourSession)) => {}
            Err(CallError::Refused(_)) => self.duty = DetachDuty::NotDetached,
            _ => {}
        }
        result
    }

    /// [`AttachedVm::detach`] for a client that sends `k`, with the action for lost clients.
    pub(crate) async fn kill(&mut self) -> Result<(), CallError> {
        self.detach(self.on_disconnect.unless_crashed()).await
    }

    /// [`AttachedVm::detach`] for a client that was lost, with the action for lost clients. A guest that no client has resumed stays held (I6).
    pub(crate) async fn detach_lost(&mut self) -> Result<(), CallError> {
        self.detach(self.on_disconnect.unless_held()).await
    }

    /// Whether the VM has closed its side of the channel.
    pub(crate) fn is_gone(&self) -> bool {
        self.session.is_closed()
    }
}

/// A request in the log. No field of a span is called `name`: in JSON that is the name of the span.
fn request_span(kind: RequestKind) -> Span {
    tracing::debug_span!("request", kind = kind.name())
}

/// Waits for the answer to a request, and counts the request.
async fn counted<T>(
    kind: RequestKind,
    statistics: &Statistics,
    answer: impl Future<Output = Result<T, CallError>>,
) -> Result<T, CallError> {
    let began = Instant::now();
    let span = request_span(kind);
    let answer = answer.instrument(span.clone()).await;
    let took = began.elapsed();
    statistics.answered(kind, took, answer.is_err());
    span.in_scope(|| match &answer {
        Ok(_) => tracing::debug!(?took, "answered"),
        Err(error) => tracing::debug!(?took, %error, "failed"),
    });
    answer
}
