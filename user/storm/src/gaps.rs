// SPDX-License-Identifier: MIT OR Apache-2.0

//! How long somebody waited: a distribution of times between two events.

use std::time::Duration;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;

/// Longest time that is told apart from longer ones, in microseconds: an hour.
const LONGEST_US: u64 = 3_600_000_000;

/// Times, to three digits each, from 1 us to an hour.
pub(crate) struct Gaps {
    times: Histogram<u64>,
}

/// What one reader saw.
pub(crate) struct Curve {
    /// What it is called.
    pub(crate) name: String,
    /// Whether its image is compressed.
    pub(crate) compressed: bool,
    /// Bytes that it got.
    pub(crate) bytes: u64,
    /// The times between two moments at which it got bytes.
    pub(crate) gaps: Gaps,
}

/// What a row of the table says, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Summary {
    /// How many there were.
    pub(crate) count: u64,
    /// Half of them were no longer.
    pub(crate) p50: f64,
    /// 99 % of them were no longer.
    pub(crate) p99: f64,
    /// The longest.
    pub(crate) max: f64,
}

impl Gaps {
    /// None yet.
    ///
    /// # Errors
    /// Never: the bounds are constant, and good.
    pub(crate) fn new() -> Result<Self> {
        let times = Histogram::new_with_bounds(1, LONGEST_US, 3).context("histogram")?;
        Ok(Self { times })
    }

    /// Counts one.
    pub(crate) fn record(&mut self, gap: Duration) {
        let us = u64::try_from(gap.as_micros()).unwrap_or(LONGEST_US);
        self.times.saturating_record(us.clamp(1, LONGEST_US));
    }

    /// Counts all of `other` too.
    ///
    /// # Errors
    /// Never: both have the same bounds.
    pub(crate) fn add(&mut self, other: &Self) -> Result<()> {
        self.times.add(&other.times).context("histogram")
    }

    /// The row.
    pub(crate) fn summary(&self) -> Summary {
        Summary {
            count: self.times.len(),
            p50: milliseconds(self.times.value_at_quantile(0.5)),
            p99: milliseconds(self.times.value_at_quantile(0.99)),
            max: milliseconds(self.times.max()),
        }
    }

    /// For each time that was seen, in milliseconds, the part of all that were longer; the last,
    /// which none was longer than, is left out.
    #[cfg(any(test, feature = "plots"))]
    pub(crate) fn longer_than(&self) -> Vec<(f64, f64)> {
        let total = float(self.times.len());
        let mut left = self.times.len();
        let mut points = Vec::new();
        for step in self.times.iter_recorded() {
            left -= step.count_at_value();
            if left > 0 {
                points.push((milliseconds(step.value_iterated_to()), float(left) / total));
            }
        }
        points
    }
}

/// Counts and times here are far below 2^53.
#[allow(clippy::cast_precision_loss)]
fn float(n: u64) -> f64 {
    n as f64
}

fn milliseconds(us: u64) -> f64 {
    float(us) / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_all_that_was_recorded() {
        let (mut fast, mut slow) = (Gaps::new().unwrap(), Gaps::new().unwrap());
        for _ in 0..980 {
            fast.record(Duration::from_millis(1));
        }
        for _ in 0..20 {
            slow.record(Duration::from_secs(2));
        }
        assert!(fast.summary().p99 < 1.01);
        fast.add(&slow).unwrap();
        let Summary {
            count,
            p50,
            p99,
            max,
        } = fast.summary();
        assert_eq!(count, 1000);
        assert!(
            (p50 - 1.0).abs() < 0.01 && (p99 - 2000.0).abs() < 2.0,
            "{p50} {p99}"
        );
        assert!((max - 2000.0).abs() < 2.0, "{max}");
    }

    #[test]
    fn the_curve_falls_from_all_to_none() {
        let mut gaps = Gaps::new().unwrap();
        assert!(gaps.longer_than().is_empty());
        for ms in [1, 1, 10, 100] {
            gaps.record(Duration::from_millis(ms));
        }
        let parts: Vec<f64> = gaps.longer_than().iter().map(|(_, part)| *part).collect();
        assert_eq!(parts, [0.5, 0.25]);
    }

    #[test]
    fn what_is_out_of_bounds_is_counted() {
        let mut gaps = Gaps::new().unwrap();
        gaps.record(Duration::ZERO);
        gaps.record(Duration::from_secs(10_000));
        assert_eq!(gaps.summary().count, 2);
    }
}
