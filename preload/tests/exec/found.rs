//! `trapgate gdb` finds VMs under `trapgate exec`.

use crate::bed::Vmm;
use crate::bed::built;
use crate::bed::exec;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use test_machine::gdb_client::gdb_here;
use test_machine::gdb_client::in_order;
use test_machine::running::DEADLINE;
use test_machine::running::Ended;
use test_machine::running::Running;
use test_machine::running::kvm_here;
use test_machine::running::trapgate;

/// `trapgate gdb` in batch mode.
fn gdb(runtime_dir: &Path, options: &[&str]) -> Ended {
    let for_gdb = [
        "--",
        "-nx",
        "--batch",
        "-ex",
        "info threads",
        "-ex",
        "info inferiors",
        "-ex",
        "detach",
    ];
    let mut command = trapgate(&[&["gdb"], options, &for_gdb].concat());
    command.env("XDG_RUNTIME_DIR", runtime_dir);
    Running::spawn(command).finish()
}

#[test]
fn gdb_finds_each_vm_of_a_vmm_as_long_as_the_vmm_runs() {
    if !kvm_here() || !gdb_here() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).expect("ours");
    let files = || {
        let files = fs::read_dir(folder.path().join("trapgate"));
        files.expect("a folder").count()
    };
    let program = built("small_vmm");
    let mut command = exec(&[], &[&program, "2"]);
    command.env("XDG_RUNTIME_DIR", folder.path());
    let mut vmm = Vmm::start(command);
    let ended = gdb(folder.path(), &[]);
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    in_order(
        &ended.output,
        &["Thread 1 \"vCPU 0\"", "Thread 2 \"vCPU 1\""],
    );

    vmm.say("second");
    let answer = |line: &str| line == "second: done";
    vmm.process.line("the second VM", answer);
    let ended = gdb(folder.path(), &[]);
    assert_eq!(ended.code, Some(2), "{}", ended.output);
    let process = vmm.process.pid();
    let address = vmm.process.address();
    let line = format!("trapgate gdb --connect {address}   (process {process}: {program})");
    assert!(ended.output.contains(&line), "{line}: {}", ended.output);
    assert_eq!(
        ended.output.matches("--connect").count(),
        2,
        "{}",
        ended.output
    );
    assert_eq!(files(), 2);

    vmm.say("quit");
    while vmm.process.next_line(DEADLINE).expect("it ends").is_some() {}
    assert_eq!(files(), 0);
}

#[test]
fn the_file_of_symbols_is_announced_and_read_from_the_server() {
    if !kvm_here() || !gdb_here() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).expect("ours");
    let program = built("small_vmm");
    let mut command = exec(&["--symbols", &program], &[&program, "2"]);
    command.env("XDG_RUNTIME_DIR", folder.path());
    let mut vmm = Vmm::start(command);
    // The guest is another program, but GDB does not know that.
    let read = format!(") {program}\n");
    let ended = gdb(folder.path(), &[]);
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    assert!(ended.output.contains(&read), "{}", ended.output);
    let connect = format!("target remote {}", vmm.process.address());
    let mut command = Command::new("gdb");
    let output = command
        .args(["-nx", "-batch", "-ex", &connect, "-ex", "detach"])
        .stdin(Stdio::null())
        .output();
    let output = output.expect("gdb starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let read = format!("Reading symbols from target:{program}...");
    assert!(text.contains(&read), "{text}");
}
