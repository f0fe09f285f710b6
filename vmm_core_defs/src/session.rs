//! Debug sessions: each request belongs to the session of the debugger that is attached.
//!
//! ```text
//!  program                                            runner
//!     | ---- DebugMessage::Attach -------------------->  |
//!     | <--- Attached { session, info } ---------------  |  the session begins
//!     | ---- DebugMessage::InSession(id, request) ---->  |  refused unless session `id` is attached
//!     | ---- DebugRequest::Detach, or                 >  |
//!     |      DebugMessage::Lost(id) when it is dropped>  |  the session ends
//! ```

use crate::debug_rpc::AttachInfo;
use crate::debug_rpc::DebugError;
use crate::debug_rpc::DebugMessage;
use crate::debug_rpc::DebugRequest;
use crate::debug_rpc::DetachAction;
use crate::target::Target;
use mesh::rpc::PendingFailableRpc;
use mesh::rpc::RpcSend;
use serde::Deserialize;
use serde::Serialize;
use std::hash::BuildHasher;
use std::hash::RandomState;

/// The id of a debug session. A client cannot guess the id of another session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SessionId(u64);

impl SessionId {
    /// The id as a plain number.
    #[cfg(feature = "wire")]
    pub(crate) const fn number(self) -> u64 {
        self.0
    }

    #[cfg(feature = "wire")]
    pub(crate) const fn from_number(number: u64) -> Self {
        Self(number)
    }

    fn unpredictable() -> Self {
        // `RandomState` takes its keys from random bytes of the operating system, and uses other keys at each call.
        Self(RandomState::new().hash_one(()))
    }
}

/// The input of [`DebugMessage::Attach`].
#[derive(Debug)]
#[non_exhaustive]
pub struct AttachRequest {
    /// What happens to the guest if the session ends without [`DebugRequest::Detach`]. A guest that is held before its
    /// first instruction, and that no client has resumed, stays held in that case ([`DetachAction::unless_held`]).
    pub if_lost: DetachAction,
    /// The VM to which this request is sent. The requests of the session are sent to it too.
    pub requests: Target,
}

/// The answer to [`DebugMessage::Attach`].
#[derive(Debug)]
pub struct Attached {
    /// The session that has begun.
    pub session: DebugSession,
    /// The properties of the guest.
    pub info: AttachInfo,
}

/// A debug session. The owner of this value is the guest's debugger, and sends requests over it.
///
/// ```no_run
/// # async fn debug(requests: mesh::Sender<vmm_core_defs::debug_rpc::DebugMessage>) -> Result<(), Box<dyn std::error::Error>> {
/// use mesh::rpc::RpcSend as _;
/// use vmm_core_defs::addr::VpIndex;
/// use vmm_core_defs::debug_rpc::{DebugRequest, DetachAction};
/// use vmm_core_defs::session::{Attached, DebugSession};
///
/// let Attached { session, info } = DebugSession::attach(&requests, DetachAction::Resume).await?;
/// println!("{} VPs", info.stop.vps.len());
/// let state = session.call_failable(DebugRequest::GetVpState, VpIndex::BSP).await?;
/// session.call_failable(DebugRequest::Detach, DetachAction::Resume).await?;
/// # Ok(()) }
/// ```
///
/// If the value is dropped without [`DebugRequest::Detach`], the session ends after the requests that were sent before, as `Attach` said. This also holds
/// when the program that attached exits, and when an answer to `Attach` is dropped because its caller no longer waits.
#[derive(Debug)]
#[must_use = "the session ends when this is dropped"]
pub struct DebugSession {
    id: SessionId,
    requests: Target,
}

impl DebugSession {
    /// Makes the caller the guest's debugger and stops the guest. `if_lost` says what happens to the guest if the
    /// session ends without
    /// [`DebugRequest::Detach`].
    ///
    /// Dropping the future ends the session. The errors are those of [`DebugMessage::Attach`].
    pub fn attach(
        requests: &(impl Clone + Into<Target>),
        if_lost: DetachAction,
    ) -> PendingFailableRpc<Attached, DebugError> {
        let target: Target = requests.clone().into();
        let requests = target.clone();
        let request = AttachRequest { if_lost, requests };
        target.call_failable(DebugMessage::Attach, request)
    }

    /// Begins a session. The VM's side answers [`DebugMessage::Attach`] with the result. The session sends its
    /// requests, and the message that it was dropped, to `requests`.
    pub fn begin(requests: impl Into<Target>) -> Self {
        let requests = requests.into();
        let id = SessionId::unpredictable();
        Self { id, requests }
    }

    /// A session that the VM has begun. Its requests are sent to `requests`.
    #[cfg(feature = "wire")]
    pub(crate) const fn begun(id: SessionId, requests: Target) -> Self {
        Self { id, requests }
    }

    /// The id of this session.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Whether the VM is gone.
    pub fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }
}

impl Drop for DebugSession {
    fn drop(&mut self) {
        self.requests.send(DebugMessage::Lost(self.id));
    }
}

impl RpcSend for &DebugSession {
    type Message = DebugRequest;

    fn send_rpc(self, request: DebugRequest) {
        self.requests
            .send(DebugMessage::InSession(self.id, request));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_two_sessions_have_the_same_id_and_a_dropped_one_is_heard_of_once() {
        let (requests, mut heard) = mesh::channel();
        let sessions: Vec<_> = (0..1000)
            .map(|_| DebugSession::begin(requests.clone()))
            .collect();
        let ids: HashSet<_> = sessions.iter().map(DebugSession::id).collect();
        assert_eq!(ids.len(), 1000);
        let numbers: Vec<_> = sessions.iter().map(|session| session.id.0).collect();
        let steps: HashSet<_> = numbers
            .windows(2)
            .map(|two| two[1].wrapping_sub(two[0]))
            .collect();
        assert!(steps.len() > 990, "the next id follows from this one");
        for session in sessions {
            let id = session.id();
            assert!(heard.try_recv().is_err());
            drop(session);
            assert!(matches!(heard.try_recv(), Ok(DebugMessage::Lost(lost)) if lost == id));
        }
        assert!(heard.try_recv().is_err());
    }

    #[test]
    fn the_end_of_a_session_is_heard_of_after_its_requests() {
        let (requests, mut heard) = mesh::channel();
        let session = DebugSession::begin(requests);
        drop(session.call_failable(DebugRequest::Detach, DetachAction::Kill));
        drop(session);
        assert!(matches!(
            heard.try_recv(),
            Ok(DebugMessage::InSession(_, DebugRequest::Detach(_)))
        ));
        assert!(matches!(heard.try_recv(), Ok(DebugMessage::Lost(_))));
    }
}
