//! Maps operations of the protocol to requests to the VM. No other file does this.

use crate::checksum::checksum;
use crate::conditions;
use crate::deadline::CallError;
use crate::error_table::bad_argument;
use crate::error_table::not_known;
use crate::error_table::not_read;
use crate::error_table::target_error;
use crate::monitor;
use crate::progress::Progress;
use crate::refused::Refused;
use crate::registers;
use crate::search::search_memory;
use crate::session_log::SessionLog;
use crate::stop_reply::crash_summary;
use crate::stop_reply::stop_reply;
use crate::stop_reply::vm_kind;
use crate::stop_reply::vp_of;
use crate::symbol_file::SymbolFile;
use crate::tables;
use crate::trace;
use crate::trace::Trace;
use crate::vm::AttachedVm;
use crate::vm::Resumed;
use gdb_frontend::regs::Layout;
use gdb_frontend::regs::RegNum;
use gdb_frontend::target;
use gdb_frontend::target::TargetError;
use gdb_frontend::target::TargetOp;
use gdb_frontend::target::TargetReply;
use gdb_frontend::target::Tid;
use std::collections::HashSet;
use std::path::PathBuf;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::GuestAddress;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::breakpoint::BreakpointChange;
use vmm_core_defs::condition::BreakpointConditions;
use vmm_core_defs::debug_rpc::AttachInfo;
use vmm_core_defs::debug_rpc::CpuMode;
use vmm_core_defs::debug_rpc::DebugRequest;
use vmm_core_defs::debug_rpc::DetachAction;
use vmm_core_defs::debug_rpc::ResumeRequest;
use vmm_core_defs::debug_rpc::StepInterrupts;
use vmm_core_defs::debug_rpc::VpAction;
use vmm_core_defs::debug_rpc::VpActivity;
use vmm_core_defs::debug_rpc::VpStatus;
use vmm_core_defs::regs::DebuggerVpState;
use vmm_core_defs::stop::DebugStopReason;
use vmm_core_defs::vp_set::VpSet;

/// The guest of one session. It carries out operations.
pub(crate) struct Guest {
    pub(crate) vm: AttachedVm,
    pub(crate) info: AttachInfo,
    /// The VPs at the last stop. The session sets them before each operation, because a stop can arrive during an operation.
    pub(crate) vps: VpSet,
    pub(crate) layout: Layout,
    /// The reason why the guest was stopped when the session began. `None` after the first resume.
    at_attach: Option<DebugStopReason>,
    /// The folder in which `monitor dump` may create files.
    pub(crate) dump_folder: Option<PathBuf>,
    /// The file that the client may read.
    pub(crate) symbols: Option<SymbolFile>,
    /// That of `monitor dump`.
    pub(crate) progress: Progress,
    /// The refused breakpoints, for `monitor breakpoints`.
    pub(crate) refused: Refused,
    /// The breakpoints for which the client has sent conditions.
    conditional: HashSet<Breakpoint>,
    /// The breakpoints with commands.
    printing: HashSet<Breakpoint>,
    /// The tracepoints of the client, and the frame that it looks at.
    pub(crate) trace: Trace,
}

/// The result of an operation.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) reply: TargetReply,
    /// Present if the operation has resumed the guest.
    pub(crate) resumed: Option<Resumed>,
}

impl From<Result<TargetReply, TargetError>> for Outcome {
    fn from(result: Result<TargetReply, TargetError>) -> Self {
        Self {
            reply: result.unwrap_or_else(TargetReply::Error),
            resumed: None,
        }
    }
}

impl Guest {
    pub(crate) fn new(
        vm: AttachedVm,
        info: AttachInfo,
        dump_folder: Option<PathBuf>,
        log: SessionLog,
    ) -> Self {
        let layout = registers::layout(&info);
        let refused = Refused::new(log);
        let at_attach = Some(info.stop.reason);
        Self {
            vm,
            at_attach,
            vps: info.stop.vps.clone(),
            info,
            layout,
            dump_folder,
            progress: Progress::default(),
            symbols: None,
            refused,
            conditional: HashSet::new(),
            printing: HashSet::new(),
            trace: Trace::default(),
        }
    }

    /// Carries out one operation. An error is a reply too.
    #[deny(clippy::wildcard_enum_match_arm)]
    pub(crate) async fn carry_out(&mut self, op: TargetOp) -> Outcome {
        if self.trace.frame().is_some() && changes(&op) {
            return Err(bad_argument(FRAME_IS_PAST.to_owned())).into();
        }
        match op {
            TargetOp::Resume(resume) => self.resume(resume).await,
            TargetOp::ReadRegisters { thread } => self.read_registers(thread).await.into(),
            TargetOp::WriteRegisters { thread, values } => {
                self.write_registers(thread, values).await.into()
            }
            TargetOp::ReadMemory {
                thread,
                address,
                len,
            } => match self.read_frame(address, len) {
                Some(read) => read.into(),
                None => self.read_memory(gva(thread, address), len).await.into(),
            },
            TargetOp::ReadPhysical { address, len } => {
                let memory = self.read_memory(GuestAddress::Gpa(Gpa::new(address)), len);
                memory.await.into()
            }
            TargetOp::ReadSymbolFile { offset, len } => self.read_symbols(offset, len).into(),
            TargetOp::SearchMemory { range, pattern } => {
                search_memory(&self.vm, range, &pattern).await.into()
            }
            TargetOp::Checksum(range) => checksum(&self.vm, range).await.into(),
            TargetOp::WriteMemory {
                thread,
                address,
                data,
            } => {
                let request = (gva(thread, address), data);
                done(self.vm.call(DebugRequest::WriteMemory, request).await)
            }
            TargetOp::WritePhysical { address, data } => {
                let request = (GuestAddress::Gpa(Gpa::new(address)), data);
                done(self.vm.call(DebugRequest::WriteMemory, request).await)
            }
            TargetOp::InsertBreakpoint {
                breakpoint,
                conditions,
                commands,
            } => {
                self.insert_breakpoint(breakpoint, &conditions, &commands)
                    .await
            }
            TargetOp::RemoveBreakpoint(breakpoint) => {
                self.conditional.remove(&vm_breakpoint(breakpoint));
                self.printing.remove(&vm_breakpoint(breakpoint));
                self.change_breakpoint(BreakpointChange::Remove(vm_breakpoint(breakpoint)))
                    .await
            }
            TargetOp::Interrupt => done(self.vm.call(DebugRequest::Break, ()).await),
            TargetOp::ThreadExtraInfo { thread } => self.thread_extra_info(thread).await.into(),
            TargetOp::Table(table) => tables::rows(self, table).await.into(),
            TargetOp::StopReason { thread } => self.stop_reason(thread).await.into(),
            TargetOp::MemoryRegion { thread, address } => {
                self.memory_region(thread, address).await.into()
            }
            TargetOp::Monitor { thread, line } => {
                Ok(monitor::run(self, vp_of(thread), &line).await).into()
            }
            TargetOp::Trace(op) => {
                let Self {
                    trace, vm, layout, ..
                } = self;
                trace.carry_out(op, vm, *layout).await.into()
            }
            TargetOp::StepInterrupts(wanted) => self.step_interrupts(wanted).await.into(),
            TargetOp::Reset => self.reset().await.into(),
            // After GDB's `detach` the guest always runs on, whatever `on_disconnect` says.
            TargetOp::Detach => done(self.vm.detach(DetachAction::Resume).await),
            TargetOp::Kill => done(self.vm.kill().await),
            // The session carries these out, see `non_stop`.
            TargetOp::NonStop(_) | TargetOp::Schedule(_) => {
                Err(bad_argument("send QNonStop:1 first")).into()
            }
            other => Err(not_known(&other)).into(),
        }
    }

    /// Memory of the selected frame. `None`: the guest's memory is to be read.
    fn read_frame(&self, address: u64, len: usize) -> Option<Result<TargetReply, TargetError>> {
        let frame = self.trace.frame()?;
        let bytes = trace::memory(frame, address, len);
        if bytes.is_empty() && self.trace.is_read_only(address, len) {
            return None;
        }
        Some(match bytes.is_empty() {
            true => Err(TargetError {
                errno: 14,
                text: "the trace frame has no memory at this address; `tfind none` shows the live guest".to_owned(),
            }),
            false => Ok(TargetReply::Memory(bytes)),
        })
    }

    async fn read_memory(
        &mut self,
        address: GuestAddress,
        len: usize,
    ) -> Result<TargetReply, TargetError> {
        let memory = self.vm.call(DebugRequest::ReadMemory, (address, len)).await;
        memory
            .map(TargetReply::Memory)
            .map_err(|error| target_error(&error))
    }

    /// The answer blocks the server for as long as the disk takes.
    fn read_symbols(&self, offset: u64, len: usize) -> Result<TargetReply, TargetError> {
        let read = self.symbols.as_ref().map(|file| file.read(offset, len));
        match read {
            Some(Ok(bytes)) => Ok(TargetReply::FileBytes(bytes)),
            Some(Err(error)) => Err(not_read(&error)),
            None => Err(bad_argument("there is no file with symbols")),
        }
    }

    async fn memory_region(
        &mut self,
        thread: Tid,
        address: u64,
    ) -> Result<TargetReply, TargetError> {
        let request = (vp_of(thread), Gva::new(address));
        let region = self.vm.call(DebugRequest::MemoryRegion, request).await;
        let region = region.map_err(|error| target_error(&error))?;
        Ok(TargetReply::MemoryRegion(target::MemoryRegion {
            first: region.first.value(),
            last: region.last.value(),
            access: region.rights.map(|rights| target::RegionAccess {
                read: rights.ram,
                write: rights.writable,
                execute: rights.executable,
            }),
        }))
    }

    async fn step_interrupts(
        &mut self,
        wanted: Option<target::StepInterrupts>,
    ) -> Result<TargetReply, TargetError> {
        let wanted = wanted.map(|wanted| match wanted {
            target::StepInterrupts::Held => StepInterrupts::Held,
            target::StepInterrupts::Taken => StepInterrupts::Taken,
        });
        let set = self.vm.call(DebugRequest::StepInterrupts, wanted).await;
        let set = set.map_err(|error| target_error(&error))?;
        Ok(TargetReply::StepInterrupts(match set {
            StepInterrupts::Held => target::StepInterrupts::Held,
            StepInterrupts::Taken => target::StepInterrupts::Taken,
        }))
    }

    async fn read_registers(&mut self, thread: Tid) -> Result<TargetReply, TargetError> {
        let layout = self.layout;
        if let Some(frame) = self.trace.frame() {
            return Ok(TargetReply::Registers(trace::registers(layout, frame)));
        }
        let registers = self
            .vm
            .registers(vp_of(thread))
            .await
            .map_err(|error| target_error(&error))?;
        Ok(TargetReply::Registers(registers.block(layout).clone()))
    }

    async fn write_registers(
        &mut self,
        thread: Tid,
        values: Vec<(RegNum, Vec<u8>)>,
    ) -> Result<TargetReply, TargetError> {
        let layout = self.layout;
        let redirects = values.iter().any(|(num, _)| registers::is_pc(layout, *num));
        self.change_registers(thread, |state| registers::write_all(layout, state, &values))
            .await?;
        if redirects {
            self.redirect(thread).await?;
        }
        Ok(TargetReply::Done)
    }

    /// Reports that the client has set the program counter, perhaps to its present value.
    async fn redirect(&mut self, thread: Tid) -> Result<(), TargetError> {
        let redirected = self.vm.call(DebugRequest::Redirect, vp_of(thread)).await;
        redirected.map_err(|error| target_error(&error))
    }

    async fn stop_reason(&mut self, thread: Tid) -> Result<TargetReply, TargetError> {
        let reason = self.vm.call(DebugRequest::StopReason, vp_of(thread)).await;
        let reason = reason.map_err(|error| target_error(&error))?;
        Ok(TargetReply::StopReason(
            reason.map(|reason| stop_reply(&reason).reason),
        ))
    }

    /// Changes all registers or none: `change` works on a copy.
    async fn change_registers(
        &mut self,
        thread: Tid,
        change: impl FnOnce(&mut DebuggerVpState) -> Result<(), TargetError>,
    ) -> Result<(), TargetError> {
        let vp = vp_of(thread);
        let mut state = self
            .vm
            .registers(vp)
            .await
            .map_err(|error| target_error(&error))?
            .state
            .clone();
        change(&mut state)?;
        self.vm
            .set_registers(vp, *state)
            .await
            .map_err(|error| target_error(&error))
    }

    async fn change_breakpoint(&mut self, change: BreakpointChange) -> Outcome {
        let result = self
            .vm
            .call(DebugRequest::SetDebugState, vec![change])
            .await;
        if let BreakpointChange::Insert(breakpoint) = change {
            match &result {
                Ok(()) => self.refused.accepted(&breakpoint),
                Err(error) => self.refused.add(breakpoint, error.to_string()),
            }
        }
        done(result)
    }

    /// Whether commands of breakpoints may print while the guest runs.
    pub(crate) fn may_print(&self) -> bool {
        !self.printing.is_empty()
    }

    async fn insert_breakpoint(
        &mut self,
        breakpoint: target::Breakpoint,
        conditions: &[Vec<u8>],
        commands: &[Vec<u8>],
    ) -> Outcome {
        let conditions = match conditions::for_vm(self.layout, conditions) {
            Ok(conditions) => conditions,
            Err(error) => return Err(bad_argument(error.to_string())).into(),
        };
        let commands = match conditions::commands_for_vm(self.layout, commands) {
            Ok(commands) => commands,
            Err(error) => return Err(bad_argument(error.to_string())).into(),
        };
        let breakpoint = vm_breakpoint(breakpoint);
        let inserted = self
            .change_breakpoint(BreakpointChange::Insert(breakpoint))
            .await;
        if let TargetReply::Error(_) = inserted.reply {
            return inserted;
        }
        match commands.is_empty() {
            true => self.printing.remove(&breakpoint),
            false => self.printing.insert(breakpoint),
        };
        // The breakpoint may have been there before, with other conditions.
        let replaces = match conditions.is_empty() && commands.is_empty() {
            true => self.conditional.remove(&breakpoint),
            false => {
                self.conditional.insert(breakpoint);
                true
            }
        };
        if !replaces {
            return inserted;
        }
        let request = BreakpointConditions {
            breakpoint,
            conditions,
            commands,
        };
        done(self.vm.call(DebugRequest::SetConditions, request).await)
    }

    async fn resume(&mut self, resume: target::Resume) -> Outcome {
        if let Some((thread, address)) = resume.jump
            && let Err(error) = self.jump(thread, address).await
        {
            return Err(error).into();
        }
        let request = ResumeRequest::new(
            vp_action(resume.others),
            resume
                .actions
                .into_iter()
                .map(|(thread, action)| (vp_of(thread), vp_action(action)))
                .collect(),
        );
        match self.vm.resume(request).await {
            Ok(resumed) => {
                self.trace.leave_frame();
                self.has_run();
                Outcome {
                    reply: TargetReply::Done,
                    resumed: Some(resumed),
                }
            }
            Err(error) => Err(target_error(&error)).into(),
        }
    }

    /// Sets the program counter of a thread before the thread is resumed.
    pub(crate) async fn jump(&mut self, thread: Tid, address: u64) -> Result<(), TargetError> {
        self.change_registers(thread, |state| registers::set_pc(state, address))
            .await?;
        self.redirect(thread).await
    }

    /// The crash of this VP that was the reason for the stop when the session began, as the end of the VP's line. Empty
    /// if the VP had not crashed.
    pub(crate) fn crash_at_attach(&self, vp: VpIndex) -> String {
        let reason = self.at_attach.filter(|reason| reason.vp() == Some(vp));
        let summary = reason.as_ref().and_then(crash_summary);
        summary
            .map(|summary| format!("; {summary}"))
            .unwrap_or_default()
    }

    async fn reset(&mut self) -> Result<TargetReply, TargetError> {
        let reset = self.vm.change(DebugRequest::Reset, ()).await;
        reset.map_err(|error| target_error(&error))?;
        self.has_run();
        Ok(TargetReply::Done)
    }

    /// Forgets the stop at which the session began, because the guest was resumed or reset.
    pub(crate) fn has_run(&mut self) {
        self.at_attach = None;
    }

    async fn thread_extra_info(&mut self, thread: Tid) -> Result<TargetReply, TargetError> {
        let vp = vp_of(thread);
        let status = self
            .vm
            .status()
            .await
            .map_err(|error| target_error(&error))?;
        let text = status.of(vp).map_or_else(
            || format!("VP {vp}: not there"),
            |status| format!("VP {vp}: {}{}", vp_line(status), self.crash_at_attach(vp)),
        );
        Ok(TargetReply::Text(text))
    }
}

/// Whether an operation reads a range of memory that may be as large as the guest.
pub(crate) const fn searches(op: &TargetOp) -> bool {
    matches!(op, TargetOp::SearchMemory { .. } | TargetOp::Checksum(_))
}

/// Whether an operation changes registers or memory of a stopped guest.
const fn changes(op: &TargetOp) -> bool {
    matches!(
        op,
        TargetOp::WriteRegisters { .. }
            | TargetOp::WriteMemory { .. }
            | TargetOp::WritePhysical { .. }
    )
}

const FRAME_IS_PAST: &str =
    "a trace frame is selected, which cannot be changed; `tfind none` selects the live guest";

fn done(result: Result<(), CallError>) -> Outcome {
    result
        .map(|()| TargetReply::Done)
        .map_err(|error| target_error(&error))
        .into()
}

const fn gva(thread: Tid, address: u64) -> GuestAddress {
    GuestAddress::Gva {
        vp: vp_of(thread),
        gva: Gva::new(address),
    }
}

const fn vm_breakpoint(breakpoint: target::Breakpoint) -> Breakpoint {
    Breakpoint {
        kind: vm_kind(breakpoint.kind),
        address: Gva::new(breakpoint.address),
        len: breakpoint.len,
    }
}

pub(crate) const fn vp_action(action: target::ResumeAction) -> VpAction {
    match action {
        target::ResumeAction::Stay => VpAction::Stay,
        target::ResumeAction::Continue => VpAction::Run,
        target::ResumeAction::Step => VpAction::Step,
        target::ResumeAction::StepRange { start, end } => VpAction::StepRange {
            start: Gva::new(start),
            end: Gva::new(end),
        },
    }
}

/// The activity, mode and privilege level of a VP as a short text.
pub(crate) fn vp_line(status: &VpStatus) -> String {
    let activity = match status.activity {
        VpActivity::Running => "running",
        VpActivity::Stopped => "stopped",
        VpActivity::Halted => "halted (waits for an interrupt)",
        VpActivity::WaitingForStart => "not started (waits for INIT-SIPI)",
        _ => "in a state that this debug server does not know",
    };
    let mode = status
        .mode
        .map(|mode| format!(", {}", mode_name(mode)))
        .unwrap_or_default();
    let privilege = status
        .privilege
        .map(|level| format!(", ring {level}"))
        .unwrap_or_default();
    let held = match status.held_by_vmm {
        true => ", held by the VMM: it runs once the VMM continues the guest",
        false => "",
    };
    format!("{activity}{mode}{privilege}{held}")
}

pub(crate) const fn mode_name(mode: CpuMode) -> &'static str {
    match mode {
        CpuMode::Real => "real mode",
        CpuMode::Virtual8086 => "virtual-8086 mode",
        CpuMode::Protected16 => "16-bit protected mode",
        CpuMode::Protected32 => "32-bit protected mode",
        CpuMode::Compatibility16 => "16-bit compatibility mode",
        CpuMode::Compatibility32 => "32-bit compatibility mode",
        CpuMode::Long64 => "64-bit mode",
        CpuMode::Aarch64 => "AArch64",
    }
}
