//! The VM as one debug session sees it: requests with deadlines, a cache that lives as long as a stop, and the duty to
//! detach.

use crate::deadline::CallError;
use crate::deadline::Deadline;
use crate::deadline::answer_within_turns;
use crate::registers;
use gdb_frontend::regs::Layout;
use gdb_frontend::regs::RegisterBlock;
use mesh::Sender;
use mesh::rpc::PendingFailableRpc;
use mesh::rpc::RpcSend;
use std::collections::HashMap;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::AttachInfo;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::DebugMessage;
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

/// The answer to a `Resume`: the next stop.
pub(crate) type PendingStop = PendingFailableRpc<StopEvent, DebugError>;

/// What a resume has led to by the time other tasks had a turn.
#[derive(Debug)]
pub(crate) enum Resumed {
    /// The guest runs.
    Running(PendingStop),
    /// It has stopped again already, or is gone for good.
    Over(Result<StopEvent, CallError>),
}

/// A VM that this session has attached to. Dropping it ends the VM's side of the session as chosen for clients that go away, without waiting: the fallback
/// for a session that is dropped instead of ended.
pub(crate) struct AttachedVm {
    session: DebugSession,
    deadline: Deadline,
    /// What to do with the guest if the client just goes away.
    on_disconnect: DetachAction,
    duty: DetachDuty,
    cache: StopCache,
}

/// Whether a `Detach` is still owed to the VM. It is sent once for each session, and again only where the VM said that it did not carry it out (I6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DetachDuty {
    Owed,
    Done,
}

/// What does not change while the guest stands still.
#[derive(Debug, Default)]
struct StopCache {
    registers: HashMap<VpIndex, VpRegisters>,
    status: Option<VmStatus>,
}

/// A VP's register file, in the VM's form and, once asked for, in the protocol's: making that takes as long as a packet.
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
    /// Where the VM does not answer in time, or this future is dropped before it does, the session ends as soon as it has begun: nobody takes it.
    pub(crate) async fn attach(
        requests: Sender<DebugMessage>,
        deadline: Deadline,
        on_disconnect: DetachAction,
    ) -> Result<(Self, AttachInfo), CallError> {
        let pending = DebugSession::attach(&requests, on_disconnect);
        let Attached { session, info } = deadline.answer(pending).await?;
        let vm = Self {
            session,
            deadline,
            on_disconnect,
            duty: DetachDuty::Owed,
            cache: StopCache::default(),
        };
        Ok((vm, info))
    }

    /// Sends a request and waits for its answer up to the deadline.
    pub(crate) async fn call<I, R>(
        &self,
        request: impl FnOnce(DebugRpc<I, R>) -> DebugRequest,
        input: I,
    ) -> Result<R, CallError> {
        self.deadline
            .answer(self.session.call_failable(request, input))
            .await
    }

    /// Lets the guest go.
    pub(crate) async fn resume(&mut self, request: ResumeRequest) -> Result<Resumed, CallError> {
        self.forget();
        let mut pending = self.session.call_failable(DebugRequest::Resume, request);
        match answer_within_turns(&mut pending).await {
            None => Ok(Resumed::Running(pending)),
            Some(Err(error)) if !error.is_end() => Err(error),
            Some(over) => Ok(Resumed::Over(over)),
        }
    }

    /// A VP's registers, asked for once per stop.
    pub(crate) async fn registers(&mut self, vp: VpIndex) -> Result<&mut VpRegisters, CallError> {
        if !self.cache.registers.contains_key(&vp) {
            let state = self.call(DebugRequest::GetVpState, vp).await?;
            let block = None;
            self.cache
                .registers
                .insert(vp, VpRegisters { state, block });
        }
        // Looked up again because a reference held over the await would keep `self` borrowed.
        self.cache.registers.get_mut(&vp).ok_or(CallError::Gone)
    }

    /// Writes a VP's registers. What the VM made of them is read back when somebody asks.
    pub(crate) async fn set_registers(
        &mut self,
        vp: VpIndex,
        state: DebuggerVpState,
    ) -> Result<(), CallError> {
        self.cache.registers.remove(&vp);
        self.call(DebugRequest::SetVpState, (vp, Box::new(state)))
            .await
    }

    /// What every VP is doing, asked for once per stop.
    pub(crate) async fn status(&mut self) -> Result<VmStatus, CallError> {
        if let Some(status) = &self.cache.status {
            return Ok(status.clone());
        }
        let status = self.call(DebugRequest::Status, ()).await?;
        // Of a guest that runs it is old by the time it is here.
        let running = |vp: &VpStatus| vp.activity == VpActivity::Running;
        if !status.vps.iter().any(running) {
            self.cache.status = Some(status.clone());
        }
        Ok(status)
    }

    /// Forgets what was true of the guest, because it has run or was changed in some other way.
    pub(crate) fn forget(&mut self) {
        self.cache = StopCache::default();
    }

    /// Ends the VM's side of the session: nothing of ours stays in the guest. Does nothing if that has happened.
    pub(crate) async fn detach(&mut self, action: DetachAction) -> Result<(), CallError> {
        if self.duty == DetachDuty::Done {
            return Ok(());
        }
        self.forget();
        let pending = self.session.call_failable(DebugRequest::Detach, action);
        // It is on its way whatever becomes of the answer, so nobody has to send it again.
        self.duty = DetachDuty::Done;
        let result = self.deadline.answer(pending).await;
        match &result {
            Err(CallError::Refused(DebugError::NotAttached | DebugError::NotYourSession)) => {}
            Err(CallError::Refused(_)) => self.duty = DetachDuty::Owed,
            _ => {}
        }
        result
    }

    /// [`AttachedVm::detach`] for a client that says `k`: in the way chosen for clients that go away.
    pub(crate) async fn kill(&mut self) -> Result<(), CallError> {
        self.detach(self.on_disconnect.unless_crashed()).await
    }

    /// [`AttachedVm::detach`] for a client that was lost: in the way chosen for that, but a guest that nobody has resumed stays held (I6).
    pub(crate) async fn lose(&mut self) -> Result<(), CallError> {
        self.detach(self.on_disconnect.unless_held()).await
    }

    /// Whether the VM has gone away.
    pub(crate) fn is_gone(&self) -> bool {
        self.session.is_closed()
    }
}
