//! The owner of the server: the holder of the channel that was passed to `serve`.

use super::Text;
use super::fake_vm::FakeVm;
use crate::DebugListener;
use crate::DebuggerParameters;
use crate::Exposure;
use crate::serve;
use mesh::worker::WorkerRpc;
use pal_async::DefaultPool;
use pal_async::task::Spawn;

/// The lines at WARN and above that are logged while a server starts and its owner does `last`.
fn log_of(last: impl FnOnce(mesh::Sender<WorkerRpc>)) -> String {
    // The executor runs on this thread, so the log contains only this test's lines.
    Text::of_warnings(|| {
        DefaultPool::run_with(async |driver| {
            let listener =
                DebugListener::bind(&"127.0.0.1:0".parse().unwrap(), Exposure::default()).unwrap();
            let (requests, vm_requests) = mesh::channel();
            let _vm = driver.spawn("vm", FakeVm::new().run(vm_requests));
            let parameters = DebuggerParameters::new(listener, requests);
            let (owner, owned) = mesh::channel();
            let server = driver.spawn("server", serve(driver.clone(), parameters, owned));
            last(owner);
            server.await.unwrap();
        });
    })
}

#[test]
fn a_server_whose_owner_has_gone_says_why_it_ends() {
    let log = log_of(drop);
    assert!(log.contains("WARN"), "{log}");
    assert!(
        log.contains("the debug server ends, because its owner has dropped the sender"),
        "{log}"
    );
    assert!(log.contains("keep the sender as long as"), "{log}");
}

#[test]
fn a_server_that_is_told_to_stop_warns_of_nothing() {
    assert_eq!(log_of(|owner| owner.send(WorkerRpc::Stop)), "");
}
