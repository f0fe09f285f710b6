//! GDB in batch mode, started with the line that `trapgate` prints.

use crate::running::Ended;
use crate::running::Running;
use crate::running::kvm_here;
use std::process::Command;
use std::process::Stdio;

/// Starts the guest for GDB. `None`, with the reason printed, if KVM or GDB is missing.
pub fn guest(args: &[&str]) -> Option<Running> {
    if !kvm_here() || !gdb_here() {
        return None;
    }
    Some(Running::start(&[&["--gdb", "127.0.0.1:0"], args].concat()))
}

/// Whether GDB is installed. If not, the reason is printed.
pub fn gdb_here() -> bool {
    let found = Command::new("gdb")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !found {
        println!("SKIP: no gdb; install it with `apt-get install gdb`");
    }
    found
}

/// Runs the printed line with `commands`, in batch mode. Returns GDB's output.
#[track_caller]
pub fn gdb(guest: &mut Running, commands: &[&str]) -> String {
    let ended = start_gdb(&guest.gdb_line(), commands).finish();
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    ended.output
}

/// As [`gdb`], with commands that end the guest.
#[track_caller]
pub fn gdb_to_the_end(guest: &mut Running, commands: &[&str]) -> String {
    let ended = start_gdb(&guest.gdb_line(), commands).finish();
    assert!(ended.code.is_some(), "{}", ended.output);
    ended.output
}

/// Starts GDB.
pub fn start_gdb(line: &str, commands: &[&str]) -> Running {
    let mut words = vec!["-nx", "-batch"];
    // These settings have to be set before the line connects.
    for setting in [
        "set pagination off",
        "set confirm off",
        "set width 0",
        "set tcp connect-timeout 10",
    ] {
        words.extend(["-iex", setting]);
    }
    for command in commands {
        words.extend(["-ex", command]);
    }
    let mut shell = Command::new("sh");
    shell
        .env("LC_ALL", "C.UTF-8")
        .args(["-c", &format!("exec {line} \"$@\""), "gdb"])
        .args(words)
        .stdin(Stdio::null());
    Running::spawn(shell)
}

/// Whether `trapgate doctor` says that `capability` works.
pub fn works_here(capability: &str) -> bool {
    let Ended { output, .. } = Running::start(&["doctor"]).finish();
    let line = output
        .lines()
        .find(|line| line.ends_with(capability))
        .unwrap_or_else(|| panic!("{capability}: {output}"));
    line.starts_with("yes")
}

/// Asserts that GDB's output contains all parts in this order.
#[track_caller]
pub fn in_order(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => panic!("`{part}` does not come next in:\n{text}"),
        }
    }
}
