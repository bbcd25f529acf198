// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the keeper knows of itself and its workers: the one place that `stats`, `status` and the metrics
//! have their numbers from.

use std::path::PathBuf;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use serde::Deserialize;
use serde::Serialize;

use crate::counters::Counters;
use crate::counters::Snapshot;
use crate::latency::Latency;

/// All numbers at one moment; what `stats.json` holds.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Report {
    /// The keeper.
    pub keeper_pid: u32,
    /// The worker that runs, if one does.
    pub worker_pid: Option<u32>,
    /// How long the keeper has run.
    pub uptime_seconds: u64,
    /// Directory of the cache.
    pub cache: Option<PathBuf>,
    /// How long requests took.
    #[serde(default)]
    pub latency: Latency,
    /// The counters.
    #[serde(flatten)]
    pub counters: Snapshot,
}

impl Report {
    /// Requests that are not answered yet.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        // The two are not read at the same instant.
        let Snapshot {
            requests_begun,
            requests_ended,
            ..
        } = self.counters;
        requests_begun.saturating_sub(requests_ended)
    }

    /// READs that ended without their data.
    #[must_use]
    pub fn failed_reads(&self) -> u64 {
        let Snapshot {
            source_errors,
            verify_errors,
            fills_without_space,
            ..
        } = self.counters;
        source_errors + verify_errors + fills_without_space
    }

    /// Workers that took the place of another one.
    #[must_use]
    pub fn worker_restarts(&self) -> u64 {
        self.counters.worker_starts.saturating_sub(1)
    }
}

/// Makes reports; the keeper's threads share one. Nothing in it waits for anything.
pub struct Reporter {
    started: Instant,
    cache: PathBuf,
    counters: Arc<Counters>,
    /// The worker's pid, or 0.
    worker: AtomicU32,
}

impl Reporter {
    /// For a cache in the directory `cache` that is served from now on.
    #[must_use]
    pub fn new(cache: PathBuf, counters: Arc<Counters>) -> Self {
        Self::resume(cache, counters, Duration::ZERO)
    }

    /// For one that this process has served for a time already.
    #[must_use]
    pub fn resume(cache: PathBuf, counters: Arc<Counters>, uptime: Duration) -> Self {
        let now = Instant::now();
        Reporter {
            started: now.checked_sub(uptime).unwrap_or(now),
            cache,
            counters,
            worker: AtomicU32::new(0),
        }
    }

    /// Notes which worker runs.
    pub fn set_worker(&self, pid: Option<u32>) {
        self.worker.store(pid.unwrap_or(0), Relaxed);
    }

    /// The numbers of this moment.
    #[must_use]
    pub fn report(&self) -> Report {
        let worker = self.worker.load(Relaxed);
        Report {
            keeper_pid: std::process::id(),
            worker_pid: (worker != 0).then_some(worker),
            uptime_seconds: self.started.elapsed().as_secs(),
            cache: Some(self.cache.clone()),
            latency: self.counters.latency().snapshot(),
            counters: self.counters.snapshot(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::counters::count;

    pub(crate) fn report() -> Report {
        Report {
            keeper_pid: 1,
            worker_pid: None,
            uptime_seconds: 2,
            cache: Some("/cache".into()),
            latency: Latency(vec![0, 1]),
            counters: Snapshot {
                opens: 3,
                ..Snapshot::default()
            },
        }
    }

    #[test]
    fn a_report_is_flat_and_survives_json() {
        let report = report();
        let text = serde_json::to_string(&report).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["opens"], 3);
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }

    #[test]
    fn a_report_of_a_keeper_that_counts_less_is_read() {
        let mut value = serde_json::to_value(report()).unwrap();
        value.as_object_mut().unwrap().remove("closes").unwrap();
        let read: Report = serde_json::from_value(value).unwrap();
        assert_eq!(read, report());
    }

    #[test]
    fn a_reporter_tells_what_is() {
        let counters = Arc::new(Counters::create().unwrap());
        let reporter = Reporter::new("/cache".into(), Arc::clone(&counters));
        count(&counters.requests_begun, 3);
        count(&counters.requests_ended, 1);
        assert_eq!(reporter.report().in_flight(), 2);
        assert_eq!(reporter.report().worker_restarts(), 0);
        reporter.set_worker(Some(7));
        count(&counters.worker_starts, 3);
        assert_eq!(reporter.report().worker_pid, Some(7));
        assert_eq!(reporter.report().worker_restarts(), 2);
        reporter.set_worker(None);
        assert_eq!(reporter.report().worker_pid, None);
        // The worker died between the two.
        count(&counters.requests_ended, 5);
        assert_eq!(reporter.report().in_flight(), 0);
    }
}
