//! The executor: a queue of ready tasks and a loop on one thread.

use crate::awake::Expected;
use crate::reactor::Driver;
use crate::reactor::Reactor;
use crate::reactor::lock;
use crate::task::Spawn;
use crate::task::Task;
use crate::task::TaskMetadata;
use async_task::Runnable;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::panic::Location;
use std::pin::pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::Wake;
use std::task::Waker;
use std::thread::JoinHandle;
use std::time::Instant;

/// After so many rounds without sleep, events are looked for anyway, so that two tasks that keep each other busy
/// cannot shut out the sockets.
const ROUNDS_PER_CHECK: u32 = 64;

/// The state of a pool. As a [`Wake`] it is the waker of the future the pool was entered with.
pub(crate) struct Shared {
    reactor: Arc<Reactor>,
    /// `None` once the pool is gone: what is scheduled then is dropped, which cancels the task.
    ready: Mutex<Option<VecDeque<Runnable<TaskMetadata>>>>,
    /// The entered future is to be polled.
    signalled: AtomicBool,
    /// Unfinished tasks, plus one while there are drivers.
    live: AtomicUsize,
}

impl Shared {
    pub(crate) fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            reactor: Arc::new(Reactor::new()?),
            ready: Mutex::new(Some(VecDeque::new())),
            signalled: AtomicBool::new(false),
            live: AtomicUsize::new(0),
        }))
    }

    pub(crate) fn reactor(&self) -> &Arc<Reactor> {
        &self.reactor
    }

    fn schedule(&self, runnable: Runnable<TaskMetadata>) {
        match &mut *lock(&self.ready) {
            Some(ready) => ready.push_back(runnable),
            // Dropped after the lock is released: it is a parameter.
            None => return,
        }
        self.reactor.notify();
    }

    fn work_is_ready(&self) -> bool {
        self.signalled.load(Ordering::SeqCst)
            || lock(&self.ready)
                .as_ref()
                .is_some_and(|ready| !ready.is_empty())
    }

    /// Runs tasks on this thread until `future` is ready.
    pub(crate) fn run_until<F: Future>(self: &Arc<Self>, future: F) -> F::Output {
        let mut future = pin!(future);
        let waker = Waker::from(self.clone());
        let mut cx = Context::from_waker(&waker);
        let mut round = VecDeque::new();
        let mut rounds = 0_u32;
        let mut next = Expected::default();
        self.signalled.store(true, Ordering::SeqCst);
        loop {
            if self.signalled.swap(false, Ordering::SeqCst)
                && let Poll::Ready(output) = future.as_mut().poll(&mut cx)
            {
                return output;
            }
            if let Some(ready) = &mut *lock(&self.ready) {
                std::mem::swap(ready, &mut round);
            }
            for runnable in round.drain(..) {
                runnable.run();
            }
            // Counted over short waits too: work that comes again and again within a few looks must not keep sockets from being served.
            rounds = rounds.wrapping_add(1);
            if rounds.is_multiple_of(ROUNDS_PER_CHECK) {
                self.reactor.check();
            }
            if !self.work_is_ready() {
                next = self.idle(next);
            }
        }
    }

    /// Waits for work. `next`: what the last wait makes of this one.
    fn idle(&self, next: Expected) -> Expected {
        let since = Instant::now();
        let soon = next.awake(|| {
            // Sockets are checked at each look. Four looks for other threads between two checks made a step over the protocol slower: 68 us instead of 60
            // (median of 12 runs, emulating KVM, 2 cores).
            self.reactor.check();
            self.work_is_ready().then_some(())
        });
        if soon.is_none() {
            self.reactor.wait(|| self.work_is_ready());
        }
        Expected::after(since)
    }

    fn close(&self) {
        let ready = lock(&self.ready).take();
        drop(ready);
        self.reactor.forget_wakers();
    }
}

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.signalled.store(true, Ordering::SeqCst);
        self.reactor.notify();
    }
}

/// One reason for [`DefaultPool::run`] to go on.
struct Live(Arc<Shared>);

impl Live {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.live.fetch_add(1, Ordering::SeqCst);
        Self(shared.clone())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if self.0.live.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.wake_by_ref();
        }
    }
}

/// An executor. Its tasks run on the thread that calls one of the `run` methods, and are cancelled when it is dropped.
#[derive(Debug)]
pub struct DefaultPool {
    driver: DefaultDriver,
    close: CloseOnDrop,
}

impl DefaultPool {
    /// A pool that does not run yet.
    ///
    /// # Panics
    /// If the process may not open two more file descriptors.
    #[expect(
        clippy::new_without_default,
        reason = "as in OpenVMM; it acquires resources and may panic"
    )]
    pub fn new() -> Self {
        let shared = Shared::new()
            .expect("an executor needs an epoll and an eventfd descriptor (see `ulimit -n`)");
        let live = Arc::new(Live::new(&shared));
        let close = CloseOnDrop(shared.clone());
        Self {
            driver: DefaultDriver {
                shared,
                _live: live,
            },
            close,
        }
    }

    /// What tasks, sockets and timers are created with.
    pub fn driver(&self) -> DefaultDriver {
        self.driver.clone()
    }

    /// Runs tasks until `future` is ready. Other tasks keep their state for the next `run`.
    pub fn run_until<F: Future>(&mut self, future: F) -> F::Output {
        self.driver.shared.run_until(future)
    }

    /// Runs until every task has finished and every driver is gone.
    pub fn run(self) {
        let Self { driver, close } = self;
        drop(driver);
        let live = &close.0.live;
        close
            .0
            .run_until(poll_fn(|_| match live.load(Ordering::SeqCst) {
                0 => Poll::Ready(()),
                _ => Poll::Pending,
            }));
    }

    /// Runs `f(driver)`, then the tasks it has left behind until they have finished too.
    pub fn run_with<F, R>(f: F) -> R
    where
        F: AsyncFnOnce(DefaultDriver) -> R,
    {
        let mut pool = Self::new();
        let driver = pool.driver();
        let output = pool.run_until(f(driver));
        pool.run();
        output
    }

    /// Runs a new pool on a new thread until every task has finished and every driver is gone.
    ///
    /// # Panics
    /// If the thread cannot be created.
    pub fn spawn_on_thread(name: impl Into<String>) -> (JoinHandle<()>, DefaultDriver) {
        let pool = Self::new();
        let driver = pool.driver();
        let thread = std::thread::Builder::new()
            .name(name.into())
            .spawn(move || pool.run());
        (
            thread.expect("an executor needs a thread (see `ulimit -u`)"),
            driver,
        )
    }
}

/// Closes the pool even if a task panics.
pub(crate) struct CloseOnDrop(pub(crate) Arc<Shared>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl std::fmt::Debug for CloseOnDrop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CloseOnDrop").finish_non_exhaustive()
    }
}

/// A handle to a [`DefaultPool`] that may be used from any thread.
#[derive(Clone)]
pub struct DefaultDriver {
    shared: Arc<Shared>,
    _live: Arc<Live>,
}

impl std::fmt::Debug for DefaultDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DefaultDriver").finish_non_exhaustive()
    }
}

impl Driver for DefaultDriver {
    fn reactor(&self) -> &Arc<Reactor> {
        self.shared.reactor()
    }
}

impl Spawn for DefaultDriver {
    #[track_caller]
    fn spawn<T, F>(&self, name: impl Into<Arc<str>>, future: F) -> Task<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let metadata = TaskMetadata::new(name.into(), Location::caller());
        let live = Live::new(&self.shared);
        let shared = self.shared.clone();
        let (runnable, task) = async_task::Builder::new()
            .metadata(metadata)
            .propagate_panic(true)
            .spawn(
                move |_| async move {
                    let _live = live;
                    future.await
                },
                move |runnable| shared.schedule(runnable),
            );
        runnable.schedule();
        task
    }
}
