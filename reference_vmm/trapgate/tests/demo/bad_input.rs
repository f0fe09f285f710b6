//! Every bad input leads to exit code 2 and a message that says what to do.

use crate::running::Ended;
use crate::running::Running;
use crate::running::kvm_here;
use crate::running::trapgate;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Without a debug server unless `args` name one: tests that run at the same time would use the same default port.
#[track_caller]
fn refused(args: &[&str], parts: &[&str]) {
    let mut args = args.to_vec();
    if !args.contains(&"--gdb") {
        args.extend(["--gdb", "off"]);
    }
    let ended = Running::start(&args).finish();
    says(&ended, parts);
}

#[track_caller]
fn says(ended: &Ended, parts: &[&str]) {
    assert_eq!(ended.code, Some(2), "{}", ended.output);
    assert!(!ended.output.contains("panicked"), "{}", ended.output);
    for part in parts {
        assert!(
            ended.output.contains(part),
            "`{part}` is not in:\n{}",
            ended.output
        );
    }
}

#[test]
fn files_that_are_no_kernels() {
    if !kvm_here() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).expect("writable");
        path.display().to_string()
    };
    let hint = "give --kernel a bzImage";
    refused(
        &["--kernel", "/nowhere/at/all"],
        &["cannot read the kernel", "No such file", "--kernel"],
    );
    refused(
        &["--kernel", &folder.path().display().to_string()],
        &["cannot read the kernel", "directory"],
    );
    refused(
        &["--kernel", &file("empty", b"")],
        &["is not a kernel", hint],
    );
    refused(
        &["--kernel", &file("text", &b"#!/bin/sh\n".repeat(500))],
        &["is not a kernel", hint],
    );
    refused(
        &["--kernel", &file("cut", &demo_guest::ELF[..100])],
        &["is not a kernel", "ends within its headers", hint],
    );
    refused(
        &["--kernel", env!("CARGO_BIN_EXE_trapgate")],
        &["is not a kernel", "no fixed address", hint],
    );
}

#[test]
fn an_initrd_that_is_not_there_or_does_not_fit() {
    if !kvm_here() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let kernel = folder.path().join("kernel");
    fs::write(&kernel, demo_guest::ELF).expect("writable");
    let kernel = kernel.display().to_string();
    refused(
        &["--kernel", &kernel, "--initrd", "/nowhere"],
        &["cannot read the initrd", "--initrd"],
    );
    refused(&["--initrd", "/nowhere"], &["--kernel"]);
    let large = folder.path().join("large");
    fs::File::create(&large)
        .and_then(|file| file.set_len(40 << 20))
        .expect("a sparse file");
    let large = large.display().to_string();
    refused(
        &["--kernel", &kernel, "--initrd", &large, "--memory", "32M"],
        &["kernel with its initrd needs", "use --memory"],
    );
}

#[test]
fn too_little_memory_and_too_many_cpus() {
    if !kvm_here() {
        return;
    }
    refused(
        &["--memory", "8M"],
        &["8 MiB of memory is too little", "use --memory 16M"],
    );
    refused(&["--memory", "1M"], &["the minimum is 2 MiB"]);
    refused(&["--memory", "9999G"], &["the maximum is"]);
    refused(&["--memory", "plenty"], &["such as 512M"]);
    refused(&["--cpus", "0"], &["--cpus"]);
    refused(
        &["--cpus", "65"],
        &["the demo guest has no stacks for more", "use --cpus 64"],
    );
    let folder = tempfile::tempdir().expect("a folder");
    let kernel = folder.path().join("kernel");
    fs::write(&kernel, demo_guest::ELF).expect("writable");
    refused(
        &[
            "--kernel",
            &kernel.display().to_string(),
            "--cpus",
            "100000",
        ],
        &["CPUs are too many", "use --cpus"],
    );
}

#[test]
fn a_command_line_that_no_kernel_takes() {
    if kvm_here() {
        refused(
            &["--cmdline", &"x".repeat(70_000)],
            &["at most 65535", "shorten --cmdline"],
        );
    }
}

#[test]
fn debug_addresses_that_cannot_be_had() {
    if !kvm_here() {
        return;
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    refused(
        &["--gdb", &address],
        &["is in use", "--gdb 127.0.0.1:0 takes a free port"],
    );
    refused(
        &["--gdb", "0.0.0.0:0"],
        &["no authentication", "--gdb-allow-network"],
    );
    refused(&["--gdb", "nonsense"], &["HOST:PORT", "unix:PATH"]);
    refused(&["--gdb", "127.0.0.1:99999"], &["HOST:PORT"]);
    refused(
        &["--gdb", "unix:/nowhere/at/all/socket"],
        &["cannot listen"],
    );
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("precious");
    fs::write(&file, "text").expect("writable");
    refused(
        &["--gdb", &format!("unix:{}", file.display())],
        &["is not a socket"],
    );
    assert_eq!(fs::read(&file).expect("still there"), b"text");
}

#[test]
fn a_network_address_is_taken_only_with_the_flag_and_a_warning() {
    if !kvm_here() {
        return;
    }
    let mut running = Running::start(&["--gdb", "0.0.0.0:0", "--gdb-allow-network"]);
    running.wait_for("gdb: listening on 0.0.0.0:");
    running.wait_for("no authentication");
}

#[test]
fn a_serial_file_that_cannot_be_written() {
    if kvm_here() {
        refused(
            &["--serial", "file:/nowhere/at/all"],
            &["cannot write the serial port's output", "--serial"],
        );
        refused(&["--serial", "printer"], &["stdio, file:PATH or off"]);
    }
}

/// Runs the program in a mount namespace in which `prepare` has changed /dev/kvm. `None` if this host does not allow
/// such namespaces.
fn with_dev(prepare: &str, arg: &str) -> Option<Ended> {
    let script = format!("mount -t tmpfs none /dev && {prepare}");
    let works = Command::new("unshare")
        .args([
            "-rm",
            "sh",
            "-c",
            "mount -t tmpfs none /dev && setpriv --bounding-set=-all true",
        ])
        .status();
    if !works.is_ok_and(|status| status.success()) {
        println!(
            "SKIP: no mount namespaces here (`unshare -rm` and `setpriv`) to hide /dev/kvm in"
        );
        return None;
    }
    let program = trapgate(&[]);
    let mut command = Command::new("unshare");
    command
        .args(["-rm", "sh", "-c", &script, "sh"])
        .arg(Path::new(program.get_program()))
        .arg(arg);
    Some(Running::spawn(command).finish())
}

#[test]
fn no_kvm_says_how_to_get_one() {
    for arg in ["run", "doctor"] {
        let Some(ended) = with_dev("exec \"$@\"", arg) else {
            return;
        };
        says(
            &ended,
            &["no /dev/kvm", "modprobe", "nested virtualization"],
        );
    }
}

#[test]
fn no_permission_says_how_to_get_it() {
    for arg in ["run", "doctor"] {
        let prepare = ": >/dev/kvm && chmod 0 /dev/kvm && exec setpriv --bounding-set=-all \"$@\"";
        let Some(ended) = with_dev(prepare, arg) else {
            return;
        };
        says(&ended, &["/dev/kvm", "usermod -aG kvm"]);
    }
}

#[test]
fn something_else_at_dev_kvm_is_not_taken_for_it() {
    let Some(ended) = with_dev(": >/dev/kvm && exec \"$@\"", "run") else {
        return;
    };
    says(&ended, &["/dev/kvm"]);
}

#[test]
fn a_guest_is_not_kept_for_a_debugger_that_cannot_come() {
    refused(
        &["--on-crash", "stop", "--gdb", "off"],
        &["with --gdb off no debugger can attach", "omit --on-crash"],
    );
    refused(
        &["--metrics", "unix:/tmp/no_metrics", "--gdb", "off"],
        &["with --gdb off there is none", "omit --metrics"],
    );
}
