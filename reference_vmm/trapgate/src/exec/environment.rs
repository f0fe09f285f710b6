//! What the preloaded library is told, in variables of the environment. `preload/src/settings.rs` reads them.

use crate::cli::ExecArgs;
use crate::cli::debug_args::OnDisconnect;
use crate::cli::debug_args::ServerArgs;
use debug_worker::ListenAddress;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

/// The address of the debug server.
const GDB: &str = "TRAPGATE_EXEC_GDB";
/// This process, which the VMM takes over. The library does nothing in a child that has got the variables.
const PROCESS: &str = "TRAPGATE_EXEC_PROCESS";
/// Present if the guest is held before its first instruction.
const WAIT: &str = "TRAPGATE_EXEC_WAIT";
/// What to log on standard error.
const LOG: &str = "TRAPGATE_EXEC_LOG";
/// Present if each line of the log is a JSON object.
const LOG_JSON: &str = "TRAPGATE_EXEC_LOG_JSON";
/// What happens to the guest when its debugger is lost.
const ON_DISCONNECT: &str = "TRAPGATE_EXEC_ON_DISCONNECT";
/// The time limit of a client that sends or reads nothing, in seconds.
const IDLE_TIMEOUT: &str = "TRAPGATE_EXEC_IDLE_TIMEOUT";
/// Present if other machines may reach the debug server.
const ALLOW_NETWORK: &str = "TRAPGATE_EXEC_ALLOW_NETWORK";
/// The ids of the other users that are admitted, with commas between them.
const ALLOW_USERS: &str = "TRAPGATE_EXEC_ALLOW_USERS";
/// The socket of the OpenMetrics endpoint.
const METRICS: &str = "TRAPGATE_EXEC_METRICS";
/// The socket for programs.
const RPC: &str = "TRAPGATE_EXEC_RPC";
/// The folder for core files.
const DUMP_DIR: &str = "TRAPGATE_EXEC_DUMP_DIR";
/// The file with the symbols of the guest.
const SYMBOLS: &str = "TRAPGATE_EXEC_SYMBOLS";
/// The value that `LD_PRELOAD` had before. The library puts it back, so that the VMM's children do not load the library.
const LD_PRELOAD_BEFORE: &str = "TRAPGATE_EXEC_LD_PRELOAD";
/// The variable of the dynamic linker.
const LD_PRELOAD: &str = "LD_PRELOAD";

/// Sets the variables for the VMM.
pub(super) fn set(command: &mut Command, args: &ExecArgs, library: &Path) {
    for name in [
        WAIT,
        LOG,
        LOG_JSON,
        METRICS,
        RPC,
        ALLOW_NETWORK,
        ALLOW_USERS,
        DUMP_DIR,
        SYMBOLS,
        LD_PRELOAD_BEFORE,
    ] {
        command.env_remove(name);
    }
    command.env(GDB, absolute(&args.gdb).to_string());
    command.env(PROCESS, std::process::id().to_string());
    if args.wait {
        command.env(WAIT, "1");
    }
    if let Some(log) = &args.log.log {
        command.env(LOG, log.filter.as_deref().unwrap_or("error"));
        if log.json {
            command.env(LOG_JSON, "1");
        }
    }
    set_server(command, &args.server);
    let before = std::env::var_os(LD_PRELOAD);
    if let Some(before) = &before {
        command.env(LD_PRELOAD_BEFORE, before);
    }
    command.env(LD_PRELOAD, preload(library.as_os_str(), before.as_deref()));
}

fn set_server(command: &mut Command, server: &ServerArgs) {
    let on_disconnect = match server.on_disconnect {
        OnDisconnect::Resume => "resume",
        OnDisconnect::Stop => "stop",
        OnDisconnect::Kill => "kill",
    };
    command.env(ON_DISCONNECT, on_disconnect);
    command.env(IDLE_TIMEOUT, server.idle_timeout.to_string());
    if server.gdb_allow_network {
        command.env(ALLOW_NETWORK, "1");
    }
    let users = server.gdb_allow_user.iter();
    let users: Vec<String> = users.map(|user| user.0.to_string()).collect();
    if !users.is_empty() {
        command.env(ALLOW_USERS, users.join(","));
    }
    if let Some(address) = &server.metrics {
        command.env(METRICS, absolute(address).to_string());
    }
    if let Some(address) = &server.rpc {
        command.env(RPC, absolute(address).to_string());
    }
    if let Some(folder) = &server.dump_dir {
        let absolute = std::path::absolute(folder);
        command.env(DUMP_DIR, absolute.unwrap_or_else(|_| folder.clone()));
    }
    if let Some(file) = &server.symbols {
        let absolute = std::path::absolute(file);
        command.env(SYMBOLS, absolute.unwrap_or_else(|_| file.clone()));
    }
}

/// The VMM may change its working folder before it creates a VM (QEMU's `-daemonize` does).
fn absolute(address: &ListenAddress) -> ListenAddress {
    match address {
        ListenAddress::Unix(path) => {
            let absolute = std::path::absolute(path);
            ListenAddress::Unix(absolute.unwrap_or_else(|_| path.clone()))
        }
        ListenAddress::Tcp(_) => address.clone(),
    }
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
    fn the_path_of_a_socket_does_not_depend_on_the_working_folder() {
        let relative: ListenAddress = "unix:gdb.sock".parse().expect("an address");
        let ListenAddress::Unix(path) = absolute(&relative) else {
            panic!("no path");
        };
        let here = std::env::current_dir().expect("a folder");
        assert_eq!(path, here.join("gdb.sock"));
    }

    #[test]
    fn other_preloaded_libraries_stay() {
        let value = |before: Option<&str>| preload("/a/b.so".as_ref(), before.map(OsStr::new));
        assert_eq!(value(None), "/a/b.so");
        assert_eq!(value(Some("")), "/a/b.so");
        assert_eq!(value(Some("x.so y.so")), "/a/b.so:x.so y.so");
    }
}
