//! A debugger that sends any request at any time, and checks every reply.

use super::fake_vp::CODE;
use super::fake_vp::TURN;
use super::fake_vp::address;
use super::model::Model;
use super::*;
use mesh::rpc::PendingFailableRpc;
use mesh::rpc::Rpc;
use mesh::rpc::RpcError;
use mesh::rpc::RpcSend;
use shuttle::future::block_on;
use std::sync::Mutex;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::breakpoint::BreakpointChange;
use vmm_core_defs::breakpoint::BreakpointKind;
use vmm_core_defs::condition::BreakpointConditions;
use vmm_core_defs::condition::Condition;
use vmm_core_defs::debug_rpc::DebugRequest;
use vmm_core_defs::debug_rpc::DetachAction;
use vmm_core_defs::debug_rpc::ResumeRequest;
use vmm_core_defs::session::Attached;
use vmm_core_defs::session::DebugSession;
use vmm_core_defs::session::SessionId;
use vmm_core_defs::stop::StopEvent;

type Pending<T> = PendingFailableRpc<T, DebugError>;

/// The session that has attached last.
pub(super) type SharedId = Arc<Mutex<Option<SessionId>>>;

/// The one debugger.
pub(super) struct Client {
    model: Arc<Model>,
    debug: mesh::Sender<DebugMessage>,
    session: Option<DebugSession>,
    /// For the debugger's second task.
    id: SharedId,
    set: Vec<Breakpoint>,
    /// The resumes that were accepted so far.
    epoch: Epoch,
    /// The last resume.
    plan: Vec<(VpIndex, VpAction)>,
}

/// How a session ends.
enum End {
    Detached,
    Lost,
}

pub(super) fn send<M, I, T>(
    to: impl RpcSend<Message = M>,
    request: impl FnOnce(Rpc<I, Result<T, DebugError>>) -> M,
    input: I,
) -> Pending<T> {
    thread::yield_now();
    let pending = to.call_failable(request, input);
    thread::yield_now();
    pending
}

/// Checks that the request was not dropped without an answer.
pub(super) fn answer<T>(pending: Pending<T>) -> Result<T, DebugError> {
    match block_on(pending) {
        Ok(value) => Ok(value),
        Err(RpcError::Call(err)) => Err(err),
        Err(RpcError::Channel(_)) => panic!("a request was dropped unanswered"),
    }
}

/// A second task of the debugger that sends `Break`, and does not know whether its session still exists.
pub(super) fn intrude(model: &Model, debug: &mesh::Sender<DebugMessage>, id: &SharedId) {
    for _ in 0..thread_rng().gen_range(0..6) {
        for _ in 0..thread_rng().gen_range(0..20) {
            thread::yield_now();
        }
        let Some(id) = *id.lock().unwrap() else {
            continue;
        };
        model.break_sent();
        let break_ = |rpc| DebugMessage::InSession(id, DebugRequest::Break(rpc));
        let answer = answer(send(debug, break_, ()));
        model.break_answered();
        assert!(
            matches!(
                answer,
                Ok(()) | Err(DebugError::NotAttached | DebugError::NotYourSession)
            ),
            "{answer:?}"
        );
    }
}

fn any_breakpoint() -> Breakpoint {
    let (kind, index) = match thread_rng().gen_bool(0.6) {
        true => (BreakpointKind::Software, thread_rng().gen_range(0..TURN)),
        // There are enough debug registers for these.
        false => (BreakpointKind::Execute, thread_rng().gen_range(0..4)),
    };
    Breakpoint {
        kind,
        address: Gva::new(address(index)),
        len: 1,
    }
}

/// `const8 value; end`
fn constant(value: u8) -> Condition {
    Condition {
        code: vec![0x22, value, 0x27],
    }
}

fn any_action() -> VpAction {
    match thread_rng().gen_range(0..8) {
        0..4 => VpAction::Run,
        4 => VpAction::Step,
        5 => VpAction::StepN {
            count: thread_rng().gen_range(1..6).try_into().unwrap(),
        },
        6 => VpAction::Stay,
        _ => VpAction::StepRange {
            start: Gva::new(CODE),
            end: Gva::new(CODE + thread_rng().gen_range(1..3)),
        },
    }
}

impl Client {
    pub(super) fn new(model: Arc<Model>, debug: mesh::Sender<DebugMessage>, id: SharedId) -> Self {
        Self {
            model,
            debug,
            session: None,
            id,
            set: Vec::new(),
            epoch: Epoch::default(),
            plan: Vec::new(),
        }
    }

    fn send<I, T>(
        &self,
        request: impl FnOnce(Rpc<I, Result<T, DebugError>>) -> DebugRequest,
        input: I,
    ) -> Pending<T> {
        let session = self.session.as_ref().expect("it has attached");
        send(session, request, input)
    }

    /// Runs some sessions. The client is dropped when this returns.
    pub(super) fn live(mut self) {
        for _ in 0..thread_rng().gen_range(1..4) {
            if let End::Lost = self.session() {
                return;
            }
        }
    }

    fn session(&mut self) -> End {
        let attach = self.attach();
        if thread_rng().gen_bool(0.1) {
            // The client drops the request before the answer, so the session is dropped and ends.
            drop(attach);
            self.model.session_over();
            return End::Detached;
        }
        let Attached { session, info } = match answer(attach) {
            Ok(attached) => attached,
            // The last session was lost, and its end is not complete.
            Err(DebugError::AlreadyAttached) => return End::Detached,
            Err(err) => panic!("{err}"),
        };
        *self.id.lock().unwrap() = Some(session.id());
        self.check_others_are_refused(&session);
        self.session = Some(session);
        assert_eq!(info.stop.epoch, self.epoch, "I1");
        self.model.check_parked("after attach");
        self.model.session_begins();
        self.model.reported(info.stop.reason, None);
        for _ in 0..thread_rng().gen_range(1..12) {
            match thread_rng().gen_range(0..10) {
                0..4 => {
                    if let Some(end) = self.run() {
                        return end;
                    }
                }
                4..7 => self.toggle(),
                7 => self.set_condition(),
                8 => self.look(),
                _ => {
                    let reset = self.send(DebugRequest::Reset, ());
                    assert_eq!(answer(reset), Ok(()));
                    self.model.session_over();
                }
            }
            self.model.check_parked("while stopped");
        }
        match thread_rng().gen_bool(0.7) {
            true => self.detach(Vec::new()),
            false => End::Lost,
        }
    }

    fn attach(&self) -> Pending<Attached> {
        thread::yield_now();
        let pending = DebugSession::attach(&self.debug, any_detach());
        thread::yield_now();
        pending
    }

    /// The runner refuses the requests of a session that it did not begin.
    fn check_others_are_refused(&self, session: &DebugSession) {
        let other = DebugSession::begin(mesh::channel().0).id();
        assert_ne!(other, session.id());
        let kill = |rpc| DebugMessage::InSession(other, DebugRequest::Detach(rpc));
        let refused = send(&self.debug, kill, DetachAction::Kill);
        assert_eq!(answer(refused), Err(DebugError::NotYourSession));
    }

    fn look(&self) {
        let status = self.send(DebugRequest::Status, ());
        let again = self.attach();
        let state = self.send(DebugRequest::GetVpState, VpIndex::BSP);
        assert_eq!(answer(status).unwrap().vps.len(), self.model.vps() as usize);
        assert_eq!(answer(again).map(drop), Err(DebugError::AlreadyAttached));
        answer(state).unwrap();
    }

    fn change(&mut self) -> Pending<()> {
        let breakpoint = any_breakpoint();
        let change = match self.set.iter().position(|other| *other == breakpoint) {
            Some(index) => BreakpointChange::Remove(self.set.swap_remove(index)),
            None => {
                self.set.push(breakpoint);
                BreakpointChange::Insert(breakpoint)
            }
        };
        say(|| format!("{change:?}"));
        self.send(DebugRequest::SetDebugState, vec![change])
    }

    /// Gives a breakpoint that is set a condition that holds always or never, or no condition.
    fn set_condition(&self) {
        if self.set.is_empty() {
            return;
        }
        let breakpoint = self.set[thread_rng().gen_range(0..self.set.len())];
        let conditions = match thread_rng().gen_range(0..4) {
            0 => Vec::new(),
            1 => vec![constant(1)],
            _ => vec![constant(0)],
        };
        say(|| format!("{breakpoint:?}: {conditions:?}"));
        let wanted = BreakpointConditions {
            breakpoint,
            conditions,
            commands: Vec::new(),
        };
        let set = self.send(DebugRequest::SetConditions, wanted);
        assert_eq!(answer(set), Ok(()));
    }

    fn toggle(&mut self) {
        let change = self.change();
        assert_eq!(answer(change), Ok(()));
    }

    fn send_detach(&self, action: DetachAction) -> Pending<()> {
        if action == DetachAction::Resume {
            self.model.let_go();
        }
        self.send(DebugRequest::Detach, action)
    }

    fn resume(&mut self) -> Pending<StopEvent> {
        self.model.let_go();
        let count = self.model.vps();
        let mut actions: Vec<_> = (0..count)
            .map(|vp| (VpIndex::new(vp), any_action()))
            .collect();
        if actions.iter().all(|(_, action)| *action == VpAction::Stay) {
            actions[0].1 = VpAction::Run;
        }
        self.plan.clone_from(&actions);
        let request = ResumeRequest::new(VpAction::Stay, actions);
        self.send(DebugRequest::Resume, request)
    }

    /// Whether the last resume runs this VP.
    fn lets_go(&self, vp: Option<VpIndex>) -> bool {
        let stays =
            |(other, action): &(VpIndex, VpAction)| Some(*other) == vp && *action == VpAction::Stay;
        !self.plan.iter().any(stays)
    }

    /// Checks how far the VPs have gone that were to make several steps.
    fn check_steps(&self, stop: &StopEvent) {
        let mut all = None;
        for (vp, action) in &self.plan {
            let VpAction::StepN { count } = action else {
                continue;
            };
            let (count, made) = (count.get(), self.model.executed_since(*vp));
            assert!(made <= count, "VP {vp} has made {made} of {count} steps");
            let done = stop.reason == DebugStopReason::SingleStep { vp: *vp };
            assert!(!done || made == count, "VP {vp}: {made} of {count} steps");
            all = Some(all.unwrap_or(0) + made);
        }
        assert_eq!(stop.steps, all);
    }

    /// Resumes the guest, and sends requests meanwhile. `Some` if the session has ended.
    fn run(&mut self) -> Option<End> {
        let breaks = self.model.breaks_answered();
        let mut resumes = vec![self.resume()];
        for _ in 0..thread_rng().gen_range(0..5) {
            match thread_rng().gen_range(0..10) {
                0..3 => {
                    let change = self.change();
                    assert_eq!(answer(change), Ok(()));
                }
                3 => {
                    self.model.lag();
                    resumes.push(self.resume());
                }
                4 => {
                    let status = self.send(DebugRequest::Status, ());
                    answer(status).unwrap();
                }
                7 => self.set_condition(),
                5 => return Some(self.detach(resumes)),
                6 if thread_rng().gen_bool(0.3) => return Some(self.lose(resumes)),
                _ => {
                    for _ in 0..thread_rng().gen_range(0..30) {
                        thread::yield_now();
                    }
                }
            }
        }
        self.model.break_sent();
        let break_ = self.send(DebugRequest::Break, ());
        let mut last = None;
        let alone = resumes.len() == 1;
        for resume in resumes {
            match answer(resume) {
                Ok(stop) => {
                    self.epoch = self.epoch.next();
                    assert_eq!(stop.epoch, self.epoch, "I1");
                    assert!(!alone || self.lets_go(stop.reason.vp()), "I1");
                    if alone {
                        self.check_steps(&stop);
                    }
                    last = Some(stop.reason);
                }
                // Only for the first resume is the guest certainly stopped.
                Err(err) => assert!(err == DebugError::NotStopped && last.is_some(), "{err}"),
            }
        }
        assert_eq!(answer(break_), Ok(()));
        self.model.break_answered();
        self.model.check_parked("after the stop");
        self.model
            .reported(last.expect("the first was taken"), Some(breaks));
        self.model.caught_up();
        None
    }

    /// Checks that each resume is answered, with a stop or an error.
    fn settle(&mut self, resumes: Vec<Pending<StopEvent>>) {
        for resume in resumes {
            match answer(resume) {
                Ok(stop) => {
                    self.epoch = self.epoch.next();
                    assert_eq!(stop.epoch, self.epoch, "I1");
                }
                Err(DebugError::Detached) => self.epoch = self.epoch.next(),
                // The second error is for a resume that the runner had not received when the session was lost.
                Err(err) => assert!(
                    matches!(err, DebugError::NotStopped | DebugError::NotAttached),
                    "{err}"
                ),
            }
        }
    }

    fn detach(&mut self, resumes: Vec<Pending<StopEvent>>) -> End {
        let action = any_detach();
        let detach = self.send_detach(action);
        assert_eq!(answer(detach), Ok(()));
        self.model.check_untouched("after detach");
        if action == DetachAction::Stay {
            self.model.check_parked("after a detach that stays");
        }
        self.model.session_over();
        self.settle(resumes);
        self.model.caught_up();
        self.set.clear();
        if action == DetachAction::Resume && thread_rng().gen_bool(0.5) {
            self.model.wait_for_progress();
        }
        End::Detached
    }

    /// Drops the channel while the guest runs. The resumes are answered all the same.
    fn lose(&mut self, resumes: Vec<Pending<StopEvent>>) -> End {
        self.session = None;
        self.debug = mesh::channel().0;
        self.settle(resumes);
        End::Lost
    }
}

fn any_detach() -> DetachAction {
    match thread_rng().gen_bool(0.5) {
        true => DetachAction::Resume,
        false => DetachAction::Stay,
    }
}
