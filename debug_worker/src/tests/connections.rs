//! Which connections become debuggers, which do not, and which wait for others.

use super::bed::Bed;
use super::bed::Client;
use super::bed::packet;
use crate::SessionSettings;
use std::time::Duration;
use std::time::Instant;
use vmm_core_defs::debug_rpc::DetachAction;

/// The action that the VM gets for a lost client.
const LOST: [DetachAction; 1] = [DetachAction::ResumeUnlessHeld];

const LONG: Duration = Duration::from_secs(3600);

fn idle_timeout(idle_timeout: Duration) -> SessionSettings {
    SessionSettings {
        idle_timeout,
        ..Default::default()
    }
}

/// Clients that have sent something, but no well-formed packet.
fn silent_clients(bed: &Bed) -> Vec<Client> {
    let bytes = [&b""[..], b"+", b"-+\x03", b"$qSupported", b"$?#00"];
    let clients = bytes.iter().map(|bytes| {
        let mut client = bed.connect();
        client.send_raw(bytes);
        client
    });
    clients.collect()
}

#[test]
fn a_connection_without_a_packet_does_nothing_to_the_guest_and_keeps_nobody_waiting() {
    let bed = Bed::with(idle_timeout(LONG));
    for _ in 0..50 {
        // A port probe.
        drop(bed.connect());
    }
    let silent = silent_clients(&bed);
    bed.wait_for("silent", &silent.len().to_string());
    bed.settle();
    assert_eq!(bed.inspect("state").as_deref(), Some("listening"));
    assert_eq!(bed.vm.asked("attach"), 0);
    let mut debugger = bed.attach_and_continue();
    drop(silent);
    bed.wait_for("silent", "0");
    assert_eq!(bed.vm.asked("attach"), 1);
    assert_eq!(bed.vm.asked("break") + bed.vm.asked("detach"), 0);
    assert_eq!(debugger.ask("m1,1"), "01");
}

#[test]
fn the_first_of_the_silent_that_speaks_is_the_debugger() {
    let bed = Bed::with(SessionSettings {
        refuse_after: Duration::from_millis(20),
        ..idle_timeout(LONG)
    });
    let mut first = bed.connect();
    let mut second = bed.connect();
    second.start();
    let refusal = first.ask("?");
    assert!(
        refusal.starts_with("E.another debugger is connected"),
        "{refusal}"
    );
    assert_eq!(second.ask("D"), "OK");
    assert_eq!(bed.vm.asked("attach"), 1);
}

#[test]
fn a_packet_in_pieces_and_with_a_retry_opens_a_session() {
    let bed = Bed::new();
    let mut client = bed.connect();
    client.send_raw(b"+$m1,1#00");
    bed.wait_for("silent", "1");
    for piece in ["$m", "1,", "1#", "fb"] {
        client.send_raw(piece.as_bytes());
        bed.settle();
    }
    assert_eq!(client.reply(), "01");
    assert_eq!(bed.vm.asked("attach"), 1);
}

#[test]
fn a_client_that_sends_no_packet_in_time_is_closed() {
    let bed = Bed::with(idle_timeout(Duration::from_millis(100)));
    for mut client in silent_clients(&bed) {
        client.expect_closed();
    }
    // A client whose bytes arrive one by one.
    let mut trickle = bed.connect();
    let end = Instant::now() + Duration::from_secs(20);
    while trickle.try_send_raw(b"+").is_ok() {
        assert!(Instant::now() < end, "it is still there");
        bed.settle();
    }
    assert_eq!(bed.vm.asked("attach"), 0);
}

#[test]
fn a_client_that_has_spoken_may_be_quiet_for_as_long_as_it_likes() {
    let bed = Bed::with(idle_timeout(Duration::from_millis(50)));
    let mut stopped = bed.attach();
    // Each of these connections is closed after the timeout.
    bed.connect().expect_closed();
    bed.connect().expect_closed();
    assert_eq!(stopped.ask("m1,1"), "01");
    bed.let_run(&mut stopped);
    bed.connect().expect_closed();
    bed.connect().expect_closed();
    stopped.send_raw(b"\x03");
    assert!(stopped.reply().starts_with("T02"));
}

#[test]
fn what_a_client_may_send_before_its_first_packet_is_bounded() {
    let bed = Bed::with(idle_timeout(LONG));
    for piece in [&b"+"[..], b"$", b"$x#00", b"$xxxxxxxx"] {
        let mut client = bed.connect();
        let piece = piece.repeat(0x8000 / piece.len());
        let end = Instant::now() + Duration::from_secs(20);
        // The client's own socket takes some more bytes.
        while client.try_send_raw(&piece).is_ok() {
            assert!(Instant::now() < end, "it may still send");
        }
    }
    assert_eq!(bed.vm.asked("attach"), 0);
}

#[test]
fn a_crowd_of_silent_clients_keeps_no_debugger_out() {
    let bed = Bed::with(idle_timeout(LONG));
    let mut crowd: Vec<_> = (0..100).map(|_| bed.connect()).collect();
    bed.attach();
    // The client that had been silent longest was closed.
    crowd[0].expect_closed();
    let silent: usize = bed.inspect("silent").expect("a number").parse().unwrap();
    assert!(silent <= 16, "{silent} are there");
}

#[test]
fn a_client_that_stops_reading_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let settings = idle_timeout(Duration::from_millis(100));
    let (bed, mut client) = Bed::with_unix_session_and(dir.path(), settings);
    for _ in 0..400 {
        // The server may close the connection before the client has sent all of them.
        if client.try_send_raw(packet("m0,8000").as_bytes()).is_err() {
            break;
        }
    }
    assert_eq!(bed.vm.wait_detached(), LOST);
    // The client gets the replies that were already sent, and then the end of the stream.
    while client.try_reply().is_some() {}
}

/// The timeout limits the time for which the client takes no byte, not the total time of its replies.
#[test]
fn a_client_that_reads_late_time_and_again_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let settings = idle_timeout(Duration::from_secs(1));
    let (bed, mut client) = Bed::with_unix_session_and(dir.path(), settings);
    for _ in 0..2 {
        let before = bed.vm.asked("read memory");
        client.send_raw(packet("m0,8000").repeat(32).as_bytes());
        // More bytes are unsent than the socket holds.
        bed.vm.wait_asked_more("read memory", before + 12);
        bed.settle();
        for _ in 0..32 {
            client.reply();
        }
        // More time than the timeout passes.
        bed.connect().expect_closed();
    }
    assert_eq!(client.ask("m1,1"), "01");
}

/// The client waits even if the request that was in flight takes longer than `refuse_after`.
#[test]
fn a_client_that_follows_one_which_closed_with_a_request_in_flight_is_served() {
    let bed = Bed::with(SessionSettings {
        rpc_deadline: Duration::from_millis(200),
        refuse_after: Duration::from_millis(1),
        ..Default::default()
    });
    for _ in 0..5 {
        let mut client = bed.attach();
        bed.vm.mute("get vp state");
        let before = bed.vm.asked("get vp state");
        client.send("g");
        bed.vm.wait_asked_more("get vp state", before);
        client.half_close();
        let mut next = bed.connect();
        next.start();
        bed.vm.mute("");
        assert_eq!(next.ask("m1,1"), "01");
    }
    // The order in which this usually happens.
    for _ in 0..300 {
        let mut client = bed.attach();
        client.send("g");
        client.send("m0,8000");
    }
}

#[test]
fn those_who_wait_are_served_in_turn() {
    let bed = Bed::new();
    let client = bed.attach();
    bed.vm.mute("detach");
    drop(client);
    bed.vm.wait_asked("detach");
    let mut waiting: Vec<_> = (1..=3)
        .map(|count: usize| {
            let mut client = bed.connect();
            client.send("?");
            bed.wait_for("waiting", &count.to_string());
            client
        })
        .collect();
    bed.vm.answer_muted();
    for client in &mut waiting {
        assert!(client.reply().starts_with("T02"));
        assert_eq!(client.ask("D"), "OK");
    }
}

/// The clients behind wait for another client then, from the moment at which it is served.
#[test]
fn how_long_a_client_may_wait_begins_anew_with_each_client_before_it() {
    let refuse_after = Duration::from_secs(1);
    let bed = Bed::with(SessionSettings {
        refuse_after,
        ..idle_timeout(refuse_after * 3 / 2)
    });
    let client = bed.attach();
    bed.vm.mute("detach");
    drop(client);
    bed.vm.wait_asked("detach");
    let [mut next, mut last] = ["1", "2"].map(|count| {
        let mut client = bed.connect();
        client.send("?");
        bed.wait_for("waiting", count);
        client
    });
    // The connection is closed after the idle timeout.
    bed.connect().expect_closed();
    bed.vm.answer_muted();
    assert!(next.reply().starts_with("T02"));
    bed.settle();
    assert_eq!(next.ask("D"), "OK");
    let stop = last.reply();
    assert!(stop.starts_with("T02"), "{stop}");
}

#[test]
fn a_queue_of_clients_is_bounded() {
    let bed = Bed::new();
    let client = bed.attach();
    bed.vm.mute("detach");
    drop(client);
    bed.vm.wait_asked("detach");
    let waiting: Vec<_> = (1..=8)
        .map(|count: usize| {
            let mut client = bed.connect();
            client.send("?");
            bed.wait_for("waiting", &count.to_string());
            client
        })
        .collect();
    let refusal = bed.connect().ask("?");
    assert!(
        refusal.starts_with("E.the last debugger's session has not ended yet"),
        "{refusal}"
    );
    // No other client was refused because of it.
    bed.wait_for("waiting", "8");
    bed.vm.answer_muted();
    drop(waiting);
}

/// Each request that was in flight may take the deadline, and there may be many requests.
#[test]
fn a_client_that_follows_one_whose_requests_take_long_waits_not_for_all_of_them() {
    let bed = Bed::with(SessionSettings {
        rpc_deadline: Duration::from_millis(200),
        ..Default::default()
    });
    let mut client = bed.attach();
    bed.vm.mute("get vp state");
    client.send_raw(packet("g").repeat(50).as_bytes());
    bed.vm.wait_asked("get vp state");
    client.half_close();
    let refusal = bed.connect().ask("?");
    assert!(
        refusal.starts_with("E.another debugger is connected"),
        "{refusal}"
    );
    assert!(bed.vm.asked("get vp state") < 50, "it waited for them");
    assert_eq!(bed.vm.asked("detach"), 0);
}

/// Waiting for a session that does not end is limited.
#[test]
fn a_client_that_waits_for_too_long_is_told_so() {
    let rpc_deadline = Duration::from_millis(500);
    let bed = Bed::with(SessionSettings {
        rpc_deadline,
        ..Default::default()
    });
    let client = bed.attach();
    bed.vm.mute("detach");
    drop(client);
    bed.vm.wait_asked("detach");
    let start = Instant::now();
    let mut next = bed.connect();
    // The fake is still attached when the server gives up waiting for its answer.
    assert!(next.ask("?").starts_with("E."));
    assert!(start.elapsed() < 4 * rpc_deadline);
}

#[test]
fn an_evicted_client_is_a_lost_one_and_the_next_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let settings = idle_timeout(LONG);
    let (bed, mut client) = Bed::with_unix_session_and(dir.path(), settings.clone());
    bed.let_run(&mut client);
    bed.evictor.evict();
    assert_eq!(bed.vm.wait_detached(), LOST);
    client.expect_closed();
    // A client that does not read: the eviction waits for nothing.
    let dir = tempfile::tempdir().unwrap();
    let settings = SessionSettings {
        rpc_deadline: LONG,
        ..settings
    };
    let (bed, mut client) = Bed::with_unix_session_and(dir.path(), settings);
    for _ in 0..400 {
        client.send("m0,8000");
    }
    bed.vm.wait_asked_more("read memory", 12);
    bed.settle();
    bed.evictor.evict();
    assert_eq!(bed.vm.wait_detached(), LOST);
}

#[test]
fn a_client_evicted_while_it_is_attached_is_detached_before_the_next_is_served() {
    let bed = Bed::new();
    bed.vm.mute("attach");
    let mut first = bed.connect();
    first.send("?");
    bed.vm.wait_asked("attach");
    bed.evictor.evict();
    let mut second = bed.connect();
    second.send("?");
    bed.wait_for("waiting", "1");
    bed.vm.answer_muted();
    assert!(second.reply().starts_with('T'));
    first.expect_closed();
    assert_eq!(bed.vm.wait_detached(), LOST);
}

#[test]
fn an_eviction_without_a_client_is_not_kept_for_the_next() {
    let bed = Bed::new();
    bed.evictor.evict();
    bed.settle();
    let mut client = bed.attach();
    bed.settle();
    assert_eq!(client.ask("m1,1"), "01");
    assert_eq!(bed.vm.asked("detach"), 0);
}
