//! The debugger's side of a connection.

use super::MAX_ELEMENTS_OF_ANSWER;
use super::MAX_FRAME;
use super::convert::Field;
use super::convert::Value;
use super::convert::requests;
use super::convert::requests::Pending;
use super::fields;
use super::frame::Frame;
use super::frame::Outgoing;
use super::frame::append;
use super::frame::append_length;
use super::proto;
use super::proto::answer;
use super::proto::request;
use super::strict;
use crate::debug_rpc::BadMessage;
use crate::debug_rpc::DebugError;
use crate::debug_rpc::DebugMessage;
use crate::session::Attached;
use crate::session::DebugSession;
use crate::session::SessionId;
use crate::target::Target;
use bytes::Bytes;
use mesh::rpc::Rpc;
use prost::Message as _;
use prost::length_delimiter_len;
use std::collections::HashMap;
use std::fmt;

/// The requests that have been sent and not answered. Dropping it fails their calls.
#[derive(Default)]
pub struct Client {
    /// The number of the last request.
    last: u64,
    pending: HashMap<u64, Pending>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("pending", &self.pending.len())
            .finish_non_exhaustive()
    }
}

impl Client {
    /// The frame that sends a message. `None` if the message is too long; its caller then gets [`BadMessage::TooLong`].
    pub fn send(&mut self, message: DebugMessage) -> Option<Outgoing> {
        let (session, kind, pending) = match message {
            DebugMessage::Attach(Rpc(request, reply)) => {
                let target = request.requests;
                let pending: Pending = Box::new(|answer| {
                    reply.send(answer.and_then(|answer| match answer {
                        answer::Kind::Attached(begun) => Ok(attached(begun, target)?),
                        _ => Err(BadMessage::WrongAnswer.into()),
                    }));
                });
                let kind = request::Kind::Attach(request.if_lost.into_wire());
                (0, kind, Some(pending))
            }
            DebugMessage::InSession(session, request) => {
                let (kind, mut pending) = requests::encode(request);
                if let request::Kind::ReadMemory(read) = &kind {
                    pending = at_most(read.len, pending);
                }
                (session.number(), kind, Some(pending))
            }
            DebugMessage::Lost(session) => {
                let kind = request::Kind::Lost(proto::Nothing {});
                (session.number(), kind, None)
            }
        };
        self.last += u64::from(pending.is_some());
        let id = match pending {
            Some(_) => self.last,
            None => 0,
        };
        let frame = encode(id, session, kind);
        let len = frame.len() as u64;
        let limit = MAX_FRAME as u64;
        match pending {
            Some(pending) if len > limit => {
                pending(Err(BadMessage::TooLong { len, limit }.into()));
                return None;
            }
            Some(pending) => drop(self.pending.insert(id, pending)),
            None => {}
        }
        Some(frame)
    }

    /// Finds the request that a frame answers.
    ///
    /// # Errors
    /// [`BadMessage::TooLong`]. The frame was skipped, and its request never gets an answer, so the connection is to be closed.
    pub fn received(&mut self, frame: Frame) -> Result<Answered, BadMessage> {
        let message = match frame {
            Frame::Message(message) => message,
            Frame::TooLong { len, limit } => return Err(BadMessage::TooLong { len, limit }),
        };
        let id = strict::id(&message);
        let answer = strict::check(&fields::ANSWER, &message, MAX_ELEMENTS_OF_ANSWER)
            .and_then(|()| proto::Answer::decode(message).map_err(|_| BadMessage::Malformed));
        let answer = match answer.map(|answer| answer.kind) {
            Ok(Some(answer::Kind::Error(error))) => {
                Some(Err(Value::from_wire(error).unwrap_or_else(DebugError::from)))
            }
            Ok(kind) => kind.map(Ok),
            Err(error) => Some(Err(error.into())),
        };
        let pending = self.pending.remove(&id);
        Ok(Answered {
            id,
            pending,
            answer,
        })
    }

    /// The number of requests without an answer.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }
}

/// An answer and its request. [`deliver`](Self::deliver) is not to be called with a lock that [`DebugTarget::send`](crate::target::DebugTarget::send) takes:
/// the answer may be dropped, and a session in it then sends a message.
#[must_use = "the caller waits for the answer"]
pub struct Answered {
    id: u64,
    pending: Option<Pending>,
    /// `None`: the VM has dropped the request.
    answer: Option<Result<answer::Kind, DebugError>>,
}

impl fmt::Debug for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answered").finish_non_exhaustive()
    }
}

impl Answered {
    /// The number of an answer that belongs to no request. 0: the VM could not read the number of a request.
    pub fn of_no_request(&self) -> Option<u64> {
        self.pending.is_none().then_some(self.id)
    }

    /// Gives the answer to the caller. Returns the error of an answer that belongs to no request.
    pub fn deliver(self) -> Option<DebugError> {
        match (self.pending, self.answer) {
            (Some(pending), Some(answer)) => {
                pending(answer);
                None
            }
            (None, Some(Err(error))) => Some(error),
            (_, None) | (None, Some(Ok(_))) => None,
        }
    }
}

/// Refuses an answer with more memory than was asked for.
fn at_most(len: u64, pending: Pending) -> Pending {
    Box::new(move |answer| {
        pending(match answer {
            Ok(answer::Kind::Memory(memory)) if memory.len() as u64 > len => {
                Err(BadMessage::WrongAnswer.into())
            }
            answer => answer,
        });
    })
}

fn attached(begun: proto::Attached, target: Target) -> Result<Attached, BadMessage> {
    // From here on the session ends when it is dropped.
    let session = DebugSession::begun(SessionId::from_number(begun.session), target);
    let info = Field::from_field(begun.info, "info")?;
    Ok(Attached { session, info })
}

/// The tag of a field with a length.
fn tag(number: usize) -> usize {
    number << 3 | 2
}

/// The numbers of fields whose bytes are not copied into the message.
const WRITE_MEMORY: usize = 18;
const DATA: usize = 2;

fn encode(id: u64, session: u64, kind: request::Kind) -> Outgoing {
    let mut request = proto::Request {
        id,
        session,
        kind: None,
    };
    let (address, data) = match kind {
        request::Kind::WriteMemory(write) if !write.data.is_empty() => (write.address, write.data),
        kind => {
            request.kind = Some(kind);
            return Outgoing::of(&request);
        }
    };
    // The fields of a message may stand in any order, and these stand in the usual one: the bytes come last.
    let write = proto::WriteMemory {
        address,
        data: Bytes::new(),
    };
    let inner = write.encoded_len()
        + length_delimiter_len(tag(DATA))
        + length_delimiter_len(data.len())
        + data.len();
    let len = data.len();
    Outgoing::new(data, 64, |head| {
        append(head, &request);
        for number in [tag(WRITE_MEMORY), inner] {
            append_length(head, number);
        }
        append(head, &write);
        for number in [tag(DATA), len] {
            append_length(head, number);
        }
    })
}
