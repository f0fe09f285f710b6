//! Which connections become the guest's debugger, and what happens to the guest when a client goes.

use crate::gdb_client::gdb;
use crate::gdb_client::gdb_here;
use crate::gdb_client::guest;
use crate::gdb_client::in_order;
use crate::packets::Packets;
use crate::packets::packet;
use crate::running::Running;
use crate::running::kvm_here;
use socket2::SockRef;
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

/// `rip` of a guest that has executed no instruction.
const FIRST_INSTRUCTION: &str = "0000100000000000";

/// A user without files or processes here.
const NOBODY: u32 = 65534;

fn started(args: &[&str]) -> Option<(Running, String)> {
    kvm_here().then(|| {
        let mut guest = Running::start(&[&["--gdb", "127.0.0.1:0"], args].concat());
        let address = guest.address();
        (guest, address)
    })
}

/// A client that is served. If it follows another client, it may have to wait for the end of that session.
#[track_caller]
fn served(address: &str) -> Packets<TcpStream> {
    let mut client = Packets::connect(address);
    let stop = client.ask("?");
    assert!(stop.starts_with('T'), "refused: {stop}");
    client
}

#[track_caller]
fn assert_held(address: &str, what: &str) {
    assert_eq!(served(address).ask("p10"), FIRST_INSTRUCTION, "{what}");
}

#[test]
fn a_port_probe_and_a_lost_client_leave_a_held_guest_held() {
    let Some((mut guest, address)) = started(&[]) else {
        return;
    };
    for _ in 0..5 {
        drop(TcpStream::connect(&address).expect("the server listens"));
    }
    // Each client is lost without having resumed the guest.
    assert_held(&address, "after probes");
    let breakpoints = served(&address).ask("Z1,100001,1");
    assert_eq!(breakpoints, "OK");
    let reset = served(&address);
    let linger = SockRef::from(&reset.stream).set_linger(Some(Duration::ZERO));
    linger.expect("a reset");
    drop(reset);
    assert_held(&address, "after lost clients");
    // A client that comes after all these can still set a breakpoint and hit it.
    let text = gdb(&mut guest, &["tbreak first_cpu_main", "continue", "detach"]);
    in_order(&text, &["Temporary breakpoint 1, first_cpu_main"]);
    guest.wait_for("demo guest: CPU 1 is up");
}

#[test]
fn a_held_guest_is_let_go_by_detach_and_by_kill_as_the_policy_says_and_by_no_loss() {
    for (policy, says, runs) in [
        ("resume", "D", true),
        ("resume", "k", true),
        ("stop", "D", true),
        ("stop", "k", false),
        ("kill", "D", true),
    ] {
        let what = format!("{says} with --on-disconnect {policy}");
        let Some((mut guest, address)) = started(&["--on-disconnect", policy]) else {
            return;
        };
        assert_held(&address, &what);
        assert_held(&address, &what);
        let mut client = served(&address);
        client.send_raw(&packet(says.as_bytes()));
        while client.reply().is_some() {}
        match runs {
            true => drop(guest.wait_for("demo guest: CPU 1 is up")),
            false => assert_held(&address, &what),
        }
    }
    let Some((guest, address)) = started(&["--on-disconnect", "kill"]) else {
        return;
    };
    assert_held(&address, "lost with --on-disconnect kill");
    let mut client = served(&address);
    client.send_raw(&packet(b"k"));
    assert_eq!(guest.finish().code, Some(6));
}

#[test]
fn a_client_that_sends_no_packet_is_closed_in_time_and_a_quiet_debugger_is_not() {
    let Some((_guest, address)) = started(&["--idle-timeout", "1"]) else {
        return;
    };
    let mut debugger = served(&address);
    for bytes in [&b""[..], b"+$qSupported"] {
        let mut silent = Packets::connect(&address);
        silent.send_raw(bytes);
        assert_eq!(silent.byte(), None, "still open");
    }
    assert_eq!(debugger.ask("p10"), FIRST_INSTRUCTION);
}

#[test]
fn a_stopped_client_is_evicted_by_a_signal() {
    if !gdb_here() {
        return;
    }
    let Some((mut guest, address)) = started(&[]) else {
        return;
    };
    // There is no client to evict.
    guest.signal("USR1");
    guest.wait_for("there is no debugger to evict");
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch", "-ex", &format!("target remote {address}")])
        .args(["-ex", "echo here\\n"])
        .args(["-ex", "python import time; time.sleep(1000)"])
        .stdin(Stdio::null());
    let mut gdb = Running::spawn(gdb);
    gdb.wait_for("here");
    gdb.signal("STOP");
    // The client stays connected, and no other client is served.
    let mut second = Packets::connect(&address);
    assert!(second.ask("?").starts_with("E."));
    guest.signal("USR1");
    guest.wait_for("evicting the debugger");
    assert_held(&address, "as after any lost client");
}

/// The server's reply to the first packet of a shell that runs as this user.
fn said_to_user(uid: u32, address: &str) -> String {
    let port = address.rsplit(':').next().expect("a port");
    let script =
        format!("exec 3<>/dev/tcp/127.0.0.1/{port}; printf '%s' '$?#3f' >&3; head -c 14 <&3");
    let output = Command::new("bash")
        .args(["-c", &script])
        .uid(uid)
        .current_dir(Path::new("/"))
        .output()
        .expect("bash runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn only_our_user_root_and_who_is_allowed_get_in_by_tcp() {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("SKIP: a client of another user's can be made by root only");
    }
    if Command::new("bash").arg("--version").output().is_err() {
        println!("SKIP: there is no bash here to connect as another user");
        return;
    }
    let ours = rustix::process::geteuid().as_raw();
    for (args, nobody_gets) in [
        (&[][..], "+$E.this debug"),
        (&["--gdb-allow-user", "1"], "+$E.this debug"),
        (&["--gdb-allow-user", "65534"], "+$T"),
        (
            &["--gdb-allow-user", "daemon", "--gdb-allow-user", "nobody"],
            "+$T",
        ),
    ] {
        let Some((_guest, address)) = started(args) else {
            return;
        };
        let said = said_to_user(ours, &address);
        assert!(said.starts_with("+$T"), "our own user: {said}");
        if root {
            let said = said_to_user(NOBODY, &address);
            assert!(said.starts_with(nobody_gets), "{args:?}: {said}");
            let said = said_to_user(0, &address);
            assert!(said.starts_with("+$T"), "{args:?}, after it: {said}");
        }
    }
}

#[test]
fn a_flood_of_refused_clients_is_a_few_lines_in_the_log() {
    let Some((guest, address)) = started(&[]) else {
        return;
    };
    let mut first = served(&address);
    // Each client stays connected until it has been refused.
    let refused = (0..300).map(|_| {
        let mut refused = Packets::connect(&address);
        refused.send_raw(&packet(b"?"));
        refused
    });
    drop(refused.collect::<Vec<_>>());
    first.send_raw(&packet(b"m100000,2"));
    let reply = first.reply();
    guest.signal("INT");
    let output = guest.finish().output;
    assert_eq!(reply.as_deref(), Some("fafc"), "{output}");
    let lines = output.matches("debugger refused").count();
    assert!((1..20).contains(&lines), "{lines} lines");
}

#[test]
fn a_client_that_follows_one_which_just_closed_is_served() {
    let Some(mut guest) = guest(&[]) else { return };
    let address = guest.address();
    for _ in 0..100 {
        let mut client = served(&address);
        assert!(client.ask("g").len() > 100);
        client.send_raw(&packet(b"g"));
        client.send_raw(&packet(b"m100000,1000"));
    }
}
