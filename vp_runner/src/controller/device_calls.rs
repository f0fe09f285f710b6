//! The controller's calls of the VMM's `Machine`. Each call has its own thread, because the call may block. The controller continues meanwhile.

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
use vmm_core_defs::debug_rpc::MachineFailure;

/// A call that takes longer is overdue. The call is logged, and the request that waits for it gets an error.
const OVERDUE: Duration = Duration::from_secs(2);

/// The result of a call.
pub(super) enum Returned {
    Read(Result<Vec<u8>, DebugError>),
    Written(Result<DeviceOutcome, DebugError>),
    Reset(Result<(), MachineError>),
    /// The call panicked, or its thread could not be started.
    Failed(DebugError),
}

/// The request that waits for a call.
pub(super) enum Waits {
    Read(DebugRpc<(), Vec<u8>>),
    Write(DebugRpc<(), ()>),
    /// The controller waits for a reset before the guest can continue.
    Reset,
}

/// A call that is yet to be made.
pub(super) struct DeviceCall {
    /// The method and the address, for logs and errors.
    pub(super) what: MachineCall,
    pub(super) waits: Waits,
    pub(super) call: Box<dyn FnOnce() -> Returned + Send>,
}

/// Starts a call. May return before the call does.
pub(super) type StartCall = fn(Box<dyn FnOnce() + Send>) -> io::Result<()>;

/// The calls in their order, one at a time, so that a device that blocks is not called a second time meanwhile.
pub(super) struct DeviceCalls {
    start: StartCall,
    in_progress: Option<InProgress>,
    queue: VecDeque<DeviceCall>,
    returns: mesh::Receiver<Returned>,
    results: mesh::Sender<Returned>,
}

struct InProgress {
    what: MachineCall,
    since: Instant,
    unanswered: Unanswered,
    is_overdue: bool,
    is_reset: bool,
    /// `None` if the request has got the error that the call is overdue.
    waits: Option<Waits>,
}

impl DeviceCalls {
    /// `start` starts each call. A call may block, so the calls of a real machine are started [on a thread](on_a_thread).
    pub(super) fn new(start: StartCall) -> Self {
        let (results, returns) = mesh::channel();
        Self {
            start,
            in_progress: None,
            queue: VecDeque::new(),
            returns,
            results,
        }
    }

    /// Makes the call when the calls before it have returned. If one of these is overdue, the call fails at once, unless it is a reset.
    pub(super) fn ask(&mut self, call: DeviceCall) {
        match (self.overdue(), &call.waits) {
            (Some(error), Waits::Read(_) | Waits::Write(_)) => call.waits.fail(error),
            _ => {
                self.queue.push_back(call);
                self.start_next();
            }
        }
    }

    /// Waits for the result of the present call. [`finish`](Self::finish) follows. Cancel safe.
    pub(super) fn returned(&mut self) -> SelectNextSome<'_, mesh::Receiver<Returned>> {
        self.returns.select_next_some()
    }

    /// The call has returned. Returns the request that still waits for it, and makes the next call.
    pub(super) fn finish(&mut self) -> Option<Waits> {
        let done = self.in_progress.take()?;
        if done.is_overdue {
            let (what, took) = (done.what, done.since.elapsed());
            tracing::info!(%what, ?took, "the overdue call of `Machine` has returned");
        }
        self.start_next();
        done.waits
    }

    /// Logs a call that is overdue. Returns whether a call is in progress.
    pub(super) fn check_overdue(&mut self) -> bool {
        let Some(in_progress) = &mut self.in_progress else {
            return false;
        };
        if let Some(waited) = in_progress.unanswered.overdue(Instant::now()) {
            let what = in_progress.what;
            tracing::warn!(
                %what,
                ?waited,
                "a call of `Machine` has not returned: the VMM's code blocks there. Requests that need no device are served meanwhile"
            );
            in_progress.is_overdue = true;
            let error = in_progress.error();
            let is_reset = |waits: &Waits| matches!(waits, Waits::Reset);
            if let Some(waits) = in_progress.waits.take_if(|waits| !is_reset(waits)) {
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

    /// The error for requests to devices, if a call is overdue.
    pub(super) fn overdue(&self) -> Option<DebugError> {
        let in_progress = self.in_progress.as_ref()?;
        in_progress.is_overdue.then(|| in_progress.error())
    }

    /// The error for requests that run the guest, if a reset is in progress or queued.
    pub(super) fn resetting(&self) -> Option<DebugError> {
        let in_progress = self.in_progress.as_ref()?;
        let queued = |call: &DeviceCall| matches!(call.waits, Waits::Reset);
        (in_progress.is_reset || self.queue.iter().any(queued)).then(|| in_progress.error())
    }

    fn start_next(&mut self) {
        if self.in_progress.is_some() {
            return;
        }
        let Some(DeviceCall { what, waits, call }) = self.queue.pop_front() else {
            return;
        };
        let since = Instant::now();
        self.in_progress = Some(InProgress {
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
            results.send(
                returned.unwrap_or(Returned::Failed(DebugError::MachineFailed {
                    call: what,
                    how: MachineFailure::Panicked,
                })),
            );
        };
        if let Err(err) = (self.start)(Box::new(run)) {
            let (call, error) = (what, err.into());
            let failed = Returned::Failed(DebugError::NoThread { call, error });
            self.results.send(failed);
        }
    }
}

/// Starts a call on a thread of its own.
///
/// # Errors
/// The error of the host, if it has no thread left.
pub(super) fn on_a_thread(call: Box<dyn FnOnce() + Send>) -> io::Result<()> {
    let thread = thread::Builder::new().name("device call".into());
    thread.spawn(call).map(drop)
}

impl InProgress {
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
        let Returned::Failed(err) = returned else {
            panic!("a panic is a failure");
        };
        let panicked = DebugError::MachineFailed {
            call: MachineCall::Reset,
            how: MachineFailure::Panicked,
        };
        assert_eq!(err, panicked);
        assert!(calls.resetting().is_some());
        assert!(calls.finish().is_some());
        let returned = block_on(calls.returned());
        assert!(matches!(returned, Returned::Reset(Ok(()))));
        assert!(calls.finish().is_some());
        assert!(calls.resetting().is_none());
    }

    #[test]
    fn a_host_without_threads_is_named_as_the_cause_and_not_the_vmm() {
        let mut calls = DeviceCalls::new(|_| Err(io::Error::from_raw_os_error(libc::EAGAIN)));
        calls.ask(DeviceCall {
            what: MachineCall::Reset,
            waits: Waits::Reset,
            call: Box::new(|| panic!("not called")),
        });
        let returned = block_on(calls.returned());
        let Returned::Failed(DebugError::NoThread { call, error }) = returned else {
            panic!("no thread");
        };
        assert_eq!(call, MachineCall::Reset);
        assert_eq!(error.errno(), Some(libc::EAGAIN));
    }
}
