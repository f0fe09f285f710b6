//! The counters as text for people: `monitor stats`.

use super::Statistics;
use std::fmt;
use std::time::Duration;

impl fmt::Display for Statistics {
    /// One line for each group of counters, and one line for each kind of request that was made.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counters = &self.0;
        writeln!(f, "Since the debug server started:")?;
        writeln!(
            f,
            "sessions  {}, clients refused {}, evicted {}",
            counters.sessions.get(),
            counters.clients_refused.get(),
            counters.evictions.get()
        )?;
        writeln!(
            f,
            "received  {} packets, {} bytes",
            counters.packets_received.get(),
            counters.bytes_received.get()
        )?;
        writeln!(
            f,
            "sent      {} packets, {} bytes",
            counters.packets_sent.get(),
            counters.bytes_sent.get()
        )?;
        f.write_str("stops     ")?;
        let mut none = true;
        for (cause, count) in self.stops().filter(|(_, count)| *count > 0) {
            let separator = if none { "" } else { ", " };
            write!(f, "{separator}{cause} {count}")?;
            none = false;
        }
        writeln!(f, "{}", if none { "none" } else { "" })?;
        writeln!(
            f,
            "{:<15} {:>9} {:>7} {:>10} {:>10} {:>10}",
            "request", "number", "failed", "mean", "50 % in", "99 % in"
        )?;
        for (name, request) in self.requests() {
            let count = request.latency.count();
            let Some(mean) = request
                .latency
                .sum()
                .as_nanos()
                .checked_div(count.into())
                .and_then(|nanos| u64::try_from(nanos).ok())
                .map(Duration::from_nanos)
            else {
                continue;
            };
            let bound = |share| match request.latency.quantile(share) {
                Some(bound) => format!("{bound:?}"),
                None => "longer".to_owned(),
            };
            writeln!(
                f,
                "{name:<15} {count:>9} {:>7} {:>10} {:>10} {:>10}",
                request.failed.get(),
                format!("{mean:.1?}"),
                bound(0.5),
                bound(0.99)
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::RequestKind;
    use super::*;
    use vmm_core_defs::debug_rpc::DebugRequest;
    use vmm_core_defs::stop::DebugStopReason;

    fn kind(name: &str) -> RequestKind {
        let index = DebugRequest::NAMES.iter().position(|known| *known == name);
        RequestKind::InSession(index.expect("the name of a request"))
    }

    #[test]
    fn a_server_without_a_client_has_counted_nothing() {
        let text = Statistics::default().to_string();
        assert!(text.contains("\nstops     none\n"), "{text}");
        assert!(!text.contains("Attach"), "{text}");
    }

    #[test]
    fn each_counter_is_shown() {
        let statistics = Statistics::default();
        statistics.session_began();
        statistics.session_began();
        statistics.client_refused();
        statistics.evicted();
        statistics.packets(3, 4);
        statistics.bytes_received(5);
        statistics.bytes_sent(6);
        statistics.stopped(&DebugStopReason::Break);
        statistics.stopped(&DebugStopReason::PowerOff { vp: None });
        let read = kind("ReadMemory");
        statistics.answered(read, Duration::from_micros(3), false);
        statistics.answered(read, Duration::from_micros(5), true);
        statistics.answered(kind("Break"), Duration::from_secs(60), true);
        assert_eq!(
            statistics.to_string(),
            "Since the debug server started:\n\
             sessions  2, clients refused 1, evicted 1\n\
             received  3 packets, 5 bytes\n\
             sent      4 packets, 6 bytes\n\
             stops     break 1, power-off 1\n\
             request            number  failed       mean    50 % in    99 % in\n\
             Break                   1       1      60.0s     longer     longer\n\
             ReadMemory              2       1      4.0µs        4µs        8µs\n"
        );
    }
}
