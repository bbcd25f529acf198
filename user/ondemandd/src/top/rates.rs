// SPDX-License-Identifier: MIT OR Apache-2.0

//! What happened between two reports, per second.

use std::time::Duration;

use crate::latency::Latency;
use crate::report::Report;

/// What two reports, or one alone, tell.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rates {
    /// The time that they are of; `None`: all of the keeper's.
    pub(super) over: Option<Duration>,
    /// READs completed, a second.
    pub(super) reads: f64,
    /// OPENs answered with a size, a second.
    pub(super) opens: f64,
    /// Bytes written into the cache, a second.
    pub(super) bytes: u64,
    /// Those among them that were read ahead, a second.
    pub(super) ahead: u64,
    /// Requests to remote sources that were sent once more, a second.
    pub(super) retries: f64,
    /// READs that ended without their data, and OPENs that were refused, a second.
    pub(super) errors: f64,
    /// How long the requests took that were answered in that time.
    pub(super) latency: Latency,
}

impl Rates {
    /// Of all the time that the keeper has run.
    pub(super) fn since_start(report: &Report) -> Self {
        // Whole seconds are told; the first is not over.
        let elapsed = Duration::from_secs(report.uptime_seconds.max(1));
        let rates = Self::over(elapsed, |count| count(report), report.latency.clone());
        Rates {
            over: None,
            ..rates
        }
    }

    /// Of the time between two reports, of which `later` came `elapsed` later; as [`Rates::since_start`] if they
    /// are of two keepers, or of one that has begun to count anew.
    pub(super) fn between(earlier: &Report, later: &Report, elapsed: Duration) -> Self {
        let is_another =
            earlier.keeper_pid != later.keeper_pid || earlier.uptime_seconds > later.uptime_seconds;
        if is_another || elapsed.is_zero() {
            return Self::since_start(later);
        }
        let latency = later.latency.since(&earlier.latency);
        let change = |count: Count| count(later).saturating_sub(count(earlier));
        Self::over(elapsed, change, latency)
    }

    fn over(elapsed: Duration, change: impl Fn(Count) -> u64, latency: Latency) -> Self {
        let rate = |count: Count| {
            // Exact up to 2^53, and a digit or two are shown.
            let change = change(count) as f64;
            change / elapsed.as_secs_f64()
        };
        let micros = elapsed.as_micros().max(1);
        let bytes = |count: Count| {
            let bytes = u128::from(change(count)) * 1_000_000 / micros;
            u64::try_from(bytes).unwrap_or(u64::MAX)
        };
        Rates {
            over: Some(elapsed),
            reads: rate(|report| report.counters.reads),
            opens: rate(|report| report.counters.opens),
            bytes: bytes(|report| report.counters.bytes),
            ahead: bytes(|report| report.counters.ahead_bytes),
            retries: rate(|report| report.counters.retries),
            errors: rate(|report| report.failed_reads() + report.counters.refused),
            latency,
        }
    }
}

/// A number of a report that only grows.
type Count = fn(&Report) -> u64;

#[cfg(test)]
mod tests {
    use super::*;

    fn report(reads: u64, uptime_seconds: u64) -> Report {
        let mut report = crate::report::tests::report();
        report.uptime_seconds = uptime_seconds;
        report.counters.reads = reads;
        report.counters.bytes = reads * 4096;
        report.counters.ahead_bytes = reads * 1024;
        report.counters.refused = 1;
        report.counters.verify_errors = reads / 10;
        report.latency = Latency(vec![1, reads]);
        report
    }

    #[test]
    fn rates_are_changes_per_second() {
        let rates = Rates::between(&report(10, 5), &report(40, 7), Duration::from_millis(1500));
        assert_eq!(rates.over, Some(Duration::from_millis(1500)));
        assert_eq!((rates.reads, rates.opens), (20.0, 0.0));
        assert_eq!((rates.bytes, rates.errors), (81_920, 2.0));
        assert_eq!(rates.ahead, 20_480);
        assert_eq!(rates.latency, Latency(vec![0, 30]));
        let idle = Rates::between(&report(40, 7), &report(40, 8), Duration::from_secs(1));
        assert_eq!((idle.reads, idle.latency.percentile(50)), (0.0, None));
    }

    #[test]
    fn another_keeper_counts_from_its_start() {
        let second = Duration::from_secs(1);
        let start = Rates::since_start(&report(40, 4));
        assert_eq!((start.reads, start.over), (10.0, None));
        assert_eq!(start.errors, 1.25);
        let again = Rates::between(&report(100, 9), &report(40, 4), second);
        assert_eq!(again, start);
        let mut other = report(0, 1);
        other.keeper_pid += 1;
        assert_eq!(Rates::between(&other, &report(40, 4), second), start);
        // No time at all, and a keeper that has just begun.
        assert_eq!(
            Rates::between(&report(0, 4), &report(40, 4), Duration::ZERO),
            start
        );
        assert_eq!(Rates::since_start(&report(3, 0)).reads, 3.0);
    }

    #[test]
    fn a_number_that_shrinks_is_no_rate() {
        let rates = Rates::between(&report(40, 4), &report(10, 5), Duration::from_secs(1));
        assert_eq!((rates.reads, rates.latency.0[1]), (0.0, 0));
    }
}
