//! Runs other programs. The error texts name the command and its output.

use anyhow::Context as _;
use anyhow::bail;
use std::fs::File;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

/// The number of log lines of a failed command that the error repeats.
const LOG_TAIL_LINES: usize = 25;

/// The root of the checkout: the workspace in which `cargo xtask` was typed.
///
/// The path comes from cargo at run time and not at build time, because two checkouts that share a target folder also share the built `xtask`.
pub(crate) fn workspace_root() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest
        .parent()
        .expect("xtask lies one folder below the workspace root")
        .to_path_buf()
}

/// The cargo of the toolchain that runs this program, started in the workspace root.
///
/// The variables that `cargo run` sets for this program are removed: with them, build scripts and `env!` of the inner build would see a
/// changed environment, and cargo would rebuild.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace_root());
    for (name, _) in std::env::vars_os() {
        let of_cargo = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_")
                || name.starts_with("CARGO_MANIFEST_")
                || name == "CARGO_BIN_NAME"
                || name == "CARGO_CRATE_NAME"
                || name == "CARGO_PRIMARY_PACKAGE"
        });
        if of_cargo {
            command.env_remove(name);
        }
    }
    command
}

/// Whether a program of this name is in `PATH`, or in the `sbin` folders, which Debian keeps out of a user's `PATH`.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

/// A program that is killed when the thread that has started it ends, or when this process ends for any reason.
pub(crate) fn bound_to_us(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Runs a program with our own output streams. An error names the command and its status.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    if !status.success() {
        bail!("`{}` ended with {status}", shown(command));
    }
    Ok(())
}

/// Runs a program and returns its standard output as text. An error contains the command's standard error.
pub(crate) fn capture(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    if !output.status.success() {
        bail!(
            "`{}` ended with {}: {}",
            shown(command),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("`{}` printed something that is not UTF-8", shown(command)))
}

/// Runs a program and appends both output streams to `log`. An error contains the end of the log, and its path.
pub(crate) fn run_logged(command: &mut Command, log: &Path) -> anyhow::Result<()> {
    let file = File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("cannot write {}", log.display()))?;
    let status = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    if !status.success() {
        let text = std::fs::read(log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
        bail!(
            "`{}` ended with {status}; the end of {}:\n{}",
            shown(command),
            log.display(),
            tail.join("\n")
        );
    }
    Ok(())
}

/// Runs a program with its standard output through `output` and its standard error through `errors`. Kills the program and its descendants after `timeout`.
pub(crate) fn run_watched(
    command: &mut Command,
    timeout: Duration,
    output: impl Write + Send + 'static,
    errors: impl Write + Send + 'static,
) -> anyhow::Result<()> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    let stdout = child.stdout.take().expect("standard output is a pipe");
    let stderr = child.stderr.take().expect("standard error is a pipe");
    let (sender, ended) = mpsc::channel();
    let error_copier = std::thread::spawn(move || copy(stderr, errors));
    let copier = std::thread::spawn(move || {
        copy(stdout, output);
        let _ = sender.send(());
    });
    let in_time = ended.recv_timeout(timeout).is_ok();
    if !in_time {
        kill_tree(child.id());
    }
    let status = child.wait()?;
    let _ = copier.join();
    let _ = error_copier.join();
    if !in_time {
        bail!(
            "`{}` was still running after {} s and was killed",
            shown(command),
            timeout.as_secs()
        );
    }
    if !status.success() {
        bail!("`{}` ended with {status}", shown(command));
    }
    Ok(())
}

/// Copies each piece of `from` to `to` as soon as it arrives, up to the end or an error.
fn copy(mut from: impl Read, mut to: impl Write) {
    let mut buffer = [0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..length]).is_err() || to.flush().is_err() {
            break;
        }
    }
}

/// Kills a child process and its descendants. A test program that hangs outlives the cargo that has started it.
///
/// A process group would do the same, but then Ctrl-C on the terminal would not reach the tests.
fn kill_tree(root: u32) {
    let mut tree = vec![root.to_string()];
    let mut next = 0;
    while next < tree.len() {
        let listing = Command::new("ps")
            .args(["-o", "pid=", "--ppid", &tree[next]])
            .output();
        if let Ok(output) = listing {
            let text = String::from_utf8_lossy(&output.stdout);
            tree.extend(text.split_whitespace().map(str::to_owned));
        }
        next += 1;
    }
    let _ = Command::new("sh")
        .args(["-c", "kill -KILL \"$@\"", "kill"])
        .args(&tree)
        .status();
}

/// The folder for cargo's output.
pub(crate) fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => workspace_root().join(folder),
        None => workspace_root().join("target"),
    }
}

/// The command as a person would type it, for messages.
pub(crate) fn shown(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_bound_to_us_is_killed_when_the_thread_that_started_it_ends() {
        use std::os::unix::process::ExitStatusExt as _;
        let start = || {
            let mut command = bound_to_us(Path::new("sh"));
            command.args(["-c", "echo; exec sleep 600"]);
            let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
            // The variable is expanded when the command runs.
            let mut byte = [0];
            child
                .stdout
                .as_mut()
                .unwrap()
                .read_exact(&mut byte)
                .unwrap();
            child
        };
        let mut child = std::thread::spawn(start).join().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }

    #[test]
    fn a_hanging_command_is_ended_with_its_children() {
        // The grandchild holds the pipe. If it survived, the copier would wait for it.
        let error = run_watched(
            Command::new("sh").args(["-c", "sh -c 'sleep 600; :'; :"]),
            Duration::from_millis(200),
            std::io::sink(),
            std::io::sink(),
        )
        .unwrap_err();
        assert!(error.to_string().contains("still running"), "{error}");
    }
}
