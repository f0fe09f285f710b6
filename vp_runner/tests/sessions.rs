//! Sessions: requests of other sessions, and lost sessions. On real guests.

use test_machine::machine;

use machine::guest::*;
use machine::*;
use mesh::rpc::RpcSend as _;
use std::collections::BTreeSet;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::GuestAddress;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::breakpoint::BreakpointChange;
use vmm_core_defs::condition::BreakpointConditions;
use vmm_core_defs::debug_rpc::*;
use vmm_core_defs::regs::DebuggerVpState;
use vmm_core_defs::regs::X86VpState;
use vmm_core_defs::session::DebugSession;
use vmm_core_defs::session::SessionId;
use vmm_core_defs::stop::StopOn;
use vmm_core_defs::trace::FrameSearch;
use vmm_core_defs::trace::TraceStart;
use vmm_core_defs::trace::TracepointSwitch;
use vmm_core_defs::trace::WhichFrame;
use vp_runner::runner::RunnerExit;

fn no_trace() -> TraceStart {
    TraceStart {
        tracepoints: Vec::new(),
        buffer: 0,
        circular: false,
        client: String::new(),
    }
}

fn nowhere() -> TracepointSwitch {
    TracepointSwitch {
        number: 1,
        address: Gva::new(ENTRY),
        enabled: false,
    }
}

fn any_frame() -> FrameSearch {
    FrameSearch {
        from: 0,
        which: WhichFrame::Any,
    }
}

const FS_BASE: u32 = 0xc000_0100;

fn guest() -> Option<TestVm> {
    let code = counting_loop(Mode::Long);
    let vm = Setup::new(Mode::Long, &code).vps(2).build()?;
    vm.attach();
    Some(vm)
}

/// Sends requests in a session of the caller's choice.
struct Intruder<'a> {
    debug: &'a mesh::Sender<DebugMessage>,
    id: SessionId,
    wanted: DebugError,
    /// The names of the requests that were refused with `wanted`.
    refused: BTreeSet<&'static str>,
}

impl Intruder<'_> {
    fn ask<I, T>(&mut self, request: impl FnOnce(DebugRpc<I, T>) -> DebugRequest, input: I) {
        let mut name = "";
        let message = |rpc| {
            let request = request(rpc);
            name = request.name();
            DebugMessage::InSession(self.id, request)
        };
        let answer = answer(self.debug.call_failable(message, input));
        assert_eq!(answer.err().as_ref(), Some(&self.wanted), "{name}");
        self.refused.insert(name);
    }

    fn try_every_request(mut self) {
        let vp = VpIndex::BSP;
        let code = GuestAddress::Gpa(Gpa::new(ENTRY));
        let insert = vec![BreakpointChange::Insert(execute_at(ENTRY))];
        let state = Box::new(DebuggerVpState::X86_64(X86VpState::default()));
        self.ask(DebugRequest::Break, ());
        self.ask(DebugRequest::SetDebugState, insert);
        let conditions = BreakpointConditions {
            breakpoint: execute_at(ENTRY),
            conditions: Vec::new(),
            commands: Vec::new(),
        };
        self.ask(DebugRequest::SetConditions, conditions);
        self.ask(DebugRequest::Breakpoints, ());
        self.ask(DebugRequest::BreakpointHits, ());
        self.ask(DebugRequest::CommandOutput, ());
        self.ask(DebugRequest::StartTrace, no_trace());
        self.ask(DebugRequest::StopTrace, ());
        self.ask(DebugRequest::TraceStatus, ());
        self.ask(DebugRequest::SwitchTracepoint, nowhere());
        self.ask(DebugRequest::FindFrame, any_frame());
        self.ask(DebugRequest::StepInterrupts, Some(StepInterrupts::Taken));
        self.ask(DebugRequest::GetVpState, vp);
        self.ask(DebugRequest::SetVpState, (vp, state));
        self.ask(DebugRequest::Redirect, vp);
        self.ask(DebugRequest::StopReason, vp);
        self.ask(DebugRequest::ReadMsr, (vp, FS_BASE));
        self.ask(DebugRequest::WriteMsr, (vp, FS_BASE, 1));
        self.ask(DebugRequest::ReadMemory, (code, 1));
        self.ask(DebugRequest::WriteMemory, (code, vec![0]));
        self.ask(DebugRequest::Translate, (vp, Gva::new(ENTRY)));
        self.ask(DebugRequest::MappedPages, (vp, Gva::new(0)));
        self.ask(DebugRequest::MemoryRegion, (vp, Gva::new(0)));
        self.ask(DebugRequest::RamRanges, ());
        self.ask(DebugRequest::Nmi, vp);
        self.ask(DebugRequest::FreezeTime, Some(FreezeTime::Off));
        self.ask(DebugRequest::Status, ());
        self.ask(DebugRequest::StopOn, Some(StopOn::from_iter([])));
        self.ask(DebugRequest::Reset, ());
        self.ask(DebugRequest::Detach, DetachAction::Kill);
        self.ask(DebugRequest::Resume, every(VpAction::Run));
        let all = BTreeSet::from_iter(DebugRequest::NAMES.iter().copied());
        assert_eq!(self.refused, all, "every request is tried");
    }
}

#[test]
fn a_stale_or_foreign_session_is_refused_every_request_and_changes_nothing() {
    let Some(vm) = guest() else {
        return;
    };
    let intruder = |session: &DebugSession, wanted| Intruder {
        debug: vm.sender(),
        id: session.id(),
        wanted,
        refused: BTreeSet::new(),
    };
    let stale = vm.session();
    vm.detach(DetachAction::Stay);
    intruder(&stale, DebugError::NotAttached).try_every_request();
    vm.attach();
    let stop_on = vm.call(DebugRequest::StopOn, None);
    let freeze_time = vm.call(DebugRequest::FreezeTime, None);
    let registers = vm.regs(0);
    let code = vm.read_gva(0, ENTRY, 1);
    // Another runner began this session, as for another guest.
    let foreign = DebugSession::begin(mesh::channel().0);
    for session in [&stale, &foreign] {
        intruder(session, DebugError::NotYourSession).try_every_request();
    }
    assert_eq!(vm.regs(0), registers);
    assert_eq!(vm.read_gva(0, ENTRY, 1), code);
    assert_eq!(vm.call(DebugRequest::Breakpoints, ()), Ok(vec![]));
    let held = vm.call(DebugRequest::StepInterrupts, None);
    assert_eq!(held, Ok(StepInterrupts::Held));
    assert_eq!(vm.call(DebugRequest::StopOn, None), stop_on);
    assert_eq!(vm.call(DebugRequest::FreezeTime, None), freeze_time);
    // The end of a session that is over does not end the present session, and neither does the end of a foreign
    // session.
    vm.sender().send(DebugMessage::Lost(foreign.id()));
    drop((stale, foreign));
    vm.step(0);
}

#[test]
fn a_session_that_nobody_has_any_more_ends_by_itself() {
    let Some(vm) = guest() else {
        return;
    };
    vm.insert(execute_at(ENTRY));
    vm.lose_session();
    // The next debugger need not wait for the end of the lost session.
    let attached = answer(vm.send_attach()).unwrap();
    // The answer is dropped with the session in it.
    drop(attached);
    // The answer is not awaited.
    drop(vm.send_attach());
    let attached = loop {
        match answer(vm.send_attach()) {
            Ok(attached) => break attached,
            Err(error) => assert_eq!(error, DebugError::AlreadyAttached),
        }
    };
    vm.begin(attached);
    assert_eq!(vm.call(DebugRequest::Breakpoints, ()), Ok(vec![]));
}

#[test]
fn a_lost_session_ends_as_its_attach_said_and_a_held_guest_stays_held() {
    let code = telling_loop(Mode::Long);
    for if_lost in [DetachAction::Resume, DetachAction::Stay, DetachAction::Kill] {
        let Some(vm) = Setup::new(Mode::Long, &code).vps(2).build() else {
            return;
        };
        for _ in 0..2 {
            vm.attach_with(if_lost);
            vm.insert(execute_at(0x5000));
            vm.lose_session();
        }
        vm.attach_with(if_lost);
        let told = vm.machine.wait_until("now", |_| true).told.len();
        assert_eq!(told, 0, "{if_lost:?}: it ran");
        assert_eq!(vm.call(DebugRequest::Breakpoints, ()), Ok(vec![]));
        vm.step(0);
        vm.lose_session();
        match if_lost {
            DetachAction::Kill => assert_eq!(vm.join(), RunnerExit::Killed),
            DetachAction::Stay => {
                vm.attach();
                let told = vm.machine.wait_until("now", |_| true).told.len();
                assert!(told <= 1, "it ran");
            }
            _ => drop(
                vm.machine
                    .wait_until("it runs on", |seen| seen.told.len() > 20),
            ),
        }
    }
}
