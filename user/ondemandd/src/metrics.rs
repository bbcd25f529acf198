// SPDX-License-Identifier: MIT OR Apache-2.0

//! Metrics for Prometheus, by HTTP, from a thread of the keeper: they survive each worker, as the numbers
//! do.
//!
//! The numbers are those of a [`Report`]. Each counter of `stats` is `ondemandd_NAME_total`, with the same
//! NAME; beside them there are a histogram and a few gauges. What the cache has answered by itself is not
//! among them: the kernel asks nobody then, and tells nobody.
//!
//! | module | what it is |
//! |---|---|
//! | [`address`] | where they are served |
//! | `http` | what a client may say |
//! | [`server`] | the thread |

pub mod address;
mod http;
pub mod server;

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::EncodeMetric;
use prometheus_client::encoding::NoLabelSet;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use prometheus_client::registry::Unit;

use crate::latency;
use crate::report::Report;

/// What kind of text [`text`] is.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A report as text of the format OpenMetrics 1.0.
///
/// # Errors
///
/// None is known: a string takes all that is written.
pub fn text(report: Report) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("ondemandd");
    registry.register_collector(Box::new(Metrics(report)));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

/// A report that can be encoded.
#[derive(Debug)]
struct Metrics(Report);

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let report = &self.0;
        for (name, help, value) in report.counters.rows() {
            // It is the sum of the histogram below.
            if name != "request_micros" {
                counter(&mut encoder, name, help, value)?;
            }
        }
        counter(
            &mut encoder,
            "worker_restarts",
            "Workers that took the place of another one.",
            report.worker_restarts(),
        )?;
        gauge(
            &mut encoder,
            "requests_in_flight",
            "OPENs and READs that are not answered yet.",
            None,
            report.in_flight(),
        )?;
        gauge(
            &mut encoder,
            "worker_up",
            "1 while there is a worker, otherwise 0.",
            None,
            u64::from(report.worker_pid.is_some()),
        )?;
        gauge(
            &mut encoder,
            "uptime",
            "How long the keeper has run.",
            Some(&Unit::Seconds),
            report.uptime_seconds,
        )?;
        durations(&mut encoder, report)
    }
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let counter = ConstCounter::new(value);
    counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: u64,
) -> fmt::Result {
    let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    gauge.encode(encoder.encode_descriptor(name, help, unit, gauge.metric_type())?)
}

/// The histogram, with the buckets that the counters have.
fn durations(encoder: &mut DescriptorEncoder<'_>, report: &Report) -> fmt::Result {
    let counts = report.latency.0.iter().enumerate();
    let buckets: Vec<(f64, u64)> = counts
        .map(|(bucket, count)| {
            let bound = latency::upper_bound(bucket);
            (bound.map_or(f64::INFINITY, |it| it.as_secs_f64()), *count)
        })
        .collect();
    let count = buckets.iter().map(|(_, count)| count).sum();
    let micros = std::time::Duration::from_micros(report.counters.request_micros);
    encoder
        .encode_descriptor(
            "request_duration",
            "Time from the delivery of an OPEN or READ to its answer.",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?
        .encode_histogram::<NoLabelSet>(micros.as_secs_f64(), count, &buckets, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::Counters;
    use crate::latency::Latency;
    use crate::latency::BUCKETS;
    use crate::report::tests::report;

    /// The value of the sample that a line begins with.
    fn sample(text: &str, name: &str) -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let value = line.unwrap_or_else(|| panic!("{name}: {text}"));
        value.trim().parse().unwrap()
    }

    #[test]
    fn the_text_says_what_the_report_says() {
        let counters = Counters::create().unwrap();
        counters.note_end(std::time::Duration::from_micros(3));
        counters.note_end(std::time::Duration::from_secs(600));
        let mut report = report();
        report.counters = counters.snapshot();
        report.counters.opens = 3;
        report.counters.requests_begun = 6;
        report.latency = counters.latency().snapshot();
        let text = text(report.clone()).unwrap();
        for (name, help, value) in report.counters.rows() {
            assert!(!help.is_empty() && !help.contains('\n'), "{name}");
            if name != "request_micros" {
                let name = format!("ondemandd_{name}_total ");
                assert_eq!(sample(&text, &name), value as f64, "{name}");
            }
        }
        for (name, value) in [
            ("ondemandd_requests_in_flight ", 4.0),
            ("ondemandd_worker_up ", 0.0),
            ("ondemandd_worker_restarts_total ", 0.0),
            ("ondemandd_uptime_seconds ", 2.0),
            ("ondemandd_request_duration_seconds_count ", 2.0),
            ("ondemandd_request_duration_seconds_sum ", 600.000_003),
            // Cumulative, and by what it took no longer than.
            (
                "ondemandd_request_duration_seconds_bucket{le=\"0.000002\"} ",
                0.0,
            ),
            (
                "ondemandd_request_duration_seconds_bucket{le=\"0.000004\"} ",
                1.0,
            ),
            (
                "ondemandd_request_duration_seconds_bucket{le=\"+Inf\"} ",
                2.0,
            ),
        ] {
            assert_eq!(sample(&text, name), value, "{name}");
        }
        let buckets = text.matches("_bucket{").count();
        assert_eq!(buckets, BUCKETS);
        assert!(text.ends_with("# EOF\n"), "{text}");
        assert!(text.contains("# TYPE ondemandd_opens counter\n"), "{text}");
    }

    #[test]
    fn a_report_without_histogram_is_no_error() {
        let mut report = report();
        report.latency = Latency(Vec::new());
        let text = text(report).unwrap();
        assert_eq!(
            sample(&text, "ondemandd_request_duration_seconds_count "),
            0.0
        );
    }
}
