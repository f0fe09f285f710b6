//! The debugger's requests. Each is checked here, and is then either an input of the state machine or served while the guest is stopped (I10).

use super::Controller;
use super::Owner;
use super::kept_hits::still_hit;
use super::tracing_control;
use super::vps;
use crate::arch::Gp;
use crate::arch::PagingState;
use crate::arch::cpu_mode;
use crate::arch::privilege;
use crate::breakpoints::Trace;
use crate::control::run_state::Refused;
use crate::hook::ParkedVp;
use crate::memory::AddressSpace;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::breakpoint::BreakpointChange;
use vmm_core_defs::breakpoint::BreakpointKind;
use vmm_core_defs::breakpoint::BreakpointStatus;
use vmm_core_defs::capability::CapabilityKind;
use vmm_core_defs::debug_rpc::AttachInfo;
use vmm_core_defs::debug_rpc::BadRegisterReason;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::DebugMessage;
use vmm_core_defs::debug_rpc::DebugRequest;
use vmm_core_defs::debug_rpc::DebugRpc;
use vmm_core_defs::debug_rpc::DetachAction;
use vmm_core_defs::debug_rpc::FreezeTime;
use vmm_core_defs::debug_rpc::GuestArch;
use vmm_core_defs::debug_rpc::ResumeRequest;
use vmm_core_defs::debug_rpc::RunnerBug;
use vmm_core_defs::debug_rpc::StepInterrupts;
use vmm_core_defs::debug_rpc::Unsupported;
use vmm_core_defs::debug_rpc::VmStatus;
use vmm_core_defs::debug_rpc::VpActivity;
use vmm_core_defs::debug_rpc::VpStatus;
use vmm_core_defs::memory::Translation;
use vmm_core_defs::regs::DebuggerVpState;
use vmm_core_defs::session::AttachRequest;
use vmm_core_defs::session::Attached;
use vmm_core_defs::session::DebugSession;
use vmm_core_defs::session::SessionId;
use vmm_core_defs::stop::DebugStopReason;
use vmm_core_defs::stop::Epoch;
use vmm_core_defs::stop::StopEvent;

impl Controller {
    pub(super) async fn message(&mut self, message: DebugMessage) {
        match message {
            DebugMessage::Attach(rpc) => self.attach(rpc).await,
            DebugMessage::InSession(id, request) => match self.check_session(id) {
                Ok(_) => self.request(request).await,
                Err(err) => request.refuse(err),
            },
            DebugMessage::Lost(id) => self.session_lost(id).await,
            // A message of a newer vmm_core_defs.
            unknown => {
                let request = "a message that this VMM does not know".to_owned();
                unknown.refuse(Unsupported::Request { request }.into());
            }
        }
    }

    /// Checks that the request belongs to the attached session. Returns how the session ends if it is lost.
    fn check_session(&self, id: SessionId) -> Result<DetachAction, DebugError> {
        self.state.check_attached()?;
        self.session.check(id)
    }

    /// A session was dropped. Does nothing if the session has ended already.
    async fn session_lost(&mut self, id: SessionId) {
        if let Ok(if_lost) = self.check_session(id) {
            let action = self.detach_action(if_lost);
            let outputs = self.state.detach(action);
            self.execute_result(outputs).await;
        }
    }

    #[deny(clippy::wildcard_enum_match_arm)]
    async fn request(&mut self, request: DebugRequest) {
        match request {
            DebugRequest::Detach(rpc) => self.detach(rpc).await,
            DebugRequest::Resume(rpc) => self.resume(rpc).await,
            DebugRequest::Break(rpc) => self.break_(rpc).await,
            DebugRequest::SetDebugState(rpc) => self.set_debug_state(rpc).await,
            DebugRequest::SetConditions(rpc) => rpc.handle_sync(|wanted| {
                self.state.check_attached()?;
                let stopped = self.state.check_stopped().is_ok();
                self.breakpoint_control.set_conditions(&wanted, stopped)
            }),
            DebugRequest::BreakpointHits(rpc) => rpc.handle_sync(|()| {
                self.state.check_attached()?;
                Ok(self.breakpoint_control.breakpoints().counts.list())
            }),
            DebugRequest::CommandOutput(rpc) => match self.state.check_attached() {
                Ok(()) => {
                    let stopped = self.state.check_stopped().is_ok();
                    self.breakpoint_control.output().ask(rpc, stopped);
                }
                Err(err) => rpc.complete(Err(err)),
            },
            DebugRequest::StartTrace(rpc) => {
                rpc.handle(async |start| self.start_trace(start).await)
                    .await;
            }
            DebugRequest::StopTrace(rpc) => rpc.handle_sync(|()| self.with_trace(Trace::stopped)),
            DebugRequest::TraceStatus(rpc) => rpc.handle_sync(|()| self.with_trace(Trace::status)),
            DebugRequest::SwitchTracepoint(rpc) => {
                rpc.handle_sync(|switch| self.with_trace(|trace| trace.switch(switch))?);
            }
            DebugRequest::FindFrame(rpc) => {
                rpc.handle_sync(|search| self.with_trace(|trace| trace.find(search)));
            }
            DebugRequest::Reset(rpc) => self.reset_request(rpc).await,
            DebugRequest::Breakpoints(rpc) => {
                rpc.handle(async |()| self.breakpoints().await).await;
            }
            DebugRequest::StopOn(rpc) => rpc.handle_sync(|set| {
                let set = set.map(|set| self.owner.limit(set));
                self.state.stop_on(set).map(|set| self.owner.limit(set))
            }),
            DebugRequest::StepInterrupts(rpc) => {
                rpc.handle_sync(|wanted| self.set_step_interrupts(wanted));
            }
            DebugRequest::GetVpState(rpc) => rpc.handle(async |vp| self.get_state(vp).await).await,
            DebugRequest::SetVpState(rpc) => {
                rpc.handle(async |(vp, new)| self.set_state(vp, *new).await)
                    .await;
            }
            DebugRequest::Redirect(rpc) => rpc.handle_sync(|vp| self.redirect(vp)),
            DebugRequest::StopReason(rpc) => {
                rpc.handle(async |vp| self.stop_reason(vp).await).await;
            }
            DebugRequest::ReadMsr(rpc) => {
                rpc.handle(async |(vp, msr)| self.on_stopped(vp, move |vp| vp.read_msr(msr)).await)
                    .await;
            }
            DebugRequest::WriteMsr(rpc) => {
                rpc.handle(async |(vp, msr, value)| self.write_msr(vp, msr, value).await)
                    .await;
            }
            DebugRequest::ReadMemory(rpc) => self.read_memory(rpc).await,
            DebugRequest::WriteMemory(rpc) => self.write_memory(rpc).await,
            DebugRequest::Translate(rpc) => {
                rpc.handle(async |(vp, gva)| self.translate(vp, gva).await)
                    .await;
            }
            DebugRequest::MappedPages(rpc) => {
                rpc.handle(async |(vp, from)| {
                    let space = self.address_space(vp).await?;
                    Ok(self.memory.mapped_pages(&space, from))
                })
                .await;
            }
            DebugRequest::MemoryRegion(rpc) => {
                rpc.handle(async |(vp, gva)| {
                    let space = self.address_space(vp).await?;
                    Ok(self.memory.memory_region(&space, gva))
                })
                .await;
            }
            DebugRequest::RamRanges(rpc) => rpc.handle_sync(|()| {
                self.state.check_attached()?;
                Ok(self.memory.ram_ranges())
            }),
            DebugRequest::Nmi(rpc) => rpc.handle(async |vp| self.nmi(vp).await).await,
            DebugRequest::FreezeTime(rpc) => rpc.handle_sync(|wanted| self.freeze_time(wanted)),
            DebugRequest::Status(rpc) => rpc.handle(async |()| self.status().await).await,
            // A request of a newer vmm_core_defs.
            unknown => unknown.unknown(),
        }
    }

    async fn attach(&mut self, rpc: DebugRpc<AttachRequest, Attached>) {
        let (
            AttachRequest {
                if_lost, requests, ..
            },
            rpc,
        ) = rpc.split();
        match self.state.attach() {
            Ok(outputs) => {
                // When this debugger leaves, it decides whether the guest runs.
                self.run_after_reset = false;
                let session = DebugSession::begin(requests);
                self.session.begin(session.id(), if_lost);
                self.waiting.attach(rpc, session);
                self.execute(outputs).await;
            }
            Err(err) => rpc.complete(Err(for_client(err))),
        }
    }

    async fn detach(&mut self, rpc: DebugRpc<DetachAction, ()>) {
        let (wanted, rpc) = rpc.split();
        let action = self.detach_action(wanted);
        match self.state.detach(action) {
            Ok(outputs) => {
                self.waiting.detach(rpc);
                self.execute(outputs).await;
            }
            Err(err) => rpc.complete(Err(for_client(err))),
        }
    }

    async fn resume(&mut self, rpc: DebugRpc<ResumeRequest, StopEvent>) {
        let (request, rpc) = rpc.split();
        if let Err(err) = self.check_reset() {
            return rpc.complete(Err(err));
        }
        // A hit that is not reported yet is dropped if the VMM may have moved its VP: the VP meets the breakpoint again if it still stands there. A thread that
        // is back has sent its event before.
        let mut held = Vec::new();
        if let Owner::Vmm(_) = self.owner {
            held = self.vps.held_by_vmm();
            self.take_vp_events().await;
        }
        let outputs = {
            let breakpoints = self.breakpoint_control.breakpoints();
            let state = &mut self.state;
            let is_hit = |reason: DebugStopReason| match reason.vp() {
                Some(vp) if held.contains(&vp) => None,
                _ => still_hit(&breakpoints, reason),
            };
            vps::plan(&request, self.vps.count())
                .map_err(Refused::Client)
                .and_then(|plan| state.resume(&plan, is_hit))
        };
        match outputs {
            Ok(outputs) => {
                self.waiting.resume(rpc);
                self.execute(outputs).await;
            }
            Err(err) => rpc.complete(Err(for_client(err))),
        }
    }

    async fn break_(&mut self, rpc: DebugRpc<(), ()>) {
        match self.state.break_() {
            Ok(outputs) => {
                self.waiting.break_(rpc);
                self.execute(outputs).await;
            }
            Err(err) => rpc.complete(Err(for_client(err))),
        }
    }

    async fn set_debug_state(&mut self, rpc: DebugRpc<Vec<BreakpointChange>, ()>) {
        if let Some(err) = tracing_control::is_no_breakpoint(rpc.input()) {
            return rpc.complete(Err(err));
        }
        if let Some(err) = self.never_fires(rpc.input()) {
            return rpc.complete(Err(err));
        }
        match self.state.change() {
            Ok(outputs) => {
                self.waiting.change(rpc);
                self.execute(outputs).await;
            }
            Err(err) => rpc.complete(Err(for_client(err))),
        }
    }

    /// The error for a watchpoint on a host whose KVM accepts watchpoints and never reports a hit.
    fn never_fires(&self, changes: &[BreakpointChange]) -> Option<DebugError> {
        let watches = |change: &BreakpointChange| match change {
            BreakpointChange::Insert(breakpoint) => matches!(
                breakpoint.kind,
                BreakpointKind::Write | BreakpointKind::Read | BreakpointKind::ReadWrite
            ),
            BreakpointChange::Remove(_) => false,
            // The table refuses a change that it does not know.
            _ => false,
        };
        let missing = self.capabilities.missing(CapabilityKind::DataWatchpoints)?;
        changes
            .iter()
            .any(watches)
            .then(|| Unsupported::Host(missing.clone()).into())
    }

    async fn breakpoints(&mut self) -> Result<Vec<BreakpointStatus>, DebugError> {
        self.state.check_attached()?;
        // The guest may have enabled or disabled a debug register since the last count.
        if self.state.check_stopped().is_ok() && self.breakpoint_control.uses_registers() {
            self.leave_to_guest().await;
        }
        Ok(self.breakpoint_control.breakpoints().table.list())
    }

    fn set_step_interrupts(
        &mut self,
        wanted: Option<StepInterrupts>,
    ) -> Result<StepInterrupts, DebugError> {
        self.state.check_stopped()?;
        self.step_interrupts = wanted.unwrap_or(self.step_interrupts);
        Ok(self.step_interrupts)
    }

    async fn reset_request(&mut self, rpc: DebugRpc<(), ()>) {
        if let Err(err) = self.check_reset() {
            return rpc.complete(Err(err));
        }
        if !self.machine.can_be_reset() && self.state.check_stopped().is_ok() {
            return rpc.complete(Err(Unsupported::ResetOfVmm.into()));
        }
        match self.state.reset() {
            Ok(outputs) => {
                self.waiting.reset(rpc);
                self.execute(outputs).await;
            }
            Err(err) => rpc.complete(Err(for_client(err))),
        }
    }

    pub(super) fn attached(&mut self, epoch: Epoch, reason: DebugStopReason) {
        self.reported.push(reason);
        let mut info = AttachInfo::new(
            GuestArch::X86_64,
            self.xfeatures,
            self.capabilities.clone(),
            StopEvent::new(epoch, reason, self.vps.set()),
        );
        info.changes_while_stopped = matches!(self.owner, Owner::Vmm(_));
        self.waiting.attached(info);
    }

    fn check_stopped(&self, vp: VpIndex) -> Result<(), DebugError> {
        self.state.check_stopped()?;
        self.vps.check(vp)
    }

    /// Calls `call` on the thread of a parked VP (I3).
    async fn on_stopped<R: Send + 'static>(
        &self,
        vp: VpIndex,
        call: impl FnOnce(&mut dyn ParkedVp) -> Result<R, DebugError> + Send + 'static,
    ) -> Result<R, DebugError> {
        self.check_stopped(vp)?;
        self.vps.call(vp, call).await
    }

    async fn get_state(&mut self, vp: VpIndex) -> Result<Box<DebuggerVpState>, DebugError> {
        self.check_stopped(vp)?;
        let state = self.vps.registers(vp).await?;
        Ok(Box::new(DebuggerVpState::X86_64((*state).clone())))
    }

    async fn set_state(&mut self, vp: VpIndex, new: DebuggerVpState) -> Result<(), DebugError> {
        let DebuggerVpState::X86_64(new) = new else {
            return Err(DebugError::BadRegister {
                name: "file".into(),
                reason: BadRegisterReason::OtherArchitecture,
            });
        };
        self.check_stopped(vp)?;
        let old = self.vps.registers(vp).await?;
        // A client calls a function by writing RSP and RIP, and may leave out the write of RIP where RIP has the value already. So a changed RSP means a call.
        let rsp = Gp::Rsp as usize;
        let stays = old.rip == new.rip && old.cs.base == new.cs.base && old.gp[rsp] == new.gp[rsp];
        let written = self
            .vps
            .change(vp, move |vp| vp.write_registers(&new))
            .await;
        self.breakpoint_control.forget(vp);
        // RIP may have been written before a write failed.
        if !stays {
            self.state.rip_written(vp);
        }
        written?;
        self.state.repaired(vp);
        Ok(())
    }

    fn redirect(&mut self, vp: VpIndex) -> Result<(), DebugError> {
        self.check_stopped(vp)?;
        self.state.rip_written(vp);
        Ok(())
    }

    async fn stop_reason(&mut self, vp: VpIndex) -> Result<Option<DebugStopReason>, DebugError> {
        self.check_stopped(vp)?;
        let reported = {
            let breakpoints = self.breakpoint_control.breakpoints();
            self.state
                .report_reason_of(vp, |reason| still_hit(&breakpoints, reason))?
        };
        if reported.is_some() {
            return Ok(reported);
        }
        let next = self.vps.call(vp, |vp| match vp.activity()? {
            VpActivity::Running | VpActivity::Stopped => vp.location().map(Some),
            // An interrupt is delivered before the VP executes the instruction at RIP.
            _ => Ok(None),
        });
        let breakpoint = next
            .await?
            .and_then(|location| self.breakpoint_control.hit_at(&location));
        Ok(breakpoint.and_then(|breakpoint| self.state.report_breakpoint_ahead(vp, breakpoint)))
    }

    /// The paging state of a parked VP.
    pub(super) async fn address_space(&mut self, vp: VpIndex) -> Result<AddressSpace, DebugError> {
        self.check_stopped(vp)?;
        let state = self.vps.registers(vp).await?;
        let paging = PagingState::new(&state, self.paging_limits);
        Ok(AddressSpace { vp, paging })
    }

    async fn translate(&mut self, vp: VpIndex, gva: Gva) -> Result<Translation, DebugError> {
        let space = self.address_space(vp).await?;
        self.memory.translate(&space, gva)
    }

    async fn nmi(&mut self, vp: VpIndex) -> Result<(), DebugError> {
        let activity = self.on_stopped(vp, |vp| vp.activity()).await?;
        if activity == VpActivity::WaitingForStart {
            return Err(Unsupported::NotStarted { vp }.into());
        }
        self.vps.change(vp, |vp| vp.raise_nmi()).await
    }

    async fn write_msr(&mut self, vp: VpIndex, msr: u32, value: u64) -> Result<(), DebugError> {
        self.check_stopped(vp)?;
        // The MSR may be EFER, which is part of the location.
        self.breakpoint_control.forget(vp);
        let write = self.vps.change(vp, move |vp| vp.write_msr(msr, value));
        write.await
    }

    fn freeze_time(&self, wanted: Option<FreezeTime>) -> Result<FreezeTime, DebugError> {
        self.state.check_attached()?;
        if let Some(wanted) = wanted {
            self.time.set_freeze(wanted)?;
        }
        Ok(self.time.freeze())
    }

    async fn status(&mut self) -> Result<VmStatus, DebugError> {
        self.state.check_attached()?;
        let mut vps = Vec::new();
        for vp in self.vps.set().iter() {
            vps.push(self.vp_status(vp).await?);
        }
        Ok(VmStatus::new(vps))
    }

    async fn vp_status(&mut self, vp: VpIndex) -> Result<VpStatus, DebugError> {
        let mut status = self.activity_of(vp).await?;
        status.held_by_vmm = self.vps.is_held_by_vmm(vp);
        Ok(status)
    }

    async fn activity_of(&mut self, vp: VpIndex) -> Result<VpStatus, DebugError> {
        if self.state.check_stopped().is_err() {
            let activity = match self.state.is_entered(vp) {
                true => VpActivity::Running,
                false => VpActivity::Stopped,
            };
            return Ok(VpStatus::new(vp, activity));
        }
        let state = self.vps.registers(vp).await?;
        let activity = self.vps.call(vp, |vp| vp.activity()).await?;
        Ok(VpStatus::new(vp, activity).in_mode(cpu_mode(&state), privilege(&state)))
    }
}

/// The error for the client.
fn for_client(err: Refused) -> DebugError {
    match err {
        Refused::Client(err) => err,
        Refused::Shell(err) => {
            tracing::error!(error = %err, "run control");
            DebugError::RunnerBug(RunnerBug::IllegalInput {
                input: err.input.into(),
                phase: err.phase.into(),
            })
        }
    }
}
