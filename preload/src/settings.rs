//! What `trapgate exec` tells the library, in variables of the environment. `reference_vmm/trapgate/src/exec/environment.rs` writes them.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;
use vmm_core_defs::debug_rpc::DetachAction;

/// The address of the debug server. Without this variable the library does nothing.
pub(crate) const GDB: &str = "TRAPGATE_EXEC_GDB";
/// The process that `trapgate exec` was, and that the VMM becomes. The library does nothing in another one.
pub(crate) const PROCESS: &str = "TRAPGATE_EXEC_PROCESS";
/// Present if the guest is held before its first instruction.
pub(crate) const WAIT: &str = "TRAPGATE_EXEC_WAIT";
/// What to log on standard error, in the language of `tracing_subscriber::EnvFilter`.
pub(crate) const LOG: &str = "TRAPGATE_EXEC_LOG";
/// Present if each line of the log is a JSON object.
pub(crate) const LOG_JSON: &str = "TRAPGATE_EXEC_LOG_JSON";
/// What happens to the guest when its debugger is lost: `resume`, `stop` or `kill`.
pub(crate) const ON_DISCONNECT: &str = "TRAPGATE_EXEC_ON_DISCONNECT";
/// The time limit of a client that sends or reads nothing, in seconds.
pub(crate) const IDLE_TIMEOUT: &str = "TRAPGATE_EXEC_IDLE_TIMEOUT";
/// Present if other machines may reach the debug server.
pub(crate) const ALLOW_NETWORK: &str = "TRAPGATE_EXEC_ALLOW_NETWORK";
/// The ids of the other users that are admitted, with commas between them.
pub(crate) const ALLOW_USERS: &str = "TRAPGATE_EXEC_ALLOW_USERS";
/// The socket of the OpenMetrics endpoint.
pub(crate) const METRICS: &str = "TRAPGATE_EXEC_METRICS";
/// The socket for programs.
pub(crate) const RPC: &str = "TRAPGATE_EXEC_RPC";
/// The folder for core files.
pub(crate) const DUMP_DIR: &str = "TRAPGATE_EXEC_DUMP_DIR";
/// The file with the symbols of the guest.
pub(crate) const SYMBOLS: &str = "TRAPGATE_EXEC_SYMBOLS";
/// The value that `LD_PRELOAD` had before.
pub(crate) const LD_PRELOAD_BEFORE: &str = "TRAPGATE_EXEC_LD_PRELOAD";
/// The folder in which servers announce themselves, by the XDG base directory specification. Not of `trapgate exec`.
const RUNTIME_DIR: &str = "XDG_RUNTIME_DIR";
/// The variable of the dynamic linker.
pub(crate) const LD_PRELOAD: &str = "LD_PRELOAD";

/// All variables that the library removes, so that the VMM's children do not see them.
pub(crate) const OURS: [&str; 14] = [
    GDB,
    PROCESS,
    WAIT,
    LOG,
    LOG_JSON,
    METRICS,
    RPC,
    ON_DISCONNECT,
    IDLE_TIMEOUT,
    ALLOW_NETWORK,
    ALLOW_USERS,
    DUMP_DIR,
    SYMBOLS,
    LD_PRELOAD_BEFORE,
];

/// The settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The address of the debug server, as the user has written it.
    pub(crate) gdb: String,
    /// The process whose VMs are debugged.
    pub(crate) process: u32,
    /// Whether the guest is held before its first instruction.
    pub(crate) wait: bool,
    /// What to log.
    pub(crate) log: Option<String>,
    /// Whether each line of the log is a JSON object.
    pub(crate) log_json: bool,
    /// The address of the OpenMetrics endpoint of the first VM.
    pub(crate) metrics: Option<String>,
    /// The address of the socket for programs of the first VM.
    pub(crate) rpc: Option<String>,
    /// What happens to the guest when its debugger is lost.
    pub(crate) on_disconnect: DetachAction,
    /// The time limit of a client that sends or reads nothing. `None`: the usual one.
    pub(crate) idle_timeout: Option<Duration>,
    /// Whether other machines may reach the debug server.
    pub(crate) allow_network: bool,
    /// The other users that are admitted.
    pub(crate) allow_users: Vec<u32>,
    /// The folder for core files.
    pub(crate) dump_folder: Option<PathBuf>,
    /// The file with the symbols of the guest.
    pub(crate) symbols: Option<PathBuf>,
    /// The folder in which the server announces itself.
    pub(crate) runtime_dir: Option<PathBuf>,
    /// What `LD_PRELOAD` becomes for the VMM's children.
    pub(crate) ld_preload: Option<OsString>,
}

impl Settings {
    /// Reads the variables. `None` if `trapgate exec` has not started this program.
    pub(crate) fn read(variable: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        let text = |name| variable(name).and_then(|value| value.into_string().ok());
        Some(Self {
            gdb: variable(GDB)?.into_string().ok()?,
            process: variable(PROCESS)?.to_str()?.parse().ok()?,
            wait: variable(WAIT).is_some(),
            log: text(LOG),
            log_json: variable(LOG_JSON).is_some(),
            metrics: text(METRICS),
            rpc: text(RPC),
            on_disconnect: match text(ON_DISCONNECT).as_deref() {
                Some("stop") => DetachAction::Stay,
                Some("kill") => DetachAction::Kill,
                _ => DetachAction::Resume,
            },
            idle_timeout: text(IDLE_TIMEOUT)
                .and_then(|seconds| seconds.parse().ok())
                .map(Duration::from_secs),
            allow_network: variable(ALLOW_NETWORK).is_some(),
            allow_users: text(ALLOW_USERS)
                .unwrap_or_default()
                .split(',')
                .filter_map(|user| user.parse().ok())
                .collect(),
            dump_folder: variable(DUMP_DIR).map(PathBuf::from),
            symbols: variable(SYMBOLS).map(PathBuf::from),
            runtime_dir: variable(RUNTIME_DIR).map(PathBuf::from),
            ld_preload: variable(LD_PRELOAD_BEFORE),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Option<Settings> {
        Settings::read(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.into())
        })
    }

    #[test]
    fn a_program_that_trapgate_exec_has_not_started_has_no_settings() {
        assert_eq!(read(&[("LD_PRELOAD", "a.so"), (WAIT, "1")]), None);
        assert_eq!(read(&[(GDB, "127.0.0.1:0"), (PROCESS, "mine")]), None);
    }

    #[test]
    fn every_variable_has_its_effect() {
        let plain = read(&[(GDB, "127.0.0.1:0"), (PROCESS, "4711")]).expect("settings");
        assert_eq!((plain.gdb.as_str(), plain.process), ("127.0.0.1:0", 4711));
        assert_eq!(
            (plain.wait, plain.log, plain.ld_preload),
            (false, None, None)
        );
        let all = [
            (GDB, "unix:/run/a"),
            (PROCESS, "1"),
            (WAIT, "1"),
            (LOG, "rsp=trace"),
            (LOG_JSON, "1"),
            (METRICS, "unix:/run/m"),
            (RPC, "unix:/run/r"),
            (ON_DISCONNECT, "stop"),
            (IDLE_TIMEOUT, "7"),
            (ALLOW_NETWORK, "1"),
            (ALLOW_USERS, "0,1234"),
            (DUMP_DIR, "/dumps"),
            (SYMBOLS, "/vmlinux"),
            (RUNTIME_DIR, "/run/user/1"),
            (LD_PRELOAD_BEFORE, "b.so"),
        ];
        let all = read(&all).expect("settings");
        assert!(all.log_json && !plain.log_json);
        assert_eq!(
            (all.metrics.as_deref(), plain.metrics),
            (Some("unix:/run/m"), None)
        );
        assert_eq!((all.rpc.as_deref(), plain.rpc), (Some("unix:/run/r"), None));
        assert!(all.wait && all.allow_network && !plain.allow_network);
        assert_eq!(plain.on_disconnect, DetachAction::Resume);
        assert_eq!(all.on_disconnect, DetachAction::Stay);
        let kill = read(&[
            (GDB, "127.0.0.1:0"),
            (PROCESS, "1"),
            (ON_DISCONNECT, "kill"),
        ]);
        assert_eq!(kill.expect("settings").on_disconnect, DetachAction::Kill);
        assert_eq!(all.idle_timeout, Some(Duration::from_secs(7)));
        assert_eq!(all.allow_users, [0, 1234]);
        assert_eq!(all.dump_folder, Some("/dumps".into()));
        assert_eq!(
            (all.symbols, plain.symbols),
            (Some("/vmlinux".into()), None)
        );
        assert_eq!(all.runtime_dir, Some("/run/user/1".into()));
        assert_eq!(all.log.as_deref(), Some("rsp=trace"));
        assert_eq!(all.ld_preload, Some("b.so".into()));
    }
}
