//! A histogram of times with bounds that are powers of two of a microsecond.

use super::Counter;
use std::time::Duration;

/// The buckets with a bound: 1 us to 8.4 s. One more bucket holds the longer times.
const BOUNDS: usize = 24;

/// How many times were counted up to each bound, and their sum.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    buckets: [Counter; BOUNDS + 1],
    /// In nanoseconds. The sum wraps after 584 years.
    sum: Counter,
}

/// The upper bound of a bucket. `None` for the last bucket.
fn bound(bucket: usize) -> Option<Duration> {
    (bucket < BOUNDS).then(|| Duration::from_micros(1 << bucket))
}

/// The first bucket whose bound is not below `time`.
fn bucket_of(time: Duration) -> usize {
    let nanos = time.as_nanos();
    let micros = nanos.div_ceil(1000).max(1);
    let exponent = u128::BITS - (micros - 1).leading_zeros();
    (exponent as usize).min(BOUNDS)
}

impl Histogram {
    /// Counts a time.
    pub(super) fn add(&self, time: Duration) {
        self.buckets[bucket_of(time)].add(1);
        self.sum
            .add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// How many times were counted.
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().map(Counter::get).sum()
    }

    /// The sum of the times.
    pub(super) fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum.get())
    }

    /// Each bucket: its bound (`None` for the last bucket) and its count.
    pub(super) fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        let counts = self.buckets.iter().map(Counter::get);
        counts
            .enumerate()
            .map(|(bucket, count)| (bound(bucket), count))
    }

    /// A bound that at least `share` of the times do not exceed: the quantile, rounded up to the next bound. `None` for
    /// an empty histogram, and if the time is in the last bucket.
    pub(super) fn quantile(&self, share: f64) -> Option<Duration> {
        let count = self.count();
        let mut below = 0;
        for (bound, in_bucket) in self.buckets() {
            below += in_bucket;
            if count > 0 && below as f64 >= count as f64 * share {
                return bound;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        for (nanos, expected) in [
            (0, 1),
            (1, 1),
            (1_000, 1),
            (1_001, 2),
            (2_000, 2),
            (2_001, 4),
            (3_000, 4),
            (4_001, 8),
            (1_000_000, 1_024),
            (8_388_608_000, 8_388_608),
        ] {
            let time = Duration::from_nanos(nanos);
            let bound = bound(bucket_of(time));
            assert_eq!(bound, Some(Duration::from_micros(expected)), "{nanos} ns");
        }
        for nanos in [8_388_608_001, u64::MAX] {
            assert_eq!(bucket_of(Duration::from_nanos(nanos)), BOUNDS);
        }
        assert_eq!(bucket_of(Duration::MAX), BOUNDS);
        assert_eq!(bound(BOUNDS), None);
    }

    #[test]
    fn quantiles_are_bounds() {
        let histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        for _ in 0..9 {
            histogram.add(Duration::from_micros(3));
        }
        histogram.add(Duration::from_micros(100));
        assert_eq!(histogram.count(), 10);
        assert_eq!(histogram.sum(), Duration::from_micros(127));
        assert_eq!(histogram.quantile(0.5), Some(Duration::from_micros(4)));
        assert_eq!(histogram.quantile(0.9), Some(Duration::from_micros(4)));
        assert_eq!(histogram.quantile(0.91), Some(Duration::from_micros(128)));
        histogram.add(Duration::from_secs(60));
        assert_eq!(histogram.quantile(1.0), None);
    }
}
