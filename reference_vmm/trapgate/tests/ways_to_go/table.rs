//! The table: every way in every state.

use crate::bed::Bed;
use std::net::Shutdown;
use std::net::TcpStream;
use std::time::Duration;
use std::time::Instant;
use test_machine::machine::ENTRY;
use test_machine::packets::Packets;
use test_machine::packets::packet;
use test_machine::running::DEADLINE;
use vmm_core_defs::debug_rpc::DetachAction;
use vmm_core_defs::stop::GuestEnd;

/// The way in which a client goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// By the packet `D`.
    Detach,
    /// By the packet `k`.
    Kill,
    /// By the packet `vKill;1`.
    KillWithReply,
    /// The client closes the connection.
    Close,
    /// The client resets the connection.
    Reset,
    /// The client closes its direction of the connection, but reads.
    HalfClose,
    /// The server is asked to stop.
    ServerStopped,
    /// The server's task is dropped, as with the thread that owns it.
    ServerDropped,
}

const WAYS: [Way; 8] = [
    Way::Detach,
    Way::Kill,
    Way::KillWithReply,
    Way::Close,
    Way::Reset,
    Way::HalfClose,
    Way::ServerStopped,
    Way::ServerDropped,
];

/// The state of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The client is connected, and has sent nothing.
    Attaching,
    Stopped,
    Running,
    /// One VP has stopped at a breakpoint byte.
    AtBreakpoint,
    /// The VP was continued from there, and another hit follows at once or soon.
    SteppingOver,
    /// A single step was requested, and its end was not awaited.
    Stepping,
    /// A step through a range that the VP never leaves.
    RangeStepping,
    /// Ctrl-C was sent, and its stop was not awaited.
    Interrupting,
    /// Half a packet was sent to a stopped guest.
    MidPacket,
    /// Half a packet was sent while the guest runs.
    MidPacketRunning,
}

const STATES: [State; 10] = [
    State::Attaching,
    State::Stopped,
    State::Running,
    State::AtBreakpoint,
    State::SteppingOver,
    State::Stepping,
    State::RangeStepping,
    State::Interrupting,
    State::MidPacket,
    State::MidPacketRunning,
];

type Client = Packets<TcpStream>;

fn send(client: &mut Client, body: &str) {
    client.send_raw(&packet(body.as_bytes()));
}

/// A client in that state, with breakpoints of all kinds set.
fn client_in(bed: &Bed, state: State) -> Client {
    let mut client = Client::connect(&bed.address);
    if state == State::Attaching {
        return client;
    }
    assert_eq!(client.ask("QStartNoAckMode"), "OK");
    let stop = client.ask("?");
    assert!(stop.starts_with('T'), "{stop}");
    // At addresses that the guest never reaches: across two pages, and in a debug register.
    for packet in ["Z0,5fff,1", "Z0,6000,1", "Z1,7000,1"] {
        assert_eq!(client.ask(packet), "OK");
    }
    match state {
        State::Attaching | State::Stopped => {}
        State::Running => send(&mut client, "vCont;c"),
        State::AtBreakpoint | State::SteppingOver => {
            assert_eq!(client.ask(&format!("Z0,{ENTRY:x},1")), "OK");
            let hit = client.ask("vCont;c");
            assert!(hit.starts_with("T05"), "{hit}");
            if state == State::SteppingOver {
                send(&mut client, "vCont;c");
            }
        }
        State::Stepping => send(&mut client, "vCont;s:1"),
        State::RangeStepping => {
            let end = ENTRY + 0x100;
            send(&mut client, &format!("vCont;r{ENTRY:x},{end:x}:2;c"));
        }
        State::Interrupting => {
            send(&mut client, "vCont;c");
            client.send_raw(b"\x03");
        }
        State::MidPacket => client.send_raw(b"$m1000,"),
        State::MidPacketRunning => {
            send(&mut client, "vCont;c");
            client.send_raw(b"$m1000,");
        }
    }
    client
}

/// Lets the client go. A client that stays connected is returned, so that it is kept to the end.
fn go(bed: &mut Bed, way: Way, mut client: Client) -> Option<Client> {
    match way {
        Way::Detach => send(&mut client, "D"),
        Way::Kill => send(&mut client, "k"),
        Way::KillWithReply => send(&mut client, "vKill;1"),
        Way::Close => return None,
        Way::Reset => {
            let socket = socket2::SockRef::from(&client.stream);
            socket.set_linger(Some(Duration::ZERO)).expect("a reset");
            return None;
        }
        Way::HalfClose => client.stream.shutdown(Shutdown::Write).expect("half"),
        Way::ServerStopped => bed.stop_server(),
        Way::ServerDropped => bed.drop_server(),
    }
    Some(client)
}

/// Connects a client that is served. It may be refused while the previous client is connected.
fn next_client(bed: &Bed) -> Client {
    let end = Instant::now() + DEADLINE;
    loop {
        let mut client = Client::connect(&bed.address);
        if client.ask("?").starts_with('T') {
            return client;
        }
        assert!(Instant::now() < end, "still refused");
    }
}

#[test]
fn however_and_whenever_a_client_goes_nothing_of_it_stays_and_the_guest_runs_on() {
    for way in WAYS {
        let mut bed = None;
        for state in STATES {
            let what = format!("{way:?} while {state:?}");
            // A new server follows a server that was ended.
            if way == Way::ServerStopped || way == Way::ServerDropped {
                bed = None;
            }
            if bed.is_none() {
                bed = Bed::new(DetachAction::Resume);
            }
            let Some(bed) = &mut bed else { return };
            let client = client_in(bed, state);
            let rest = go(bed, way, client);
            if let Some(mut client) = rest {
                // Reads up to the end, whatever comes first.
                while client.reply().is_some() {}
            }
            if state == State::Attaching && bed.has_server() {
                // The session may not have begun. The session of the next client begins after it.
                assert_eq!(next_client(bed).ask("D"), "OK", "{what}");
            }
            bed.wait_detached(&what);
            bed.assert_runs(&what);
            bed.assert_untouched(&what);
        }
    }
}

/// Policy `stop`: a lost client leaves the guest stopped, without a trace in it, for the next client.
#[test]
fn a_lost_client_leaves_the_guest_stopped_where_that_is_the_policy() {
    let Some(mut bed) = Bed::new(DetachAction::Stay) else {
        return;
    };
    for way in [Way::Kill, Way::Close] {
        // While the client attaches, it is unknown whether its session has begun.
        for state in &STATES[1..] {
            let state = *state;
            let what = format!("{way:?} while {state:?}");
            let client = client_in(&bed, state);
            drop(go(&mut bed, way, client));
            bed.wait_detached(&what);
            let told = bed.told();
            bed.assert_memory_untouched(&what);
            let mut next = next_client(&bed);
            assert_eq!(bed.told(), told, "{what}: it ran");
            // After a client's own detach the guest runs.
            assert_eq!(next.ask("D"), "OK");
            bed.wait_detached(&what);
            bed.assert_runs(&what);
        }
    }
}

/// Policy `kill`: a lost client ends the guest.
#[test]
fn a_lost_client_ends_the_guest_where_that_is_the_policy() {
    for way in [Way::Kill, Way::Close] {
        for state in [State::Stopped, State::Running] {
            let Some(mut bed) = Bed::new(DetachAction::Kill) else {
                return;
            };
            let what = format!("{way:?} while {state:?}");
            let client = client_in(&bed, state);
            let rest = go(&mut bed, way, client);
            assert_eq!(bed.end(), GuestEnd::Killed, "{what}");
            bed.assert_memory_untouched(&what);
            drop(rest);
        }
    }
}
