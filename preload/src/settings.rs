//! What `trapgate exec` tells the library, in variables of the environment. `reference_vmm/trapgate/src/exec/environment.rs` writes them.

use std::ffi::OsString;

/// The address of the debug server. Without this variable the library does nothing.
pub(crate) const GDB: &str = "TRAPGATE_EXEC_GDB";
/// Present if the guest is held before its first instruction.
pub(crate) const WAIT: &str = "TRAPGATE_EXEC_WAIT";
/// What to log on standard error, in the language of `tracing_subscriber::EnvFilter`.
pub(crate) const LOG: &str = "TRAPGATE_EXEC_LOG";
/// The value that `LD_PRELOAD` had before.
pub(crate) const LD_PRELOAD_BEFORE: &str = "TRAPGATE_EXEC_LD_PRELOAD";
/// The variable of the dynamic linker.
pub(crate) const LD_PRELOAD: &str = "LD_PRELOAD";

/// All variables that the library removes, so that the VMM's children do not see them.
pub(crate) const OURS: [&str; 4] = [GDB, WAIT, LOG, LD_PRELOAD_BEFORE];

/// The settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The address of the debug server, as the user has written it.
    pub(crate) gdb: String,
    /// Whether the guest is held before its first instruction.
    pub(crate) wait: bool,
    /// What to log.
    pub(crate) log: Option<String>,
    /// What `LD_PRELOAD` becomes for the VMM's children.
    pub(crate) ld_preload: Option<OsString>,
}

impl Settings {
    /// Reads the variables. `None` if `trapgate exec` has not started this program.
    pub(crate) fn read(variable: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        Some(Self {
            gdb: variable(GDB)?.into_string().ok()?,
            wait: variable(WAIT).is_some(),
            log: variable(LOG).and_then(|filter| filter.into_string().ok()),
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
    }

    #[test]
    fn every_variable_has_its_effect() {
        let plain = read(&[(GDB, "127.0.0.1:0")]).expect("settings");
        assert_eq!(plain.gdb, "127.0.0.1:0");
        assert_eq!(
            (plain.wait, plain.log, plain.ld_preload),
            (false, None, None)
        );
        let all = [
            (GDB, "unix:/run/a"),
            (WAIT, "1"),
            (LOG, "rsp=trace"),
            (LD_PRELOAD_BEFORE, "b.so"),
        ];
        let all = read(&all).expect("settings");
        assert!(all.wait);
        assert_eq!(all.log.as_deref(), Some("rsp=trace"));
        assert_eq!(all.ld_preload, Some("b.so".into()));
    }
}
