//! QEMU under `trapgate exec`: debuggers, the monitor and the end.

use crate::bed::library;
use crate::bed::qemu::folder_for_qemu;
use crate::bed::qemu::pc;
use crate::bed::qemu::rip;
use crate::bed::qemu::start;
use crate::bed::qemu::start_with;
use std::process::Command;
use std::time::Instant;
use test_machine::gdb_client::gdb_here;
use test_machine::gdb_client::in_order;
use test_machine::packets::Packets;
use test_machine::packets::packet;
use test_machine::running::DEADLINE;
use test_machine::running::trapgate;

#[test]
fn gdb_debugs_both_vcpus() {
    let Some(mut qemu) = start(&["--wait"]) else {
        return;
    };
    if !gdb_here() {
        return;
    }
    let text = qemu.gdb(&[
        "p/x $pc",
        "hbreak *0x100000",
        "continue",
        "delete",
        "info symbol $pc",
        "stepi",
        "break do_round if cpu == &cpus[0]",
        "continue",
        "delete",
        "break do_round if cpu == &cpus[1]",
        "continue",
        "bt",
        "info threads",
        "delete",
        "p cpus[1].rounds",
        "next",
        "stepi",
        "p/x $cr0",
        "p $efer",
        "set var cpus[1].primes = 4711",
        "p cpus[1].primes",
        "x/4i $pc",
        "detach",
    ]);
    in_order(
        &text,
        &[
            // The first instruction of a PC after power-on.
            "$1 = 0xfffffff0",
            "Breakpoint 1, ",
            "pvh_start in section .text",
            "hit Breakpoint 2, do_round (cpu=",
            "hit Breakpoint 3, do_round (cpu=",
            "#1  ",
            " cpu_loop (cpu=",
            "* 2 ",
            "VP 1",
            "$2 = ",
            "$3 = 0x80",
            "$5 = 4711",
            "=> 0x",
            "detached",
        ],
    );
    qemu.at_once("query-status");
    qemu.vmm.say(r#"{"execute":"quit"}"#);
    let ended = qemu.vmm.process.finish();
    assert_eq!(ended.code, Some(0), "{}", ended.output);
}

#[test]
fn the_monitor_answers_at_once_while_a_debugger_holds_the_guest() {
    let Some(mut qemu) = start(&["--wait"]) else {
        return;
    };
    let mut packets = qemu.vmm.packets();
    qemu.at_once("query-status");
    let site = qemu.address_of("do_round");
    assert_eq!(packets.ask(&format!("Z1,{site:x},1")), "OK");
    for _ in 0..3 {
        qemu.runs_to(&mut packets, site);
        assert!(qemu.at_once("stop").contains("return"));
        let answer = qemu.at_once("query-status");
        assert!(answer.contains(r#""running": false"#), "{answer}");
        qemu.at_once("query-cpus-fast");
        qemu.at_once("cont");
        let answer = qemu.at_once("query-status");
        assert!(answer.contains(r#""running": true"#), "{answer}");
        // The debugger still holds the guest, at the same place.
        assert_eq!(rip(&mut packets), site);
    }
    assert_eq!(packets.ask("D"), "OK");
    qemu.at_once("query-status");
}

#[test]
fn a_breakpoint_outlives_a_reset() {
    let Some(mut qemu) = start(&["--wait"]) else {
        return;
    };
    let mut packets = qemu.vmm.packets();
    let site = qemu.address_of("do_round");
    assert_eq!(packets.ask(&format!("Z1,{site:x},1")), "OK");
    qemu.runs_to(&mut packets, site);
    // QEMU loads the guest's memory anew, and starts it at the firmware.
    qemu.at_once("system_reset");
    for _ in 0..3 {
        qemu.runs_to(&mut packets, site);
    }
    assert_eq!(packets.ask(&format!("z1,{site:x},1")), "OK");
    assert_eq!(packets.ask("D"), "OK");
}

#[test]
fn a_vmm_that_ends_ends_the_session() {
    let Some(mut qemu) = start(&["--wait"]) else {
        return;
    };
    let mut packets = qemu.vmm.packets();
    // A guest that runs, and a client that waits for it.
    packets.send_raw(&packet(b"c"));
    qemu.at_once("query-status");
    qemu.vmm.say(r#"{"execute":"quit"}"#);
    while packets.byte().is_some() {}
    let ended = qemu.vmm.process.finish();
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    // It has no filter of system calls, only the question which ones there are.
    assert!(!ended.output.contains("forbids"), "{}", ended.output);
}

#[test]
fn qemu_that_debugs_the_guest_itself_is_told_so() {
    let Some(mut qemu) = start(&[]) else {
        return;
    };
    let socket = qemu.folder.path().join("own-stub");
    let device = format!(
        r#""command-line":"gdbserver unix:{},server=on,wait=off""#,
        socket.display()
    );
    qemu.monitor("human-monitor-command", &device);
    let mut own = Packets::connect_unix(socket.to_str().expect("text"));
    let site = qemu.address_of("do_round");
    own.send_raw(&packet(format!("Z1,{site:x},1").as_bytes()));
    qemu.vmm.process.wait_for("debugs its guest itself");
}

#[test]
fn qemus_own_filter_of_system_calls_lets_the_debugger_work() {
    let Some(mut qemu) = start_with(&["--wait"], &["-sandbox", "on"]) else {
        return;
    };
    qemu.vmm.process.wait_for("the VMM forbids system calls");
    let mut packets = qemu.vmm.packets();
    let site = qemu.address_of("do_round");
    assert_eq!(packets.ask(&format!("Z1,{site:x},1")), "OK");
    qemu.runs_to(&mut packets, site);
    assert_eq!(packets.ask("D"), "OK");
    qemu.at_once("query-status");
}

/// The socket is at a relative path, and QEMU changes to `/`.
#[test]
fn qemu_in_the_background_is_debugged_and_removes_its_socket() {
    let Some(folder) = folder_for_qemu() else {
        return;
    };
    let pid = folder.path().join("pid");
    let pid_file = pid.to_str().expect("text");
    let mut command = trapgate(&["exec", "--gdb", "unix:gdb.sock", "--library"]);
    command.arg(library()).arg("--").args(pc());
    command.args(["-daemonize", "-pidfile", pid_file]);
    let ended = command.current_dir(folder.path()).output();
    let ended = ended.expect("QEMU's parent ends");
    let error = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success(), "{error}");
    let socket = folder.path().join("gdb.sock");
    let listens = format!("gdb: listening on unix:{}", socket.display());
    assert!(error.contains(&listens), "{error}");
    assert!(!error.contains("created no VM"), "{error}");
    let mut packets = Packets::connect_unix(socket.to_str().expect("text"));
    assert!(packets.ask("?").starts_with('T'));
    let pid = std::fs::read_to_string(&pid).expect("QEMU has written it");
    let killed = Command::new("kill").arg(pid.trim()).status();
    assert!(killed.expect("every system has it").success());
    while packets.byte().is_some() {}
    let deadline = Instant::now() + DEADLINE;
    while socket.exists() {
        assert!(Instant::now() < deadline, "the socket stays behind");
        std::thread::yield_now();
    }
}

#[test]
fn a_vcpu_that_is_plugged_in_is_a_thread_from_the_next_stop_on() {
    // The last `-smp` counts.
    let arguments = ["-smp", "1,maxcpus=2"];
    let Some(mut qemu) = start_with(&["--wait"], &arguments) else {
        return;
    };
    let mut packets = qemu.vmm.packets();
    let site = qemu.address_of("do_round");
    assert_eq!(packets.ask(&format!("Z1,{site:x},1")), "OK");
    qemu.runs_to(&mut packets, site);
    let cpu = r#""driver":"qemu64-x86_64-cpu","socket-id":0,"core-id":1,"thread-id":0"#;
    assert_eq!(packets.ask("qfThreadInfo"), "m1");
    qemu.monitor("device_add", cpu);
    // The thread of the new vCPU registers when QEMU has started it.
    let deadline = Instant::now() + DEADLINE;
    loop {
        qemu.runs_to(&mut packets, site);
        let threads = packets.ask("qfThreadInfo");
        if threads == "m1,2" {
            break;
        }
        assert_eq!(threads, "m1");
        assert!(Instant::now() < deadline, "{threads}");
    }
    // It waits for its first interrupt between processors, in real mode.
    assert_eq!(packets.ask("Hg2"), "OK");
    assert_eq!(rip(&mut packets), 0xffff_fff0);
}
