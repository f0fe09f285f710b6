//! The GDBs and LLDBs on this machine: the installed ones, and those that `cargo xtask debuggers` has unpacked.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

/// The kind of a debugger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// The GNU debugger.
    Gdb,
    /// LLVM's debugger.
    Lldb,
}

/// A debugger that can be started.
#[derive(Debug, Clone)]
pub struct Debugger {
    /// The name and the version, as in `gdb-16.3`.
    pub name: String,
    /// The path of the program, or of a script that starts it.
    pub program: PathBuf,
    /// The folder with the Python module `lldb`. Debian 12's LLDB looks in a folder that does not exist.
    pub python: Option<PathBuf>,
}

impl Client {
    /// The name of the program.
    pub fn program(self) -> &'static str {
        match self {
            Self::Gdb => "gdb",
            Self::Lldb => "lldb",
        }
    }

    /// All debuggers of this kind, with the installed one first. If some are missing, the reason is printed.
    pub fn all(self) -> Vec<Debugger> {
        let program = self.program();
        let own = debugger(Path::new(program));
        if own.is_none() {
            println!("SKIP: no {program}; install it with `apt-get install {program}`");
        }
        let newer: Vec<Debugger> = unpacked()
            .iter()
            .filter_map(|folder| debugger(&folder.join(program)))
            .collect();
        if newer.is_empty() && !crate::amount::is_nested() {
            println!("SKIP: no newer {program}; get some with `cargo xtask debuggers`");
        }
        own.into_iter().chain(newer).collect()
    }
}

impl Debugger {
    /// LLDB's adapter for editors, which is beside an unpacked LLDB. `None` if there is none.
    pub fn lldb_dap(&self) -> Option<Command> {
        // The adapter starts as the script starts LLDB.
        let usr = self.program.parent()?.join("root/usr");
        let adapter = std::fs::read_dir(usr.join("lib"))
            .ok()?
            .filter_map(|entry| Some(entry.ok()?.path().join("bin/lldb-dap")))
            .find(|adapter| adapter.is_file())?;
        let mut command = Command::new(usr.join("lib64/ld-linux-x86-64.so.2"));
        command
            .arg("--library-path")
            .arg(usr.join("lib/x86_64-linux-gnu"))
            .arg(adapter)
            .env("PYTHONHOME", &usr)
            .env("PYTHONDONTWRITEBYTECODE", "1");
        Some(command)
    }
}

/// The folders of `cargo xtask debuggers`, in the order of their names.
fn unpacked() -> Vec<PathBuf> {
    let cache = match std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"),
    };
    let mut folders: Vec<PathBuf> = std::fs::read_dir(cache.join("trapgate"))
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with("debuggers-"))
        })
        .collect();
    folders.sort();
    folders
}

fn debugger(program: &Path) -> Option<Debugger> {
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout);
    // `GNU gdb (Debian 13.1-3) 13.1`, `lldb version 14.0.6`.
    let version = text.lines().next()?.split_whitespace().last()?;
    let name = program.file_name()?.to_str()?;
    Some(Debugger {
        name: format!("{name}-{version}"),
        program: program.to_owned(),
        python: python_modules(program),
    })
}

/// The file that `program` starts.
fn in_path(program: &Path) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

/// `PREFIX/lib/python3*/dist-packages` of a program in `PREFIX/bin`, if the folder contains the module `lldb`.
fn python_modules(program: &Path) -> Option<PathBuf> {
    let prefix = in_path(program)?
        .canonicalize()
        .ok()?
        .parent()?
        .parent()?
        .to_owned();
    let mut found: Vec<PathBuf> = std::fs::read_dir(prefix.join("lib"))
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path().join("dist-packages")))
        .filter(|modules| modules.join("lldb/embedded_interpreter.py").is_file())
        .collect();
    found.sort();
    found.pop()
}
