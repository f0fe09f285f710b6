//! What a program sends that means harm, or that is newer or older than this version.

use super::Pair;
use super::answered;
use super::any_value::value;
use crate::breakpoint::BreakpointChange;
use crate::debug_rpc::BadMessage;
use crate::debug_rpc::DebugError;
use crate::debug_rpc::DebugMessage;
use crate::debug_rpc::DebugRequest;
use crate::debug_rpc::ResumeRequest;
use crate::debug_rpc::VpAction;
use crate::memory::MAX_TRANSFER;
use crate::wire::Frame;
use crate::wire::MAX_ELEMENTS_OF_REQUEST;
use crate::wire::PendingAnswer;
use crate::wire::Received;
use crate::wire::convert::Value as _;
use crate::wire::proto;
use crate::wire::proto::answer;
use crate::wire::proto::request;
use mesh::rpc::Rpc;
use proptest::prelude::*;
use prost::Message as _;

/// The error with which a message is answered, and the number of the request.
fn refusal(pair: &mut Pair, message: impl Into<bytes::Bytes>) -> (u64, BadMessage) {
    let message = message.into();
    let Received::Answer(frame) = pair.server.received(Frame::Message(message)) else {
        panic!("not refused");
    };
    let answer = proto::Answer::decode(frame.head.slice(4..)).unwrap();
    let Some(answer::Kind::Error(error)) = answer.kind else {
        panic!("no error");
    };
    let Ok(DebugError::BadMessage(error)) = DebugError::from_wire(error) else {
        panic!("another error");
    };
    assert!(pair.vmm.try_recv().is_err(), "the VM got a request");
    (answer.id, error)
}

fn request(id: u64, kind: request::Kind) -> Vec<u8> {
    let kind = Some(kind);
    proto::Request {
        id,
        session: 9,
        kind,
    }
    .encode_to_vec()
}

#[test]
fn an_unknown_field_is_an_error_wherever_it_stands() {
    let mut pair = Pair::new();
    let break_ = request(7, request::Kind::Break(proto::Nothing {}));
    // Field 200 as a number: a request of a newer version, or an option of a known one.
    let newer = [&break_[..], &[0xc0, 0x0c, 1]].concat();
    let message = "Request".to_owned();
    let unknown = BadMessage::UnknownField {
        message,
        field: 200,
    };
    assert_eq!(refusal(&mut pair, newer), (7, unknown));

    // In a message inside: field 3 of `ReadMsr`, which has two.
    let read = [0x7a, 4, 8, 1, 0x18, 1];
    let inside = [&[8, 5][..], &read].concat();
    let message = "ReadMsr".to_owned();
    let unknown = BadMessage::UnknownField { message, field: 3 };
    assert_eq!(refusal(&mut pair, inside), (5, unknown));

    let received = pair.server.received(Frame::Message(break_.into()));
    assert!(
        matches!(received, Received::Pending(_)),
        "the connection serves on: {received:?}"
    );
}

#[test]
fn what_is_missing_unknown_or_malformed_is_an_error() {
    let mut pair = Pair::new();
    let of = |of: &str| BadMessage::Missing { of: of.to_owned() };
    assert_eq!(refusal(&mut pair, vec![8, 3]), (3, of("Request")));
    let no_address = request::Kind::ReadMemory(proto::ReadMemory {
        address: None,
        len: 8,
    });
    assert_eq!(
        refusal(&mut pair, request(4, no_address)),
        (4, of("address"))
    );
    let no_action = request::Kind::Detach(0);
    assert_eq!(
        refusal(&mut pair, request(4, no_action)),
        (4, of("DetachAction"))
    );
    let unknown = BadMessage::UnknownValue {
        of: "DetachAction".to_owned(),
        value: 99,
    };
    assert_eq!(
        refusal(&mut pair, request(4, request::Kind::Detach(99))),
        (4, unknown)
    );
    assert_eq!(
        refusal(&mut pair, &b"GET / HTTP/1.1"[..]).1,
        BadMessage::Malformed
    );
    let stop_on = request::Kind::StopOn(proto::NewStopOn { value: Some(256) });
    let of = "StopOn".to_owned();
    assert_eq!(
        refusal(&mut pair, request(4, stop_on)).1,
        BadMessage::OutOfRange { of }
    );
    let none = proto::vp_action::StepN { count: 0 };
    let none = request::Kind::Resume(proto::ResumeRequest {
        others: Some(proto::VpAction {
            kind: Some(proto::vp_action::Kind::StepN(none)),
        }),
        actions: Vec::new(),
    });
    let of = "count".to_owned();
    assert_eq!(
        refusal(&mut pair, request(4, none)).1,
        BadMessage::OutOfRange { of }
    );
    let few = request::Kind::SetVpState(proto::SetVpState {
        vp: 0,
        state: Some(proto::VpState {
            kind: Some(proto::vp_state::Kind::X8664(Box::new(proto::X86VpState {
                gp: vec![0; 15],
                ..Default::default()
            }))),
        }),
    });
    let of = "gp".to_owned();
    assert_eq!(
        refusal(&mut pair, request(4, few)).1,
        BadMessage::OutOfRange { of }
    );
}

/// A tag and a number.
fn number(field: u64, value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for mut value in [field << 3, value] {
        while value >= 0x80 {
            bytes.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
            value >>= 7;
        }
        bytes.push(u8::try_from(value).unwrap());
    }
    bytes
}

/// A tag, a length and bytes.
fn inside(field: u64, bytes: &[u8]) -> Vec<u8> {
    let mut message = number(field, bytes.len() as u64);
    message[0] |= 2;
    message.extend_from_slice(bytes);
    message
}

#[test]
fn a_number_is_never_cut_to_its_field() {
    let mut pair = Pair::new();
    let mut refused = |kind: Vec<u8>, of: &str| {
        let of = of.to_owned();
        let message = [number(1, 4), kind].concat();
        let error = refusal(&mut pair, message);
        assert_eq!(error, (4, BadMessage::OutOfRange { of }));
    };
    // VP 0, the action `Stay`, VP 0 in a message inside, and the set of events 5, if the upper bits were dropped.
    refused(number(11, 1 << 40), "get_vp_state");
    refused(number(3, (1 << 32) | 2), "attach");
    refused(inside(15, &number(1, 1 << 32)), "vp");
    refused(inside(26, &number(1, (1 << 32) | 5)), "value");
    // Bits that stand for no event.
    refused(inside(26, &number(1, 0x10)), "StopOn");

    // In an answer: VP 0 in a packed list, and a bool.
    let mut id = 0;
    let mut refused = |kind: Vec<u8>, of: &str| {
        let (reply, answer) = mesh::oneshot();
        let ask = DebugRequest::StopOn(Rpc(None, reply));
        pair.client
            .send(DebugMessage::InSession(value(1), ask))
            .unwrap();
        id += 1;
        let message = [number(1, id), kind].concat();
        let answered_ = pair.client.received(Frame::Message(message.into()));
        assert_eq!(answered_.unwrap().deliver(), None);
        let of = of.to_owned();
        let error = DebugError::from(BadMessage::OutOfRange { of });
        assert_eq!(answered(answer), Some(Err(error)));
    };
    refused(inside(5, &inside(3, &number(0, 1 << 32)[1..])), "vps");
    refused(inside(14, &inside(3, &number(1, 2))), "ram");
    refused(number(18, 0x10), "StopOn");
    // A negative number is as large as its encoding is long.
    let error = number(1, (-5_i64).cast_unsigned());
    let errno = proto::OsError::decode(&error[..]).unwrap().errno;
    assert_eq!(errno, Some(-5));
    assert_eq!(
        super::super::strict::check(&super::super::fields::OS_ERROR, &error, 0),
        Ok(())
    );
}

#[test]
fn a_field_comes_once_and_so_does_one_of_a_choice() {
    let mut pair = Pair::new();
    let mut refused = |message: &[&[u8]], of: &str| {
        let of = of.to_owned();
        let error = refusal(&mut pair, message.concat());
        assert_eq!(error, (4, BadMessage::Duplicate { of }));
    };
    let id = number(1, 4);
    let status = inside(25, &[]);
    refused(&[&id, &number(1, 5), &status], "id");
    refused(&[&id, &status, &status], "status");
    // Two kinds of requests, of which `prost` would take the last.
    refused(&[&id, &inside(7, &[]), &status], "status");
    let two_registers = inside(13, &[number(2, 1), number(2, 2)].concat());
    let state = inside(2, &inside(1, &two_registers));
    refused(&[&id, &inside(12, &state)], "limit");
    // Insert and remove in one change.
    let change = [inside(1, &[]), inside(2, &[])].concat();
    refused(&[&id, &inside(8, &inside(1, &change))], "remove");
    // What would be decoded anew for each of its millions of parts.
    let two = [inside(18, &[]), inside(12, &inside(2, &inside(1, &[])))].concat();
    refused(&[&id, &two.repeat(1 << 20)], "set_vp_state");
}

#[test]
fn empty_lists_count_as_elements() {
    let mut pair = Pair::new();
    // Packed lists of no registers.
    let lists = inside(1, &[]).repeat(MAX_ELEMENTS_OF_REQUEST + 1);
    let state = inside(2, &inside(1, &lists));
    let limit = MAX_ELEMENTS_OF_REQUEST as u64;
    let many = [number(1, 2), inside(12, &state)].concat();
    assert_eq!(refusal(&mut pair, many), (2, BadMessage::TooMany { limit }));
}

#[test]
fn a_number_of_a_request_without_an_answer_is_not_used_again() {
    let mut pair = Pair::new();
    let break_ = |id| request(id, request::Kind::Break(proto::Nothing {}));
    let id = 0;
    assert_eq!(refusal(&mut pair, break_(0)), (0, BadMessage::BadId { id }));
    let Received::Pending(answer) = pair.server.received(Frame::Message(break_(7).into())) else {
        panic!("refused");
    };
    let first = pair.vmm.try_recv().unwrap();
    let id = 7;
    assert_eq!(refusal(&mut pair, break_(7)), (0, BadMessage::BadId { id }));
    // No error has the number either: the request 7 is not the one with the unknown field.
    let unknown = [break_(7), number(200, 1)].concat();
    assert_eq!(refusal(&mut pair, unknown).0, 0);
    first.refuse(DebugError::NotStopped);
    let frame = pair.server.answered(super::now(answer));
    let answer = proto::Answer::decode(frame.head.slice(4..)).unwrap();
    assert_eq!(answer.id, 7);
    let again = pair.server.received(Frame::Message(break_(7).into()));
    assert!(matches!(again, Received::Pending(_)), "{again:?}");
}

#[test]
fn a_list_is_refused_before_it_is_allocated() {
    let mut pair = Pair::new();
    let change = proto::BreakpointChange { kind: None };
    let changes = vec![change; MAX_ELEMENTS_OF_REQUEST + 1];
    let many = request::Kind::SetDebugState(proto::BreakpointChanges { changes });
    let limit = MAX_ELEMENTS_OF_REQUEST as u64;
    assert_eq!(
        refusal(&mut pair, request(2, many)),
        (2, BadMessage::TooMany { limit })
    );
}

#[test]
fn requests_without_end_are_refused_while_others_wait() {
    let mut pair = Pair::new();
    let mut waiting = Vec::new();
    let break_ = |id| Frame::Message(request(id, request::Kind::Break(proto::Nothing {})).into());
    for id in 1.. {
        let Received::Pending(answer) = pair.server.received(break_(id)) else {
            break;
        };
        waiting.push(answer);
        assert!(waiting.len() < 1000, "no limit");
    }
    assert!(waiting.len() > 10);
    drop((waiting, pair));

    let mut pair = Pair::new();
    let mut waiting = Vec::new();
    loop {
        let read = DebugRequest::ReadMemory(Rpc::detached((value(1), MAX_TRANSFER)));
        let Received::Pending(answer) = pair.ask(DebugMessage::InSession(value(1), read)) else {
            break;
        };
        waiting.push(answer);
        assert!(
            waiting.len() * MAX_TRANSFER <= 64 << 20,
            "no limit of the bytes"
        );
    }
    assert!(!waiting.is_empty());
}

/// Whether the VMM takes a request; the message that it gets.
fn taken(pair: &mut Pair, request: DebugRequest) -> Option<(PendingAnswer, DebugMessage)> {
    let received = pair.ask(DebugMessage::InSession(value(1), request));
    let Received::Pending(answer) = received else {
        return None;
    };
    Some((answer, pair.vmm.try_recv().unwrap()))
}

#[test]
fn lists_of_requests_and_of_answers_count_as_memory() {
    let mut pair = Pair::new();
    let read = |len| DebugRequest::ReadMemory(Rpc::detached((value(1), len)));
    let first = taken(&mut pair, read(MAX_TRANSFER)).unwrap();
    // 4.1 MiB are left then, and 1.1 MiB with a request for a list.
    let second = taken(&mut pair, read(12 << 20)).unwrap();
    let (list, asked) = taken(&mut pair, DebugRequest::Breakpoints(Rpc::detached(()))).unwrap();
    let status = || DebugRequest::Status(Rpc::detached(()));
    assert!(taken(&mut pair, status()).is_none());
    for (len, fits) in [(60_000, false), (10, true)] {
        let changes = vec![BreakpointChange::Insert(value(1)); len];
        let set = DebugRequest::SetDebugState(Rpc::detached(changes));
        assert_eq!(taken(&mut pair, set).is_some(), fits, "{len}");
        let others = VpAction::Run;
        let actions = vec![(value(1), VpAction::Run); len];
        let resume = DebugRequest::Resume(Rpc::detached(ResumeRequest { others, actions }));
        assert_eq!(taken(&mut pair, resume).is_some(), fits, "{len}");
    }
    // A list that is longer than what was kept for it, and than what is left.
    let DebugMessage::InSession(_, DebugRequest::Breakpoints(rpc)) = asked else {
        panic!("another request");
    };
    rpc.complete(Ok(vec![value(1); 250_000]));
    let answer = pair.server.answered(super::now(list));
    assert!(answer.len() < 100, "{}", answer.len());
    drop((first, second));
}

#[test]
fn more_memory_than_asked_for_is_no_answer() {
    for (len, expected) in [
        (8, Ok(vec![7; 8])),
        (7, Err(DebugError::from(BadMessage::WrongAnswer))),
    ] {
        let mut pair = Pair::new();
        let (reply, answer) = mesh::oneshot();
        let read = DebugRequest::ReadMemory(Rpc((value(1), len), reply));
        pair.client
            .send(DebugMessage::InSession(value(1), read))
            .unwrap();
        let message = [number(1, 1), inside(11, &[7; 8])].concat();
        let answered_ = pair
            .client
            .received(Frame::Message(message.into()))
            .unwrap();
        assert_eq!(answered_.of_no_request(), None);
        assert_eq!(answered_.deliver(), None);
        assert_eq!(answered(answer), Some(expected));
        // The same number again.
        let again = [number(1, 1), inside(11, &[7; 8])].concat();
        let stray = pair.client.received(Frame::Message(again.into())).unwrap();
        assert_eq!(stray.of_no_request(), Some(1));
        assert_eq!(stray.deliver(), None);
    }
}

#[test]
fn answers_that_are_not_read_stop_the_reading_of_requests() {
    let mut pair = Pair::new();
    let mut unread = 0;
    while pair.server.may_read() {
        let Received::Answer(frame) = pair.server.received(Frame::Message(vec![0xff].into()))
        else {
            panic!("not refused");
        };
        unread += frame.len();
        assert!(unread < 4 << 20, "no limit");
    }
    pair.server.written(unread);
    assert!(pair.server.may_read());
}

#[test]
fn an_answer_that_is_unknown_or_of_another_kind_is_an_error_of_the_call() {
    let answer_with = |message: &dyn Fn(u64) -> Vec<u8>| {
        let mut pair = Pair::new();
        let (reply, answer) = mesh::oneshot();
        let request = DebugRequest::Status(Rpc((), reply));
        let message_of_request = DebugMessage::InSession(value(1), request);
        pair.client.send(message_of_request).unwrap();
        let answered_ = pair.client.received(Frame::Message(message(1).into()));
        assert_eq!(answered_.unwrap().deliver(), None);
        let Some(Err(DebugError::BadMessage(error))) = answered(answer) else {
            panic!("no error");
        };
        error
    };
    let done = |id| {
        let kind = Some(answer::Kind::Done(proto::Nothing {}));
        proto::Answer { id, kind }.encode_to_vec()
    };
    assert_eq!(answer_with(&done), BadMessage::WrongAnswer);
    let newer = |id| [done(id), vec![0xc0, 0x0c, 1]].concat();
    let unknown = answer_with(&newer);
    assert!(matches!(
        unknown,
        BadMessage::UnknownField { field: 200, .. }
    ));
    let mut pair = Pair::new();
    let stray = pair.client.received(Frame::Message(done(4).into()));
    assert_eq!(stray.unwrap().deliver(), None);
}

proptest! {
    #[test]
    fn no_bytes_make_a_side_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut pair = Pair::new();
        let message = Frame::Message(bytes.into());
        let _ = pair.server.received(message.clone());
        let _ = pair.client.received(message).unwrap().deliver();
    }

    #[test]
    fn no_damage_to_a_message_makes_a_side_panic(seed: u64, at: prop::sample::Index, byte: u8) {
        let mut pair = Pair::new();
        let (reply, _answer) = mesh::oneshot();
        let request = DebugRequest::SetVpState(Rpc(value(seed), reply));
        let frame = pair.client.send(DebugMessage::InSession(value(seed), request)).unwrap();
        let Frame::Message(message) = super::through_stream(&frame) else { panic!("too long") };
        let mut bytes = message.to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= byte;
        let _ = pair.server.received(Frame::Message(bytes.into()));
    }
}
