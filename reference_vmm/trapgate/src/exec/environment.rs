//! What the preloaded library is told, in variables of the environment. `preload/src/settings.rs` reads them.

use crate::cli::ExecArgs;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

/// The address of the debug server.
const GDB: &str = "TRAPGATE_EXEC_GDB";
/// Present if the guest is held before its first instruction.
const WAIT: &str = "TRAPGATE_EXEC_WAIT";
/// What to log on standard error.
const LOG: &str = "TRAPGATE_EXEC_LOG";
/// The value that `LD_PRELOAD` had before. The library puts it back, so that the VMM's children do not load the library.
const LD_PRELOAD_BEFORE: &str = "TRAPGATE_EXEC_LD_PRELOAD";
/// The variable of the dynamic linker.
const LD_PRELOAD: &str = "LD_PRELOAD";

/// Sets the variables for the VMM.
pub(super) fn set(command: &mut Command, args: &ExecArgs, library: &Path) {
    for name in [WAIT, LOG, LD_PRELOAD_BEFORE] {
        command.env_remove(name);
    }
    command.env(GDB, args.gdb.to_string());
    if args.wait {
        command.env(WAIT, "1");
    }
    if let Some(filter) = &args.log {
        command.env(LOG, filter);
    }
    let before = std::env::var_os(LD_PRELOAD);
    if let Some(before) = &before {
        command.env(LD_PRELOAD_BEFORE, before);
    }
    command.env(LD_PRELOAD, preload(library.as_os_str(), before.as_deref()));
}

/// The library first: it is to see the VMM's calls before another preloaded library does (ld.so(8)).
fn preload(library: &OsStr, before: Option<&OsStr>) -> OsString {
    let mut value = library.to_owned();
    if let Some(before) = before.filter(|before| !before.is_empty()) {
        value.push(":");
        value.push(before);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_preloaded_libraries_stay() {
        let value = |before: Option<&str>| preload("/a/b.so".as_ref(), before.map(OsStr::new));
        assert_eq!(value(None), "/a/b.so");
        assert_eq!(value(Some("")), "/a/b.so");
        assert_eq!(value(Some("x.so y.so")), "/a/b.so:x.so y.so");
    }
}
