//! The VMM's side of a connection.

use super::MAX_ELEMENTS_OF_REQUEST;
use super::MAX_FRAME;
use super::MAX_PAGES;
use super::convert::Field;
use super::convert::Value;
use super::convert::requests;
use super::fields;
use super::frame::Frame;
use super::frame::Outgoing;
use super::frame::append;
use super::frame::append_length;
use super::proto;
use super::proto::answer;
use super::proto::request;
use super::strict;
use crate::condition::MOST_OUTPUT;
use crate::debug_rpc::BadMessage;
use crate::debug_rpc::DebugError;
use crate::debug_rpc::DebugMessage;
use crate::memory::MAX_TRANSFER;
use crate::session::AttachRequest;
use crate::session::Attached;
use crate::session::DebugSession;
use crate::session::SessionId;
use crate::target::Target;
use crate::trace::MOST_TRACE_CLIENT;
use crate::trace::MOST_TRACE_MEMORY;
use bytes::Bytes;
use mesh::rpc::Rpc;
use prost::Message as _;
use std::collections::HashSet;
use std::fmt;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;

/// The maximum number of requests without an answer. More are refused.
const MAX_PENDING: usize = 64;

/// The maximum number of bytes in requests without an answer, in their answers, and in answers of which the other side has not read the end. Requests for
/// more are refused.
const MAX_PENDING_BYTES: usize = 2 * MAX_FRAME;

/// The number of no session.
const NO_SESSION: u64 = 0;

/// The bytes that are kept for the answer to a request for a list. A longer answer is sent if [`MAX_PENDING_BYTES`] permits, and is an error otherwise.
const LIST: usize = MAX_PAGES * size_of::<proto::MappedPage>();

/// The maximum number of bytes of answers that the other side has not read, above which nothing more is to be read from it.
const MAX_UNREAD: usize = 1 << 20;

/// The VMM's side of one connection: passes requests on to a [`Target`], within limits. Dropping it ends the session of the connection.
#[derive(Debug)]
pub struct Server {
    target: Target,
    /// The session that began last on this connection.
    session: Option<DebugSession>,
    /// The numbers of the requests without an answer.
    pending: HashSet<u64>,
    /// The bytes that requests without an answer may need.
    pending_bytes: usize,
    /// The bytes of answers that were not written yet.
    unwritten: usize,
}

/// What is to be done with a frame that came.
#[derive(Debug)]
pub enum Received {
    /// The target has got a request. Its answer is to be passed to [`Server::answered`].
    Pending(PendingAnswer),
    /// This answer is to be sent.
    Answer(Outgoing),
    /// The frame needs no answer: the session of the connection has ended.
    Nothing,
}

/// The answer of a request, which the target has not given yet.
#[must_use = "the other side waits for the answer"]
pub struct PendingAnswer {
    id: u64,
    bytes: usize,
    answer: Pin<Box<dyn Future<Output = Given> + Send>>,
}

impl fmt::Debug for PendingAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingAnswer")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// What the target answered. `None`: the target has dropped the request.
enum Given {
    Attach(Option<Result<Attached, DebugError>>),
    Request(Option<answer::Kind>),
}

/// An answer of the target.
pub struct Reply {
    id: u64,
    bytes: usize,
    given: Given,
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Future for PendingAnswer {
    type Output = Reply;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Reply> {
        let (id, bytes) = (self.id, self.bytes);
        let answer = self.answer.as_mut().poll(cx);
        answer.map(|given| Reply { id, bytes, given })
    }
}

impl Server {
    /// Begins a connection.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            session: None,
            pending: HashSet::new(),
            pending_bytes: 0,
            unwritten: 0,
        }
    }

    /// Whether the VM is gone. The connection is to be closed when all answers are written.
    pub fn is_closed(&self) -> bool {
        self.target.is_closed()
    }

    /// Waits until the VM is gone.
    pub fn closed(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.target.closed()
    }

    /// The session of this connection that the other side has not ended.
    pub fn session(&self) -> Option<SessionId> {
        self.session.as_ref().map(DebugSession::id)
    }

    /// Whether more may be read from the other side: it reads its answers.
    pub fn may_read(&self) -> bool {
        self.unwritten <= MAX_UNREAD
    }

    /// Passes a request on.
    pub fn received(&mut self, frame: Frame) -> Received {
        let (id, refused) = match frame {
            Frame::Message(message) => {
                let id = strict::id(&message);
                match self.request(id, message) {
                    Ok(received) => return received,
                    Err(refused) => (id, refused),
                }
            }
            Frame::TooLong { len, limit } => (0, BadMessage::TooLong { len, limit }),
        };
        // The answer with this number is that of another request, which waits for it.
        let id = match self.pending.contains(&id) {
            true => 0,
            false => id,
        };
        let error = DebugError::from(refused).into_wire();
        Received::Answer(self.answer(id, Some(answer::Kind::Error(error))))
    }

    fn request(&mut self, id: u64, message: Bytes) -> Result<Received, BadMessage> {
        strict::check(&fields::REQUEST, &message, MAX_ELEMENTS_OF_REQUEST)?;
        let request = proto::Request::decode(message).map_err(|_| BadMessage::Malformed)?;
        let session = SessionId::from_number(request.session);
        let of = "Request".to_owned();
        let kind = request.kind.ok_or(BadMessage::Missing { of })?;
        if let request::Kind::Lost(_) = kind {
            // Dropping the session says so to the VM.
            self.session.take_if(|ours| ours.id() == session);
            return Ok(Received::Nothing);
        }
        if id == 0 || self.pending.contains(&id) {
            return Err(BadMessage::BadId { id });
        }
        let bytes = needed(&kind);
        if self.pending.len() >= MAX_PENDING
            || self.pending_bytes + self.unwritten + bytes > MAX_PENDING_BYTES
        {
            return Err(BadMessage::TooManyPending);
        }
        let answer: Pin<Box<dyn Future<Output = Given> + Send>> = match kind {
            request::Kind::Attach(if_lost) => {
                let if_lost = Value::from_wire(if_lost)?;
                let requests = self.target.clone();
                let (reply, answer) = mesh::oneshot();
                let request = Rpc(AttachRequest { if_lost, requests }, reply);
                self.target.send(DebugMessage::Attach(request));
                Box::pin(async { Given::Attach(answer.await.ok()) })
            }
            kind => {
                let (request, answer) = requests::decode(kind)?;
                let session = match &self.session {
                    Some(ours) if ours.id() == session => session,
                    // The session of another connection, whose number this one may have read somewhere. The target finds no session by this number.
                    Some(_) | None => SessionId::from_number(NO_SESSION),
                };
                self.target.send(DebugMessage::InSession(session, request));
                Box::pin(async { Given::Request(answer.await) })
            }
        };
        self.pending.insert(id);
        self.pending_bytes += bytes;
        Ok(Received::Pending(PendingAnswer { id, bytes, answer }))
    }

    /// The frame with an answer of the target.
    pub fn answered(&mut self, reply: Reply) -> Outgoing {
        self.pending.remove(&reply.id);
        self.pending_bytes -= reply.bytes;
        let kind = match reply.given {
            Given::Attach(None) | Given::Request(None) => None,
            Given::Attach(Some(Ok(Attached { session, info }))) => {
                let begun = proto::Attached {
                    session: session.id().number(),
                    info: info.into_field(),
                };
                // The last session of this connection has ended, or the VM would not have begun another.
                self.session = Some(session);
                Some(answer::Kind::Attached(begun))
            }
            Given::Attach(Some(Err(error))) => Some(answer::Kind::Error(error.into_wire())),
            Given::Request(Some(answer::Kind::MappedPages(mut pages))) => {
                if let Some(first_left_out) = pages.pages.get(MAX_PAGES) {
                    pages.next = Some(first_left_out.gva);
                    pages.pages.truncate(MAX_PAGES);
                }
                Some(answer::Kind::MappedPages(pages))
            }
            Given::Request(kind) => kind,
        };
        self.answer(reply.id, kind)
    }

    /// So many bytes of answers have been written.
    pub fn written(&mut self, bytes: usize) {
        self.unwritten = self.unwritten.saturating_sub(bytes);
    }

    fn answer(&mut self, id: u64, kind: Option<answer::Kind>) -> Outgoing {
        let is_list = matches!(&kind, Some(kind) if is_list(kind));
        let mut frame = encode(id, kind);
        let refused = if frame.len() > MAX_FRAME {
            let (len, limit) = (frame.len() as u64, MAX_FRAME as u64);
            Some(BadMessage::TooLong { len, limit })
        } else if is_list && self.pending_bytes + self.unwritten + frame.len() > MAX_PENDING_BYTES {
            // Requests for lists change nothing, so this one had no effect.
            Some(BadMessage::TooManyPending)
        } else {
            None
        };
        if let Some(refused) = refused {
            let error = DebugError::from(refused).into_wire();
            frame = encode(id, Some(answer::Kind::Error(error)));
        }
        self.unwritten += frame.len();
        frame
    }
}

/// The number of bytes that the request or its answer holds, beside small ones.
fn needed(kind: &request::Kind) -> usize {
    match kind {
        request::Kind::ReadMemory(read) => {
            usize::try_from(read.len).map_or(MAX_TRANSFER, |len| len.min(MAX_TRANSFER))
        }
        request::Kind::WriteMemory(write) => write.data.len(),
        request::Kind::SetDebugState(list) => {
            list.changes.len() * size_of::<proto::BreakpointChange>()
        }
        request::Kind::SetConditions(list) => {
            let all = list.conditions.iter().chain(&list.commands);
            all.map(|one| one.code.len() + size_of::<proto::Condition>())
                .sum()
        }
        request::Kind::Resume(resume) => resume.actions.len() * size_of::<proto::OneVpAction>(),
        request::Kind::SetVpState(_) | request::Kind::GetVpState(_) => {
            size_of::<proto::X86VpState>()
        }
        request::Kind::CommandOutput(_) => MOST_OUTPUT,
        request::Kind::StartTrace(start) => {
            let code = |one: &proto::Tracepoint| {
                let all = one.condition.iter().chain(&one.expressions);
                let code = all.map(|one| one.code.len() + size_of::<proto::Condition>());
                code.sum::<usize>() + one.registers.len() * 4 + size_of::<proto::Tracepoint>()
            };
            start.client.len() + start.tracepoints.iter().map(code).sum::<usize>()
        }
        // A frame has a small head for each of its registers and pieces.
        request::Kind::FindFrame(_) => 4 * MOST_TRACE_MEMORY,
        request::Kind::TraceStatus(_) => MOST_TRACE_CLIENT + LIST,
        request::Kind::Breakpoints(_)
        | request::Kind::BreakpointHits(_)
        | request::Kind::MappedPages(_)
        | request::Kind::RamRanges(_)
        | request::Kind::Status(_) => LIST,
        _ => 0,
    }
}

/// Whether the answer is that of a request for which [`LIST`] bytes are kept.
fn is_list(answer: &answer::Kind) -> bool {
    matches!(
        answer,
        answer::Kind::Breakpoints(_)
            | answer::Kind::BreakpointHits(_)
            | answer::Kind::MappedPages(_)
            | answer::Kind::RamRanges(_)
            | answer::Kind::Status(_)
            | answer::Kind::TraceStatus(_)
            | answer::Kind::Frame(_)
    )
}

/// The number of the field with memory, whose bytes are not copied into the message.
const MEMORY: usize = 11;

fn encode(id: u64, kind: Option<answer::Kind>) -> Outgoing {
    match kind {
        Some(answer::Kind::Memory(memory)) => {
            let answer = proto::Answer { id, kind: None };
            let len = memory.len();
            Outgoing::new(memory, 32, |head| {
                append(head, &answer);
                for number in [MEMORY << 3 | 2, len] {
                    append_length(head, number);
                }
            })
        }
        kind => Outgoing::of(&proto::Answer { id, kind }),
    }
}
