// SPDX-License-Identifier: MIT OR Apache-2.0

//! How long requests take, from their delivery to their answer: a histogram in memory that outlives the
//! worker.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

/// Bucket N counts what took less than 2^N microseconds, and not less than half of that; the last one also
/// what took longer, which is half a minute.
pub const BUCKETS: usize = 26;

/// What a request in a bucket took no longer than; `None` for the last bucket, which has no bound.
#[must_use]
pub fn upper_bound(bucket: usize) -> Option<Duration> {
    let shift = u32::try_from(bucket).ok()?;
    let is_bounded = bucket < BUCKETS - 1;
    is_bounded.then(|| Duration::from_micros(1 << shift))
}

/// The histogram, shared. All zero is empty.
#[derive(Debug)]
#[repr(C)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
}

impl Histogram {
    /// Counts one request.
    pub fn note(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bits = u64::BITS - micros.leading_zeros();
        let bucket = usize::try_from(bits).unwrap_or(BUCKETS).min(BUCKETS - 1);
        self.buckets[bucket].fetch_add(1, Relaxed);
    }

    /// What it holds.
    #[must_use]
    pub fn snapshot(&self) -> Latency {
        let counts = self.buckets.iter().map(|bucket| bucket.load(Relaxed));
        Latency(counts.collect())
    }
}

/// A histogram at one moment: counts by [`BUCKETS`].
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Latency(pub Vec<u64>);

impl Latency {
    /// What has come to it since an earlier moment.
    #[must_use]
    pub fn since(&self, earlier: &Latency) -> Latency {
        let before = earlier.0.iter().chain(std::iter::repeat(&0));
        let counts = self.0.iter().zip(before);
        Latency(
            counts
                .map(|(now, then)| now.saturating_sub(*then))
                .collect(),
        )
    }

    /// A time that so many in a hundred requests took no longer than; within a factor of two, rounded up.
    /// `None` if there were none.
    #[must_use]
    pub fn percentile(&self, percent: u64) -> Option<Duration> {
        let total: u64 = self.0.iter().sum();
        let wanted = total.saturating_mul(percent).div_ceil(100).max(1);
        let mut seen = 0;
        for (bucket, count) in self.0.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                let shift = u32::try_from(bucket).ok()?;
                return Some(Duration::from_micros(1_u64.checked_shl(shift)?));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_what_came_in_between() {
        let (earlier, later) = (Latency(vec![1, 0, 5]), Latency(vec![1, 3, 4, 2]));
        assert_eq!(later.since(&earlier), Latency(vec![0, 3, 0, 2]));
        assert_eq!(later.since(&Latency::default()), later);
    }

    #[test]
    fn percentiles_are_upper_bounds() {
        let histogram = Histogram {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
        };
        assert_eq!(histogram.snapshot().percentile(50), None);
        for _ in 0..99 {
            histogram.note(Duration::from_micros(100));
        }
        histogram.note(Duration::from_secs(3600));
        let latency = histogram.snapshot();
        assert_eq!(latency.percentile(50), Some(Duration::from_micros(128)));
        assert_eq!(latency.percentile(99), Some(Duration::from_micros(128)));
        let most = Duration::from_micros(1 << (BUCKETS - 1));
        assert_eq!(latency.percentile(100), Some(most));
        histogram.note(Duration::ZERO);
        assert_eq!(
            histogram.snapshot().percentile(1),
            Some(Duration::from_micros(128))
        );
        assert_eq!(
            histogram.snapshot().percentile(0),
            Some(Duration::from_micros(1))
        );
    }
}
