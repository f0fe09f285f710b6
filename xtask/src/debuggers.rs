//! `cargo xtask debuggers`: unpacks the GDB and LLDB of newer Debian releases. The debuggers of this machine are not changed.
//!
//! Each release is one artefact in the cache. `gdb` and `lldb` at its top are shell scripts that start the programs with the libraries and the Python
//! of that release. The tests of `test_support/conformance/tests/clients` look for these scripts.

use crate::cache::Cache;
use crate::debian::Apt;
use crate::process;
use crate::system_packages::CannotHere;
use anyhow::Context as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

/// Debian's newer releases. The last one changes every day; the cache keeps the versions of the first download.
const SUITES: &[&str] = &["trixie", "sid"];

/// The first lines of every script.
const SCRIPT: &str = "\
#!/bin/sh
# With the libraries and the Python of its own Debian release.
folder=$(dirname \"$(readlink -f \"$0\")\")
root=$folder/root
export PYTHONHOME=\"$root/usr\" PYTHONDONTWRITEBYTECODE=1
start() { exec \"$root/usr/lib64/ld-linux-x86-64.so.2\" --library-path \"$root/usr/lib/x86_64-linux-gnu\" \"$@\"; }
";

/// The two programs, and how a script starts each.
const PROGRAMS: &[(&str, &str)] = &[
    (
        "gdb",
        "start \"$root/usr/bin/gdb\" --data-directory=\"$root/usr/share/gdb\" \"$@\"\n",
    ),
    ("lldb", "start \"$root\"/usr/lib/llvm-*/bin/lldb \"$@\"\n"),
];

/// The subcommand; the result is the exit status for the process.
pub(crate) fn main() -> anyhow::Result<i32> {
    provide()?;
    Ok(0)
}

/// Takes the debuggers from the cache, and downloads the missing ones. If a release is not available, the others are still used.
pub(crate) fn provide() -> anyhow::Result<()> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Err(
            CannotHere("newer debuggers are unpacked on x86-64 Linux only".to_owned()).into(),
        );
    }
    let cache = Cache::open()?;
    let mut missing = Vec::new();
    for suite in SUITES {
        match of_suite(&cache, suite) {
            Ok(folder) => {
                for (program, _) in PROGRAMS {
                    println!(
                        "{}: {}",
                        version(&folder.join(program))?,
                        folder.join(program).display()
                    );
                }
            }
            Err(error) => missing.push(format!("{suite}: {error:#}")),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    // The archive, the network or the release of the day has failed, and not the project.
    Err(CannotHere(format!(
        "newer debuggers of Debian cannot be had now ({}); the tests go on with the others",
        missing.join("; ")
    ))
    .into())
}

fn of_suite(cache: &Cache, suite: &str) -> anyhow::Result<PathBuf> {
    let name = format!("debuggers-{suite}");
    let recipe = PROGRAMS
        .iter()
        .fold(SCRIPT.to_owned(), |recipe, (name, start)| {
            recipe + name + start
        });
    cache.artefact(&name, &recipe, |folder| {
        let packages: Vec<&str> = PROGRAMS.iter().map(|(name, _)| *name).collect();
        let apt = Apt::of_suite(cache.root(), suite)?;
        apt.unpack_with_dependencies(&packages, &folder.join("root"))?;
        for (name, start) in PROGRAMS {
            let script = folder.join(name);
            std::fs::write(&script, format!("{SCRIPT}{start}"))?;
            std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
            // A missing file shows now, and not in a test.
            version(&script)?;
        }
        let (version, _) = apt.version("gdb", |_| true)?;
        let version: String = version
            .chars()
            .map(|letter| if letter == ':' { '_' } else { letter })
            .collect();
        Ok(version)
    })
}

/// The first line of the program's `--version`.
fn version(program: &Path) -> anyhow::Result<String> {
    let text = process::capture(Command::new(program).arg("--version"))?;
    let line = text.lines().next().context("it names no version")?;
    Ok(line.to_owned())
}
