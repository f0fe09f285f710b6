//! Deadlines.

use crate::reactor::Driver;
use crate::reactor::Reactor;
use crate::reactor::TimerKey;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

/// The clock of deadlines.
pub use std::time::Instant;

/// A timer for one waiter at a time. It costs nothing until it is polled before its deadline.
#[derive(Debug)]
pub struct PolledTimer {
    reactor: Arc<Reactor>,
    registered: Option<TimerKey>,
}

impl PolledTimer {
    /// A timer driven by `driver`.
    pub fn new(driver: &(impl ?Sized + Driver)) -> Self {
        Self {
            reactor: driver.reactor().clone(),
            registered: None,
        }
    }

    /// Ready once `deadline` has passed, with the time it is then. A new deadline replaces the one before.
    pub fn poll_until(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<Instant> {
        let now = Instant::now();
        if now >= deadline {
            self.cancel();
            return Poll::Ready(now);
        }
        match self.registered {
            Some(key) if key.0 == deadline && self.reactor.update_timer(&key, cx.waker()) => {}
            _ => {
                self.cancel();
                self.registered = Some(self.reactor.add_timer(deadline, cx.waker().clone()));
            }
        }
        Poll::Pending
    }

    /// Waits until `deadline`.
    pub async fn sleep_until(&mut self, deadline: Instant) -> Instant {
        poll_fn(|cx| self.poll_until(cx, deadline)).await
    }

    /// Waits for `duration`, or for ever if the clock does not reach so far.
    pub async fn sleep(&mut self, duration: Duration) -> Instant {
        match Instant::now().checked_add(duration) {
            Some(deadline) => self.sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    }

    fn cancel(&mut self) {
        if let Some(key) = self.registered.take() {
            self.reactor.remove_timer(&key);
        }
    }
}

impl Drop for PolledTimer {
    fn drop(&mut self) {
        self.cancel();
    }
}
