//! A VM that keeps its state in a struct, records its requests, and misbehaves on demand.

use super::fake_memory::mapped_pages;
use super::fake_memory::memory_region;
use super::fake_memory::not_mapped;
use super::fake_memory::translate;
use mesh::Receiver;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::time::Duration;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::GuestAddress;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::breakpoint::Arming;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::breakpoint::BreakpointChange;
use vmm_core_defs::breakpoint::BreakpointHits;
use vmm_core_defs::breakpoint::BreakpointKind;
use vmm_core_defs::breakpoint::BreakpointStatus;
use vmm_core_defs::breakpoint::Pending;
use vmm_core_defs::capability::Capabilities;
use vmm_core_defs::capability::Capability;
use vmm_core_defs::capability::CapabilityKind;
use vmm_core_defs::capability::Support;
use vmm_core_defs::condition::MOST_OUTPUT;
use vmm_core_defs::debug_rpc::AttachInfo;
use vmm_core_defs::debug_rpc::BadRegisterReason;
use vmm_core_defs::debug_rpc::CpuMode;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::DebugMessage;
use vmm_core_defs::debug_rpc::DebugRequest;
use vmm_core_defs::debug_rpc::DebugRpc;
use vmm_core_defs::debug_rpc::DetachAction;
use vmm_core_defs::debug_rpc::FreezeTime;
use vmm_core_defs::debug_rpc::GuestArch;
use vmm_core_defs::debug_rpc::ResumeRequest;
use vmm_core_defs::debug_rpc::StepInterrupts;
use vmm_core_defs::debug_rpc::Unsupported;
use vmm_core_defs::debug_rpc::VmStatus;
use vmm_core_defs::debug_rpc::VpActivity;
use vmm_core_defs::debug_rpc::VpStatus;
use vmm_core_defs::memory::RamRange;
use vmm_core_defs::regs::DebuggerVpState;
use vmm_core_defs::regs::X86VpState;
use vmm_core_defs::regs::XFeatures;
use vmm_core_defs::session::AttachRequest;
use vmm_core_defs::session::Attached;
use vmm_core_defs::session::DebugSession;
use vmm_core_defs::session::SessionId;
use vmm_core_defs::stop::DebugStopReason;
use vmm_core_defs::stop::Epoch;
use vmm_core_defs::stop::GuestEnd;
use vmm_core_defs::stop::StopEvent;
use vmm_core_defs::stop::StopOn;
use vmm_core_defs::vp_set::VpSet;

pub(super) const VP_COUNT: u32 = 2;
/// An MSR that cannot be read.
const NO_MSR: u32 = 0xdead;
pub(super) const MEMORY_SIZE: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(20);

/// The test's handle of the fake.
#[derive(Clone)]
pub(super) struct FakeVm(Arc<(Mutex<State>, Condvar)>);

struct State {
    asked: Vec<&'static str>,
    detached: Vec<DetachAction>,
    session: Option<FakeSession>,
    step_interrupts: StepInterrupts,
    epoch: Epoch,
    running: Option<DebugRpc<ResumeRequest, StopEvent>>,
    resumes: Vec<ResumeRequest>,
    /// The stops that answer the next resumes at once.
    waiting_stops: VecDeque<DebugStopReason>,
    ends: Option<GuestEnd>,
    registers: Vec<X86VpState>,
    memory: Vec<u8>,
    /// Requests with these names are never answered, and kept, so that the caller does not see a closed channel.
    mute: &'static str,
    stop_on: StopOn,
    refuses_watchpoints: bool,
    unanswered: Vec<DebugMessage>,
    /// How many answers to `CommandOutput` have text.
    outputs: u32,
    vps: VpSet,
}

#[derive(Clone, Copy)]
struct FakeSession {
    id: SessionId,
    if_lost: DetachAction,
}

impl FakeVm {
    pub(super) fn new() -> Self {
        let registers = (0..VP_COUNT)
            .map(|vp| X86VpState {
                rip: 0x1000 + u64::from(vp),
                rflags: 2,
                ..Default::default()
            })
            .collect();
        let state = State {
            asked: Vec::new(),
            detached: Vec::new(),
            session: None,
            step_interrupts: StepInterrupts::Held,
            epoch: Epoch::default(),
            running: None,
            resumes: Vec::new(),
            waiting_stops: VecDeque::new(),
            ends: None,
            registers,
            memory: (0..=250).cycle().take(MEMORY_SIZE).collect(),
            mute: "",
            outputs: 0,
            stop_on: StopOn::default(),
            refuses_watchpoints: false,
            unanswered: Vec::new(),
            vps: VpSet::first(VP_COUNT),
        };
        Self(Arc::new((Mutex::new(state), Condvar::new())))
    }

    /// Answers requests until the last sender is dropped.
    pub(super) async fn run(self, mut requests: Receiver<DebugMessage>) {
        while let Ok(message) = requests.recv().await {
            self.change(|state| state.handle(message));
        }
    }

    fn change<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        let result = f(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
        result
    }

    fn wait_until(&self, what: &str, mut f: impl FnMut(&mut State) -> bool) {
        let state = self.0.0.lock().unwrap();
        let (state, timeout) = self
            .0
            .1
            .wait_timeout_while(state, PATIENCE, |state| !f(state))
            .unwrap();
        assert!(
            !timeout.timed_out(),
            "no {what}; asked so far: {:?}",
            state.asked
        );
    }

    /// Leaves requests with this name unanswered from now on. With `detach` the fake ignores lost sessions too.
    pub(super) fn mute(&self, name: &'static str) {
        self.change(|state| state.mute = name);
    }

    /// Carries out the unanswered requests, and answers all requests from now on.
    pub(super) fn answer_muted(&self) {
        self.change(|state| {
            state.mute = "";
            for request in std::mem::take(&mut state.unanswered) {
                state.handle(request);
            }
        });
    }

    /// Refuses every watchpoint from now on.
    pub(super) fn refuse_watchpoints(&self) {
        self.change(|state| state.refuses_watchpoints = true);
    }

    /// Accepts every watchpoint from now on.
    pub(super) fn accept_watchpoints(&self) {
        self.change(|state| state.refuses_watchpoints = false);
    }

    /// Writes memory behind the server's back.
    pub(super) fn write(&self, address: usize, data: &[u8]) {
        self.change(|state| state.memory[address..][..data.len()].copy_from_slice(data));
    }

    /// The next answers to `CommandOutput` are as long as an answer may be.
    pub(super) fn prints(&self, answers: u32) {
        self.change(|state| state.outputs = answers);
    }

    /// Turns paging on for every VP.
    pub(super) fn enable_paging(&self) {
        self.change(|state| state.registers.iter_mut().for_each(|vp| vp.cr0 |= 1 << 31));
    }

    pub(super) fn wait_asked(&self, name: &str) {
        self.wait_until(name, |state| state.asked.contains(&name));
    }

    /// Waits until there are more than `before` requests with this name.
    pub(super) fn wait_asked_more(&self, name: &str, before: usize) {
        self.wait_until(name, |state| {
            state.asked.iter().filter(|asked| **asked == name).count() > before
        });
    }

    pub(super) fn wait_running(&self) {
        self.wait_until("resume", |state| state.running.is_some());
    }

    pub(super) fn asked(&self, name: &str) -> usize {
        self.change(|state| state.asked.iter().filter(|asked| **asked == name).count())
    }

    pub(super) fn resumes(&self) -> Vec<ResumeRequest> {
        self.change(|state| state.resumes.clone())
    }

    /// Waits until the debugger detaches. Returns the actions of all detaches.
    pub(super) fn wait_detached(&self) -> Vec<DetachAction> {
        self.wait_until("detach", |state| !state.detached.is_empty());
        self.change(|state| state.detached.clone())
    }

    /// Stops the running guest.
    pub(super) fn stop(&self, reason: DebugStopReason) {
        self.change(|state| assert!(state.stop(reason), "the guest runs"));
    }

    /// Drops the pending answer of the resume, as a VM that goes away does.
    pub(super) fn forget_running(&self) {
        self.change(|state| {
            state.running = None;
            state.unanswered.clear();
        });
    }

    /// Ends the running guest.
    pub(super) fn end(&self, how: GuestEnd) {
        self.change(|state| {
            let running = state.running.take().expect("the guest runs");
            running.complete(Err(DebugError::Ended { how }));
        });
    }

    /// Ends the guest at its next resume.
    pub(super) fn end_at_next_resume(&self, how: GuestEnd) {
        self.change(|state| state.ends = Some(how));
    }

    /// The VM has these VPs from now on.
    pub(super) fn set_vps(&self, vps: &[u32]) {
        let vps = vps.iter().copied().map(VpIndex::new).collect();
        self.change(|state| state.vps = vps);
    }

    /// Stops the guest at its next resume.
    pub(super) fn stop_at_next_resume(&self, reason: DebugStopReason) {
        self.change(|state| state.waiting_stops.push_back(reason));
    }
}

impl State {
    fn handle(&mut self, message: DebugMessage) {
        let name = match &message {
            DebugMessage::Attach(_) => "attach",
            DebugMessage::InSession(_, request) => name(request),
            DebugMessage::Lost(id) => return self.lost(*id),
            other => panic!("the fake VM does not know {other:?}"),
        };
        self.asked.push(name);
        if name == self.mute {
            self.unanswered.push(message);
            return;
        }
        match message {
            DebugMessage::Attach(rpc) => rpc.handle_sync(|request| self.attach(request)),
            DebugMessage::InSession(id, request) => match self.check(id) {
                Ok(()) => self.request(request),
                Err(error) => request.refuse(error),
            },
            DebugMessage::Lost(_) => {}
            other => panic!("the fake VM does not know {other:?}"),
        }
    }

    fn check(&self, id: SessionId) -> Result<(), DebugError> {
        match self.session {
            Some(session) if session.id == id => Ok(()),
            Some(_) => Err(DebugError::NotYourSession),
            None => Err(DebugError::NotAttached),
        }
    }

    /// Handles a dropped session.
    fn lost(&mut self, id: SessionId) {
        if let Some(session) = self.session
            && session.id == id
            && self.mute != "detach"
        {
            self.detach(session.if_lost.unless_held());
        }
    }

    fn detach(&mut self, action: DetachAction) {
        self.detached.push(action);
        if let Some(resume) = self.running.take() {
            resume.complete(Err(DebugError::Detached));
        }
        self.session = None;
    }

    fn request(&mut self, request: DebugRequest) {
        match request {
            DebugRequest::Detach(rpc) => rpc.handle_sync(|action| {
                self.detach(action);
                Ok(())
            }),
            DebugRequest::Resume(rpc) => self.resume(rpc),
            DebugRequest::Break(rpc) => rpc.handle_sync(|()| {
                self.stop(DebugStopReason::Break);
                Ok(())
            }),
            DebugRequest::SetDebugState(rpc) => rpc.handle_sync(|changes| {
                let watches = |change: &BreakpointChange| {
                    matches!(change, BreakpointChange::Insert(breakpoint) if breakpoint.kind.is_watchpoint())
                };
                match self.refuses_watchpoints && changes.iter().any(watches) {
                    true => Err(Unsupported::NotProbed(CapabilityKind::DataWatchpoints).into()),
                    false => Ok(()),
                }
            }),
            DebugRequest::GetVpState(rpc) => {
                rpc.handle_sync(|vp| Ok(Box::new(DebuggerVpState::X86_64(self.vp(vp)?.clone()))))
            }
            DebugRequest::SetVpState(rpc) => rpc.handle_sync(|(vp, state)| {
                let DebuggerVpState::X86_64(state) = *state else {
                    panic!("an x86 guest")
                };
                *self.vp(vp)? = state;
                Ok(())
            }),
            DebugRequest::Redirect(rpc) => rpc.complete(Ok(())),
            DebugRequest::SetConditions(rpc) => rpc.complete(Ok(())),
            DebugRequest::CommandOutput(rpc) => {
                let text = self.outputs.checked_sub(1).inspect(|left| self.outputs = *left);
                rpc.complete(Ok(text.map_or_else(Vec::new, |_| vec![b'x'; MOST_OUTPUT])));
            }
            DebugRequest::BreakpointHits(rpc) => rpc.complete(Ok(hits())),
            DebugRequest::StopReason(rpc) => rpc.complete(Ok(None)),
            DebugRequest::ReadMemory(rpc) => rpc.handle_sync(|(address, len)| {
                let start = self.memory_index(address)?;
                let end = start.saturating_add(len).min(MEMORY_SIZE);
                Ok(self.memory[start..end].to_vec())
            }),
            DebugRequest::WriteMemory(rpc) => rpc.handle_sync(|(address, data)| {
                let start = self.memory_index(address)?;
                self.memory[start..start + data.len()].copy_from_slice(&data);
                Ok(())
            }),
            DebugRequest::ReadMsr(rpc) => rpc.handle_sync(|(_, msr)| match msr {
                NO_MSR => Err(DebugError::BadRegister {
                    name: format!("MSR {msr:#x}"),
                    reason: BadRegisterReason::UnknownMsr,
                }),
                msr => Ok(u64::from(msr) << 8),
            }),
            DebugRequest::WriteMsr(rpc) => rpc.complete(Ok(())),
            DebugRequest::Translate(rpc) => {
                rpc.handle_sync(|(vp, gva)| translate(vp, gva));
            }
            DebugRequest::MappedPages(rpc) => rpc.handle_sync(|(vp, from)| {
                self.vp(vp)?;
                Ok(mapped_pages(from))
            }),
            DebugRequest::MemoryRegion(rpc) => rpc.handle_sync(|(vp, gva)| {
                self.vp(vp)?;
                Ok(memory_region(gva))
            }),
            DebugRequest::RamRanges(rpc) => rpc.complete(Ok(vec![RamRange {
                gpa: Gpa::new(0),
                len: 1 << 20,
            }])),
            DebugRequest::Nmi(rpc) => rpc.handle_sync(|vp| self.vp(vp).map(drop)),
            DebugRequest::Status(rpc) => {
                let activity = match self.running {
                    Some(_) => VpActivity::Running,
                    None => VpActivity::Halted,
                };
                let status = |vp| VpStatus::new(vp, activity).in_mode(CpuMode::Long64, 0);
                let vps = self.vps.iter().map(status).collect();
                rpc.complete(Ok(VmStatus::new(vps)));
            }
            DebugRequest::Reset(rpc) => rpc.complete(Ok(())),
            DebugRequest::FreezeTime(rpc) => {
                rpc.handle_sync(|wanted| Ok(wanted.unwrap_or(FreezeTime::On)));
            }
            DebugRequest::Breakpoints(rpc) => rpc.complete(Ok(breakpoints())),
            DebugRequest::StopOn(rpc) => rpc.handle_sync(|set| {
                self.stop_on = set.unwrap_or(self.stop_on);
                Ok(self.stop_on)
            }),
            DebugRequest::StepInterrupts(rpc) => rpc.handle_sync(|wanted| {
                self.step_interrupts = wanted.unwrap_or(self.step_interrupts);
                Ok(self.step_interrupts)
            }),
            other => panic!("the fake VM does not know {other:?}"),
        }
    }

    fn attach(&mut self, request: AttachRequest) -> Result<Attached, DebugError> {
        if self.session.is_some() {
            return Err(DebugError::AlreadyAttached);
        }
        let session = DebugSession::begin(request.requests);
        self.session = Some(FakeSession {
            id: session.id(),
            if_lost: request.if_lost,
        });
        let info = AttachInfo::new(
            GuestArch::X86_64,
            XFeatures::NONE,
            Capabilities::from_iter([Capability {
                kind: CapabilityKind::SingleStep,
                support: Support::Works,
                seen: "one instruction".to_owned(),
            }]),
            StopEvent::new(self.epoch, DebugStopReason::Break, self.vps.clone()),
        );
        Ok(Attached { session, info })
    }

    fn resume(&mut self, rpc: DebugRpc<ResumeRequest, StopEvent>) {
        assert!(self.running.is_none(), "resumed while it runs");
        if let Some(how) = self.ends {
            return rpc.complete(Err(DebugError::Ended { how }));
        }
        self.resumes.push(rpc.input().clone());
        self.epoch = self.epoch.next();
        self.running = Some(rpc);
        if let Some(reason) = self.waiting_stops.pop_front() {
            self.stop(reason);
        }
    }

    fn stop(&mut self, reason: DebugStopReason) -> bool {
        let Some(rpc) = self.running.take() else {
            return false;
        };
        for vp in &mut self.registers {
            vp.rip += 1;
        }
        rpc.complete(Ok(StopEvent::new(self.epoch, reason, self.vps.clone())));
        true
    }

    fn vp(&mut self, vp: VpIndex) -> Result<&mut X86VpState, DebugError> {
        let index = usize::try_from(vp.index()).unwrap();
        self.registers.get_mut(index).ok_or(DebugError::NoSuchVp {
            vp,
            count: VP_COUNT,
        })
    }

    fn memory_index(&self, address: GuestAddress) -> Result<usize, DebugError> {
        let (value, error) = match address {
            GuestAddress::Gva { vp, gva } => (gva.value(), not_mapped(vp, gva)),
            GuestAddress::Gpa(gpa) => (
                gpa.value(),
                DebugError::NoMemory {
                    gpa: Gpa::new(gpa.value()),
                },
            ),
        };
        usize::try_from(value)
            .ok()
            .filter(|index| *index < MEMORY_SIZE)
            .ok_or(error)
    }
}

/// One breakpoint of each kind of arming.
fn breakpoints() -> Vec<BreakpointStatus> {
    let armings = [
        Arming::Memory {
            gpa: Gpa::new(0x1234),
        },
        Arming::DebugRegister {
            number: 2,
            why: None,
        },
        Arming::Pending {
            why: Some(Pending::NoRam),
        },
    ];
    let breakpoint = Breakpoint {
        kind: BreakpointKind::Software,
        address: Gva::new(0x1000),
        len: 1,
    };
    let status = |arming| BreakpointStatus::new(breakpoint, arming);
    armings.into_iter().map(status).collect()
}

/// Of the breakpoint that is set, and of one that was removed.
fn hits() -> Vec<BreakpointHits> {
    let of = |address, evaluations, passes| BreakpointHits {
        breakpoint: Breakpoint {
            kind: BreakpointKind::Software,
            address: Gva::new(address),
            len: 1,
        },
        hits: 12,
        evaluations,
        passes,
    };
    vec![of(0x1000, 12, 10), of(0x2000, 0, 0)]
}

fn name(request: &DebugRequest) -> &'static str {
    match request {
        DebugRequest::Detach(_) => "detach",
        DebugRequest::Resume(_) => "resume",
        DebugRequest::Break(_) => "break",
        DebugRequest::SetDebugState(_) => "set debug state",
        DebugRequest::GetVpState(_) => "get vp state",
        DebugRequest::SetVpState(_) => "set vp state",
        DebugRequest::Redirect(_) => "redirect",
        DebugRequest::StopReason(_) => "stop reason",
        DebugRequest::ReadMsr(_) => "read msr",
        DebugRequest::WriteMsr(_) => "write msr",
        DebugRequest::ReadMemory(_) => "read memory",
        DebugRequest::WriteMemory(_) => "write memory",
        DebugRequest::Translate(_) => "translate",
        DebugRequest::MappedPages(_) => "mapped pages",
        DebugRequest::MemoryRegion(_) => "memory region",
        DebugRequest::RamRanges(_) => "ram ranges",
        DebugRequest::Nmi(_) => "nmi",
        DebugRequest::Status(_) => "status",
        DebugRequest::FreezeTime(_) => "freeze time",
        DebugRequest::Reset(_) => "reset",
        DebugRequest::Breakpoints(_) => "breakpoints",
        DebugRequest::StopOn(_) => "stop on",
        DebugRequest::StepInterrupts(_) => "step interrupts",
        DebugRequest::SetConditions(_) => "set conditions",
        DebugRequest::BreakpointHits(_) => "breakpoint hits",
        DebugRequest::CommandOutput(_) => "command output",
        other => other.name(),
    }
}
