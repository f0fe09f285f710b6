use crate::gdb_client::in_order;
use crate::running::Running;
use crate::running::kvm_here;
use std::process::Command;
use std::process::Stdio;
use test_machine::debuggers::Client;
use test_machine::debuggers::Debugger;

#[test]
fn lldb_attaches_reads_steps_and_detaches() {
    if !kvm_here() {
        return;
    }
    if !Command::new("lldb")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
    {
        println!("SKIP: no lldb; install it with `apt-get install lldb`");
        return;
    }
    let mut guest = Running::start(&["--gdb", "127.0.0.1:0"]);
    let connect = format!("gdb-remote {}", guest.address());
    let mut lldb = Command::new("lldb");
    lldb.args(["--no-lldbinit", "--batch", "--no-use-colors"])
        .stdin(Stdio::null());
    for command in [
        connect.as_str(),
        "thread list",
        "register read rip cr3 cs",
        "memory read --size 1 --count 2 --format x 0x100000",
        "thread step-inst",
        "register read rip",
        "memory write 0x900000 0x5a",
        "memory read --size 1 --count 1 --format x 0x900000",
        "detach",
    ] {
        lldb.args(["-o", command]);
    }
    let text = Running::spawn(lldb).finish().output;
    in_order(
        &text,
        &[
            "thread #1",
            "thread #2",
            "rip = 0x0000000000100000",
            "0x00100000: 0xfa 0xfc",
            "rip = 0x0000000000100001",
            "0x00900000: 0x5a",
            "detached",
        ],
    );
    guest.wait_for("demo guest: boot 1");
}

/// Runs `lldb` in batch mode, which ends at the first error. Returns its output.
fn lldb(debugger: &Debugger, commands: &[&str]) -> String {
    let mut lldb = Command::new(&debugger.program);
    lldb.args(["--no-lldbinit", "--batch", "--no-use-colors"])
        .stdin(Stdio::null());
    for command in commands {
        lldb.args(["-o", command]);
    }
    Running::spawn(lldb).finish().output
}

/// The demo guest's ELF file, from the line to paste.
fn elf(guest: &mut Running) -> String {
    let line = guest.gdb_line();
    line.rsplit(' ').next().expect("a file").to_owned()
}

/// Runs `test` with every LLDB on this machine, each with its own guest with little memory.
fn each(cpus: &str, test: impl Fn(&Debugger, &mut Running, &str)) {
    if !kvm_here() {
        return;
    }
    for debugger in Client::Lldb.all() {
        let mut guest =
            Running::start(&["--gdb", "127.0.0.1:0", "--memory", "16M", "--cpus", cpus]);
        let connect = format!("gdb-remote {}", guest.address());
        test(&debugger, &mut guest, &connect);
    }
}

#[test]
fn memory_regions_are_those_of_the_page_tables() {
    each("2", |debugger, guest, connect| {
        let create = format!("target create {}", elf(guest));
        let commands = [
            create.as_str(),
            connect,
            // Without paging and with paging.
            "memory region 0x100000",
            "breakpoint set --hardware --name do_round",
            "continue",
            "memory region 0x123456",
            "memory region 0xfee00000",
            "memory region 0x7fffffffffff",
            "memory region 0xfffffffffffffff0",
            "detach",
        ];
        let text = lldb(debugger, &commands);
        in_order(
            &text,
            &[
                "[0x0000000000000000-0x0000000001000000) rwx",
                "stop reason = breakpoint",
                "[0x0000000000000000-0x0000000001000000) rwx",
                "[0x0000000001000000-0x0000000100000000) -wx no RAM",
                "[0x0000000100000000-0xffffffffffffffff) ---",
                "[0x0000000100000000-0xffffffffffffffff) ---",
                "detached",
            ],
        );
    });
}

#[test]
fn save_core_writes_a_file_that_lldb_opens() {
    let folder = tempfile::tempdir().expect("a folder");
    // LLDB 21 writes one of two threads.
    each("1", |debugger, guest, connect| {
        let elf = elf(guest);
        let file = folder.path().join(&debugger.name);
        let create = format!("target create --arch x86_64-pc-linux {elf}");
        let load = format!("target modules load --file {elf} --slide 0");
        // LLDB 14 supports no other style.
        let style = match debugger.name.starts_with("lldb-14.") {
            true => "stack",
            false => "full",
        };
        let save = format!(
            "process save-core -s {style} --plugin-name=minidump {}",
            file.display()
        );
        let look = [
            "thread list",
            "register read rip rsp rdi",
            "memory read --size 1 --count 16 --format x 0x100000",
            // The address of the demo guest's counters.
            "memory read --size 8 --count 8 --format x 0x14b000",
        ];
        let begin = [
            create.as_str(),
            connect,
            &load,
            "breakpoint set --hardware --name do_round",
            "continue",
        ];
        let live = lldb(debugger, &[&begin[..], &look, &[&save, "detach"]].concat());
        let open = format!("target create --core {}", file.display());
        let saved = lldb(debugger, &[&[open.as_str()], &look[..]].concat());
        for text in [&live, &saved] {
            in_order(text, &["thread #1", "rip = 0x", "rdi = 0x"]);
        }
        let values = |text: &str| -> Vec<String> {
            let value = |line: &&str| line.contains(" = 0x") || line.starts_with("0x");
            let (_, after) = text.rsplit_once("(lldb) register read").expect("asked for");
            let words = |line: &str| {
                line.split(" demo-guest")
                    .next()
                    .unwrap_or("")
                    .trim()
                    .to_owned()
            };
            after.lines().filter(value).take(9).map(words).collect()
        };
        assert_eq!(values(&live), values(&saved), "{live}\n{saved}");
        std::fs::remove_file(file).expect("it is there");
    });
}

#[test]
fn a_call_from_lldb_ends_with_an_error_and_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    each("2", |debugger, guest, connect| {
        let elf = elf(guest);
        let load = format!("target modules load --file {elf} --slide 0");
        let look = [
            "register read --all",
            // The addresses of the demo guest's counters and of the stack.
            "memory read --size 8 --count 512 --format x --force 0x14b000",
            "memory read --size 8 --count 512 --format x --force 0x10b000",
        ]
        .join("\n");
        // The session goes on after the error of the call.
        let call = format!("{look}\nexpression -- is_prime(7)\n{look}\nversion\n");
        let file = folder.path().join("call");
        std::fs::write(&file, call).expect("a file");
        let call = format!("command source -e false {}", file.display());
        // LLDB asks for memory only if it knows the operating system.
        for (arch, load, words) in [
            ("", "thread list", "error: "),
            ("--arch x86_64-pc-linux", load.as_str(), "couldn't allocate"),
        ] {
            let create = format!("target create {arch} {elf}");
            let commands = [
                create.as_str(),
                connect,
                load,
                "breakpoint set --hardware --name do_round",
                "continue",
                &call,
            ];
            let text = lldb(debugger, &commands);
            let (before, result) = text
                .split_once("expression -- is_prime(7)")
                .expect("asked for");
            assert!(result.contains(words), "{text}");
            let values = |text: &str| -> Vec<String> {
                let (_, text) = text
                    .split_once("(lldb) register read --all")
                    .expect("asked for");
                let value = |line: &&str| line.contains(" = ") || line.starts_with("0x");
                // LLDB adds its interpretation behind a value.
                let alone = |line: &str| line.trim().split("  ").next().unwrap_or("").to_owned();
                text.lines().filter(value).map(alone).collect()
            };
            let (before, after) = (values(before), values(result));
            // Registers, and 512 lines of memory.
            assert!(before.len() > 560, "{text}");
            assert_eq!(before, after, "{text}");
        }
        guest.wait_for("demo guest: CPU 1 is up");
    });
}
