//! Running one future on this thread.

use crate::pool::CloseOnDrop;
use crate::pool::Shared;
use crate::reactor::Driver;
use crate::reactor::Reactor;
use std::sync::Arc;

/// What sockets and timers of a [`block_with_io`] are created with.
#[derive(Clone)]
pub struct LocalDriver(Arc<Shared>);

impl std::fmt::Debug for LocalDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalDriver").finish_non_exhaustive()
    }
}

impl Driver for LocalDriver {
    fn reactor(&self) -> &Arc<Reactor> {
        self.0.reactor()
    }
}

/// Runs `f(driver)` to its end on this thread. The future need not be `Send`.
///
/// # Panics
/// If the process may not open two more file descriptors.
pub fn block_with_io<F, R>(f: F) -> R
where
    F: AsyncFnOnce(LocalDriver) -> R,
{
    let shared = Shared::new()
        .expect("an executor needs an epoll and an eventfd descriptor (see `ulimit -n`)");
    let close = CloseOnDrop(shared.clone());
    close.0.run_until(f(LocalDriver(shared)))
}

/// Runs a future that needs neither sockets nor timers to its end on this thread.
///
/// The way for a thread that is no task to wait for a `mesh` channel.
pub fn block_on<F: Future>(future: F) -> F::Output {
    futures::executor::block_on(future)
}
