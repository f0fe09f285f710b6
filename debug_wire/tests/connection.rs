//! Both sides of a connection over a socket, with a VM that answers at once, and programs that mean harm.

use debug_wire::RemoteTarget;
use debug_wire::WireError;
use debug_wire::connect;
use debug_wire::serve;
use mesh::Receiver;
use mesh::Sender;
use mesh::rpc::RpcError;
use mesh::rpc::RpcSend as _;
use pal_async::DefaultDriver;
use pal_async::async_test;
use pal_async::task::Spawn as _;
use pal_async::task::Task;
use std::io::Read as _;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::GuestAddress;
use vmm_core_defs::capability::Capabilities;
use vmm_core_defs::debug_rpc::AttachInfo;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::DebugMessage;
use vmm_core_defs::debug_rpc::DebugRequest;
use vmm_core_defs::debug_rpc::DetachAction;
use vmm_core_defs::debug_rpc::GuestArch;
use vmm_core_defs::debug_rpc::ResumeRequest;
use vmm_core_defs::debug_rpc::VpAction;
use vmm_core_defs::regs::XFeatures;
use vmm_core_defs::session::Attached;
use vmm_core_defs::session::DebugSession;
use vmm_core_defs::stop::DebugStopReason;
use vmm_core_defs::stop::Epoch;
use vmm_core_defs::stop::StopEvent;
use vmm_core_defs::target::DebugTarget as _;
use vmm_core_defs::vp_set::VpSet;
use vmm_core_defs::wire;

const MIB: usize = 1 << 20;

fn stop() -> StopEvent {
    StopEvent::new(Epoch::default(), DebugStopReason::Break, VpSet::first(1))
}

/// Answers requests, and passes on the names of what it hears.
async fn vm(mut requests: Receiver<DebugMessage>, heard: Sender<&'static str>) {
    let mut resumes = Vec::new();
    while let Ok(message) = requests.recv().await {
        match message {
            DebugMessage::Attach(rpc) => rpc.handle_sync(|request| {
                heard.send("attach");
                let info = AttachInfo::new(
                    GuestArch::X86_64,
                    XFeatures::NONE,
                    Capabilities::default(),
                    stop(),
                );
                let session = DebugSession::begin(request.requests);
                Ok(Attached { session, info })
            }),
            DebugMessage::InSession(_, request) => {
                heard.send(request.name());
                match request {
                    DebugRequest::Resume(rpc) => resumes.push(rpc),
                    DebugRequest::ReadMemory(rpc) => {
                        rpc.handle_sync(|(_, len)| Ok(vec![7; len]));
                    }
                    DebugRequest::Break(rpc) => {
                        for resume in resumes.drain(..) {
                            resume.complete(Ok(stop()));
                        }
                        rpc.complete(Ok(()));
                    }
                    DebugRequest::Detach(rpc) => rpc.complete(Ok(())),
                    other => other.unknown(),
                }
            }
            DebugMessage::Lost(_) => heard.send("lost"),
            other => panic!("{other:?}"),
        }
    }
}

/// The VMM's side, and what the VM hears.
fn vmm(
    driver: &DefaultDriver,
    socket: UnixStream,
) -> (Task<Result<(), WireError>>, Receiver<&'static str>) {
    let (requests, receiver) = mesh::channel();
    let (send, heard) = mesh::channel();
    driver.spawn("vm", vm(receiver, send)).detach();
    let of_vmm = driver.clone();
    let serving = driver.spawn(
        "serve",
        async move { serve(&of_vmm, socket, requests).await },
    );
    (serving, heard)
}

struct Bed {
    target: RemoteTarget,
    connection: Task<Result<(), WireError>>,
    serving: Task<Result<(), WireError>>,
    heard: Receiver<&'static str>,
}

impl Bed {
    fn new(driver: &DefaultDriver) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (serving, heard) = vmm(driver, theirs);
        let (target, connection) = connect(driver, ours).unwrap();
        let connection = driver.spawn("connection", connection.run());
        Self {
            target,
            connection,
            serving,
            heard,
        }
    }

    async fn attach(&mut self) -> DebugSession {
        let attached = DebugSession::attach(&self.target, DetachAction::Stay).await;
        assert_eq!(self.heard.recv().await, Ok("attach"));
        let Attached { session, info } = attached.unwrap();
        assert_eq!(info.stop, stop());
        session
    }
}

fn at_0() -> GuestAddress {
    GuestAddress::Gpa(Gpa::new(0))
}

#[async_test]
async fn requests_are_answered_in_any_order_and_the_connection_ends_with_its_users(
    driver: DefaultDriver,
) {
    let mut bed = Bed::new(&driver);
    let session = bed.attach().await;
    let resume = ResumeRequest::every(VpAction::Run);
    let resumed = session.call_failable(DebugRequest::Resume, resume);
    // Longer than what a socket takes at once.
    let read = session.call_failable(DebugRequest::ReadMemory, (at_0(), 5 * MIB));
    assert_eq!(read.await.unwrap(), vec![7; 5 * MIB]);
    let interrupted = session.call_failable(DebugRequest::Break, ());
    assert_eq!(resumed.await.unwrap(), stop());
    interrupted.await.unwrap();
    let refused = session.call_failable(DebugRequest::Reset, ()).await;
    assert!(matches!(
        refused,
        Err(RpcError::Call(DebugError::Unsupported(_)))
    ));
    let detached = session.call_failable(DebugRequest::Detach, DetachAction::Resume);
    // What was sent before is carried out, also when nobody waits.
    drop((detached, session, bed.target));
    bed.connection.await.unwrap();
    bed.serving.await.unwrap();
    let mut heard = Vec::new();
    while let Ok(name) = bed.heard.recv().await {
        heard.push(name);
    }
    assert_eq!(
        heard,
        ["Resume", "ReadMemory", "Break", "Reset", "Detach", "lost"]
    );
}

#[async_test]
async fn a_debugger_that_goes_away_loses_its_session(driver: DefaultDriver) {
    let mut bed = Bed::new(&driver);
    let session = bed.attach().await;
    let resume = ResumeRequest::every(VpAction::Run);
    let resumed = session.call_failable(DebugRequest::Resume, resume);
    assert_eq!(bed.heard.recv().await, Ok("Resume"));
    assert!(bed.connection.cancel().await.is_none());
    // The calls on this side fail at once, and the VM hears of the end.
    assert!(matches!(resumed.await, Err(RpcError::Channel(_))));
    assert!(bed.target.is_closed());
    let late = session.call_failable(DebugRequest::Break, ());
    assert!(matches!(late.await, Err(RpcError::Channel(_))));
    drop((session, bed.target));
    bed.serving.await.unwrap();
    assert_eq!(bed.heard.recv().await, Ok("lost"));
}

#[async_test]
async fn a_vmm_that_goes_away_fails_the_open_requests(driver: DefaultDriver) {
    let mut bed = Bed::new(&driver);
    let session = bed.attach().await;
    let resume = ResumeRequest::every(VpAction::Run);
    let resumed = session.call_failable(DebugRequest::Resume, resume);
    assert_eq!(bed.heard.recv().await, Ok("Resume"));
    assert!(bed.serving.cancel().await.is_none());
    assert!(matches!(resumed.await, Err(RpcError::Channel(_))));
    bed.connection.await.unwrap();
    assert!(bed.target.is_closed());
}

#[async_test]
async fn a_connection_without_requests_ends_with_the_vm(driver: DefaultDriver) {
    let (requests, receiver) = mesh::channel();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let of_vmm = driver.clone();
    let serving = driver.spawn(
        "serve",
        async move { serve(&of_vmm, theirs, requests).await },
    );
    let (target, connection) = connect(&driver, ours).unwrap();
    let connection = driver.spawn("connection", connection.run());
    let closed = target.closed();
    let attach = DebugSession::attach(&target, DetachAction::Stay);
    let mut receiver = receiver;
    let DebugMessage::Attach(rpc) = receiver.recv().await.unwrap() else {
        panic!("no attach");
    };
    rpc.complete(Err(DebugError::AlreadyAttached));
    assert!(attach.await.is_err());
    // Nothing is open now, and nothing comes.
    drop(receiver);
    serving.await.unwrap();
    connection.await.unwrap();
    closed.await;
    assert!(target.is_closed());
}

/// The frames until the other side closes the connection.
fn frames_to_the_end(mut socket: UnixStream) -> Vec<wire::Frame> {
    let mut frames = wire::Frames::new(wire::MAX_FRAME);
    let mut received = Vec::new();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    loop {
        match socket.read(frames.space()).unwrap() {
            0 => return received,
            count => frames.filled(count),
        }
        while let Some(frame) = frames.next_frame() {
            received.push(frame);
        }
    }
}

#[async_test]
async fn requests_that_come_as_the_vm_goes_are_answered(driver: DefaultDriver) {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    ours.write_all(&bytes(&wire::hello())).unwrap();
    let mut client = wire::Client::default();
    let request = read_request(&mut client);
    ours.write_all(&request).unwrap();
    let requests = mesh::channel::<DebugMessage>().0;
    serve(&driver, theirs, requests).await.unwrap();
    let frames = frames_to_the_end(ours);
    let [_, answer] = &frames[..] else {
        panic!("{} frames", frames.len());
    };
    assert_eq!(client.received(answer.clone()).unwrap().deliver(), None);
    assert_eq!(client.pending(), 0);
}

/// A request to resume, of no session.
fn resume_request(client: &mut wire::Client) -> Vec<u8> {
    let (requests, mut sent) = mesh::channel();
    let session = DebugSession::begin(requests);
    let resume = ResumeRequest::every(VpAction::Run);
    drop(session.call_failable(DebugRequest::Resume, resume));
    bytes(&client.send(sent.try_recv().unwrap()).unwrap())
}

#[async_test]
async fn a_debugger_that_ends_its_requests_gets_the_open_answers(driver: DefaultDriver) {
    for reads_on in [true, false] {
        let (requests, receiver) = mesh::channel();
        let (send, mut heard) = mesh::channel();
        driver.spawn("vm", vm(receiver, send)).detach();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let (of_vmm, target) = (driver.clone(), requests.clone());
        let serving = driver.spawn("serve", async move { serve(&of_vmm, theirs, target).await });
        ours.write_all(&bytes(&wire::hello())).unwrap();
        let mut client = wire::Client::default();
        ours.write_all(&resume_request(&mut client)).unwrap();
        ours.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(heard.recv().await, Ok("Resume"));
        if !reads_on {
            // A debugger that is gone waits for no answer, and its session ends (I6).
            drop(ours);
            serving.await.unwrap();
            continue;
        }
        let session = DebugSession::begin(requests);
        session
            .call_failable(DebugRequest::Break, ())
            .await
            .unwrap();
        serving.await.unwrap();
        let frames = frames_to_the_end(ours);
        let [_, answer] = &frames[..] else {
            panic!("{} frames", frames.len());
        };
        assert_eq!(client.received(answer.clone()).unwrap().deliver(), None);
        assert_eq!(client.pending(), 0);
    }
}

/// The request that has this answer would wait for ever.
#[async_test]
async fn a_debugger_gives_up_a_vmm_that_answers_no_request_of_its_own(driver: DefaultDriver) {
    // Answers with an empty body: field 1, the number.
    for (answer, number) in [(&[8, 77][..], 77), (&[][..], 0)] {
        let (mut vmm, socket) = UnixStream::pair().unwrap();
        let (target, connection) = connect(&driver, socket).unwrap();
        vmm.write_all(&bytes(&wire::hello())).unwrap();
        let length = u32::try_from(answer.len()).unwrap().to_le_bytes();
        vmm.write_all(&[&length, answer].concat()).unwrap();
        let end = connection.run().await.unwrap_err();
        assert!(
            matches!(end, WireError::Stray { id, .. } if id == number),
            "{end}"
        );
        assert!(target.is_closed());
    }
}

#[async_test]
async fn a_program_of_another_protocol_is_turned_away(driver: DefaultDriver) {
    for greeting in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        &[4, 0, 0, 0, 1, 2, 3, 4],
    ] {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let (serving, mut heard) = vmm(&driver, theirs);
        ours.write_all(greeting).unwrap();
        let end = serving.await.unwrap_err();
        assert!(matches!(end, WireError::Hello(_)), "{end}");
        assert!(heard.recv().await.is_err(), "the VM heard of it");
    }
}

/// The bytes of a frame.
fn bytes(frame: &wire::Outgoing) -> Vec<u8> {
    [&frame.head[..], &frame.tail[..]].concat()
}

/// A request to read 1 MiB, of no session.
fn read_request(client: &mut wire::Client) -> Vec<u8> {
    let (requests, mut sent) = mesh::channel();
    let session = DebugSession::begin(requests);
    drop(session.call_failable(DebugRequest::ReadMemory, (at_0(), MIB)));
    bytes(&client.send(sent.try_recv().unwrap()).unwrap())
}

#[test]
fn a_debugger_that_reads_nothing_costs_bounded_memory() {
    let (thread, driver) = pal_async::DefaultPool::spawn_on_thread("vmm");
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let (serving, mut heard) = vmm(&driver, theirs);
    ours.write_all(&bytes(&wire::hello())).unwrap();
    let mut client = wire::Client::default();
    // The VMM stops to read, so the socket is full at some time.
    ours.set_write_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let request = read_request(&mut client);
    let full = (0..200_000).any(|_| ours.write_all(&request).is_err());
    assert!(full, "the VMM reads on");
    let mut served = 0;
    while heard.try_recv().is_ok() {
        served += 1;
    }
    assert!((1..=40).contains(&served), "{served} MiB are held");
    drop(ours);
    pal_async::local::block_on(serving).unwrap();
    drop(driver);
    thread.join().unwrap();
}

#[test]
fn a_frame_that_is_too_long_is_an_error_and_the_connection_stays() {
    let (thread, driver) = pal_async::DefaultPool::spawn_on_thread("vmm");
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let (serving, _heard) = vmm(&driver, theirs);
    ours.set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    ours.write_all(&bytes(&wire::hello())).unwrap();
    let too_long = wire::MAX_FRAME + 1;
    ours.write_all(&u32::try_from(too_long).unwrap().to_le_bytes())
        .unwrap();
    for _ in 0..too_long / MIB {
        ours.write_all(&vec![0xff; MIB]).unwrap();
    }
    ours.write_all(&vec![0xff; too_long % MIB]).unwrap();
    let mut client = wire::Client::default();
    ours.write_all(&read_request(&mut client)).unwrap();

    let mut frames = wire::Frames::new(wire::MAX_FRAME);
    let mut received = Vec::new();
    while received.len() < 3 {
        let count = ours.read(frames.space()).unwrap();
        assert!(count > 0, "closed");
        frames.filled(count);
        while let Some(frame) = frames.next_frame() {
            received.push(frame);
        }
    }
    let [_, refusal, answer] = &received[..] else {
        panic!("{} frames", received.len());
    };
    let error = client.received(refusal.clone()).unwrap().deliver();
    assert!(
        matches!(error, Some(DebugError::BadMessage(_))),
        "{error:?}"
    );
    assert!(matches!(answer, wire::Frame::Message(memory) if memory.len() > MIB));
    drop(ours);
    pal_async::local::block_on(serving).unwrap();
    drop(driver);
    thread.join().unwrap();
}
