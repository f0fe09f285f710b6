//! `trapgate gdb` and `trapgate lldb`: a debugger with the connection to a VM that runs, and with the symbols of the guest.

use crate::cli::ClientArgs;
use crate::exit_status::ExitStatus;
use crate::search_path;
use crate::session_text::quoted;
use debug_worker::ListenAddress;
use debug_worker::RunningServer;
use debug_worker::running_servers;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use thiserror::Error;

/// A debugger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    /// The GNU debugger.
    Gdb,
    /// LLVM's debugger.
    Lldb,
}

/// The name of the program, of its package in Debian, and of the command.
impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gdb => "gdb",
            Self::Lldb => "lldb",
        })
    }
}

/// The reason why the debugger was not started. A debugger that was started has taken the place of this program.
#[derive(Debug, Error)]
pub(crate) enum ClientError {
    /// There is no folder in which servers announce themselves.
    #[error(
        "running VMs cannot be found without XDG_RUNTIME_DIR, which `pam_systemd` sets at the login; name the address that the VM has printed: `trapgate {0} --connect ADDR`"
    )]
    NoRuntimeDir(Client),
    /// The folder cannot be used.
    #[error(
        "running VMs cannot be found in the folder of XDG_RUNTIME_DIR; name the address that the VM has printed: `trapgate {client} --connect ADDR`"
    )]
    Folder {
        /// The debugger.
        client: Client,
        /// What is wrong.
        source: io::Error,
    },
    /// No server runs.
    #[error(
        "no VM of this user runs with a debug server; start one with `trapgate run --gdb ADDR` or `trapgate exec --gdb ADDR -- VMM`, or name an address: `trapgate {0} --connect ADDR`"
    )]
    NoServer(Client),
    /// The user has to choose.
    #[error("several VMs run; choose one:{}", list(*client, servers))]
    Several {
        /// The debugger.
        client: Client,
        /// The servers.
        servers: Vec<RunningServer>,
    },
    /// The debugger cannot be told of the path.
    #[error(
        "{client} cannot be given the path {path:?}, because of {what} in it; use another path"
    )]
    Path {
        /// The debugger.
        client: Client,
        /// The path.
        path: PathBuf,
        /// The part that the debugger would take for something else.
        what: &'static str,
    },
    /// The symbols cannot be read.
    #[error("cannot read the symbols in {}; check the path given to --symbols", path.display())]
    Symbols {
        /// The path.
        path: PathBuf,
        /// The host's error.
        source: io::Error,
    },
    /// The debugger is not installed.
    #[error(
        "there is no program {0} in PATH; install it (on Debian: `apt-get install {0}`), or name another one by --program"
    )]
    NotInstalled(Client),
    /// There is no program of the user's name.
    #[error("there is no program {}; give --program a path, or a name in PATH", .0.display())]
    NoProgram(PathBuf),
    /// The kernel did not start the program.
    #[error("cannot start {}; check that you may execute it", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// The host's error.
        source: io::Error,
    },
}

fn list(client: Client, servers: &[RunningServer]) -> String {
    let line = |server: &RunningServer| {
        let address = quoted(&server.address.to_string());
        let RunningServer { process, guest, .. } = server;
        format!("\n  trapgate {client} --connect {address}   (process {process}: {guest})")
    };
    servers.iter().map(line).collect()
}

impl ClientError {
    /// The exit status of the program for this error.
    pub(crate) const fn status(&self) -> ExitStatus {
        ExitStatus::BadInput
    }
}

/// The value of `XDG_RUNTIME_DIR`.
pub(crate) fn runtime_dir() -> Option<PathBuf> {
    let value = std::env::var_os("XDG_RUNTIME_DIR")?;
    (!value.is_empty()).then(|| value.into())
}

/// Runs the debugger in place of this program, so that the terminal and its signals are the debugger's. Returns if that is not possible.
pub(crate) fn start(client: Client, args: &ClientArgs) -> ClientError {
    let mut command = match command(client, args) {
        Ok(command) => command,
        Err(error) => return error,
    };
    let program = command.get_program().into();
    let source = command.exec();
    ClientError::Start { program, source }
}

fn command(client: Client, args: &ClientArgs) -> Result<Command, ClientError> {
    let (address, known_symbols) = server(client, args)?;
    let symbols = match &args.symbols {
        Some(path) => Some(readable(path)?),
        None => known_symbols.and_then(|path| match readable(&path) {
            Ok(path) => Some(path),
            Err(error) => {
                let _ = writeln!(io::stderr(), "trapgate: no symbols: {error}");
                None
            }
        }),
    };
    let mut command = Command::new(program(client, args)?);
    match client {
        Client::Gdb => {
            command.arg("-ex").arg(gdb_connects(&address)?);
            if let Some(symbols) = symbols {
                command.arg("-se").arg(symbols);
            }
        }
        Client::Lldb => {
            command.arg("-o").arg(lldb_connects(&address)?);
            if let Some(symbols) = symbols {
                lldb_takes(&symbols)?;
                command.arg("-f").arg(symbols);
            }
        }
    }
    command.args(&args.args);
    Ok(command)
}

/// The address of the server, and the symbols of its guest as far as they are known.
fn server(
    client: Client,
    args: &ClientArgs,
) -> Result<(ListenAddress, Option<PathBuf>), ClientError> {
    let running = match runtime_dir() {
        Some(folder) => {
            running_servers(&folder).map_err(|source| ClientError::Folder { client, source })
        }
        None => Err(ClientError::NoRuntimeDir(client)),
    };
    let Some(wanted) = &args.connect else {
        let mut servers = running?;
        return match (servers.pop(), servers.is_empty()) {
            (None, _) => Err(ClientError::NoServer(client)),
            (Some(server), true) => Ok((server.address, server.symbols)),
            (Some(server), false) => {
                servers.push(server);
                Err(ClientError::Several { client, servers })
            }
        };
    };
    let wanted = match wanted {
        ListenAddress::Unix(path) => ListenAddress::Unix(absolute(path)),
        ListenAddress::Tcp(_) => wanted.clone(),
    };
    let servers = running.unwrap_or_default().into_iter();
    let symbols = servers
        .filter(|server| server.address == wanted)
        .find_map(|server| server.symbols);
    Ok((wanted, symbols))
}

/// A path that cannot be made absolute is one without characters. No program takes the absolute path for an option.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn readable(path: &Path) -> Result<PathBuf, ClientError> {
    match File::open(path) {
        Ok(_) => Ok(absolute(path)),
        Err(source) => Err(ClientError::Symbols {
            path: path.to_owned(),
            source,
        }),
    }
}

fn program(client: Client, args: &ClientArgs) -> Result<PathBuf, ClientError> {
    let name = client.to_string();
    match &args.program {
        Some(program) if program.as_os_str().as_bytes().contains(&b'/') => Ok(program.clone()),
        Some(program) => search_path::find(program.as_os_str())
            .ok_or_else(|| ClientError::NoProgram(program.clone())),
        None => search_path::find(name.as_ref())
            .or_else(|| search_path::newest(&name))
            .ok_or(ClientError::NotInstalled(client)),
    }
}

/// GDB takes a name with a colon for that of a host, and removes space at its end. The absolute path cannot begin with `|`, which would name a command.
fn gdb_connects(address: &ListenAddress) -> Result<OsString, ClientError> {
    let mut command = OsString::from("target remote ");
    match address {
        ListenAddress::Tcp(address) => command.push(address.to_string()),
        ListenAddress::Unix(path) => {
            let bytes = path.as_os_str().as_bytes();
            let what = match bytes {
                _ if bytes.iter().any(u8::is_ascii_control) => Some("a control character"),
                _ if bytes.contains(&b':') => Some("a colon"),
                _ if bytes.ends_with(b" ") => Some("a space at the end"),
                _ => None,
            };
            refuse(Client::Gdb, path, what)?;
            command.push(path);
        }
    }
    Ok(command)
}

fn lldb_connects(address: &ListenAddress) -> Result<OsString, ClientError> {
    match address {
        ListenAddress::Tcp(address) => Ok(format!("gdb-remote {address}").into()),
        ListenAddress::Unix(path) => {
            lldb_takes(path)?;
            let mut command =
                OsString::from("process connect --plugin gdb-remote \"unix-connect://");
            command.push(path);
            command.push("\"");
            Ok(command)
        }
    }
}

/// LLDB evaluates what stands between backticks, and ends a command at the end of a line.
fn lldb_takes(path: &Path) -> Result<(), ClientError> {
    let bytes = path.as_os_str().as_bytes();
    let what = match bytes {
        _ if bytes.iter().any(u8::is_ascii_control) => Some("a control character"),
        _ if bytes.iter().any(|byte| b"\"\\`".contains(byte)) => {
            Some("a quotation mark, a backslash or a backtick")
        }
        _ => None,
    };
    refuse(Client::Lldb, path, what)
}

fn refuse(client: Client, path: &Path, what: Option<&'static str>) -> Result<(), ClientError> {
    match what {
        None => Ok(()),
        Some(what) => Err(ClientError::Path {
            client,
            path: path.to_owned(),
            what,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(path: &str) -> ListenAddress {
        ListenAddress::Unix(path.into())
    }

    #[test]
    fn a_debugger_gets_no_path_that_it_would_take_for_more_than_a_path() {
        let gdb = |path| gdb_connects(&unix(path)).map_err(|error| error.to_string());
        let lldb = |path| lldb_connects(&unix(path)).map_err(|error| error.to_string());
        assert_eq!(gdb("/run/a b"), Ok("target remote /run/a b".into()));
        let connect = "process connect --plugin gdb-remote \"unix-connect:///run/a b\"";
        assert_eq!(lldb("/run/a b"), Ok(connect.into()));
        for (path, for_gdb, for_lldb) in [
            ("/x\nshell touch y", "control", "control"),
            ("/x:1", "a colon", ""),
            ("/x ", "a space", ""),
            ("/`x`", "", "backtick"),
            ("/\"x", "", "quotation"),
            ("/x\\", "", "backslash"),
        ] {
            for (result, why) in [(gdb(path), for_gdb), (lldb(path), for_lldb)] {
                let text = result.map_or_else(|error| error, |_| String::new());
                assert_eq!(text.is_empty(), why.is_empty(), "{path:?}: {text}");
                assert!(
                    text.contains(why) && !text.contains('\n'),
                    "{path:?}: {text}"
                );
            }
        }
    }
}
