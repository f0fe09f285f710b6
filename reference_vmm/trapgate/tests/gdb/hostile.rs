//! Bad input over the wire: each input gets an error, and the session and the guest go on.

use crate::packets::Packets;
use crate::packets::packet;
use crate::running::Running;
use crate::running::kvm_here;

fn held_guest() -> Option<(Running, String)> {
    kvm_here().then(|| {
        let mut guest = Running::start(&["--gdb", "127.0.0.1:0"]);
        let address = guest.address();
        (guest, address)
    })
}

/// Asserts that the session answers, and that the guest has not moved.
#[track_caller]
fn assert_alive<S: std::io::Read + std::io::Write>(client: &mut Packets<S>) {
    assert_eq!(
        client.ask("m100000,2"),
        "fafc",
        "`cli` and `cld` at the first instruction"
    );
}

#[test]
fn packets_that_mean_nothing_get_an_empty_reply() {
    let Some((_guest, address)) = held_guest() else {
        return;
    };
    let mut client = Packets::connect(&address);
    for body in [
        "",
        "vNonsense",
        "qNonsense:1,2",
        "Y",
        "vMustReplyEmpty",
        "QNonsense",
        "\u{1}\u{2}",
    ] {
        assert_eq!(client.ask(body), "", "{body}");
    }
    assert_alive(&mut client);
}

#[test]
fn requests_that_cannot_be_met_get_an_error() {
    let Some((_guest, address)) = held_guest() else {
        return;
    };
    let mut client = Packets::connect(&address);
    for body in [
        // Lengths and addresses beyond the end.
        "md0000000,8000000000000000",
        "mffffffffffffffff,10",
        "m100000,fffffffffffffffff",
        "mfffffffff0000000,4",
        "Mffffffffffffffff,2:0000",
        "M100000,4:00",
        "M100000,2:zz",
        "m100000",
        "m,",
        "mxyz,2",
        // Registers and threads that do not exist.
        "p7fffffff",
        "pzz",
        "P7fffffff=00",
        "G00",
        "T63",
        "Hg63",
        "vCont;c:63",
        "vCont;q",
        // Breakpoints that are not possible.
        "Z1,zz,1",
        "Z2,100001,4",
        "z1,100000,1",
    ] {
        let reply = client.ask(body);
        assert!(reply.starts_with('E'), "{body}: `{reply:.100}`");
    }
    // A read that is too long returns fewer bytes, and never more than a packet can contain.
    let reply = client.ask("m100000,8000000000000000");
    assert!(
        reply.starts_with("fafc") && reply.len() <= 1 << 20,
        "{reply:.100}"
    );
    assert_alive(&mut client);
}

#[test]
fn damaged_packets_are_asked_for_again() {
    let Some((_guest, address)) = held_guest() else {
        return;
    };
    let mut client = Packets::connect(&address);
    client.send_raw(b"$m100000,2#00");
    assert_eq!(client.byte(), Some(b'-'));
    // Unknown bytes are allowed only after the first packet.
    assert_alive(&mut client);
    client.send_raw(b"$m100000,2#00");
    assert_eq!(client.byte(), Some(b'-'));
    client.send_raw(b"$m100000,2#zz");
    assert_eq!(client.byte(), Some(b'-'));
    // A new packet inside a packet, stray acknowledgements, and unknown bytes between packets.
    client.send_raw(b"$m1000$");
    client.send_raw(&packet(b"m100000,2")[1..]);
    assert_eq!(client.reply().as_deref(), Some("fafc"));
    client.send_raw(b"++++garbage++");
    assert_alive(&mut client);
    // The reply is repeated if the client did not receive it.
    client.send_raw(&packet(b"m100000,2"));
    while client.byte() != Some(b'#') {}
    let _ = (client.byte(), client.byte());
    client.send_raw(b"-");
    assert_eq!(client.reply().as_deref(), Some("fafc"));
}

#[test]
fn a_packet_of_any_size_does_no_harm() {
    let Some((_guest, address)) = held_guest() else {
        return;
    };
    let mut client = Packets::connect(&address);
    // A client that begins like this is no debugger.
    assert_alive(&mut client);
    let huge = packet(&vec![b'x'; 4 << 20]);
    client.send_raw(&huge);
    let reply = client.reply().expect("the session goes on");
    assert!(reply.starts_with('E'), "{reply:.100}");
    assert_alive(&mut client);
    // A packet of the same length that is damaged as well.
    client.send_raw(b"$");
    client.send_raw(&vec![b'm'; 1 << 20]);
    client.send_raw(b"#01");
    let reply = client.reply().expect("the session goes on");
    assert!(reply.starts_with('E'), "{reply:.100}");
    assert_alive(&mut client);
}

#[test]
fn a_client_that_leaves_in_the_middle_of_anything_makes_room_for_the_next() {
    let Some((mut guest, address)) = held_guest() else {
        return;
    };
    for leaving in [
        &b""[..],
        b"$",
        b"$m1000",
        b"$m100000,2#",
        b"$vCont;c#a8\x03$m",
        b"\x03\x03\x03",
    ] {
        let mut client = Packets::connect(&address);
        client.send_raw(leaving);
        drop(client);
    }
    // The client is accepted when the previous session has ended.
    let mut client = loop {
        let mut client = Packets::connect(&address);
        client.send_raw(&packet(b"?"));
        match client.reply() {
            Some(reply) if reply.starts_with('T') || reply.starts_with('S') => break client,
            _ => {}
        }
    };
    assert_eq!(client.ask("qC").get(..2), Some("QC"));
    assert!(guest.is_running());
}

#[test]
fn the_second_client_is_told_and_the_first_goes_on() {
    let Some((_guest, address)) = held_guest() else {
        return;
    };
    let mut first = Packets::connect(&address);
    assert_alive(&mut first);
    let mut second = Packets::connect(&address);
    second.send_raw(&packet(b"qSupported:swbreak+"));
    // Whatever the server sends, the connection then ends.
    let mut told = String::new();
    while let Some(byte) = second.byte() {
        told.push(char::from(byte));
    }
    assert!(
        told.contains("E."),
        "no words for the second client: {told}"
    );
    assert_alive(&mut first);
}

#[test]
fn a_unix_socket_serves_its_owner_only_and_is_removed() {
    if !kvm_here() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gdb");
    let path = path.to_str().expect("a plain path");
    let mut guest = Running::start(&["--gdb", &format!("unix:{path}")]);
    assert_eq!(guest.address(), format!("unix:{path}"));
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(path).expect("there").permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    assert_alive(&mut Packets::connect_unix(path));
    guest.signal("INT");
    assert_eq!(guest.finish().code, Some(130));
    assert!(
        !std::path::Path::new(path).exists(),
        "the socket file is left behind"
    );
}
