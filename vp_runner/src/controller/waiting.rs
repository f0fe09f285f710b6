//! The requests that wait for their answer.

use vmm_core_defs::breakpoint::BreakpointChange;
use vmm_core_defs::debug_rpc::AttachInfo;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::DebugRpc;
use vmm_core_defs::session::Attached;
use vmm_core_defs::session::DebugSession;
use vmm_core_defs::stop::GuestEnd;
use vmm_core_defs::stop::StopEvent;

/// The open requests: one of each kind, or several where the field is a list. A request that is dropped tells its caller that the runner has ended.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    attach: Option<Attaching>,
    resume: Option<DebugRpc<(), StopEvent>>,
    breaks: Vec<DebugRpc<(), ()>>,
    detaches: Vec<DebugRpc<(), ()>>,
    changes: Vec<DebugRpc<Vec<BreakpointChange>, ()>>,
    reset: Option<DebugRpc<(), ()>>,
}

/// An `Attach` that waits for the guest to stop. If the `Attach` fails, the session has ended already, so the drop of `session` has no effect.
#[derive(Debug)]
struct Attaching {
    rpc: DebugRpc<(), Attached>,
    session: DebugSession,
}

impl Waiting {
    pub(super) fn attach(&mut self, rpc: DebugRpc<(), Attached>, session: DebugSession) {
        self.attach = Some(Attaching { rpc, session });
    }

    pub(super) fn resume(&mut self, rpc: DebugRpc<(), StopEvent>) {
        self.resume = Some(rpc);
    }

    pub(super) fn break_(&mut self, rpc: DebugRpc<(), ()>) {
        self.breaks.push(rpc);
    }

    pub(super) fn detach(&mut self, rpc: DebugRpc<(), ()>) {
        self.detaches.push(rpc);
    }

    pub(super) fn change(&mut self, rpc: DebugRpc<Vec<BreakpointChange>, ()>) {
        self.changes.push(rpc);
    }

    pub(super) fn reset(&mut self, rpc: DebugRpc<(), ()>) {
        self.reset = Some(rpc);
    }

    pub(super) fn resume_is_open(&self) -> bool {
        self.resume.is_some()
    }

    pub(super) fn reset_is_open(&self) -> bool {
        self.reset.is_some()
    }

    pub(super) fn report(&mut self, event: StopEvent) {
        if let Some(resume) = self.resume.take() {
            resume.complete(Ok(event));
        }
    }

    pub(super) fn resume_failed(&mut self, err: DebugError) {
        if let Some(resume) = self.resume.take() {
            resume.complete(Err(err));
        }
    }

    pub(super) fn attached(&mut self, info: AttachInfo) {
        if let Some(Attaching { rpc, session }) = self.attach.take() {
            rpc.complete(Ok(Attached { session, info }));
        }
    }

    pub(super) fn broken(&mut self) {
        for rpc in self.breaks.drain(..) {
            rpc.complete(Ok(()));
        }
    }

    /// Answers the open `Attach` and `Resume`, since no stop will follow.
    pub(super) fn abandon(&mut self) {
        if let Some(attach) = self.attach.take() {
            attach.rpc.complete(Err(DebugError::Detached));
        }
        self.resume_failed(DebugError::Detached);
    }

    /// Answers every request, since the guest has ended.
    pub(super) fn ended(&mut self, how: GuestEnd) {
        let ended = || DebugError::Ended { how };
        if let Some(attach) = self.attach.take() {
            attach.rpc.complete(Err(ended()));
        }
        self.resume_failed(ended());
        self.reset_done(Err(ended()));
        for rpc in self.breaks.drain(..) {
            rpc.complete(Err(ended()));
        }
        for rpc in self.changes.drain(..) {
            rpc.complete(Err(ended()));
        }
        self.detached();
    }

    pub(super) fn detached(&mut self) {
        for rpc in self.detaches.drain(..) {
            rpc.complete(Ok(()));
        }
    }

    pub(super) fn take_changes(&mut self) -> Vec<DebugRpc<Vec<BreakpointChange>, ()>> {
        std::mem::take(&mut self.changes)
    }

    pub(super) fn refuse_changes(&mut self) {
        for rpc in self.changes.drain(..) {
            rpc.complete(Err(DebugError::Detached));
        }
    }

    pub(super) fn reset_done(&mut self, result: Result<(), DebugError>) {
        if let Some(reset) = self.reset.take() {
            reset.complete(result);
        }
    }
}
