// SPDX-License-Identifier: MIT OR Apache-2.0

//! Times: a clock that all processes share, and the distribution of what it measured.

use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use hdrhistogram::Histogram;
use rustix::time::clock_gettime;
use rustix::time::ClockId;
use serde::Deserialize;
use serde::Serialize;

/// Longest time that is told apart from longer ones, in microseconds: an hour.
const LONGEST_US: u64 = 3_600_000_000;

/// The time since some moment that is the same for all processes of this boot.
pub(crate) fn now() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    // The monotonic clock is never negative.
    Duration::try_from(time).unwrap_or_default()
}

/// Times, to three digits each, from 1 us to an hour.
pub(crate) struct Times {
    histogram: Histogram<u64>,
}

/// A distribution as it is kept in the results.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Distribution {
    /// Half of them were no longer, in microseconds.
    pub(crate) p50_us: u64,
    /// 99 % of them were no longer.
    pub(crate) p99_us: u64,
    /// The longest.
    pub(crate) max_us: u64,
    /// Each time that was seen, in microseconds, and how often.
    pub(crate) counts: Vec<(u64, u64)>,
}

impl Times {
    /// None yet.
    ///
    /// # Errors
    ///
    /// Never: the bounds are constant, and good.
    pub(crate) fn new() -> Result<Self> {
        let histogram = Histogram::new_with_bounds(1, LONGEST_US, 3).context("histogram")?;
        Ok(Times { histogram })
    }

    /// Counts one.
    pub(crate) fn record(&mut self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(LONGEST_US);
        self.histogram.saturating_record(us.clamp(1, LONGEST_US));
    }

    /// Counts all of `other` too.
    ///
    /// # Errors
    ///
    /// Never: both have the same bounds.
    pub(crate) fn add(&mut self, other: &Times) -> Result<()> {
        self.histogram.add(&other.histogram).context("histogram")
    }

    /// What is kept of them.
    pub(crate) fn distribution(&self) -> Distribution {
        Distribution {
            p50_us: self.histogram.value_at_quantile(0.5),
            p99_us: self.histogram.value_at_quantile(0.99),
            max_us: self.histogram.max(),
            counts: self
                .histogram
                .iter_recorded()
                .map(|step| (step.value_iterated_to(), step.count_at_value()))
                .collect(),
        }
    }
}

/// Counts and times here are far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "below 2^53")]
pub(crate) fn float(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_all_that_was_recorded() {
        let (mut fast, mut slow) = (Times::new().unwrap(), Times::new().unwrap());
        for _ in 0..980 {
            fast.record(Duration::from_micros(100));
        }
        for _ in 0..20 {
            slow.record(Duration::from_micros(1500));
        }
        assert_eq!(fast.distribution().p99_us, 100);
        fast.add(&slow).unwrap();
        let all = fast.distribution();
        assert_eq!((all.p50_us, all.p99_us, all.max_us), (100, 1500, 1500));
        assert_eq!(all.counts, [(100, 980), (1500, 20)]);
    }

    #[test]
    fn the_clock_does_not_go_back() {
        let first = now();
        assert!(first > Duration::ZERO && now() >= first);
    }
}
