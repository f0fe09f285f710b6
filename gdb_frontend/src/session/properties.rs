//! Whatever a client sends, a session does not panic and sends only well-formed packets.

use crate::fake_guest::FakeGuest;
use crate::framing::Decoder;
use crate::framing::Frame;
use crate::framing::expand;
use crate::regs::Layout;
use crate::session::Action;
use crate::session::Session;
use crate::target::Stop;
use crate::target::StopReason;
use crate::target::TargetOp;
use crate::target::Tid;
use proptest::prelude::*;

const LAYOUT: Layout = Layout::X86_64 {
    avx: true,
    avx512: false,
    pkru: true,
};

/// The bytes that a session sent, and its operations.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    sent: Vec<u8>,
    ops: Vec<TargetOp>,
    closed: bool,
}

struct Client {
    guest: FakeGuest,
    session: Session,
    outcome: Outcome,
}

impl Client {
    fn new() -> Self {
        let mut guest = FakeGuest::new(LAYOUT, 2);
        guest.symbols = true;
        Self {
            session: Session::new(guest.info()),
            guest,
            outcome: Outcome::default(),
        }
    }

    /// Sends bytes and carries out all actions. The guest stops as soon as it is resumed.
    fn send(&mut self, bytes: &[u8]) {
        self.session.push(bytes);
        while let Some(action) = self.session.poll_action() {
            assert!(!self.outcome.closed, "something after the end: {action:?}");
            match action {
                Action::Send(bytes) => {
                    assert!(!bytes.is_empty());
                    self.outcome.sent.extend_from_slice(&bytes);
                }
                Action::Target(op) => {
                    let reply = self.guest.answer(&op);
                    let resumed = match &op {
                        TargetOp::Resume(_) => true,
                        TargetOp::Schedule(schedule) => !schedule.run.is_empty(),
                        _ => false,
                    };
                    self.outcome.ops.push(op);
                    self.session.complete(reply);
                    if resumed {
                        let stop = Stop {
                            thread: Tid::new(2),
                            reason: StopReason::SoftwareBreakpoint,
                        };
                        self.session.stopped(stop, Some("text"));
                    }
                }
                Action::Close => self.outcome.closed = true,
            }
        }
    }
}

fn run(pieces: &[&[u8]]) -> Outcome {
    let mut client = Client::new();
    for piece in pieces {
        client.send(piece);
    }
    client.outcome
}

fn frame(payload: &[u8]) -> Vec<u8> {
    let sum = payload
        .iter()
        .fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    [b"$", payload, format!("#{sum:02x}").as_bytes()].concat()
}

/// The sent bytes are only `+`, `-`, and packets and notifications that a client can decode.
fn assert_well_formed(sent: &[u8]) -> Result<(), TestCaseError> {
    let mut decoder = Decoder::default();
    // A notification has the form of a packet, but for its first byte, which is part of the checksum of neither.
    let sent: Vec<u8> = replaced(sent, b"%Stop:", b"$Stop:");
    decoder.push(&sent);
    let mut total = 0;
    while let Some(frame) = decoder.next_frame() {
        total += match frame {
            Frame::Packet(payload) => {
                prop_assert!(expand(payload).is_some(), "{payload:?}");
                payload.len() + 4
            }
            Frame::Ack | Frame::Nack => 1,
            other => return Err(TestCaseError::fail(format!("{other:?} was sent"))),
        };
    }
    prop_assert_eq!(total, sent.len(), "there are bytes between the packets");
    Ok(())
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let last = bytes.len().saturating_sub(from.len());
    for at in 0..last {
        if bytes[at..].starts_with(from) {
            bytes[at..at + to.len()].copy_from_slice(to);
        }
    }
    bytes
}

/// Valid packets, and packets that are almost valid.
fn packet() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => proptest::sample::select(vec![
            "?", "g", "G00", "p0", "p10", "pffff", "P0=0000000000000001", "m1000,40", "m30ff0,100",
            "m0,8000000000000000", "mffffffffffffffff,1", "x1000,400", "X1000,0:", "M1000,2:aabb", "c", "s", "C05", "S05;1000",
            "vCont;c", "vCont;s:1;c", "vCont;r1,2:2", "vCont?", "vCtrlC",
            "QNonStop:1", "QNonStop:0", "vStopped", "vCont;t", "vCont;t:2;c", "Z0,1000,1", "z1,1,1", "Hg2", "Hc-1", "T1", "qC",
            "qfThreadInfo", "qsThreadInfo", "qThreadExtraInfo,2", "qAttached", "QStartNoAckMode", "vMustReplyEmpty",
            "p10;thread:2;", "g;thread:1;", "QListThreadsInStopReply", "QEnableErrorStrings", "jThreadsInfo", "?",
            "MultiMemRead:ranges:1000,40,30ff0,100,0,8;", "jMultiBreakpoint:{\"breakpoint_requests\":[\"Z0,1000,1\",\"z0,1000,1\",\"Z9\"]}",
            "qSupported:swbreak+;no-resumed+", "QThreadSuffixSupported", "qSupported:error-message+",
            "vFile:open:2f626f6f742f6d79206b65726e656c2e656c66,0,0", "vFile:pread:0,ffffffff,0", "vFile:fstat:0", "vFile:close:0", "vFile:setfs:0",
            "qXfer:osdata:read::0,100", "qXfer:osdata:read:vcpus:0,40", "qXfer:osdata:read:vcpus:40,100", "qXfer:exec-file:read::0,100", "qXfer:features:read:target.xml:0,400", "qXfer:threads:read::0,400", "qXfer:threads:read::10,1", "qRcmd,68656c70",
        ]).prop_map(|text| frame(text.as_bytes())),
        1 => Just(frame(b"!")),
        1 => Just(frame(b"vRun;")),
        1 => Just(frame(b"R00")),
        1 => Just(frame(b"vAttach;1")),
        1 => Just(frame(b"D")),
        1 => Just(frame(b"vKill;1")),
        2 => "[gGpPmMxXcsCSvqQZzHTDk?][0-9a-f,:;=-]{0,20}".prop_map(|text| frame(text.as_bytes())),
        2 => proptest::collection::vec(any::<u8>(), 0..30),
        2 => proptest::sample::select(b"$#+-\x03}*0".to_vec()).prop_map(|byte| vec![byte]),
    ]
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_have_the_same_well_formed_outcome(
        packets in proptest::collection::vec(packet(), 0..30),
        cuts in proptest::collection::vec(1..60_usize, 0..40),
    ) {
        // The first packet opens the session. Random bytes before it would close the connection.
        let stream = [frame(b"?"), packets.concat()].concat();
        let mut pieces = Vec::new();
        let mut rest = &stream[..];
        for cut in cuts {
            let (piece, later) = rest.split_at(cut.min(rest.len()));
            pieces.push(piece);
            rest = later;
        }
        pieces.push(rest);
        let whole = run(&[&stream]);
        assert_well_formed(&whole.sent)?;
        prop_assert_eq!(run(&pieces), whole);
    }

    #[test]
    fn registers_written_by_g_come_back(values in proptest::collection::vec(any::<u8>(), LAYOUT.total_bytes())) {
        let mut client = Client::new();
        let cs_limit = LAYOUT.by_name("cs_limit").unwrap();
        let before = hex_reply(&mut client, b"g");
        let mut wanted: String = values.iter().map(|byte| format!("{byte:02x}")).collect();
        // The register that cannot be written in this guest keeps its value.
        let range = 2 * cs_limit.offset..2 * (cs_limit.offset + cs_limit.bytes());
        wanted.replace_range(range.clone(), &before[range]);
        prop_assert_eq!(hex_reply(&mut client, format!("G{wanted}").as_bytes()), "OK");
        prop_assert_eq!(hex_reply(&mut client, b"g"), wanted);
    }
}

/// The payload of the reply to a packet.
fn hex_reply(client: &mut Client, payload: &[u8]) -> String {
    client.outcome.sent.clear();
    client.send(&frame(payload));
    let sent = String::from_utf8(client.outcome.sent.clone()).unwrap();
    let reply = sent.strip_prefix("+$").unwrap();
    reply[..reply.len() - 3].to_owned()
}

#[test]
fn g_has_two_digits_for_each_byte_of_the_table_and_p_the_same_ones() {
    let mut client = Client::new();
    let all = hex_reply(&mut client, b"g");
    assert_eq!(all.len(), 2 * LAYOUT.total_bytes());
    for reg in LAYOUT.table() {
        let one = hex_reply(&mut client, format!("p{:x}", reg.num.0).as_bytes());
        assert_eq!(
            one,
            all[2 * reg.offset..2 * (reg.offset + reg.bytes())],
            "{}",
            reg.name
        );
        assert_eq!(one.contains('x'), reg.name == "xcr0", "{}", reg.name);
    }
}

#[test]
fn each_register_is_written_alone() {
    let mut client = Client::new();
    for reg in LAYOUT.table() {
        let before = hex_reply(&mut client, b"g");
        let value = "5a".repeat(reg.bytes());
        let reply = hex_reply(&mut client, format!("P{:x}={value}", reg.num.0).as_bytes());
        if reg.name == "cs_limit" {
            // 95 in hex.
            assert_eq!(reply, "E5f");
            assert_eq!(hex_reply(&mut client, b"g"), before);
            continue;
        }
        assert_eq!(reply, "OK", "{}", reg.name);
        let mut expected = before;
        expected.replace_range(2 * reg.offset..2 * (reg.offset + reg.bytes()), &value);
        assert_eq!(hex_reply(&mut client, b"g"), expected, "{}", reg.name);
    }
}

#[test]
fn writing_back_what_g_gave_asks_the_guest_for_nothing() {
    let mut client = Client::new();
    let all = hex_reply(&mut client, b"g");
    for same in [all.clone(), all.replace("xx", "00")] {
        client.outcome.ops.clear();
        assert_eq!(hex_reply(&mut client, format!("G{same}").as_bytes()), "OK");
        assert!(matches!(
            client.outcome.ops[..],
            [TargetOp::ReadRegisters { .. }]
        ));
    }
    for bad in [&all[2..], "", "zz"] {
        assert_eq!(hex_reply(&mut client, format!("G{bad}").as_bytes()), "E16");
    }
}

#[test]
fn a_packet_that_is_too_long_gets_an_error_and_the_next_one_its_reply() {
    let long = frame(&vec![b'm'; 0x4_0001]);
    let stream = [&long[..], &frame(b"qC")].concat();
    assert_eq!(run(&[&stream]).sent, b"+$E16#ac+$QC1#c5");
    let pieces: Vec<&[u8]> = stream.chunks(4096).collect();
    assert_eq!(run(&pieces).sent, b"+$E16#ac+$QC1#c5");
}

#[test]
fn the_longest_replies_fit_a_packet() {
    let mut client = Client::new();
    client.send(&frame(b"QStartNoAckMode"));
    for request in ["m1000,ffffffff", "x1000,ffffffff"] {
        client.outcome.sent.clear();
        client.send(&frame(request.as_bytes()));
        let len = client.outcome.sent.len() - 4;
        assert!((0x3_0000..=0x4_0000).contains(&len), "{request}: {len:#x}");
    }
}

#[test]
fn ranges_that_do_not_fit_a_packet_are_cut_and_their_lengths_say_so() {
    let mut client = Client::new();
    client.send(&frame(b"QStartNoAckMode"));
    client.outcome.sent.clear();
    client.send(&frame(
        b"MultiMemRead:ranges:1000,20,1000,30000,1000,30000,1000,20;",
    ));
    let sent = &client.outcome.sent;
    let payload = expand(&sent[1..sent.len() - 3]).expect("a reply that a client can decode");
    let end = payload
        .iter()
        .position(|&byte| byte == b';')
        .expect("lengths");
    let lengths: Vec<usize> = std::str::from_utf8(&payload[..end])
        .expect("digits")
        .split(',')
        .map(|digits| usize::from_str_radix(digits, 16).expect("a number"))
        .collect();
    assert!(lengths[0] == 0x20 && lengths[1] > 0x1_0000, "{lengths:?}");
    assert_eq!(lengths[2..], [0, 0]);
    assert_eq!(payload.len() - end - 1, lengths.iter().sum::<usize>());
}

#[test]
fn input_is_left_alone_while_too_much_waits() {
    let guest = FakeGuest::new(LAYOUT, 1);
    let mut session = Session::new(guest.info());
    session.push(&frame(b"g"));
    while let Some(action) = session.poll_action() {
        if matches!(action, Action::Target(_)) {
            break;
        }
    }
    assert!(session.wants_input());
    session.push(&vec![b'+'; 0x4_0001]);
    assert_eq!(session.poll_action(), None);
    assert!(!session.wants_input());
    let mut guest = guest;
    session.complete(guest.answer(&TargetOp::ReadRegisters {
        thread: Tid::new(1).unwrap(),
    }));
    while session.poll_action().is_some() {}
    assert!(session.wants_input());
}

#[test]
fn a_stop_while_an_operation_is_out_is_told_after_it() {
    let mut guest = FakeGuest::new(LAYOUT, 2);
    let mut session = Session::new(guest.info());
    let expect = |session: &mut Session, action| assert_eq!(session.poll_action(), action);
    session.push(&[frame(b"QStartNoAckMode"), frame(b"c"), frame(b"m1000,1")].concat());
    expect(&mut session, Some(Action::Send(b"+$OK#9a".to_vec())));
    let Some(Action::Target(resume @ TargetOp::Resume(_))) = session.poll_action() else {
        panic!("no resume");
    };
    session.complete(guest.answer(&resume));
    let Some(Action::Target(read @ TargetOp::ReadMemory { .. })) = session.poll_action() else {
        panic!("no read");
    };
    let stop = Stop {
        thread: Tid::new(2),
        reason: StopReason::Trap,
    };
    session.stopped(stop, None);
    // A second stop for the same resume is dropped.
    let second = Stop {
        thread: Tid::new(1),
        reason: StopReason::Interrupt,
    };
    session.stopped(second, None);
    expect(&mut session, None);
    session.complete(guest.answer(&read));
    expect(
        &mut session,
        Some(Action::Send(b"$00#60$T05thread:2;#d8".to_vec())),
    );
    // An answer without an operation has no effect.
    session.complete(guest.answer(&read));
    expect(&mut session, None);
}
