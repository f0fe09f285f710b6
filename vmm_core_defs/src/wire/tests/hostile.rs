//! What a program sends that means harm, or that is newer or older than this version.

use super::Pair;
use super::answered;
use super::any_value::value;
use crate::debug_rpc::BadMessage;
use crate::debug_rpc::DebugError;
use crate::debug_rpc::DebugMessage;
use crate::debug_rpc::DebugRequest;
use crate::memory::MAX_TRANSFER;
use crate::wire::Frame;
use crate::wire::MAX_ELEMENTS_OF_REQUEST;
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
    let break_ = || Frame::Message(request(1, request::Kind::Break(proto::Nothing {})).into());
    while let Received::Pending(answer) = pair.server.received(break_()) {
        waiting.push(answer);
        assert!(waiting.len() < 1000, "no limit");
    }
    drop((waiting, pair));

    let mut pair = Pair::new();
    let mut waiting = Vec::new();
    let (reply, _answer) = mesh::oneshot();
    let input = (value(1), MAX_TRANSFER);
    let read = DebugRequest::ReadMemory(Rpc(input, reply));
    let Some(frame) = pair.client.send(DebugMessage::InSession(value(1), read)) else {
        panic!("too long");
    };
    while let Received::Pending(answer) = pair.server.received(super::through_stream(&frame)) {
        waiting.push(answer);
        assert!(
            waiting.len() * MAX_TRANSFER <= 64 << 20,
            "no limit of the bytes"
        );
    }
    assert!(!waiting.is_empty());
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
