//! Every message survives the way to the other side.

use super::Pair;
use super::answered;
use super::any_value::input;
use super::any_value::value;
use crate::capability::Capability;
use crate::debug_rpc::AttachInfo;
use crate::debug_rpc::BadMessage;
use crate::debug_rpc::DebugError;
use crate::debug_rpc::DebugMessage;
use crate::debug_rpc::DebugRequest;
use crate::debug_rpc::DebugRpc;
use crate::debug_rpc::DetachAction;
use crate::session::Attached;
use crate::session::DebugSession;
use crate::session::SessionId;
use crate::wire::MAX_FRAME;
use crate::wire::MAX_PAGES;
use crate::wire::Received;
use mesh::rpc::Rpc;
use mesh::rpc::RpcSend as _;
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use std::collections::HashSet;
use std::fmt::Debug;

/// Sends a request with any input, and answers it with any value or any error.
pub(super) fn carry<I, R>(
    pair: &mut Pair,
    seed: u64,
    make: impl FnOnce(DebugRpc<I, R>) -> DebugRequest,
    open: impl FnOnce(DebugRequest) -> Option<DebugRpc<I, R>>,
) where
    I: DeserializeOwned + PartialEq + Debug + 'static,
    R: DeserializeOwned + PartialEq + Debug,
{
    let id: SessionId = value(seed);
    let (reply, answer) = mesh::oneshot();
    let request = make(Rpc(input(seed), reply));
    let received = pair.ask(DebugMessage::InSession(id, request));
    let Ok(DebugMessage::InSession(came_for, request)) = pair.vmm.try_recv() else {
        panic!("no request of a session: {received:?}");
    };
    assert_eq!(came_for, id);
    let rpc = open(request).expect("the same request");
    assert_eq!(*rpc.input(), input(seed));
    let result = || match seed % 4 {
        0 => Err(value(seed)),
        _ => Ok(value(seed)),
    };
    rpc.complete(result());
    pair.answer(received);
    assert_eq!(answered(answer), Some(result()));
    assert_eq!(pair.client.pending(), 0);
}

/// Begins a session with this number.
fn begin(pair: &mut Pair, id: SessionId) -> Attached {
    let attach = DebugSession::attach(&pair.debugger, DetachAction::Stay);
    let received = pair.pump().pop().unwrap();
    let Ok(DebugMessage::Attach(rpc)) = pair.vmm.try_recv() else {
        panic!("no attach");
    };
    rpc.handle_sync(|request| {
        let session = DebugSession::begun(id, request.requests);
        let info = any_info(1);
        Ok(Attached { session, info })
    });
    pair.answer(received);
    super::now(attach).unwrap()
}

macro_rules! every_request {
    ($pair:expr, $seed:expr, $($request:ident)*) => {{
        $(carry(
            $pair,
            $seed,
            DebugRequest::$request,
            |request| match request {
                DebugRequest::$request(rpc) => Some(rpc),
                _ => None,
            },
        );)*
        [$(stringify!($request)),*]
    }};
}

fn carry_every_request(pair: &mut Pair, seed: u64) {
    let names = every_request!(pair, seed,
        Detach Resume Break SetDebugState Breakpoints StepInterrupts GetVpState SetVpState Redirect StopReason ReadMsr WriteMsr ReadMemory WriteMemory
        Translate MappedPages MemoryRegion RamRanges Nmi FreezeTime Status StopOn Reset SetConditions BreakpointHits CommandOutput
        StartTrace StopTrace TraceStatus SwitchTracepoint FindFrame);
    assert_eq!(names, DebugRequest::NAMES);
}

fn any_info(seed: u64) -> AttachInfo {
    let info: AttachInfo = value(seed);
    // A set has each kind once.
    let capabilities: Vec<Capability> = info.capabilities.iter().cloned().collect();
    AttachInfo {
        capabilities: capabilities.into_iter().collect(),
        ..info
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn every_request_and_every_answer_survives(seed: u64) {
        let mut pair = Pair::new();
        let _attached = begin(&mut pair, value(seed));
        carry_every_request(&mut pair, seed);
    }

    #[test]
    fn an_attach_and_its_answer_survive_and_so_does_the_end_of_the_session(seed: u64) {
        let mut pair = Pair::new();
        let if_lost: DetachAction = value(seed);
        let attach = DebugSession::attach(&pair.debugger, if_lost);
        let received = pair.pump().pop().unwrap();
        let Ok(DebugMessage::Attach(rpc)) = pair.vmm.try_recv() else {
            panic!("no attach");
        };
        prop_assert_eq!(rpc.input().if_lost, if_lost);
        let (request, rpc) = rpc.split();
        let session = DebugSession::begin(request.requests);
        let id = session.id();
        rpc.complete(Ok(Attached { session, info: any_info(seed) }));
        pair.answer(received);
        let Attached { session, info } = super::now(attach).unwrap();
        prop_assert_eq!(info, any_info(seed));
        prop_assert_eq!(session.id(), id);
        drop(session.call_failable(DebugRequest::Break, ()));
        drop(session);
        prop_assert_eq!(pair.pump().len(), 2);
        prop_assert!(matches!(pair.vmm.try_recv(), Ok(DebugMessage::InSession(of, DebugRequest::Break(_))) if of == id));
        prop_assert!(matches!(pair.vmm.try_recv(), Ok(DebugMessage::Lost(of)) if of == id));
    }
}

/// Otherwise the tests above would miss some.
#[test]
fn the_random_values_contain_every_error() {
    let errors = (0..5000).map(value::<DebugError>);
    let kinds: HashSet<_> = errors.map(|error| std::mem::discriminant(&error)).collect();
    // A new variant makes this number larger.
    assert_eq!(kinds.len(), 30);
}

#[test]
fn a_refused_attach_and_a_dropped_request_fail_their_calls() {
    let mut pair = Pair::new();
    let attach = DebugSession::attach(&pair.debugger, DetachAction::Stay);
    let received = pair.pump().pop().unwrap();
    pair.vmm
        .try_recv()
        .unwrap()
        .refuse(DebugError::AlreadyAttached);
    pair.answer(received);
    let refused = super::now(attach).unwrap_err();
    assert_eq!(
        refused,
        mesh::rpc::RpcError::Call(DebugError::AlreadyAttached)
    );

    let (reply, answer) = mesh::oneshot();
    let request = DebugRequest::Status(Rpc((), reply));
    let received = pair.ask(DebugMessage::InSession(value(1), request));
    drop(pair.vmm.try_recv());
    pair.answer(received);
    assert_eq!(answered(answer), None);
}

/// A number that one connection has read somewhere gives no access to the session of another.
#[test]
fn a_request_has_the_session_of_its_own_connection_or_none() {
    let status = |id| DebugMessage::InSession(id, DebugRequest::Status(Rpc::detached(())));
    let mut pair = Pair::new();
    let session_of = |pair: &mut Pair, id| {
        let _pending = pair.ask(status(id));
        match pair.vmm.try_recv() {
            Ok(DebugMessage::InSession(session, _)) => session,
            other => panic!("{other:?}"),
        }
    };
    let none = SessionId::from_number(0);
    assert_eq!(session_of(&mut pair, value(1)), none);
    let _attached = begin(&mut pair, value(1));
    assert_eq!(session_of(&mut pair, value(1)), value(1));
    assert_eq!(session_of(&mut pair, value(2)), none);
    let _ = pair.ask(DebugMessage::Lost(value(1)));
    assert!(matches!(pair.vmm.try_recv(), Ok(DebugMessage::Lost(id)) if id == value(1)));
    assert_eq!(session_of(&mut pair, value(1)), none);
}

#[test]
fn the_session_of_a_connection_ends_with_it() {
    let mut pair = Pair::new();
    let attached = begin(&mut pair, value(1));
    assert!(pair.vmm.try_recv().is_err());
    drop(pair.server);
    let Ok(DebugMessage::Lost(id)) = pair.vmm.try_recv() else {
        panic!("the session goes on");
    };
    assert_eq!(id, attached.session.id());
}

#[test]
fn a_long_list_of_pages_is_cut_and_says_where_it_goes_on() {
    let mut pair = Pair::new();
    let (reply, answer) = mesh::oneshot();
    let request = DebugRequest::MappedPages(Rpc(value(1), reply));
    let received = pair.ask(DebugMessage::InSession(value(1), request));
    let Ok(DebugMessage::InSession(_, DebugRequest::MappedPages(rpc))) = pair.vmm.try_recv() else {
        panic!("no request");
    };
    let page: crate::memory::MappedPage = value(1);
    let mut pages = vec![page; MAX_PAGES + 2];
    pages[MAX_PAGES].gva = crate::addr::Gva::new(0x1234_5000);
    let next = None;
    rpc.complete(Ok(crate::memory::MappedPages { pages, next }));
    pair.answer(received);
    let pages = answered(answer).unwrap().unwrap();
    assert_eq!(pages.pages.len(), MAX_PAGES);
    assert_eq!(pages.next, Some(crate::addr::Gva::new(0x1234_5000)));
}

#[test]
fn a_request_that_is_too_long_fails_before_it_is_sent() {
    let mut pair = Pair::new();
    let (reply, answer) = mesh::oneshot();
    let input = (value(1), vec![0; MAX_FRAME + 1]);
    let request = DebugRequest::WriteMemory(Rpc(input, reply));
    let message = DebugMessage::InSession(value(1), request);
    assert_eq!(pair.client.send(message), None);
    let Some(Err(DebugError::BadMessage(BadMessage::TooLong { len, .. }))) = answered(answer)
    else {
        panic!("no error");
    };
    assert!(len > MAX_FRAME as u64);
    assert_eq!(pair.client.pending(), 0);
}

#[test]
fn the_registers_of_conditions_have_the_numbers_of_the_messages() {
    for (number, register) in (0..).zip(crate::condition::ConditionRegister::ALL) {
        let name = register.name().to_uppercase();
        let wire = crate::wire::proto::ConditionRegister::from_str_name(&format!(
            "CONDITION_REGISTER_{name}"
        ));
        assert_eq!(wire.map(i32::from), Some(number), "{name}");
    }
}

#[test]
fn guest_memory_is_not_copied_into_its_messages() {
    let mut pair = Pair::new();
    let data = vec![7_u8; 1 << 20];
    let at = data.as_ptr();
    let (reply, _answer) = mesh::oneshot();
    let request = DebugRequest::WriteMemory(Rpc((value(1), data), reply));
    let frame = pair
        .client
        .send(DebugMessage::InSession(value(1), request))
        .unwrap();
    assert_eq!(frame.tail.as_ptr(), at);

    let (reply, _answer) = mesh::oneshot();
    let request = DebugRequest::ReadMemory(Rpc(value(1), reply));
    let Received::Pending(pending) = pair.ask(DebugMessage::InSession(value(1), request)) else {
        panic!("refused");
    };
    let Ok(DebugMessage::InSession(_, DebugRequest::ReadMemory(rpc))) = pair.vmm.try_recv() else {
        panic!("no request");
    };
    let data = vec![7_u8; 1 << 20];
    let at = data.as_ptr();
    rpc.complete(Ok(data));
    let frame = pair.server.answered(super::now(pending));
    assert_eq!(frame.tail.as_ptr(), at);
}
