//! A build without the feature `gdb`: no program has a debug server of this type.

use crate::cli::RunArgs;
use crate::exit_status::ExitStatus;
use crate::kernel::Kernel;
use pal_async::DefaultDriver;
use thiserror::Error;
use vmm_core_defs::debug_rpc::DebugMessage;
use vp_runner::runner::Controller;
use vp_runner::runner::RunnerExit;
use vp_runner::runner::RunnerParams;
use vp_runner::runner::StartMode;

/// Has no value.
pub(crate) enum Server {}

/// Has no value.
pub(crate) enum Evictor {}

/// Has no value.
#[derive(Debug, Error)]
pub(crate) enum ServerError {}

impl ServerError {
    pub(crate) const fn status(&self) -> ExitStatus {
        match *self {}
    }
}

impl Evictor {
    pub(crate) const fn evict(&self) {
        match *self {}
    }
}

impl Server {
    /// There is none.
    pub(crate) const fn prepare(_: &RunArgs, _: &Kernel) -> Result<Option<Self>, ServerError> {
        Ok(None)
    }

    pub(crate) const fn start(&self) -> StartMode {
        match *self {}
    }

    pub(crate) const fn debugger(&self) -> &'static str {
        match *self {}
    }

    pub(crate) const fn announce(&self) {
        match *self {}
    }

    pub(crate) const fn evictor(&self) -> Evictor {
        match *self {}
    }

    pub(crate) const fn configure(&self, _: RunnerParams) -> RunnerParams {
        match *self {}
    }

    pub(crate) async fn serve(
        self,
        _: DefaultDriver,
        _: mesh::Sender<DebugMessage>,
        _: Controller,
    ) -> RunnerExit {
        match self {}
    }
}
