//! `trapgate gdb` and `trapgate lldb` find the VMs that run, and start the debugger.

use crate::gdb_client::gdb_here;
use crate::gdb_client::in_order;
use crate::running::Ended;
use crate::running::Running;
use crate::running::kvm_here;
use crate::running::trapgate;
use std::fs;
use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use tempfile::TempDir;
use test_machine::debuggers::Client;

/// A folder as `XDG_RUNTIME_DIR` names one, for one test.
struct Bed(TempDir);

impl Bed {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).expect("ours");
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A guest with little memory, which listens.
    fn guest(&self, address: &str) -> Running {
        let mut command = trapgate(&["run", "--memory", "16M", "--gdb", address]);
        command.env("XDG_RUNTIME_DIR", self.0.path());
        let mut guest = Running::spawn(command);
        guest.gdb_line();
        guest
    }

    fn run(&self, words: &[&str]) -> Ended {
        let mut command = trapgate(words);
        command
            .env("XDG_RUNTIME_DIR", self.0.path())
            .env("LC_ALL", "C.UTF-8");
        Running::spawn(command).finish()
    }

    /// `trapgate gdb OPTIONS` with a few commands for GDB.
    fn gdb(&self, options: &[&str]) -> Ended {
        let for_gdb = [
            "--",
            "-nx",
            "--batch",
            "-ex",
            "info threads",
            "-ex",
            "info symbol do_round",
            "-ex",
            "detach",
        ];
        self.run(&[&["gdb"], options, &for_gdb].concat())
    }

    fn is_refused(&self, options: &[&str], parts: &[&str]) {
        let ended = self.gdb(options);
        assert_eq!(ended.code, Some(2), "{}", ended.output);
        in_order(&ended.output, parts);
    }

    /// A program that prints its process id, its name and its arguments.
    fn fake(&self, name: &str) {
        let folder = self.path("bin");
        fs::create_dir_all(&folder).expect("ours");
        let path = folder.join(name);
        let script = "#!/bin/sh\necho \"process $$\"\nprintf '<%s>\\n' \"${0##*/}\" \"$@\"\n";
        fs::write(&path, script).expect("ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("ours");
    }

    /// Runs `trapgate` with a `PATH` in which only the fake programs are.
    fn with_fakes(&self, words: &[&str]) -> (u32, Ended) {
        let mut command = trapgate(words);
        command
            .env("XDG_RUNTIME_DIR", self.0.path())
            .env("PATH", self.path("bin"));
        let running = Running::spawn(command);
        (running.pid(), running.finish())
    }

    /// A file that is locked as the one of a server that runs. Returns what has the lock.
    fn forge(&self, address: &str, symbols: &str) -> File {
        let text = ["trapgate 1", address, "1", "a guest", symbols, ""].join("\0");
        let folder = self.path("trapgate");
        fs::create_dir_all(&folder).expect("ours");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).expect("ours");
        let path = folder.join("forged");
        fs::write(&path, text).expect("ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("ours");
        let file = File::open(&path).expect("there");
        file.lock().expect("nobody else has it");
        file
    }
}

const NONE: &str = "no VM of this user runs with a debug server";

fn has_attached(ended: &Ended) {
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    let parts = [
        "Thread 1 \"vCPU 0\"",
        "Thread 2 \"vCPU 1\"",
        "do_round in section .text",
    ];
    in_order(&ended.output, &parts);
}

#[test]
fn gdb_finds_the_guest_with_its_symbols_at_a_port_and_at_a_socket() {
    if !kvm_here() || !gdb_here() {
        return;
    }
    let bed = Bed::new();
    let socket = format!("unix:{}", bed.path("with space").display());
    for address in ["127.0.0.1:0", &socket] {
        bed.is_refused(&[], &[NONE, "trapgate run --gdb"]);
        let guest = bed.guest(address);
        has_attached(&bed.gdb(&[]));
        guest.signal("TERM");
        guest.finish();
        let left = fs::read_dir(bed.path("trapgate"))
            .expect("a folder")
            .count();
        assert_eq!(left, 0, "files of a guest that has ended");
    }
    bed.is_refused(&[], &[NONE]);
}

#[test]
fn lldb_finds_the_guest_with_its_symbols_at_a_port_and_at_a_socket() {
    if !kvm_here() {
        return;
    }
    for lldb in Client::Lldb.all() {
        let bed = Bed::new();
        let socket = format!("unix:{}", bed.path("with space").display());
        for address in ["127.0.0.1:0", &socket] {
            let guest = bed.guest(address);
            let program = lldb.program.display().to_string();
            let ended = bed.run(&[
                "lldb",
                "--program",
                &program,
                "--",
                "--no-lldbinit",
                "--batch",
                "--no-use-colors",
                "-o",
                "thread list",
                "-o",
                "image lookup --name do_round",
                "-o",
                "detach",
            ]);
            let parts = [
                "thread #1",
                "thread #2",
                "1 match found",
                "`do_round",
                "detached",
            ];
            in_order(&ended.output, &parts);
            guest.signal("TERM");
            guest.finish();
        }
    }
}

#[test]
fn among_several_guests_the_user_chooses() {
    if !kvm_here() || !gdb_here() {
        return;
    }
    let bed = Bed::new();
    let mut first = bed.guest("127.0.0.1:0");
    let second = bed.guest(&format!("unix:{}", bed.path("socket").display()));
    let address = first.address();
    let ended = bed.gdb(&[]);
    assert_eq!(ended.code, Some(2), "{}", ended.output);
    for (address, guest) in [
        (address.clone(), &first),
        (format!("unix:{}", bed.path("socket").display()), &second),
    ] {
        let process = guest.pid();
        let line =
            format!("  trapgate gdb --connect {address}   (process {process}: the demo guest)");
        assert!(ended.output.contains(&line), "{line}: {}", ended.output);
        has_attached(&bed.gdb(&["--connect", &address]));
    }
    // The kernel closes the descriptors of a killed process, and its file stays.
    second.signal("KILL");
    second.finish();
    let count = || {
        fs::read_dir(bed.path("trapgate"))
            .expect("a folder")
            .count()
    };
    assert_eq!(count(), 2);
    has_attached(&bed.gdb(&[]));
    assert_eq!(count(), 1);
}

#[test]
fn a_text_that_no_server_has_written_runs_no_command() {
    if !gdb_here() {
        return;
    }
    let bed = Bed::new();
    let mark = bed.path("mark");
    let touch = format!("touch {}", mark.display());
    for address in [
        format!("127.0.0.1:1\nshell {touch}"),
        format!("unix:/x\nshell {touch}"),
        format!("unix:| {touch}"),
        format!("| {touch}"),
        format!("-ex=shell {touch}"),
    ] {
        let _locked = bed.forge(&address, "");
        bed.is_refused(&[], &[NONE]);
    }
    let socket = format!("unix:/x -ex 'shell {touch}'");
    let _locked = bed.forge(&socket, "");
    let text = bed.gdb(&[]).output;
    in_order(&text, &["/x -ex 'shell touch", "No such file or directory"]);
    // GDB takes a name that begins with this character for a command.
    let text = bed.gdb(&["--connect", &format!("unix:|{touch}")]).output;
    in_order(&text, &["/|touch ", "No such file or directory"]);
    bed.is_refused(
        &["--connect", &format!("unix:/x\nshell {touch}")],
        &["cannot be given the path", "a control character"],
    );
    assert!(!mark.exists(), "a command was run");
}

#[test]
fn the_debugger_takes_the_place_of_trapgate_with_its_arguments() {
    let bed = Bed::new();
    let _locked = bed.forge("127.0.0.1:4000", "/bin/sh");
    bed.fake("gdb");
    bed.fake("lldb-9");
    bed.fake("lldb-14");
    bed.fake("lldb-server");
    let symbols = bed.path("bin/gdb").display().to_string();
    for (words, expected) in [
        (
            &["gdb", "--", "-x", "a b"][..],
            vec![
                "gdb",
                "-ex",
                "target remote 127.0.0.1:4000",
                "-se",
                "/bin/sh",
                "-x",
                "a b",
            ],
        ),
        (
            &["gdb", "--connect", "[::1]:1", "--program", "lldb-9"],
            vec!["lldb-9", "-ex", "target remote [::1]:1"],
        ),
        (
            &["lldb", "--symbols", &symbols, "--", "--batch"],
            vec![
                "lldb-14",
                "-o",
                "gdb-remote 127.0.0.1:4000",
                "-f",
                &symbols,
                "--batch",
            ],
        ),
    ] {
        let (process, ended) = bed.with_fakes(words);
        assert_eq!(ended.code, Some(0), "{}", ended.output);
        let arguments = expected.iter().map(|word| format!("\n<{word}>"));
        let expected = format!("process {process}{}", arguments.collect::<String>());
        assert_eq!(ended.output, expected);
    }
}

#[test]
fn what_is_missing_is_said_with_what_to_do() {
    let bed = Bed::new();
    fs::create_dir(bed.path("bin")).expect("ours");
    for (words, parts) in [
        (&["gdb"][..], &[NONE, "trapgate exec --gdb ADDR -- VMM"][..]),
        (
            &["gdb", "--connect", ":1"],
            &["no program gdb", "apt-get install gdb", "--program"],
        ),
        (
            &["lldb", "--connect", ":1"],
            &["no program lldb", "apt-get install lldb"],
        ),
        (
            &["gdb", "--connect", ":1", "--program", "no-gdb"],
            &["no program no-gdb"],
        ),
        (
            &["gdb", "--connect", ":1", "--program", "/no/gdb"],
            &["cannot start /no/gdb", "No such file"],
        ),
        (
            &["gdb", "--connect", ":1", "--symbols", "/no/vmlinux"],
            &["cannot read the symbols in /no/vmlinux", "No such file"],
        ),
        (&["gdb", "--connect", "nowhere"], &["HOST:PORT"]),
    ] {
        let (_, ended) = bed.with_fakes(words);
        assert_eq!(ended.code, Some(2), "{words:?}: {}", ended.output);
        in_order(&ended.output, parts);
    }
    let without = |runtime_dir: Option<&Path>| {
        let mut command = trapgate(&["gdb"]);
        command.env_remove("XDG_RUNTIME_DIR");
        if let Some(folder) = runtime_dir {
            command.env("XDG_RUNTIME_DIR", folder);
        }
        let ended = Running::spawn(command).finish();
        assert_eq!(ended.code, Some(2), "{}", ended.output);
        ended.output
    };
    in_order(
        &without(None),
        &["without XDG_RUNTIME_DIR", "--connect ADDR"],
    );
    let shared = bed.path("shared");
    fs::create_dir(&shared).expect("ours");
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).expect("ours");
    in_order(
        &without(Some(&shared)),
        &["--connect ADDR", "in which no other user can write"],
    );
}
