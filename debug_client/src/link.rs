//! The session with the VMM: requests with a time limit, and the breakpoints that are in use.

use crate::error::Error;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::future::Shared;
use futures::select_biased;
use mesh::rpc::PendingFailableRpc;
use mesh::rpc::Rpc;
use mesh::rpc::RpcError;
use mesh::rpc::RpcSend;
use pal_async::DefaultDriver;
use pal_async::timer::Instant;
use pal_async::timer::PolledTimer;
use std::collections::HashMap;
use std::fmt;
use std::pin::pin;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use vmm_core_defs::breakpoint;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::DebugRequest;
use vmm_core_defs::session::DebugSession;

/// How a connection has ended, as text. Ready when it has ended.
pub(crate) type ConnectionEnd = Shared<BoxFuture<'static, Option<String>>>;

/// What waits for answers, without a session.
#[derive(Clone)]
pub(crate) struct Answers {
    pub(crate) driver: DefaultDriver,
    /// The time limit of each request.
    pub(crate) limit: Duration,
    /// `None` in the VMM's own process.
    pub(crate) end: Option<ConnectionEnd>,
}

impl Answers {
    /// The answer to a request, within the limit.
    pub(crate) async fn of<T>(
        &self,
        request: &'static str,
        mut pending: PendingFailableRpc<T, DebugError>,
    ) -> Result<T, Error> {
        let limit = self.limit;
        let answer = self.before(Instant::now().checked_add(limit), &mut pending);
        match answer.await {
            Some(answer) => self.checked(request, answer).await,
            None => Err(Error::NoAnswer { request, limit }),
        }
    }

    /// The output of `future`, if it comes before the deadline.
    pub(crate) async fn before<F: Future + Unpin>(
        &self,
        deadline: Option<Instant>,
        future: F,
    ) -> Option<F::Output> {
        let mut timer = PolledTimer::new(&self.driver);
        let passed = async {
            match deadline {
                Some(deadline) => drop(timer.sleep_until(deadline).await),
                None => std::future::pending().await,
            }
        };
        // race: the caller keeps a future that has not ended
        select_biased! {
            output = future.fuse() => Some(output),
            () = pin!(passed.fuse()) => None,
        }
    }

    /// The answer with the reason of a failure.
    pub(crate) async fn checked<T>(
        &self,
        request: &'static str,
        answer: Result<T, RpcError<DebugError>>,
    ) -> Result<T, Error> {
        match answer {
            Ok(answer) => Ok(answer),
            Err(RpcError::Call(source)) => Err(Error::Refused { request, source }),
            Err(RpcError::Channel(_)) => {
                let why = match &self.end {
                    Some(end) => end.clone().await,
                    None => None,
                };
                Err(Error::Gone { request, why })
            }
        }
    }
}

/// The session with the VMM. It ends when the last user drops it.
pub(crate) struct Link {
    session: DebugSession,
    pub(crate) answers: Answers,
    /// How many values of the program stand for each breakpoint in the VMM's table.
    breakpoints: Mutex<HashMap<breakpoint::Breakpoint, u32>>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

impl Link {
    pub(crate) fn new(session: DebugSession, answers: Answers) -> Self {
        Self {
            session,
            answers,
            breakpoints: Mutex::default(),
        }
    }

    /// Sends a request. Requests arrive in the order in which they are sent.
    pub(crate) fn send<I, T>(
        &self,
        request: impl FnOnce(Rpc<I, Result<T, DebugError>>) -> DebugRequest,
        input: I,
    ) -> PendingFailableRpc<T, DebugError> {
        self.session.call_failable(request, input)
    }

    /// Sends a request and waits for its answer. `what` is the request as a verb phrase.
    pub(crate) async fn call<I, T>(
        &self,
        what: &'static str,
        request: impl FnOnce(Rpc<I, Result<T, DebugError>>) -> DebugRequest,
        input: I,
    ) -> Result<T, Error> {
        let pending = self.send(request, input);
        self.answers.of(what, pending).await
    }

    pub(crate) fn breakpoints(&self) -> MutexGuard<'_, HashMap<breakpoint::Breakpoint, u32>> {
        self.breakpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
