//! GDB without an argument gets the symbols of the guest from the server.

use crate::gdb_client::in_order;
use crate::gdb_client::start_gdb;
use crate::packets::Packets;
use crate::running::Ended;
use crate::running::Running;
use crate::running::kvm_here;
use crate::running::trapgate;
use std::fs;
use std::path::Path;
use test_machine::debuggers::Client;
use test_machine::debuggers::Debugger;

fn guest(options: &[&str]) -> Running {
    Running::start(&[&["--gdb", "127.0.0.1:0"], options].concat())
}

/// GDB without a file, beside a server that runs.
#[track_caller]
fn without_file(gdb: &Debugger, address: &str, commands: &[&str]) -> String {
    let line = format!("{} -ex 'target remote {address}'", gdb.program.display());
    let Ended { code, output } = start_gdb(&line, commands).finish();
    assert_eq!(code, Some(0), "{}: {output}", gdb.name);
    output
}

#[test]
fn every_gdb_without_an_argument_has_the_symbols_of_the_guest_isolated_and_in_process() {
    if !kvm_here() {
        return;
    }
    for gdb in Client::Gdb.all() {
        for isolate in ["auto", "off"] {
            let mut guest = guest(&["--isolate", isolate]);
            let commands = ["break do_round", "continue", "bt", "detach"];
            let text = without_file(&gdb, &guest.address(), &commands);
            let parts = [
                "Reading symbols from target:",
                "demo-guest.elf",
                "pvh_start () at ",
                "hit Breakpoint 1, do_round (cpu=cpu@entry=",
                "cpu_loop (cpu=",
                "detached",
            ];
            in_order(&text, &parts);
            guest.wait_for("demo guest: CPU 1 is up");
        }
    }
}

/// GDB asks no question, and reads the symbols of its own file.
#[test]
fn every_gdb_with_the_file_reads_its_own() {
    if !kvm_here() {
        return;
    }
    for gdb in Client::Gdb.all() {
        let mut guest = guest(&[]);
        let line = guest.gdb_line();
        let line = line.replacen("gdb", &gdb.program.display().to_string(), 1);
        let commands = ["info symbol do_round", "detach"];
        let Ended { code, output } = start_gdb(&line, &commands).finish();
        assert_eq!(code, Some(0), "{}: {output}", gdb.name);
        in_order(&output, &["pvh_start () at ", "do_round in section .text"]);
        assert!(!output.contains("target:"), "{}: {output}", gdb.name);
    }
}

#[test]
fn the_file_of_symbols_can_be_named_for_run_and_is_announced() {
    if !kvm_here() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let symbols = folder.path().join("with space.elf");
    fs::write(&symbols, demo_guest::ELF).expect("writable");
    let name = symbols.display().to_string();
    let mut guest = guest(&["--symbols", &name]);
    let line = guest.gdb_line();
    assert!(line.ends_with(&format!(" '{name}'")), "{line}");
    for gdb in Client::Gdb.all() {
        let commands = ["info symbol do_round", "detach"];
        let text = without_file(&gdb, &guest.address(), &commands);
        in_order(&text, &[&name, "do_round in section .text"]);
    }
}

#[test]
fn a_file_of_symbols_that_is_none_is_refused() {
    if !kvm_here() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().display().to_string();
    for (path, why) in [
        (folder.as_str(), "it is no regular file"),
        ("/nowhere/at/all", "No such file"),
    ] {
        let run: &[&str] = &["run", "--gdb", "127.0.0.1:0", "--symbols", path];
        let library = "--library=/dev/null";
        let exec: &[&str] = &[
            "exec",
            "--gdb",
            "127.0.0.1:0",
            "--symbols",
            path,
            library,
            "true",
        ];
        for words in [run, exec] {
            let ended = Running::spawn(trapgate(words)).finish();
            assert_eq!(ended.code, Some(2), "{}", ended.output);
            let parts = ["cannot read the file with the guest's symbols", path, why];
            in_order(&ended.output, &parts);
            assert!(ended.output.contains("--symbols"), "{}", ended.output);
        }
    }
}

/// The worker has no path: each of these is a name that it compares.
#[test]
fn a_client_of_a_worker_gets_no_other_file() {
    if !kvm_here() {
        return;
    }
    let mut guest = guest(&["--isolate", "auto"]);
    let mut client = Packets::connect(&guest.address());
    let name = client.ask("qXfer:exec-file:read::0,1000");
    let name = name.strip_prefix('l').expect("a name").to_owned();
    assert!(Path::new(&name).is_absolute(), "{name}");
    let mut open = |path: &str| {
        let hex: String = path.bytes().map(|byte| format!("{byte:02x}")).collect();
        client.ask(&format!("vFile:open:{hex},0,0"))
    };
    let roundabout = format!("/proc/../{name}");
    for other in ["/etc/passwd", "/proc/self/environ", "/dev/kvm", &roundabout] {
        assert_eq!(open(other), "F-1,2", "{other}");
    }
    assert_eq!(open(&name), "F0");
    assert!(client.ask("vFile:pread:0,4,0").starts_with("F4;\u{7f}ELF"));
    // The session and the guest go on.
    assert_eq!(client.ask("qC"), "QC1");
}
