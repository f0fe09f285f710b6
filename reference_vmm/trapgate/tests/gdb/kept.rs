//! `--on-crash stop`: a guest that crashes without a debugger is kept for a debugger.

use crate::gdb_client::gdb;
use crate::gdb_client::gdb_to_the_end;
use crate::gdb_client::guest;
use crate::gdb_client::in_order;
use crate::packets::Packets;
use crate::running::Running;
use std::net::TcpStream;

/// This address is mapped and has no memory, so no instruction can be fetched from it. It is not in the local APIC's
/// page, because a CPU with virtual APIC accesses does fetch from that page.
const NO_CODE: &str = "0xfee10000";

const KEPT: &str = "the guest is kept, stopped (--on-crash stop)";

/// Returns the output up to the next line which says that the guest is kept.
#[track_caller]
fn next_kept(guest: &mut Running) -> String {
    loop {
        let line = guest.next_line(crate::running::DEADLINE);
        let line = line.expect("it goes on to print").expect("it runs");
        if line.contains(KEPT) {
            return line;
        }
    }
}

#[track_caller]
fn in_text(text: &str, parts: &[String]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
}

/// Without GDB, each CPU of the guest in turn jumps to an address from which it cannot run.
#[test]
fn gdb_attaches_to_a_crashed_guest_repairs_it_and_comes_back_after_a_second_crash() {
    for cpus in [1, 2, 4] {
        let count = format!("{cpus}");
        let Some(mut guest) = guest(&["--cpus", &count, "--on-crash", "stop"]) else {
            return;
        };
        let line = guest.gdb_line();
        let (vp, thread) = (cpus - 1, cpus);
        let here = format!("tbreak do_round thread {thread}");
        let gone = format!("set $pc = {NO_CODE}");
        let first_crash = [&here, "continue", &gone, "detach"];
        gdb(&mut guest, &first_crash);
        let told = next_kept(&mut guest);
        in_text(&told, &[format!("KVM cannot go on with CPU {vp}: ")]);
        // The line to paste.
        let pasted = guest.next_line(crate::running::DEADLINE).unwrap();
        assert_eq!(pasted, Some(String::new()));
        let pasted = guest.next_line(crate::running::DEADLINE).unwrap();
        assert_eq!(pasted.as_deref().map(str::trim), Some(line.as_str()));
        // A connection without a request changes nothing.
        for _ in 0..5 {
            drop(TcpStream::connect(guest.address()).expect("the server listens"));
        }
        let mut noise = Packets::connect(&guest.address());
        noise.send_raw(b"GET / HTTP/1.0\r\n\r\n");
        drop(noise);
        // When a client is lost, or sends `kill`, the guest is kept for the next client.
        for goes in ["?", "k"] {
            let mut client = Packets::connect(&guest.address());
            let stop = client.ask("?");
            assert_eq!(stop, format!("T06thread:{thread:x};"));
            client.send_raw(&crate::packets::packet(goes.as_bytes()));
            drop(client);
            next_kept(&mut guest);
        }
        let text = gdb(
            &mut guest,
            &[
                "info threads",
                "p $_thread",
                "p/x $pc",
                // The first CPU may not have counted itself yet.
                "p cpus_online > 0",
                "monitor status",
                "set $pc = (unsigned long) do_round",
                &here,
                "continue",
                "bt 1",
                &gone,
                "detach",
            ],
        );
        let fate = format!("VP {vp}: ");
        in_order(
            &text,
            &[
                &format!("* {thread} "),
                &fate,
                "; cannot go on: KVM reports internal error",
                &format!("$1 = {thread}"),
                &format!("$2 = {NO_CODE}"),
                "$3 = 1",
                "Temporary breakpoint 1, do_round",
                "#0  do_round",
            ],
        );
        in_text(
            &text,
            &[
                format!("When this debugger attached: VP {vp} cannot go on: "),
                format!("thread {thread}  VP {vp}: "),
            ],
        );
        next_kept(&mut guest);
        let text = gdb(
            &mut guest,
            &[
                "p/x $pc",
                "monitor reset",
                "maintenance flush register-cache",
                "tbreak first_cpu_main",
                "continue",
                "detach",
            ],
        );
        in_order(&text, &[&format!("$1 = {NO_CODE}"), "first_cpu_main"]);
        guest.line("a second boot", |line| line.contains("boot 2,"));
        // A guest that has ended while a debugger was attached has ended for good.
        gdb(&mut guest, &first_crash);
        next_kept(&mut guest);
        let text = gdb_to_the_end(&mut guest, &["p/x $pc", "detach"]);
        in_order(&text, &[&format!("$1 = {NO_CODE}")]);
        let ended = guest.finish();
        assert_eq!(ended.code, Some(5), "{}", ended.output);
        assert!(!ended.output.contains("with gdb attached"));
    }
}

#[test]
fn a_triple_fault_is_kept_where_it_would_end_the_guest_and_starts_it_again_where_not() {
    let fault = ["--no-wait", "--on-crash", "stop", "--cmdline"];
    for cpus in ["1", "2", "4"] {
        let scenario = ["scenario=triplefault", "--cpus", cpus, "--no-reboot"];
        let Some(mut guest) = guest(&[&fault[..], &scenario].concat()) else {
            return;
        };
        let told = next_kept(&mut guest);
        assert!(told.contains("CPU 0 met a triple fault"), "{told}");
        let text = gdb_to_the_end(
            &mut guest,
            &["info threads", "p counter", "monitor status", "detach"],
        );
        in_order(&text, &["* 1 ", "met a triple fault", "$1 = "]);
        in_text(&text, &["VP 0 met a triple fault: it could not".to_owned()]);
        assert_eq!(guest.finish().code, Some(4), "{cpus} CPUs");
    }
    let Some(mut guest) = guest(&[&fault[..], &["scenario=triplefault"]].concat()) else {
        return;
    };
    guest.wait_for("demo guest: boot 2,");
}

#[test]
fn a_crash_that_a_debugger_saw_is_kept_when_it_is_lost_and_signals_end_a_kept_guest() {
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let scenario = ["--no-reboot", "--cmdline", "scenario=triplefault"];
        let Some(mut guest) = guest(&[&["--on-crash", "stop"][..], &scenario].concat()) else {
            return;
        };
        let mut client = Packets::connect(&guest.address());
        assert!(client.ask("?").starts_with('T'));
        let explained = client.ask("vCont;c");
        assert!(explained.starts_with('O'), "{explained}");
        let stop = client.reply().expect("a stop");
        assert!(stop.starts_with("T0b"), "{stop}");
        drop(client);
        next_kept(&mut guest);
        assert!(guest.is_running());
        guest.signal(signal);
        assert_eq!(guest.finish().code, Some(code));
    }
}
