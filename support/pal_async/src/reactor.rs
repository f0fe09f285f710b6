//! Waiting: file descriptors, deadlines and wakes from other threads, in one `epoll` per pool.
//!
//! Descriptors are registered once, edge triggered, for both directions (epoll(7)): no `epoll_ctl` per operation.

use rustix::event::EventfdFlags;
use rustix::event::Timespec;
use rustix::event::epoll;
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::time::Duration;
use std::time::Instant;

/// What sockets and timers are created with. They make progress while the pool behind it runs.
pub trait Driver: Send + Sync {
    #[doc(hidden)]
    fn reactor(&self) -> &Arc<Reactor>;
}

/// The key of the `eventfd`; sources count up from 1.
const WAKE_KEY: u64 = 0;
const EVENTS_PER_WAIT: usize = 64;

#[derive(Debug)]
pub struct Reactor {
    epoll: OwnedFd,
    wake: OwnedFd,
    /// The pool's thread is in `epoll_wait` or about to be, and nobody has written to `wake` since.
    asleep: AtomicBool,
    next_key: AtomicU64,
    sources: Mutex<HashMap<u64, Arc<Source>>>,
    timers: Mutex<BTreeMap<TimerKey, Waker>>,
}

/// A deadline and what tells two timers with the same one apart.
pub(crate) type TimerKey = (Instant, u64);

/// Which half of a socket is waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Direction {
    Read,
    Write,
    /// For the end of both directions.
    Closed,
}

/// Nothing in this crate panics while it holds a lock, so a poisoned one still guards good data.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reactor {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        // Edge triggered: each write is a new event, so the counter need not be read back.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, &wake, epoll::EventData::new_u64(WAKE_KEY), flags)?;
        Ok(Self {
            epoll,
            wake,
            asleep: AtomicBool::new(false),
            next_key: AtomicU64::new(WAKE_KEY + 1),
            sources: Mutex::default(),
            timers: Mutex::default(),
        })
    }

    /// Gets the pool's thread out of [`Reactor::wait`]. To be called after the work has been made visible.
    pub(crate) fn notify(&self) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            // The counter is full after 2^64 - 2 writes; it stays readable then, which is all that is asked.
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        }
    }

    /// Sleeps until an event, a deadline or [`Reactor::notify`], unless `work_is_ready`.
    ///
    /// No wake is lost: `asleep` is set before `work_is_ready` looks, and a waker makes its work visible before it
    /// reads `asleep` (both sequentially consistent), so one of the two sees the other.
    pub(crate) fn wait(&self, work_is_ready: impl FnOnce() -> bool) {
        self.asleep.store(true, Ordering::SeqCst);
        if !work_is_ready() {
            let timeout = lock(&self.timers)
                .first_key_value()
                .map(|(&(deadline, _), _)| until(deadline));
            self.poll_epoll(timeout.as_ref());
        }
        self.asleep.store(false, Ordering::SeqCst);
        self.fire_timers();
    }

    /// Looks for events and passed deadlines without sleeping.
    pub(crate) fn check(&self) {
        self.poll_epoll(Some(&Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        }));
        self.fire_timers();
    }

    fn poll_epoll(&self, timeout: Option<&Timespec>) {
        // Not initialized: to fill the array took half the instructions of a look that finds nothing.
        let mut events = [const { MaybeUninit::uninit() }; EVENTS_PER_WAIT];
        let events = match epoll::wait(&self.epoll, &mut events[..], timeout) {
            Ok((events, _)) => events,
            Err(rustix::io::Errno::INTR) => &mut [],
            Err(error) => panic!("epoll_wait on a descriptor of ours failed: {error}"),
        };
        // Awake from here on: what the events below make ready is seen by the loop, without a write to `wake`.
        self.asleep.store(false, Ordering::SeqCst);
        for event in events {
            let (key, flags) = (event.data.u64(), event.flags);
            let source = lock(&self.sources).get(&key).cloned();
            if let Some(source) = source {
                source.dispatch(flags);
            }
        }
    }

    fn fire_timers(&self) {
        let mut timers = lock(&self.timers);
        let Some(((first, _), _)) = timers.first_key_value() else {
            return;
        };
        let now = Instant::now();
        // A split costs some hundred instructions also where nothing is split off.
        if *first > now {
            return;
        }
        let later = timers.split_off(&(now, u64::MAX));
        let passed = std::mem::replace(&mut *timers, later);
        drop(timers);
        passed.into_values().for_each(Waker::wake);
    }

    pub(crate) fn add_timer(&self, deadline: Instant, waker: Waker) -> TimerKey {
        let key = (deadline, self.next_key.fetch_add(1, Ordering::Relaxed));
        lock(&self.timers).insert(key, waker);
        // The pool may sleep towards a later deadline.
        self.notify();
        key
    }

    /// False if the timer has fired.
    pub(crate) fn update_timer(&self, key: &TimerKey, waker: &Waker) -> bool {
        lock(&self.timers)
            .get_mut(key)
            .map(|registered| registered.clone_from(waker))
            .is_some()
    }

    pub(crate) fn remove_timer(&self, key: &TimerKey) {
        let waker = lock(&self.timers).remove(key);
        drop(waker);
    }

    /// Drops all wakers, for when nobody will wait any more: a waker may own the task that owns what is waited for.
    pub(crate) fn forget_wakers(&self) {
        let timers = std::mem::take(&mut *lock(&self.timers));
        drop(timers);
        let sources: Vec<_> = lock(&self.sources).values().cloned().collect();
        for source in sources {
            let wakers = [
                lock(&source.read).waker.take(),
                lock(&source.write).waker.take(),
            ];
            drop(wakers);
        }
    }
}

/// Rounded up to the milliseconds of `epoll_wait`, so that the deadline has passed when it returns.
fn until(deadline: Instant) -> Timespec {
    let left = deadline.saturating_duration_since(Instant::now());
    let millis = left.as_nanos().div_ceil(1_000_000);
    let left = Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX));
    Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: left.subsec_nanos().into(),
    }
}

/// What is known about one registered descriptor.
#[derive(Debug, Default)]
struct Source {
    read: Mutex<Readiness>,
    write: Mutex<Readiness>,
    closed: Mutex<Readiness>,
}

#[derive(Debug, Default)]
struct Readiness {
    ready: bool,
    /// The other side has closed this direction or the socket has failed; no edge will say so again.
    hung_up: bool,
    /// Counts edges, so that an edge between an attempt and its `WouldBlock` is not forgotten.
    edges: u64,
    waker: Option<Waker>,
}

impl Source {
    fn dispatch(&self, flags: epoll::EventFlags) {
        use epoll::EventFlags as Flags;
        let failed = flags.intersects(Flags::HUP | Flags::ERR);
        if failed || flags.intersects(Flags::IN | Flags::RDHUP) {
            Self::set_ready(&self.read, failed || flags.contains(Flags::RDHUP));
        }
        if failed || flags.contains(Flags::OUT) {
            Self::set_ready(&self.write, failed);
        }
        if failed {
            Self::set_ready(&self.closed, true);
        }
    }

    fn set_ready(readiness: &Mutex<Readiness>, hung_up: bool) {
        let waker = {
            let mut readiness = lock(readiness);
            readiness.ready = true;
            readiness.hung_up |= hung_up;
            readiness.edges += 1;
            readiness.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A descriptor in a reactor.
#[derive(Debug)]
pub(crate) struct Registration {
    reactor: Arc<Reactor>,
    key: u64,
    source: Arc<Source>,
}

/// What [`Registration::poll_ready`] saw, for [`Registration::clear_ready`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Edge(u64);

impl Registration {
    pub(crate) fn new(reactor: &Arc<Reactor>, fd: impl AsFd) -> io::Result<Self> {
        use epoll::EventFlags as Flags;
        let key = reactor.next_key.fetch_add(1, Ordering::Relaxed);
        let source = Arc::new(Source::default());
        lock(&reactor.sources).insert(key, source.clone());
        let registration = Self {
            reactor: reactor.clone(),
            key,
            source,
        };
        let flags = Flags::IN | Flags::OUT | Flags::RDHUP | Flags::ET;
        epoll::add(&reactor.epoll, fd, epoll::EventData::new_u64(key), flags)?;
        Ok(registration)
    }

    /// Takes `fd` out of the reactor. Closing it does the same, unless it has been duplicated.
    pub(crate) fn deregister(self, fd: impl AsFd) {
        // It fails only where the descriptor is not registered, which is what is wanted.
        let _ = epoll::delete(&self.reactor.epoll, fd);
    }

    fn readiness(&self, direction: Direction) -> MutexGuard<'_, Readiness> {
        lock(match direction {
            Direction::Read => &self.source.read,
            Direction::Write => &self.source.write,
            Direction::Closed => &self.source.closed,
        })
    }

    /// Ready when an attempt may succeed. Each direction wakes the last task that polled it.
    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>, direction: Direction) -> Poll<Edge> {
        let mut readiness = self.readiness(direction);
        if readiness.ready {
            return Poll::Ready(Edge(readiness.edges));
        }
        match &mut readiness.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Notes that an attempt made after `edge` found nothing more to do.
    pub(crate) fn clear_ready(&self, direction: Direction, edge: Edge) {
        let mut readiness = self.readiness(direction);
        if readiness.edges == edge.0 && !readiness.hung_up {
            readiness.ready = false;
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        lock(&self.reactor.sources).remove(&self.key);
    }
}
