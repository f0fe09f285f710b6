//! Calls of the VMM's `Machine` that the controller makes. Each is made on a thread of its own, since it may block, and the controller goes on meanwhile.

use super::unanswered::Unanswered;
use crate::machine::DeviceOutcome;
use crate::machine::MachineError;
use futures::StreamExt;
use futures::stream::SelectNextSome;
use std::collections::VecDeque;
use std::io;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::DebugRpc;
use vmm_core_defs::debug_rpc::MachineCall;

/// A call that takes longer is overdue: the call is logged, and whoever waits for it is told.
const OVERDUE: Duration = Duration::from_secs(2);

/// What a call says.
pub(super) enum Returned {
    Read(Result<Vec<u8>, DebugError>),
    Written(Result<DeviceOutcome, DebugError>),
    Reset(Result<(), MachineError>),
    /// It panicked, or no thread could be had for it.
    Failed(String),
}

/// Who waits for a call.
pub(super) enum Waits {
    Read(DebugRpc<(), Vec<u8>>),
    Write(DebugRpc<(), ()>),
    /// The controller: for a reset, without which the guest cannot go on.
    Reset,
}

/// A call that is to be made.
pub(super) struct DeviceCall {
    /// The method and the address, for logs and errors.
    pub(super) what: MachineCall,
    pub(super) waits: Waits,
    pub(super) call: Box<dyn FnOnce() -> Returned + Send>,
}

/// Starts a call, and returns before or after it.
pub(super) type StartCall = fn(Box<dyn FnOnce() + Send>) -> io::Result<()>;

/// The calls in their order, one at a time: a device that blocks is not called a second time meanwhile.
pub(super) struct DeviceCalls {
    start: StartCall,
    underway: Option<Underway>,
    queue: VecDeque<DeviceCall>,
    returns: mesh::Receiver<Returned>,
    results: mesh::Sender<Returned>,
}

struct Underway {
    what: MachineCall,
    since: Instant,
    unanswered: Unanswered,
    is_overdue: bool,
    is_reset: bool,
    /// `None` where whoever waited has been told that it is overdue.
    waits: Option<Waits>,
}

impl DeviceCalls {
    /// `start` starts each call. A call may block, so the calls of a real machine are started [on a thread](on_a_thread).
    pub(super) fn new(start: StartCall) -> Self {
        let (results, returns) = mesh::channel();
        Self {
            start,
            underway: None,
            queue: VecDeque::new(),
            returns,
            results,
        }
    }

    /// Makes the call once those before it have returned. While one is overdue nothing but a reset waits for it.
    pub(super) fn ask(&mut self, call: DeviceCall) {
        match (self.overdue(), &call.waits) {
            (Some(error), Waits::Read(_) | Waits::Write(_)) => call.waits.fail(error),
            _ => {
                self.queue.push_back(call);
                self.start_next();
            }
        }
    }

    /// The result of the call that is under way, for [`finish`](Self::finish). Cancel safe.
    pub(super) fn returned(&mut self) -> SelectNextSome<'_, mesh::Receiver<Returned>> {
        self.returns.select_next_some()
    }

    /// The call has returned. Says who still waits for it, and makes the next one.
    pub(super) fn finish(&mut self) -> Option<Waits> {
        let done = self.underway.take()?;
        if done.is_overdue {
            let (what, took) = (done.what, done.since.elapsed());
            tracing::info!(%what, ?took, "the overdue call of `Machine` has returned");
        }
        self.start_next();
        done.waits
    }

    /// Tells of a call that is overdue. Whether one is under way.
    pub(super) fn look_after(&mut self) -> bool {
        let Some(underway) = &mut self.underway else {
            return false;
        };
        if let Some(waited) = underway.unanswered.overdue(Instant::now()) {
            let what = underway.what;
            tracing::warn!(
                %what,
                ?waited,
                "a call of `Machine` has not returned: the VMM's code blocks there. Requests that need no device are served meanwhile"
            );
            underway.is_overdue = true;
            let error = underway.error();
            let is_reset = |waits: &Waits| matches!(waits, Waits::Reset);
            if let Some(waits) = underway.waits.take_if(|waits| !is_reset(waits)) {
                waits.fail(error.clone());
            }
            for call in std::mem::take(&mut self.queue) {
                match is_reset(&call.waits) {
                    true => self.queue.push_back(call),
                    false => call.waits.fail(error.clone()),
                }
            }
        }
        true
    }

    /// Why nothing can be asked of devices now.
    pub(super) fn overdue(&self) -> Option<DebugError> {
        let underway = self.underway.as_ref()?;
        underway.is_overdue.then(|| underway.error())
    }

    /// Where the machine is being reset, or is to be, why the guest must not run.
    pub(super) fn resetting(&self) -> Option<DebugError> {
        let underway = self.underway.as_ref()?;
        let queued = |call: &DeviceCall| matches!(call.waits, Waits::Reset);
        (underway.is_reset || self.queue.iter().any(queued)).then(|| underway.error())
    }

    fn start_next(&mut self) {
        if self.underway.is_some() {
            return;
        }
        let Some(DeviceCall { what, waits, call }) = self.queue.pop_front() else {
            return;
        };
        let since = Instant::now();
        self.underway = Some(Underway {
            what,
            since,
            unanswered: Unanswered::new(since, OVERDUE),
            is_overdue: false,
            is_reset: matches!(waits, Waits::Reset),
            waits: Some(waits),
        });
        let results = self.results.clone();
        let run = move || {
            let returned = catch_unwind(AssertUnwindSafe(call));
            results.send(returned.unwrap_or_else(|_| Returned::Failed("it panicked".into())));
        };
        if let Err(err) = (self.start)(Box::new(run)) {
            self.results.send(Returned::Failed(err.to_string()));
        }
    }
}

/// Starts a call on a thread of its own.
///
/// # Errors
/// The host's, where it has no thread left.
pub(super) fn on_a_thread(call: Box<dyn FnOnce() + Send>) -> io::Result<()> {
    let thread = thread::Builder::new().name("device call".into());
    thread.spawn(call).map(drop)
}

impl Underway {
    fn error(&self) -> DebugError {
        DebugError::Overdue {
            call: self.what,
            seconds: self.since.elapsed().as_secs(),
        }
    }
}

impl Waits {
    fn fail(self, error: DebugError) {
        match self {
            Self::Read(rpc) => rpc.complete(Err(error)),
            Self::Write(rpc) => rpc.complete(Err(error)),
            Self::Reset => {}
        }
    }
}

pub(super) fn failed(why: String) -> DebugError {
    DebugError::Hypervisor {
        what: "call the VMM's device".into(),
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;

    #[test]
    fn a_call_that_panics_is_an_error_and_the_next_one_is_made() {
        let mut calls = DeviceCalls::new(on_a_thread);
        let reset = |call| DeviceCall {
            what: MachineCall::Reset,
            waits: Waits::Reset,
            call,
        };
        calls.ask(reset(Box::new(|| panic!("a device panics, as it should"))));
        calls.ask(reset(Box::new(|| Returned::Reset(Ok(())))));
        let returned = block_on(calls.returned());
        assert!(matches!(returned, Returned::Failed(_)));
        assert!(calls.resetting().is_some());
        assert!(calls.finish().is_some());
        let returned = block_on(calls.returned());
        assert!(matches!(returned, Returned::Reset(Ok(()))));
        assert!(calls.finish().is_some());
        assert!(calls.resetting().is_none());
    }
}
