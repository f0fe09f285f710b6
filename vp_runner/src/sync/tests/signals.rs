//! Signals to threads of `shuttle`.
//!
//! The handler of a signal runs on the thread to which the signal was sent, as in the kernel, and no other thread runs between its steps. It runs at the next of these
//! points of that thread: where the code calls [`a_signal_may_arrive`], where the thread unblocks signals, in a sleep, and in the guest. Between two of
//! these points the thread neither reads nor changes a value that a handler may change, so no order of events is left out.

use shuttle::sync::Mutex;
use shuttle::thread;
use std::cell::Cell;
use std::sync::Arc;

type Handler = fn();

shuttle::thread_local! {
    static SIGNALS: Arc<Signals> = Arc::new(Signals::of_this_thread());
    static HELD: Cell<bool> = Cell::new(false);
}

/// The signals that were sent to one thread and not delivered yet.
pub(crate) struct Signals {
    pending: Mutex<Vec<Handler>>,
    thread: thread::Thread,
}

impl Signals {
    fn of_this_thread() -> Self {
        Self {
            pending: Mutex::new(Vec::new()),
            thread: thread::current(),
        }
    }

    /// A handle for sending signals to the calling thread.
    pub(crate) fn here() -> Arc<Self> {
        SIGNALS.with(Clone::clone)
    }

    /// Sends a signal with this handler. As with a real-time signal, each one that is sent is delivered.
    pub(crate) fn send(&self, handler: Handler) {
        self.pending.lock().unwrap().push(handler);
        self.thread.unpark();
    }

    fn take(&self) -> Vec<Handler> {
        std::mem::take(&mut *self.pending.lock().unwrap())
    }
}

/// Blocks the signals of the calling thread, or unblocks them.
pub(super) fn hold(on: bool) {
    HELD.with(|held| held.set(on));
}

/// Delivers the calling thread's signals, blocked or not. Returns whether there were any.
pub(super) fn deliver() -> bool {
    let handlers = Signals::here().take();
    for handler in &handlers {
        handler();
    }
    !handlers.is_empty()
}

/// Delivers the calling thread's signals, unless they are blocked.
pub(crate) fn a_signal_may_arrive() {
    if !HELD.with(Cell::get) {
        deliver();
    }
}
