//! Programs that run the VMM in their own place, and programs that run it as a child.

use crate::bed::Vmm;
use crate::bed::built;
use crate::bed::exec;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use test_machine::running::kvm_here;

/// The first instruction of the guest.
const START: u64 = 0x1000;

/// The dynamic linker of glibc.
const LINKER: &str = "/lib64/ld-linux-x86-64.so.2";

/// Whether the program is on this host. A program that is missing is named.
fn is_here(name: &str) -> bool {
    let help = Command::new(name).arg("--help").output();
    if help.is_err() {
        println!("SKIP: no {name}");
    }
    help.is_ok()
}

#[track_caller]
fn holds_the_guest(command: &[&str]) {
    let mut vmm = Vmm::start(exec(&["--wait"], command));
    let reply = vmm.packets().ask("p10");
    let rip = u64::from_str_radix(&reply, 16).unwrap_or_else(|_| panic!("{command:?}: {reply}"));
    assert_eq!(rip.swap_bytes(), START, "{command:?}");
    vmm.say("quit");
    let ended = vmm.process.finish();
    assert_eq!(ended.code, Some(7), "{command:?}: {}", ended.output);
}

#[test]
fn a_wrapper_that_becomes_the_vmm_passes_the_debugger_on() {
    if !kvm_here() {
        return;
    }
    let vmm = built("small_vmm");
    let wrappers: [&[&str]; 14] = [
        &["env", "FOO=1"],
        &["env", "-i"],
        &["env", "LD_PRELOAD="],
        &["setsid"],
        &["nice"],
        &["nohup"],
        &["taskset", "1"],
        // It has a library of its own to preload.
        &["stdbuf", "-o", "0"],
        &["chrt", "--other", "0"],
        &["ionice", "-c", "3"],
        &["prlimit", "--nofile=512"],
        // Two of them.
        &["nice", "env", "FOO=1"],
        // A VMM with the libraries of another distribution is started by the linker of that one.
        &[LINKER],
        &["env", LINKER, "--argv0", "vmm"],
    ];
    for wrapper in wrappers.iter().filter(|wrapper| is_here(wrapper[0])) {
        holds_the_guest(&[wrapper, &[vmm.as_str(), "1"][..]].concat());
    }
}

#[test]
fn a_shell_that_becomes_the_vmm_passes_the_debugger_on() {
    if !kvm_here() {
        return;
    }
    let plain = format!("{} 1", built("small_vmm"));
    for shell in ["dash", "bash"].into_iter().filter(|shell| is_here(shell)) {
        holds_the_guest(&[shell, "-c", &format!("true; exec {plain}")]);
    }
    // dash starts even its last command as a child.
    if is_here("bash") {
        holds_the_guest(&["bash", "-c", &plain]);
    }
}

#[test]
fn a_wrapper_that_starts_the_vmm_as_a_child_is_told_so() {
    if !kvm_here() {
        return;
    }
    let vmm = built("small_vmm");
    let script = format!("{vmm} 1; true");
    for wrapper in [
        &["dash", "-c", &vmm][..],
        &["dash", "-c", &script],
        &["bash", "-c", &script],
    ] {
        if is_here(wrapper[0]) {
            let error = error_of(&mut exec(&[], wrapper));
            assert!(error.contains("created no VM"), "{wrapper:?}: {error}");
            assert!(!error.contains("listening"), "{wrapper:?}: {error}");
        }
    }
}

fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("it starts")
}

fn error_of(command: &mut Command) -> String {
    String::from_utf8_lossy(&output(command).stderr).into_owned()
}

#[test]
fn a_child_sees_no_variable_of_ours() {
    for shell in ["dash", "bash"].into_iter().filter(|shell| is_here(shell)) {
        let list = [
            shell,
            "-c",
            "env | grep -E 'TRAPGATE_EXEC|LD_PRELOAD'; true",
        ];
        let ended = output(&mut exec(&[], &list));
        assert_eq!(String::from_utf8_lossy(&ended.stdout), "", "{shell}");
    }
}

/// A program may keep the variables for its children.
#[test]
fn a_library_in_another_process_does_nothing_and_leaves_nothing() {
    let library = crate::bed::library();
    let mut command = Command::new("bash");
    command
        .args(["-c", "env; true"])
        .env("LD_PRELOAD", &library)
        .env("TRAPGATE_EXEC_GDB", "127.0.0.1:0")
        .env("TRAPGATE_EXEC_PROCESS", "1")
        .env("TRAPGATE_EXEC_LD_PRELOAD", "/none/at/all.so");
    let ended = output(&mut command);
    let variables = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(!variables.contains("TRAPGATE_EXEC"), "{variables}");
    let before = |line: &str| line == "LD_PRELOAD=/none/at/all.so";
    assert!(variables.lines().any(before), "{variables}");
    let error = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(!error.contains("trapgate"), "{error}");
}

#[test]
fn a_static_program_in_the_place_of_a_wrapper_is_told_of() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("static");
    std::fs::write(&path, demo_guest::ELF).expect("writable");
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&path, executable).expect("own file");
    let path = path.to_str().expect("text");
    let error = error_of(&mut exec(&[], &["env", path]));
    assert!(error.contains("statically linked"), "{error}");
    assert!(error.contains("without the debugger"), "{error}");
}

#[test]
fn a_log_says_which_program_takes_the_place() {
    let quiet = error_of(&mut exec(&[], &["env", "true"]));
    assert!(!quiet.contains("takes the place"), "{quiet}");
    let logged = error_of(&mut exec(&["--log", "info"], &["env", "true"]));
    assert!(
        logged.contains("true takes the place of this program, with the debugger"),
        "{logged}"
    );
}
