//! Which field of `Request` a request is, and which field of `Answer` its answer is.

use super::Value;
use super::proto::answer;
use super::proto::request;
use crate::debug_rpc::BadMessage;
use crate::debug_rpc::DebugError;
use crate::debug_rpc::DebugRequest;
use mesh::rpc::Rpc;
use std::pin::Pin;

/// What is to be done with the answer to a request. Dropping it fails the call.
pub(in crate::wire) type Pending = Box<dyn FnOnce(Result<answer::Kind, DebugError>) + Send>;

/// The answer of the VM. `None` if the VM has dropped the request.
pub(in crate::wire) type Answer = Pin<Box<dyn Future<Output = Option<answer::Kind>> + Send>>;

macro_rules! requests {
    ($($request:ident => $answer:ident),* $(,)?) => {
        /// A request as it is sent, and what is to be done with its answer.
        pub(in crate::wire) fn encode(request: DebugRequest) -> (request::Kind, Pending) {
            match request {
                $(DebugRequest::$request(Rpc(input, reply)) => {
                    let pending: Pending = Box::new(|answer| {
                        reply.send(answer.and_then(|answer| match answer {
                            answer::Kind::$answer(value) => Ok(Value::from_wire(value)?),
                            _ => Err(BadMessage::WrongAnswer.into()),
                        }));
                    });
                    (request::Kind::$request(input.into_wire()), pending)
                })*
            }
        }

        /// A request as it came, and its answer.
        pub(in crate::wire) fn decode(request: request::Kind) -> Result<(DebugRequest, Answer), BadMessage> {
            match request {
                $(request::Kind::$request(input) => {
                    let (reply, answer) = mesh::oneshot();
                    let request = DebugRequest::$request(Rpc(Value::from_wire(input)?, reply));
                    let answer: Answer = Box::pin(async {
                        Some(match answer.await.ok()? {
                            Ok(value) => answer::Kind::$answer(value.into_wire()),
                            Err(error) => answer::Kind::Error(error.into_wire()),
                        })
                    });
                    Ok((request, answer))
                })*
                // The caller handles the messages that belong to no session.
                request::Kind::Attach(_) | request::Kind::Lost(_) => Err(BadMessage::Malformed),
            }
        }
    };
}

// `encode` does not compile if a request is missing from this list.
requests! {
    Detach => Done,
    Resume => Stop,
    Break => Done,
    SetDebugState => Done,
    Breakpoints => Breakpoints,
    StepInterrupts => StepInterrupts,
    GetVpState => VpState,
    SetVpState => Done,
    Redirect => Done,
    StopReason => LastStop,
    ReadMsr => Msr,
    WriteMsr => Done,
    ReadMemory => Memory,
    WriteMemory => Done,
    Translate => Translation,
    MappedPages => MappedPages,
    MemoryRegion => MemoryRegion,
    RamRanges => RamRanges,
    Nmi => Done,
    FreezeTime => FreezeTime,
    Status => Status,
    StopOn => StopOn,
    Reset => Done,
    SetConditions => Done,
    BreakpointHits => BreakpointHits,
    CommandOutput => CommandOutput,
    StartTrace => Done,
    StopTrace => Done,
    TraceStatus => TraceStatus,
    SwitchTracepoint => Done,
    FindFrame => Frame,
}
