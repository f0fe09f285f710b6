//! The settings of a session.

use std::time::Duration;
use vmm_core_defs::debug_rpc::DetachAction;

/// The settings of a session. Begin with the default, and set the fields that differ.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// What happens to the guest when the program is gone or drops its debugger. A guest that is held before its first instruction, and that the program has not
    /// run, stays held.
    pub if_lost: DetachAction,
    /// The time limit of each request, and of the steps of one [`step_n`](crate::Debugger::step_n). Another run of the guest has a limit of its own.
    pub request_limit: Duration,
}

impl Default for Options {
    /// The guest runs on; 10 s.
    fn default() -> Self {
        Self {
            if_lost: DetachAction::Resume,
            request_limit: Duration::from_secs(10),
        }
    }
}
