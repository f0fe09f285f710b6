//! What a debug server is given: its socket, its VM, and the settings of its sessions.

use crate::listener::DebugListener;
use crate::statistics::Statistics;
use crate::symbol_file::SymbolFile;
use std::path::PathBuf;
use std::time::Duration;
use vmm_core_defs::debug_rpc::DetachAction;
use vmm_core_defs::target::Target;

/// The parameters of a debug server.
#[derive(Debug)]
#[non_exhaustive]
pub struct DebuggerParameters {
    /// The socket on which clients connect.
    pub listener: DebugListener,
    /// The VM: a channel to its controller, or a connection to another process.
    pub requests: Target,
    /// The settings of all sessions.
    pub settings: SessionSettings,
    /// The counters of the server. The VMM may keep a clone.
    pub statistics: Statistics,
    /// A unix socket on which the server answers `GET /metrics` with the counters, as OpenMetrics text.
    #[cfg(feature = "open-metrics")]
    pub metrics: Option<DebugListener>,
}

impl DebuggerParameters {
    /// The parameters of a server with the default settings.
    pub fn new(listener: DebugListener, requests: impl Into<Target>) -> Self {
        Self {
            listener,
            requests: requests.into(),
            settings: SessionSettings::default(),
            statistics: Statistics::default(),
            #[cfg(feature = "open-metrics")]
            metrics: None,
        }
    }
}

/// The settings of all sessions. Begin with the default, and set the fields that differ.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SessionSettings {
    /// What happens to the guest when a client is lost or sends `k`. After GDB's `detach` the guest always runs on.
    pub on_disconnect: DetachAction,
    /// The time limit of every request to the VM but `Resume`.
    pub rpc_deadline: Duration,
    /// The maximum time to a client's first packet, and the maximum time for which a client may leave bytes of the
    /// server unread. A client that has sent a packet may be silent for any time.
    pub idle_timeout: Duration,
    /// The time that a client waits for the present client before it is refused. If the present client is already gone,
    /// the waiting client waits for the end of the session.
    pub refuse_after: Duration,
    /// The folder on this machine in which `monitor dump` may create files. A client chooses the names, and cannot
    /// overwrite a file. With `None` the command is refused.
    pub dump_folder: Option<PathBuf>,
    /// The file with the symbols of the guest, which GDB may read from the server.
    pub symbols: Option<SymbolFile>,
}

impl Default for SessionSettings {
    /// The guest runs on; the time limits are 5 s, 30 s and 0.5 s; no dumps, and no symbols.
    fn default() -> Self {
        Self {
            on_disconnect: DetachAction::Resume,
            rpc_deadline: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(30),
            refuse_after: Duration::from_millis(500),
            dump_folder: None,
            symbols: None,
        }
    }
}
