//! The debug session that began last, and how this session ends if it is lost.

use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::DetachAction;
use vmm_core_defs::session::SessionId;

/// The session may have ended already. `RunState` knows whether a debugger is attached.
#[derive(Debug, Default)]
pub(super) struct LatestSession {
    last: Option<LastSession>,
}

#[derive(Debug)]
struct LastSession {
    id: SessionId,
    if_lost: DetachAction,
}

impl LatestSession {
    /// A debugger attaches.
    pub(super) fn begin(&mut self, id: SessionId, if_lost: DetachAction) {
        // A debugger does not choose the moment at which it is lost, so a guest that is held stays held (I6).
        let if_lost = if_lost.unless_held();
        self.last = Some(LastSession { id, if_lost });
    }

    /// The action for the guest if this session is lost.
    ///
    /// # Errors
    /// [`DebugError::NotYourSession`] if this session never began, or another session has begun since.
    pub(super) fn check(&self, id: SessionId) -> Result<DetachAction, DebugError> {
        match &self.last {
            Some(last) if last.id == id => Ok(last.if_lost),
            _ => Err(DebugError::NotYourSession),
        }
    }
}
