//! Messages of version 1 as bytes, in `version1.txt`. A later version of this crate has to understand them, so no line is ever changed or removed. One line
//! is refused ([`BITS_OF_NO_EVENT`]).
//!
//! The last line has the steps that were added to version 1 later.
//!
//! Each line is the name of a request, its frame, its input, the frame of its answer, and the answer. `TRAPGATE_RECORD_WIRE=1` writes the file anew, for a
//! new version of the messages.

use super::Pair;
use super::answered;
use super::any_value::input;
use super::any_value::value;
use super::through_stream;
use crate::debug_rpc::DebugError;
use crate::debug_rpc::DebugMessage;
use crate::debug_rpc::DebugRequest;
use crate::debug_rpc::DebugRpc;
use crate::wire::Frame;
use crate::wire::Received;
use mesh::rpc::Rpc;
use serde::de::DeserializeOwned;
use std::collections::HashSet;
use std::fmt::Debug;
use std::fmt::Write as _;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/wire/tests/version1.txt");

/// The seeds of the values: two results, and an error.
const SEEDS: [u64; 3] = [1, 2, 4];

/// A set of events with bits that stand for none. Random values recorded the line; the enum of version 1 has four kinds of events.
const BITS_OF_NO_EVENT: &str = "StopOn|0801115cf7050000000000d201020866|";

/// Fields without a value that the messages of version 1 have got later, in the text of an answer. The first lines were recorded without the fields.
const LATER: [&str; 2] = [", steps: None", ", condition_failure: None"];

struct Line<'a> {
    request: Frame,
    input: &'a str,
    answer: Frame,
    result: &'a str,
}

fn hex(frame: &Frame) -> String {
    let Frame::Message(message) = frame else {
        panic!("too long")
    };
    message.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Frame {
    let bytes = (0..text.len()).step_by(2);
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    Frame::Message(bytes.map(byte).collect())
}

/// The line of a request with this result.
fn record<I: DeserializeOwned + Debug, R: Debug>(
    seed: u64,
    result: Result<R, DebugError>,
    make: fn(DebugRpc<I, R>) -> DebugRequest,
    open: fn(DebugRequest) -> Option<DebugRpc<I, R>>,
) -> String {
    let mut pair = Pair::new();
    let (reply, _answer) = mesh::oneshot();
    let request = make(Rpc(value(seed), reply));
    let name = request.name();
    let message = DebugMessage::InSession(value(seed), request);
    let request = through_stream(&pair.client.send(message).unwrap());
    let Received::Pending(pending) = pair.server.received(request.clone()) else {
        panic!("refused")
    };
    let Ok(DebugMessage::InSession(_, asked)) = pair.vmm.try_recv() else {
        panic!("no request")
    };
    let text = format!("{result:?}");
    open(asked).unwrap().complete(result);
    let answer = through_stream(&pair.server.answered(super::now(pending)));
    let input: I = value(seed);
    format!(
        "{name}|{}|{input:?}|{}|{text}\n",
        hex(&request),
        hex(&answer)
    )
}

/// Both sides understand a line.
fn replay<I: DeserializeOwned + Debug + 'static, R: Debug>(
    line: &Line<'_>,
    make: fn(DebugRpc<I, R>) -> DebugRequest,
    open: fn(DebugRequest) -> Option<DebugRpc<I, R>>,
) {
    let mut pair = Pair::new();
    let received = pair.server.received(line.request.clone());
    let Ok(DebugMessage::InSession(_, asked)) = pair.vmm.try_recv() else {
        panic!("not understood: {received:?}")
    };
    let rpc = open(asked).expect("the same request");
    assert_eq!(format!("{:?}", rpc.input()), line.input);

    let (reply, answer) = mesh::oneshot();
    let request = make(Rpc(input(1), reply));
    let message = DebugMessage::InSession(value(1), request);
    assert!(pair.client.send(message).is_some());
    let received = pair.client.received(line.answer.clone()).unwrap();
    assert_eq!(received.deliver(), None);
    let result = answered(answer).expect("an answer");
    let without = |text: String, field: &str| text.replace(field, "");
    let result = LATER.into_iter().fold(format!("{result:?}"), without);
    assert_eq!(result, line.result);
}

macro_rules! requests {
    ($($request:ident)*) => {
        fn record_all() -> String {
            let mut text = String::new();
            $(for seed in SEEDS {
                let result = match seed % 4 {
                    0 => Err(value(seed)),
                    _ => Ok(value(seed)),
                };
                text += &record(seed, result, DebugRequest::$request, |request| match request {
                    DebugRequest::$request(rpc) => Some(rpc),
                    _ => None,
                });
            })*
            text
        }

        fn replay_line(name: &str, line: &Line<'_>) {
            match name {
                $(stringify!($request) => replay(line, DebugRequest::$request, |request| match request {
                    DebugRequest::$request(rpc) => Some(rpc),
                    _ => None,
                }),)*
                other => panic!("version 1 has a request {other}, which is gone"),
            }
        }
    };
}

requests! {
    Detach Resume Break SetDebugState Breakpoints StepInterrupts GetVpState SetVpState Redirect StopReason ReadMsr WriteMsr ReadMemory WriteMemory
    Translate MappedPages MemoryRegion RamRanges Nmi FreezeTime Status StopOn Reset SetConditions BreakpointHits CommandOutput
        StartTrace StopTrace TraceStatus SwitchTracepoint FindFrame
}

/// One line for each kind of error.
fn record_errors() -> String {
    let mut text = String::new();
    let mut seen = HashSet::new();
    for seed in 0..5000 {
        let error: DebugError = value(seed);
        if seen.insert(std::mem::discriminant(&error)) {
            text += &record(
                seed,
                Err(error),
                DebugRequest::Status,
                |request| match request {
                    DebugRequest::Status(rpc) => Some(rpc),
                    _ => None,
                },
            );
        }
    }
    text
}

#[test]
fn version_1_is_understood() {
    if std::env::var_os("TRAPGATE_RECORD_WIRE").is_some() {
        std::fs::write(FILE, record_all() + &record_errors()).unwrap();
    }
    let text = std::fs::read_to_string(FILE).expect("version1.txt is there");
    let mut names = HashSet::new();
    let mut refused = 0;
    for line in text.lines() {
        let parts: Vec<_> = line.split('|').collect();
        if line.starts_with(BITS_OF_NO_EVENT) {
            let mut pair = Pair::new();
            let received = pair.server.received(unhex(parts[1]));
            assert!(matches!(received, Received::Answer(_)), "{received:?}");
            assert!(pair.vmm.try_recv().is_err());
            refused += 1;
            continue;
        }
        let [name, request, input, answer, result] = parts[..] else {
            panic!("not five parts: {line}")
        };
        let line = Line {
            request: unhex(request),
            input,
            answer: unhex(answer),
            result,
        };
        replay_line(name, &line);
        names.insert(name);
    }
    assert!(names.len() >= 23, "{names:?}");
    assert_eq!(refused, 1);
}
