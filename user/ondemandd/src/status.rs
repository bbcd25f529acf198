// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ondemandd status`: what is mounted, how much of it the cache holds, and what the daemon does.
//!
//! The numbers are those of `stats`.

use std::fmt::Write as _;
use std::io::Write as _;

use serde::Serialize;

use crate::cli;
use crate::images;
use crate::images::bar;
use crate::images::size;
use crate::images::Image;
use crate::report::Report;
use crate::stats;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Status {
    /// What the daemon counts; `null` if it cannot be asked.
    daemon: Option<Report>,
    /// Why not.
    daemon_error: Option<String>,
    images: Vec<Image>,
}

/// Prints the status.
///
/// # Errors
///
/// There is no `/proc`; standard output cannot be written. A daemon that does not answer is told, and is
/// no error.
pub fn run(args: &cli::Status) -> anyhow::Result<()> {
    let (daemon, daemon_error) = match stats::load(&args.run_dir) {
        Ok(report) => (Some(report), None),
        Err(error) => (None, Some(format!("{error:#}"))),
    };
    let cache = daemon.as_ref().and_then(|report| report.cache.clone());
    let status = Status {
        daemon,
        daemon_error,
        images: images::all(cache.as_deref())?,
    };
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &status)?;
        writeln!(out)?;
    } else {
        out.write_all(text(&status).as_bytes())?;
    }
    Ok(())
}

fn text(status: &Status) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = match (&status.daemon, &status.daemon_error) {
        (Some(report), _) => daemon(&mut text, report),
        (None, error) => {
            let error = error.as_deref().unwrap_or("");
            writeln!(text, "no daemon: {error}")
        }
    };
    if status.images.is_empty() {
        text.push_str("no image is mounted\n");
    }
    for image in &status.images {
        let domain = image.domain.as_ref();
        let domain = domain.map_or(String::new(), |domain| format!(" (domain {domain})"));
        let _ = writeln!(text, "{} on {}{domain}", image.image, image.dir.display());
        for object in &image.objects {
            let _ = match object.total {
                Some(total) => {
                    let (bar, percent) = bar(object.cached, total);
                    let (cached, total) = (size(object.cached), size(total));
                    writeln!(
                        text,
                        "  {bar} {percent:>3} %  {cached} of {total}  {}",
                        object.key
                    )
                }
                None => writeln!(
                    text,
                    "  nothing in the store that could be found  {}",
                    object.key
                ),
            };
            if let Some(change) = &object.changed {
                let _ = writeln!(
                    text,
                    "    has changed: {change}; what is not cached cannot be read until it was unmounted and mounted again"
                );
            }
        }
    }
    text
}

fn daemon(text: &mut String, report: &Report) -> std::fmt::Result {
    let counters = &report.counters;
    match report.worker_pid {
        Some(worker) => writeln!(
            text,
            "daemon serves: keeper {}, worker {worker}",
            report.keeper_pid
        )?,
        None => writeln!(text, "daemon has no worker: keeper {}", report.keeper_pid)?,
    }
    let in_flight = report.in_flight();
    let restarts = report.worker_restarts();
    writeln!(
        text,
        "requests in flight: {in_flight}; worker restarts: {restarts}"
    )?;
    let took = |percent| match report.latency.percentile(percent) {
        Some(time) => format!("{time:?}"),
        None => "-".to_owned(),
    };
    let (half, most) = (took(50), took(99));
    writeln!(text, "latency: half within {half}, 99 % within {most}")?;
    let failures = report.failed_reads();
    writeln!(
        text,
        "READs: {}, of which failed: {failures}; fetched: {}",
        counters.reads,
        size(counters.bytes)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::tests::cached;

    #[test]
    fn an_image_has_a_line_for_each_object() {
        let status = Status {
            daemon: None,
            daemon_error: Some("gone".into()),
            images: vec![cached("web/image", 0, Some(1 << 20))],
        };
        let mut status = status;
        status.images[0].objects[0].changed = Some("was this, is that".into());
        let text = text(&status);
        assert!(text.contains("has changed: was this, is that"), "{text}");
        assert!(text.contains("no daemon: gone"), "{text}");
        assert!(text.contains("web/image on /mnt (domain web)"), "{text}");
        assert!(
            text.contains("[....................]   0 %  0 B of 1.00 MiB"),
            "{text}"
        );
    }

    #[test]
    fn a_daemon_is_told_in_a_few_lines() {
        let mut report = crate::report::tests::report();
        report.counters.requests_begun = 5;
        report.counters.requests_ended = 3;
        report.counters.worker_starts = 2;
        let status = Status {
            daemon: Some(report),
            daemon_error: None,
            images: Vec::new(),
        };
        let text = text(&status);
        assert!(text.contains("in flight: 2; worker restarts: 1"), "{text}");
        assert!(text.contains("no image is mounted"), "{text}");
    }
}
