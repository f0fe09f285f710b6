//! Which debug session began last, and how it ends where it is lost.

use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::DetachAction;
use vmm_core_defs::session::SessionId;

/// Whether a debugger is attached is the state machine's to say.
#[derive(Debug, Default)]
pub(super) struct SessionDesk {
    last: Option<LastSession>,
}

#[derive(Debug)]
struct LastSession {
    id: SessionId,
    if_lost: DetachAction,
}

impl SessionDesk {
    /// A debugger attaches.
    pub(super) fn begin(&mut self, id: SessionId, if_lost: DetachAction) {
        // Whoever loses a session did not choose the moment: a guest that is held stays held (I6).
        let if_lost = if_lost.unless_held();
        self.last = Some(LastSession { id, if_lost });
    }

    /// How the session ends where it is lost.
    ///
    /// # Errors
    /// [`DebugError::NotYourSession`] where another one has begun since, or this one never did.
    pub(super) fn check(&self, id: SessionId) -> Result<DetachAction, DebugError> {
        match &self.last {
            Some(last) if last.id == id => Ok(last.if_lost),
            _ => Err(DebugError::NotYourSession),
        }
    }
}
