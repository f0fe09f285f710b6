//! Periodic ticks while the guest runs and breakpoint bytes have to be checked. Otherwise the thread sleeps.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// The time between ticks: the longest time for which a breakpoint that the guest has overwritten, or whose page it has just mapped, is not armed.
pub(super) const PERIOD: Duration = Duration::from_millis(25);

/// One tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tick;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pulse {
    On,
    Off,
}

/// The source of ticks.
pub(super) struct Ticker {
    ticks: mesh::Sender<Tick>,
    pulse: Pulse,
    /// Present after the first [`start`](Self::start). Dropping the sender ends the thread.
    thread: Option<mpsc::Sender<Pulse>>,
}

impl Ticker {
    pub(super) fn new() -> (Self, mesh::Receiver<Tick>) {
        let (ticks, receiver) = mesh::channel();
        let ticker = Self {
            ticks,
            pulse: Pulse::Off,
            thread: None,
        };
        (ticker, receiver)
    }

    /// Lets a test produce the ticks, on its own clock.
    #[cfg(test)]
    pub(super) fn beside(&mut self, thread: mpsc::Sender<Pulse>) -> mesh::Sender<Tick> {
        self.thread = Some(thread);
        self.ticks.clone()
    }

    pub(super) fn start(&mut self) {
        self.set(Pulse::On);
    }

    pub(super) fn stop(&mut self) {
        self.set(Pulse::Off);
    }

    fn set(&mut self, pulse: Pulse) {
        if self.pulse == pulse {
            return;
        }
        self.pulse = pulse;
        let thread = self.thread.get_or_insert_with(|| spawn(self.ticks.clone()));
        if thread.send(pulse).is_err() {
            tracing::warn!("no thread for ticks: breakpoints are checked at stops only");
        }
    }
}

fn spawn(ticks: mesh::Sender<Tick>) -> mpsc::Sender<Pulse> {
    let (send, pulses) = mpsc::channel();
    let run = move || {
        let mut next = pulses.recv().map_err(mpsc::RecvTimeoutError::from);
        loop {
            next = match next {
                Ok(Pulse::On) => pulses.recv_timeout(PERIOD),
                Ok(Pulse::Off) => pulses.recv().map_err(mpsc::RecvTimeoutError::from),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    ticks.send(Tick);
                    pulses.recv_timeout(PERIOD)
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            };
        }
    };
    // If the thread cannot be started, the receiver is dropped, and `set` logs a warning.
    let _ = thread::Builder::new()
        .name("breakpoint ticks".into())
        .spawn(run);
    send
}
