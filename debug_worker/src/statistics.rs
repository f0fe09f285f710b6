//! Counters of a debug server, from its start on: sessions, packets, stops by cause, and requests with their latencies.
//!
//! [`Statistics`] is the only owner of the counts. `monitor stats`, the inspection of the worker and the OpenMetrics endpoint read them.

mod histogram;
#[cfg(feature = "open-metrics")]
mod open_metrics;
mod text;

#[cfg(feature = "open-metrics")]
pub(crate) use open_metrics::encode;

use histogram::Histogram;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use vmm_core_defs::debug_rpc::DebugRequest;
use vmm_core_defs::stop::DebugStopReason;

/// The counters of a debug server. A clone reads and writes the same counters, from any thread.
#[derive(Debug, Clone, Default)]
pub struct Statistics(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    sessions: Counter,
    clients_refused: Counter,
    evictions: Counter,
    packets_received: Counter,
    packets_sent: Counter,
    bytes_received: Counter,
    bytes_sent: Counter,
    stops: [Counter; StopCause::ALL.len()],
    attach: RequestCounters,
    /// In the order of [`DebugRequest::NAMES`].
    requests: [RequestCounters; DebugRequest::NAMES.len()],
}

/// A count that only grows.
#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Counter {
    fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of one kind of request.
#[derive(Debug, Default)]
struct RequestCounters {
    /// The times from the request to its answer.
    latency: Histogram,
    failed: Counter,
}

/// The kinds of messages to the VM that are counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestKind {
    /// The message that begins a session.
    Attach,
    /// A request of a session, by its place in [`DebugRequest::NAMES`].
    InSession(usize),
}

impl RequestKind {
    /// The kind of a request.
    pub(crate) fn of(request: &DebugRequest) -> Self {
        Self::InSession(request.index())
    }

    /// The name of the request.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Attach => "Attach",
            Self::InSession(index) => DebugRequest::NAMES[index],
        }
    }
}

/// The causes of stops that are counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopCause {
    Break,
    Step,
    Breakpoint,
    Watchpoint,
    TripleFault,
    Reset,
    PowerOff,
    Crash,
    Panic,
    Other,
}

impl StopCause {
    const ALL: [Self; 10] = [
        Self::Break,
        Self::Step,
        Self::Breakpoint,
        Self::Watchpoint,
        Self::TripleFault,
        Self::Reset,
        Self::PowerOff,
        Self::Crash,
        Self::Panic,
        Self::Other,
    ];

    /// The cause of a stop.
    pub(crate) const fn of(reason: &DebugStopReason) -> Self {
        match reason {
            DebugStopReason::Break => Self::Break,
            DebugStopReason::SingleStep { .. } => Self::Step,
            DebugStopReason::Breakpoint { .. } => Self::Breakpoint,
            DebugStopReason::Watchpoint { .. } => Self::Watchpoint,
            DebugStopReason::TripleFault { .. } => Self::TripleFault,
            DebugStopReason::Reset { .. } => Self::Reset,
            DebugStopReason::PowerOff { .. } => Self::PowerOff,
            DebugStopReason::Crashed { .. } => Self::Crash,
            DebugStopReason::Panic { .. } => Self::Panic,
            _ => Self::Other,
        }
    }

    /// The name of the cause.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Break => "break",
            Self::Step => "step",
            Self::Breakpoint => "breakpoint",
            Self::Watchpoint => "watchpoint",
            Self::TripleFault => "triple-fault",
            Self::Reset => "reset",
            Self::PowerOff => "power-off",
            Self::Crash => "crash",
            Self::Panic => "panic",
            Self::Other => "other",
        }
    }
}

impl Statistics {
    pub(crate) fn session_began(&self) {
        self.0.sessions.add(1);
    }

    pub(crate) fn client_refused(&self) {
        self.0.clients_refused.add(1);
    }

    pub(crate) fn evicted(&self) {
        self.0.evictions.add(1);
    }

    /// Adds packets of a session that were not added before.
    pub(crate) fn packets(&self, received: u64, sent: u64) {
        self.0.packets_received.add(received);
        self.0.packets_sent.add(sent);
    }

    pub(crate) fn bytes_received(&self, count: usize) {
        self.0.bytes_received.add(count as u64);
    }

    pub(crate) fn bytes_sent(&self, count: usize) {
        self.0.bytes_sent.add(count as u64);
    }

    /// Counts a stop that has answered a `Resume`.
    pub(crate) fn stopped(&self, reason: &DebugStopReason) {
        self.0.stops[StopCause::of(reason) as usize].add(1);
    }

    /// Counts a request that was answered, refused or overdue after this time.
    pub(crate) fn answered(&self, kind: RequestKind, after: Duration, failed: bool) {
        let counters = match kind {
            RequestKind::Attach => &self.0.attach,
            RequestKind::InSession(index) => &self.0.requests[index],
        };
        counters.latency.add(after);
        if failed {
            counters.failed.add(1);
        }
    }

    /// The number of stops that have answered a `Resume`, by the name of the cause.
    fn stops(&self) -> impl Iterator<Item = (&'static str, u64)> {
        StopCause::ALL
            .iter()
            .zip(&self.0.stops)
            .map(|(cause, count)| (cause.name(), count.get()))
    }

    /// The kinds of requests, by name.
    fn requests(&self) -> impl Iterator<Item = (&'static str, &RequestCounters)> {
        let in_session = DebugRequest::NAMES.iter().copied().zip(&self.0.requests);
        std::iter::once((RequestKind::Attach.name(), &self.0.attach)).chain(in_session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_its_own_counter() {
        for (index, cause) in StopCause::ALL.iter().enumerate() {
            assert_eq!(*cause as usize, index, "{}", cause.name());
        }
        let statistics = Statistics::default();
        statistics.stopped(&DebugStopReason::Break);
        statistics.stopped(&DebugStopReason::PowerOff { vp: None });
        statistics.stopped(&DebugStopReason::Break);
        let counted: Vec<_> = statistics.stops().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [("break", 2), ("power-off", 1)]);
    }

    #[test]
    fn every_request_has_its_own_counters() {
        let statistics = Statistics::default();
        for index in 0..DebugRequest::NAMES.len() {
            for _ in 0..=index {
                let kind = RequestKind::InSession(index);
                statistics.answered(kind, Duration::from_micros(1), index % 2 == 1);
            }
        }
        statistics.answered(RequestKind::Attach, Duration::ZERO, true);
        let mut requests = statistics.requests();
        let (name, attach) = requests.next().expect("the first");
        assert_eq!(
            (name, attach.latency.count(), attach.failed.get()),
            ("Attach", 1, 1)
        );
        for (index, (name, counters)) in requests.enumerate() {
            let expected = index as u64 + 1;
            assert_eq!(name, DebugRequest::NAMES[index]);
            assert_eq!(counters.latency.count(), expected, "{name}");
            assert_eq!(
                counters.failed.get(),
                expected * (index as u64 % 2),
                "{name}"
            );
        }
    }
}
