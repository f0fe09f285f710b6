//! Signals to threads of `shuttle`.
//!
//! The handler of a signal runs on the thread that it was sent to, as in the kernel, and no other thread comes between its steps. It runs at the next of these
//! points of that thread: where the code calls [`a_signal_may_arrive`], where the thread lets signals through again, in a sleep, and in the guest. Between two of
//! these points the thread neither reads nor changes what a handler may change, so no order of events is left out.

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

    /// To send signals to the calling thread.
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

/// Holds the calling thread's signals back from now on, or lets them through.
pub(super) fn hold(on: bool) {
    HELD.with(|held| held.set(on));
}

/// Delivers the calling thread's signals, held back or not. Whether there were any.
pub(super) fn deliver() -> bool {
    let handlers = Signals::here().take();
    for handler in &handlers {
        handler();
    }
    !handlers.is_empty()
}

/// Delivers the calling thread's signals, unless they are held back.
pub(crate) fn a_signal_may_arrive() {
    if !HELD.with(Cell::get) {
        deliver();
    }
}
