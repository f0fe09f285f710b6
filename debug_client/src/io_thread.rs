//! The thread that reads the sockets and fires the timers of the async interface, which runs on executors that this library does not know.

use pal_async::DefaultDriver;
use pal_async::DefaultPool;
use std::sync::LazyLock;

/// The thread begins with the first user and stays for the life of the process, because it has its own driver.
static DRIVER: LazyLock<DefaultDriver> =
    LazyLock::new(|| DefaultPool::spawn_on_thread("debug_client").1);

pub(crate) fn driver() -> DefaultDriver {
    DRIVER.clone()
}
