//! Programs that create no VM behave as without the library, and so does what a VMM prints.

use crate::bed::built;
use crate::bed::exec;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use test_machine::running::kvm_here;

fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("it starts")
}

#[test]
fn a_program_without_a_vm_prints_and_ends_as_ever() {
    for (code, script) in [(0, "echo said; echo wrong >&2"), (3, "exit 3")] {
        let with = output(&mut exec(&[], &["sh", "-c", script]));
        let without = output(Command::new("sh").args(["-c", script]));
        assert_eq!(with.status.code(), Some(code));
        assert_eq!(with.stdout, without.stdout);
        let error = String::from_utf8_lossy(&with.stderr).into_owned();
        assert!(
            error.contains(&*String::from_utf8_lossy(&without.stderr)),
            "{error}"
        );
        assert!(!error.contains("listening"), "{error}");
    }
}

#[test]
fn nothing_is_written_to_the_standard_output_of_a_vmm() {
    if !kvm_here() {
        return;
    }
    let ended = output(&mut exec(&["--log", "info"], &[&built("small_vmm"), "2"]));
    assert_eq!(String::from_utf8_lossy(&ended.stdout), "ready\n");
    let error = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(error.contains("gdb: listening on 127.0.0.1:"), "{error}");
    assert!(error.contains(" INFO debug_worker"), "{error}");
}

#[test]
fn a_descriptor_table_is_as_without_the_library() {
    let list = |command: &mut Command| {
        let ended = output(command);
        String::from_utf8_lossy(&ended.stdout).into_owned()
    };
    let script = "ls -l /proc/self/fd | sed 's/.*[0-9] \\([0-9]* ->\\)/\\1/; s/\\[[0-9]*\\]//; s/proc.[0-9]*/proc/' | grep -v total";
    let with = list(&mut exec(&[], &["sh", "-c", script]));
    let without = list(Command::new("sh").args(["-c", script]));
    assert_eq!(with, without);
}
