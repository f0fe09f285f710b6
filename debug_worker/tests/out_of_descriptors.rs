//! A process without a free descriptor for another client. The test has its own process, because the limit applies to
//! the whole process.

use debug_worker::DebugListener;
use debug_worker::DebuggerParameters;
use debug_worker::ListenAddress;
use mesh::rpc::RpcSend as _;
use mesh::worker::WorkerRpc;
use pal_async::DefaultPool;
use pal_async::local::block_on;
use pal_async::task::Spawn as _;
use rustix::process::Resource;
use rustix::process::Rlimit;
use rustix::process::getrlimit;
use rustix::process::setrlimit;
use socket2::Domain;
use socket2::Socket;
use socket2::Type;
use std::fs::File;
use std::io::Read as _;
use std::task::Poll;
use std::time::Duration;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::DebugMessage;

#[test]
fn a_client_that_cannot_be_accepted_yet_is_served_once_it_can() {
    let listener = DebugListener::bind(
        &"127.0.0.1:0".parse().expect("an address"),
        Default::default(),
    )
    .expect("a free port");
    let ListenAddress::Tcp(address) = listener.local_addr() else {
        unreachable!("bound so")
    };
    let (requests, mut vm_requests) = mesh::channel();
    let (thread, driver) = DefaultPool::spawn_on_thread("server");
    let vm = driver.spawn("vm", async move {
        while let Ok(request) = vm_requests.recv().await {
            if let DebugMessage::Attach(attach) = request {
                attach.complete(Err(DebugError::AlreadyAttached));
            }
        }
    });
    let (owner, stop) = mesh::channel();
    let parameters = DebuggerParameters::new(listener, requests);
    let server = driver.spawn(
        "server",
        debug_worker::serve(driver.clone(), parameters, stop),
    );
    let inspect = || {
        let state = block_on(owner.call(|rpc| WorkerRpc::Inspect(rpc.into()), ()));
        state.expect("the server lives").get("state") == Some("listening")
    };
    assert!(inspect());

    let mut client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let patience = Duration::from_secs(20);
    client.set_read_timeout(Some(patience)).expect("a timeout");
    let before = getrlimit(Resource::Nofile);
    let open = std::fs::read_dir("/proc/self/fd").expect("procfs").count() as u64;
    let few = Rlimit {
        current: Some(open + 8),
        ..before
    };
    setrlimit(Resource::Nofile, few).expect("a lower limit");
    let taken: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    client
        .connect(&address.into())
        .expect("it waits in the backlog");
    client.send(b"$?#3f").expect("room for a packet");
    // Enough turns for the executor to poll its sockets.
    block_on(driver.spawn("settle", async {
        for _ in 0..200 {
            let mut yielded = false;
            std::future::poll_fn(|cx| {
                if std::mem::replace(&mut yielded, true) {
                    return Poll::Ready(());
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
        }
    }));
    assert!(inspect(), "nobody was accepted");
    drop(taken);
    setrlimit(Resource::Nofile, before).expect("the old limit");

    let mut said = Vec::new();
    client
        .read_to_end(&mut said)
        .expect("an answer, and the end of the connection");
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("cannot attach"), "{said}");
    owner.send(WorkerRpc::Stop);
    block_on(server).expect("it ends in order");
    drop((vm, driver, owner));
    thread.join().expect("no panic");
}
