//! The debug server in a process of its own: what the process can do, and what happens when it ends, is stopped or is killed.

use crate::packets::Packets;
use crate::running::DEADLINE;
use crate::running::Running;
use crate::running::kvm_here;
use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// `rip` of a guest that has executed no instruction.
const FIRST_INSTRUCTION: &str = "0000100000000000";

/// A guest whose debug server has a process of its own. `None`, with the reason printed, if there is none here.
fn isolated(args: &[&str]) -> Option<(Running, String)> {
    if !kvm_here() {
        return None;
    }
    let options = [
        "--gdb",
        "127.0.0.1:0",
        "--isolate",
        "auto",
        "--log",
        "debug",
    ];
    let mut guest = Running::start(&[&options[..], args].concat());
    let line = guest.wait_for("the debug server runs in ");
    if line.contains("in the process of the VMM") {
        println!("SKIP: {line}");
        return None;
    }
    let address = guest.address();
    Some((guest, address))
}

#[track_caller]
fn served(address: &str) -> Packets<TcpStream> {
    let mut client = Packets::connect(address);
    let stop = client.ask("?");
    assert!(stop.starts_with('T'), "refused: {stop}");
    client
}

/// The worker of this VMM that is not `last`.
#[track_caller]
fn worker(guest: &Running, last: Option<u32>) -> u32 {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let found = children(guest.pid()).into_iter().find(|pid| {
            Some(*pid) != last && status(*pid, "Name").as_deref() == Some("trapgate-gdb")
        });
        match found {
            Some(pid) => return pid,
            None if Instant::now() < deadline => std::thread::yield_now(),
            None => panic!("no worker"),
        }
    }
}

fn children(pid: u32) -> BTreeSet<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    threads
        .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok())
        .flat_map(|list| {
            list.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// A line of `/proc/PID/status`.
fn status(pid: u32, name: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{name}:")))?;
    Some(line.trim().to_owned())
}

fn kill(pid: u32, signal: &str) {
    let status = Command::new("kill")
        .args(["-s", signal, &pid.to_string()])
        .status()
        .expect("kill runs");
    assert!(status.success(), "kill -s {signal}: {status}");
}

#[test]
fn the_process_has_its_sockets_and_nothing_else() {
    let Some((guest, address)) = isolated(&["--memory", "256M"]) else {
        return;
    };
    let mut client = served(&address);
    let worker = worker(&guest, None);
    let is = |name: &str| status(worker, name);
    assert_eq!(is("Seccomp").as_deref(), Some("2"), "a filter");
    assert_eq!(is("NoNewPrivs").as_deref(), Some("1"));
    assert_eq!(is("Threads").as_deref(), Some("1"));
    for capabilities in ["CapPrm", "CapEff", "CapInh"] {
        assert_eq!(is(capabilities).as_deref(), Some("0000000000000000"));
    }
    let resident = is("VmRSS").expect("a number");
    let kib: u64 = resident.trim_end_matches(" kB").parse().expect("a number");
    assert!(kib < 64 << 10, "{resident}: guest memory?");
    if !rustix::process::geteuid().is_root() {
        println!("SKIP: only root may look at the files of a process that cannot be dumped");
        return;
    }
    let limits = fs::read_to_string(format!("/proc/{worker}/limits")).expect("it runs");
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let words: Vec<_> = core.expect("a limit").split_whitespace().collect();
    assert_eq!(words[4..6], ["0", "0"], "{limits}");
    // The kernel shows the environment with which a program begins. The worker removes even this variable from its own.
    let environment = fs::read_to_string(format!("/proc/{worker}/environ")).expect("it runs");
    assert_eq!(environment, "TRAPGATE_WORKER_INVITATION=1\0");
    for file in fs::read_dir(format!("/proc/{worker}/fd")).expect("it runs") {
        let file = file.expect("a descriptor").path();
        let target = fs::read_link(&file).expect("a link");
        let target = target.to_string_lossy();
        let is_error_output = file.ends_with("2");
        let known = [
            "socket:",
            "anon_inode:[eventpoll]",
            "anon_inode:[eventfd]",
            "/dev/null",
        ];
        // Where the kernel has no inet_diag, the tables show the user of a client.
        let is_table = ["/net/tcp", "/net/tcp6"]
            .iter()
            .any(|end| target.ends_with(end));
        let is_symbols = target.ends_with("/demo-guest.elf");
        if is_symbols {
            let number = file.file_name().expect("a number").to_string_lossy();
            let info = fs::read_to_string(format!("/proc/{worker}/fdinfo/{number}"));
            let info = info.expect("it runs");
            let mut lines = info.lines();
            let flags = lines.find_map(|line| line.strip_prefix("flags:"));
            // The last octal digit is the access mode: 0 is read-only.
            assert!(flags.is_some_and(|flags| flags.ends_with('0')), "{info}");
        }
        let is_known =
            is_table || is_symbols || known.iter().any(|known| target.starts_with(known));
        assert!(
            is_known || is_error_output,
            "{} is {target}",
            file.display()
        );
    }
    assert_eq!(client.ask("p10"), FIRST_INSTRUCTION);
}

/// A software breakpoint in the way of the guest: if its byte stayed, the guest would crash.
#[test]
fn whatever_befalls_the_process_the_guest_is_detached_and_the_next_client_is_served() {
    let Some((mut guest, address)) = isolated(&[]) else {
        return;
    };
    let mut last = None;
    for (signal, told) in [
        ("KILL", "signal: 9"),
        ("STOP", "it does not answer"),
        ("ABRT", "signal: 6"),
        ("SYS", "its sandbox killed it"),
        ("TERM", "signal: 15"),
    ] {
        let mut client = served(&address);
        assert_eq!(client.ask("p10"), FIRST_INSTRUCTION, "before {signal}");
        assert_eq!(client.ask("Z0,100001,1"), "OK");
        assert_eq!(client.ask("Z1,100002,1"), "OK");
        let pid = worker(&guest, last);
        kill(pid, signal);
        assert_eq!(client.byte(), None, "SIG{signal}: the connection ends");
        let text = format!("the process of the debug server is gone: {told}");
        let line = guest.new_line(&text, |line| line.contains("is gone: "));
        assert!(line.contains(told), "SIG{signal}: {line}");
        last = Some(pid);
    }
    let mut client = served(&address);
    assert_eq!(client.ask("p10"), FIRST_INSTRUCTION, "the guest stays held");
    assert_eq!(client.ask("D"), "OK");
    guest.wait_for("demo guest: CPU 1 is up");
}

#[test]
fn a_guest_that_runs_runs_on_without_its_process_and_is_debugged_by_the_next() {
    let Some((mut guest, address)) = isolated(&["--no-wait"]) else {
        return;
    };
    guest.wait_for("demo guest: CPU 1 is up");
    let mut client = served(&address);
    client.send_raw(&crate::packets::packet(b"vCont;c"));
    kill(worker(&guest, None), "KILL");
    while client.reply().is_some() {}
    let mut client = served(&address);
    let before = client.ask("p10");
    assert_eq!(
        client.ask("vCont;s:1").get(..3),
        Some("T05"),
        "from {before}"
    );
    drop(client);
    assert!(guest.is_running());
}

#[test]
fn a_process_that_dies_again_and_again_is_started_ever_later() {
    let Some((guest, address)) = isolated(&[]) else {
        return;
    };
    let began = Instant::now();
    let mut last = None;
    for _ in 0..5 {
        let pid = worker(&guest, last);
        kill(pid, "KILL");
        last = Some(pid);
    }
    // 100 + 200 + 400 + 800 ms between the five.
    assert!(began.elapsed().as_millis() >= 1500, "{:?}", began.elapsed());
    let mut client = served(&address);
    assert_eq!(client.ask("p10"), FIRST_INSTRUCTION);
}

/// A worker in other hands would live on with its session. The time is below the one after which a worker that hangs is killed.
#[test]
fn a_process_that_does_not_evict_its_debugger_is_ended() {
    let Some((mut guest, address)) = isolated(&[]) else {
        return;
    };
    let mut client = served(&address);
    assert_eq!(client.ask("Z0,100001,1"), "OK");
    let pid = worker(&guest, None);
    kill(pid, "STOP");
    guest.signal("USR1");
    let line = guest.new_line("the reason", |line| line.contains("is gone: "));
    assert!(line.contains("did not end the session"), "{line}");
    let mut client = served(&address);
    assert_eq!(client.ask("D"), "OK");
    guest.wait_for("demo guest: CPU 1 is up");
}

#[test]
fn the_process_ends_with_its_vmm_however_the_vmm_ends() {
    for signal in ["KILL", "INT"] {
        let Some((guest, address)) = isolated(&[]) else {
            return;
        };
        let mut client = served(&address);
        let pid = worker(&guest, None);
        let began = Instant::now();
        guest.signal(signal);
        while client.reply().is_some() {}
        let ended = guest.finish();
        // A wait for a socket that has closed already took 2 s.
        assert!(
            began.elapsed().as_secs() < 2,
            "SIG{signal}: {:?}",
            began.elapsed()
        );
        assert!(!ended.output.contains("is gone: "), "{}", ended.output);
        let deadline = Instant::now() + DEADLINE;
        while Path::new(&format!("/proc/{pid}/exe")).exists() {
            assert!(Instant::now() < deadline, "SIG{signal}: it lives on");
            std::thread::yield_now();
        }
    }
}

#[test]
fn without_isolation_there_is_no_second_process() {
    if !kvm_here() {
        return;
    }
    let mut guest = Running::start(&["--gdb", "127.0.0.1:0", "--isolate", "off"]);
    let mut client = served(&guest.address());
    assert_eq!(client.ask("p10"), FIRST_INSTRUCTION);
    assert!(children(guest.pid()).is_empty());
}

#[test]
fn a_program_that_nobody_invited_says_so() {
    let mut command = crate::running::trapgate(&[]);
    command.env("TRAPGATE_WORKER_INVITATION", "1");
    let ended = Running::spawn(command).finish();
    assert_eq!(ended.code, Some(1));
    let text = "run it without the variable TRAPGATE_WORKER_INVITATION";
    assert!(ended.output.contains(text), "{}", ended.output);
}
