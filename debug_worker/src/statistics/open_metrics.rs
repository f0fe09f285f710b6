//! The counters in the OpenMetrics text format.

use super::Statistics;
use super::histogram::Histogram;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::EncodeMetric;
use prometheus_client::encoding::MetricEncoder;
use prometheus_client::encoding::NoLabelSet;
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Registry;
use prometheus_client::registry::Unit;
use std::fmt;

/// The counters as one OpenMetrics text.
///
/// # Errors
/// None that the text itself can cause: writing to a `String` does not fail.
pub(crate) fn encode(statistics: &Statistics) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("trapgate");
    registry.register_collector(Box::new(statistics.clone()));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(text)
}

impl Collector for Statistics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counters = &self.0;
        for (name, help, count) in [
            (
                "sessions",
                "Debug sessions that have begun",
                &counters.sessions,
            ),
            (
                "clients_refused",
                "Clients that were refused",
                &counters.clients_refused,
            ),
            (
                "evictions",
                "Clients that the operator has evicted",
                &counters.evictions,
            ),
            (
                "packets_received",
                "Packets of debuggers",
                &counters.packets_received,
            ),
            (
                "packets_sent",
                "Packets to debuggers",
                &counters.packets_sent,
            ),
        ] {
            let metric = ConstCounter::new(count.get());
            let encoder = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            metric.encode(encoder)?;
        }
        for (name, help, count) in [
            ("received", "Bytes from debuggers", &counters.bytes_received),
            ("sent", "Bytes to debuggers", &counters.bytes_sent),
        ] {
            let metric = ConstCounter::new(count.get());
            let encoder =
                encoder.encode_descriptor(name, help, Some(&Unit::Bytes), MetricType::Counter)?;
            metric.encode(encoder)?;
        }
        let mut stops = encoder.encode_descriptor(
            "stops",
            "Stops that were reported to debuggers",
            None,
            MetricType::Counter,
        )?;
        for (cause, count) in self.stops() {
            let metric = ConstCounter::new(count);
            metric.encode(stops.encode_family(&[("cause", cause)])?)?;
        }
        let mut failed = encoder.encode_descriptor(
            "requests_failed",
            "Requests to the VM that were refused or overdue",
            None,
            MetricType::Counter,
        )?;
        for (name, request) in self.requests() {
            let metric = ConstCounter::new(request.failed.get());
            metric.encode(failed.encode_family(&[("request", name)])?)?;
        }
        let mut latency = encoder.encode_descriptor(
            "request_latency",
            "Times from a request to the VM until its answer",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        // A histogram has 26 lines. Most requests are never made.
        for (name, request) in self
            .requests()
            .filter(|(_, request)| request.latency.count() > 0)
        {
            encode_histogram(
                &request.latency,
                latency.encode_family(&[("request", name)])?,
            )?;
        }
        Ok(())
    }
}

fn encode_histogram(histogram: &Histogram, mut encoder: MetricEncoder<'_>) -> fmt::Result {
    let buckets: Vec<_> = histogram
        .buckets()
        .map(|(bound, count)| {
            (
                bound.map_or(f64::INFINITY, |bound| bound.as_secs_f64()),
                count,
            )
        })
        .collect();
    encoder.encode_histogram::<NoLabelSet>(
        histogram.sum().as_secs_f64(),
        histogram.count(),
        &buckets,
        None,
    )
}
