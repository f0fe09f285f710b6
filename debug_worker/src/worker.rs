//! The debug server as a worker on its own thread.

use crate::parameters::DebuggerParameters;
use crate::server::serve;
use anyhow::Context as _;
use mesh::Receiver;
use mesh::worker::Worker;
use mesh::worker::WorkerId;
use mesh::worker::WorkerRpc;
use pal_async::local::block_with_io;

/// The debug server, for [`launch_local_worker`](mesh::worker::launch_local_worker).
///
/// Inspecting it shows `local_addr`, `state` (`listening`, `connected`, `ending`) and, while connected, `remote_addr`.
#[derive(Debug)]
pub struct DebugWorker(DebuggerParameters);

impl Worker for DebugWorker {
    type Parameters = DebuggerParameters;
    const ID: WorkerId<DebuggerParameters> = WorkerId::new("debug_worker");

    fn new(parameters: DebuggerParameters) -> anyhow::Result<Self> {
        Ok(Self(parameters))
    }

    fn run(self, requests: Receiver<WorkerRpc>) -> anyhow::Result<()> {
        block_with_io(async |driver| serve(driver, self.0, requests).await)
            .context("the debug server cannot use its listening socket")
    }
}
