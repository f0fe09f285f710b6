//! Hostile input and missing answers, from clients and from the VM.

use super::bed::Bed;
use super::bed::packet;
use super::bed::unhex;
use super::fake_vm::MEMORY_SIZE;
use crate::DebugListener;
use crate::SessionSettings;
use socket2::SockRef;
use std::fs;
use std::net::Shutdown;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::condition::MOST_OUTPUT;
use vmm_core_defs::stop::DebugStopReason;

fn impatient() -> Bed {
    Bed::with(SessionSettings {
        rpc_deadline: Duration::from_millis(50),
        ..Default::default()
    })
}

#[test]
fn a_vm_that_does_not_answer_is_an_error_and_the_session_goes_on() {
    for (mute, request) in [
        ("get vp state", "g"),
        ("read memory", "m0,4"),
        ("write memory", "M0,1:00"),
        ("set debug state", "Z1,1000,1"),
        ("status", "qThreadExtraInfo,1"),
    ] {
        let bed = impatient();
        let mut client = bed.attach();
        client.ask("qSupported:error-message+");
        bed.vm.mute(mute);
        let error = client.ask(request);
        assert!(
            error.starts_with("E.the VMM did not answer within 0.05 s"),
            "{request}: {error}"
        );
        bed.vm.mute("");
        assert!(!client.ask(request).starts_with('E'), "{request}");
    }
}

#[test]
fn a_vm_that_cannot_be_interrupted_does_not_hold_up_the_client() {
    let bed = impatient();
    let mut client = bed.attach_and_continue();
    bed.vm.mute("break");
    client.send_raw(b"\x03");
    bed.vm.wait_asked("break");
    let console = client.reply();
    assert!(
        unhex(&console[1..]).contains("did not answer within 0.05 s"),
        "{console}"
    );
    // The stop comes after all, and is reported as usual.
    bed.vm
        .stop(DebugStopReason::SingleStep { vp: VpIndex::BSP });
    assert!(client.reply().starts_with("T05"));
    assert_eq!(client.ask("m1,1"), "01");
}

#[test]
fn a_vm_that_does_not_attach_is_told_to_the_client() {
    let bed = impatient();
    bed.vm.mute("attach");
    let mut client = bed.connect();
    let refusal = client.ask("?");
    assert!(
        refusal.contains("cannot attach: the VMM did not answer within 0.05 s"),
        "{refusal}"
    );
    client.expect_closed();
    bed.vm.answer_muted();
    assert_eq!(bed.vm.wait_detached().len(), 1, "it attaches after all");
    bed.attach();
}

#[test]
fn a_vm_that_goes_away_ends_the_server() {
    // While the guest is stopped.
    let mut bed = Bed::new();
    let mut client = bed.attach();
    // This makes the request the next event that the session sees.
    client.ask("m0,1");
    bed.drop_vm();
    assert_eq!(client.ask("m0,1"), "E13");
    client.expect_closed();
    bed.join();
    // While the guest runs.
    let mut bed = Bed::new();
    let mut client = bed.attach_and_continue();
    // An interrupt reaches the VM only after the session has seen the guest running.
    bed.vm.mute("break");
    client.send_raw(b"\x03");
    bed.vm.wait_asked("break");
    bed.drop_vm();
    bed.vm.forget_running();
    let mut console = String::new();
    let stop = loop {
        let reply = client.reply();
        match reply.strip_prefix('O') {
            Some(text) => console.push_str(&unhex(text)),
            None => break reply,
        }
    };
    assert!(
        console.contains("The guest no longer runs: the VMM has closed the channel"),
        "{console}"
    );
    assert_eq!(stop, "X09");
    client.expect_closed();
    bed.join();
    // Before a client is attached.
    let mut bed = Bed::new();
    assert_eq!(bed.inspect("state").as_deref(), Some("listening"));
    bed.drop_vm();
    let mut client = bed.connect();
    assert!(client.ask("?").contains("the guest is gone"));
    client.expect_closed();
    bed.join();
}

#[test]
fn a_request_that_the_vm_drops_late_is_an_error_before_the_deadline() {
    let bed = Bed::with(SessionSettings {
        // The client waits less long.
        rpc_deadline: Duration::from_secs(3600),
        ..Default::default()
    });
    let mut client = bed.attach();
    bed.vm.mute("read memory");
    client.send("m0,1");
    bed.vm.wait_asked("read memory");
    // The session waits for the answer now.
    bed.settle();
    bed.vm.forget_running();
    assert_eq!(client.reply(), "E13");
}

#[test]
fn nothing_a_client_sends_ends_its_session() {
    let bed = Bed::new();
    let mut client = bed.attach();
    let long = "x".repeat(3 << 20);
    for (sent, reply) in [
        ("$g#00", None),
        ("$vUnknown;packet#7a", None),
        ("$", None),
        ("}}}###$$$", None),
        ("$m,#fe", None),
        ("$mffffffffffffffff,ffffffffffffffff#40", None),
        ("\u{3}\u{3}\u{3}", None),
        (long.as_str(), None),
        (packet(&long).as_str(), None),
        (packet("m1,3").as_str(), Some("010203")),
    ] {
        client.send_raw(sent.as_bytes());
        if let Some(expected) = reply {
            // Error replies to the remaining bytes may come before the reply, never after it.
            while client.reply() != expected {}
        }
    }
    assert_eq!(client.ask("m1,1"), "01");
    assert_eq!(bed.vm.asked("detach"), 0);
}

#[test]
fn a_client_that_does_not_read_is_left_waiting_and_then_gets_everything() {
    let dir = tempfile::tempdir().unwrap();
    let (bed, mut client) = Bed::with_unix_session(dir.path());
    let requests = 400;
    for _ in 0..requests {
        client.send("m0,8000");
    }
    bed.vm.wait_asked("read memory");
    let mut carried_out = 0;
    while bed.vm.asked("read memory") != carried_out {
        carried_out = bed.vm.asked("read memory");
        bed.settle();
    }
    assert!(
        carried_out < 100,
        "{carried_out} replies of 64 KiB wait for a client that does not read"
    );
    for _ in 0..requests {
        assert_eq!(client.reply().len(), 0x10000);
    }
    assert_eq!(bed.vm.asked("read memory"), requests);
    assert_eq!(client.ask("m1,1"), "01");
}

#[test]
fn an_interrupt_is_read_while_replies_wait_to_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let (bed, mut client) = Bed::with_unix_session(dir.path());
    // More bytes than the socket holds, and fewer than make the session wait.
    let replies = 10;
    for _ in 0..replies {
        client.send("m0,8000");
    }
    client.send("vCont;c");
    bed.vm.wait_running();
    client.send_raw(b"\x03");
    bed.vm.wait_asked("break");
    for _ in 0..replies {
        assert_eq!(client.reply().len(), 0x10000);
    }
    assert!(client.reply().starts_with("T02"));
}

#[test]
fn a_client_that_neither_reads_nor_stays_is_given_up() {
    let bed = Bed::with(SessionSettings {
        rpc_deadline: Duration::from_millis(100),
        ..Default::default()
    });
    let mut client = bed.attach();
    for _ in 0..400 {
        client.send("m0,8000");
    }
    client.half_close();
    bed.vm.wait_detached();
    bed.attach();
}

#[test]
fn a_half_closed_client_gets_all_its_replies() {
    let bed = Bed::new();
    let mut client = bed.attach();
    for offset in 0..8 {
        client.send(&format!("m{offset},1"));
    }
    client.half_close();
    for offset in 0..8 {
        assert_eq!(client.reply(), format!("0{offset}"));
    }
    client.expect_closed();
    assert_eq!(bed.vm.wait_detached().len(), 1);
}

#[test]
fn a_large_reply_arrives_whole() {
    let bed = Bed::new();
    let mut client = bed.attach();
    let length = 0xf000;
    let mut memory = String::new();
    for start in (0..MEMORY_SIZE).step_by(length) {
        let length = length.min(MEMORY_SIZE - start);
        let reply = client.ask(&format!("m{start:x},{length:x}"));
        assert!(!reply.starts_with('E'), "{start:x}: {reply}");
        memory.push_str(&reply);
    }
    let expected: String = (0..=250_u8)
        .cycle()
        .take(MEMORY_SIZE)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert!(memory == expected);
}

#[test]
fn a_listener_that_fails_for_a_while_does_not_end_the_server() {
    let listener =
        DebugListener::bind(&"127.0.0.1:0".parse().unwrap(), Default::default()).unwrap();
    let broken = listener.try_clone_for_test();
    let mut bed = Bed::with_listener(listener, SessionSettings::default());
    let mut client = bed.attach();
    // accept(2) fails with EINVAL from now on.
    SockRef::from(&broken).shutdown(Shutdown::Both).unwrap();
    assert_eq!(client.ask("m1,1"), "01");
    assert_eq!(bed.inspect("state").as_deref(), Some("connected"));
    drop(client);
    bed.vm.wait_detached();
    bed.stop();
}

/// The number of times that the server's thread has gone to sleep.
fn sleeps(thread: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/self/task/{thread}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

fn thread_named(name: &str) -> u32 {
    let mut ids = fs::read_dir("/proc/self/task")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let id = ids.find(|id| {
        fs::read_to_string(format!("/proc/self/task/{id}/comm"))
            .is_ok_and(|comm| comm.trim() == name)
    });
    id.unwrap().parse().unwrap()
}

#[test]
fn an_idle_server_sleeps() {
    let listener =
        DebugListener::bind(&"127.0.0.1:0".parse().unwrap(), Default::default()).unwrap();
    let bed = Bed::with_named_thread(listener, SessionSettings::default(), "idle-bed");
    let mut client = bed.attach();
    client.ask("g");
    client.send("vCont;c");
    bed.vm.wait_running();
    let thread = thread_named("idle-bed");
    // The test observes a period in which nothing has to happen; it does not wait for an event. The thread may still be
    // about to sleep when the period begins.
    let look = |window| {
        let (_keep, nothing) = mpsc::channel::<()>();
        let before = sleeps(thread);
        let start = Instant::now();
        let _ = nothing.recv_timeout(window);
        (sleeps(thread) - before, start.elapsed())
    };
    look(Duration::from_millis(50));
    let (sleeps, window) = look(Duration::from_millis(500));
    assert_eq!(sleeps, 0, "woken {sleeps} times in {window:?} of quiet");
}

/// The VM keeps a limited length of text, and the server none.
#[test]
fn a_client_that_does_not_read_gets_no_more_output_of_commands() {
    const ANSWERS: u32 = 400;
    let bed = Bed::new();
    let mut client = bed.attach();
    assert_eq!(client.ask("Z0,1000,1;cmds:1,X1,27"), "OK");
    bed.vm.prints(ANSWERS);
    client.send("vCont;c");
    for _ in 0..500 {
        bed.settle();
    }
    // The sockets hold less than half of the text.
    let asked = bed.vm.asked("command output");
    assert!((1..200).contains(&asked), "{asked}");
    client.send_raw(b"\x03");
    let text = std::iter::repeat_with(|| client.reply()).take_while(|reply| reply.starts_with('O'));
    let length: usize = text.map(|packet| (packet.len() - 1) / 2).sum();
    assert!(length > MOST_OUTPUT, "{length}");
}
