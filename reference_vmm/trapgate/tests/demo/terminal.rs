//! The program on a terminal, by `script` (util-linux).

use crate::running::Running;
use crate::running::kvm_here;
use std::io::Write;
use std::process::Command;
use std::process::Stdio;

/// Runs `trapgate` on its own terminal, then prints the settings of that terminal.
fn on_a_terminal(args: &str) -> Option<Command> {
    if !kvm_here() {
        return None;
    }
    if !Command::new("script")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
    {
        println!("SKIP: no `script` (util-linux) to make a terminal with");
        return None;
    }
    let program = env!("CARGO_BIN_EXE_trapgate");
    let line = format!("{program} {args}; echo code $?; stty -a");
    let mut command = Command::new("script");
    command.args(["-qefc", &line, "/dev/null"]);
    Some(command)
}

/// Asserts that `stty -a` shows the usual settings of a terminal.
#[track_caller]
fn assert_usual(output: &str) {
    let words: Vec<_> = output.split_whitespace().collect();
    for setting in ["icanon", "isig", "iexten", "echo", "icrnl", "ixon"] {
        assert!(words.contains(&setting), "{setting} is off: {output}");
    }
}

#[test]
fn the_interrupt_key_ends_it_and_the_terminal_is_as_before() {
    let Some(command) = on_a_terminal("--gdb off") else {
        return;
    };
    let (mut running, mut keys) = Running::spawn_with_input(command);
    running.wait_for("Ctrl-C ends Trapgate");
    running.wait_for("demo guest: boot 1");
    keys.write_all(b"\x03").expect("the terminal takes a key");
    running.wait_for("code 130");
    drop(keys);
    assert_usual(&running.finish().output);
}

#[test]
fn the_terminal_is_as_before_when_the_guest_ends_by_itself() {
    for (args, code) in [
        ("--cmdline scenario=poweroff", 0),
        ("--no-reboot --cmdline scenario=triplefault", 4),
    ] {
        let Some(command) = on_a_terminal(&format!("--gdb off {args}")) else {
            return;
        };
        let (mut running, keys) = Running::spawn_with_input(command);
        running.wait_for(&format!("code {code}"));
        drop(keys);
        assert_usual(&running.finish().output);
    }
}

#[test]
fn keys_reach_the_guest_from_a_terminal_and_all_bytes_of_a_pipe_do() {
    if !kvm_here() {
        return;
    }
    let mut command = crate::running::trapgate(&["--gdb", "off", "--cpus", "1"]);
    command.stdin(Stdio::piped());
    let (mut running, mut input) = Running::spawn_with_input(command);
    // In a pipe Ctrl-C is an ordinary byte, and the end of the pipe ends nothing.
    input.write_all(b"\x03").expect("the pipe is open");
    running.wait_for("1 CPUs,");
    input.write_all(b"rq").expect("the pipe is open");
    drop(input);
    running.wait_for("demo guest: boot 2,");
    assert_eq!(running.finish().code, Some(0));

    let Some(command) = on_a_terminal("--gdb off") else {
        return;
    };
    let (mut running, mut keys) = Running::spawn_with_input(command);
    running.wait_for("demo guest: boot 1");
    keys.write_all(b"\x01c").expect("the terminal takes keys");
    running.wait_for(" CPUs,");
    keys.write_all(b"q").expect("the terminal takes a key");
    running.wait_for("code 0");
    drop(keys);
    assert_usual(&running.finish().output);
}
