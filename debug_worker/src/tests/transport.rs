//! How the server under test reaches the fake VM: over a channel or, with `TRAPGATE_TEST_TRANSPORT=wire`, over a socket. All tests of this folder run over
//! both in `cargo xtask test`.

use mesh::Sender;
use pal_async::DefaultDriver;
use pal_async::task::Spawn;
use pal_async::task::Task;
use std::os::unix::net::UnixStream;
use vmm_core_defs::debug_rpc::DebugMessage;
use vmm_core_defs::target::Target;

/// The VM for the server, and the task that stands for the VMM's side of the socket.
pub(super) fn reach(
    driver: &DefaultDriver,
    requests: Sender<DebugMessage>,
) -> (Target, Option<Task<()>>) {
    match std::env::var("TRAPGATE_TEST_TRANSPORT").as_deref() {
        Ok("wire") => {
            let (debugger, vmm) = UnixStream::pair().unwrap();
            let (target, connection) = debug_wire::connect(driver, debugger).unwrap();
            let run = async { connection.run().await.unwrap() };
            driver.spawn("debugger's side", run).detach();
            let of_vmm = driver.clone();
            let serve = async move { debug_wire::serve(&of_vmm, vmm, requests).await.unwrap() };
            (target.into(), Some(driver.spawn("VMM's side", serve)))
        }
        Ok("channel") | Err(_) => (requests.into(), None),
        Ok(other) => panic!("TRAPGATE_TEST_TRANSPORT is `{other}`, and not `channel` or `wire`"),
    }
}
