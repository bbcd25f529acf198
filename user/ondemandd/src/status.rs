// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ondemandd status`: what is mounted, how much of it the cache holds, and what the daemon does.
//!
//! The numbers are those of `stats`; what is cached is looked up in the store, which is the truth whether a
//! daemon runs or not.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use serde::Serialize;

use crate::cli;
use crate::mounted;
use crate::mounted::Mounted;
use crate::report::Report;
use crate::stats;

/// Width of a bar.
const BAR: u64 = 20;
/// A block of `st_blocks`.
const STAT_BLOCK: u64 = 512;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Status {
    /// What the daemon counts; `null` if it cannot be asked.
    daemon: Option<Report>,
    /// Why not.
    daemon_error: Option<String>,
    images: Vec<Image>,
}

/// A mounted image.
#[derive(Debug, Eq, PartialEq, Serialize)]
struct Image {
    image: String,
    domain: Option<String>,
    dir: PathBuf,
    /// The image itself, then its blobs.
    objects: Vec<Cached>,
}

/// How much the cache holds of an image or blob; in bytes, and in whole blocks.
#[derive(Debug, Eq, PartialEq, Serialize)]
struct Cached {
    key: String,
    /// Unknown until there is a file of it in the store.
    total: Option<u64>,
    cached: u64,
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
    let images = mounted::all()?;
    let images = images
        .into_iter()
        .map(|image| look_up(cache.as_deref(), image));
    let status = Status {
        daemon,
        daemon_error,
        images: images.collect(),
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

fn look_up(cache: Option<&Path>, mounted: Mounted) -> Image {
    let volume = mounted.volume_key();
    let keys = [&mounted.image].into_iter().chain(&mounted.blobs);
    let objects = keys.map(|key| {
        let file = cache.and_then(|cache| file_of(cache, &volume, key));
        let metadata = file.and_then(|file| fs::symlink_metadata(file).ok());
        Cached {
            key: key.clone(),
            total: metadata.as_ref().map(MetadataExt::size),
            // What is preallocated or of the file system's own does not count.
            cached: metadata.map_or(0, |it| (it.blocks() * STAT_BLOCK).min(it.size())),
        }
    });
    Image {
        objects: objects.collect(),
        image: mounted.image,
        domain: mounted.domain,
        dir: mounted.dir,
    }
}

/// Where the store has an object.
fn file_of(cache: &Path, volume: &str, key: &str) -> Option<PathBuf> {
    let path = ondemand_core::layout::object_path(volume.as_bytes(), key.as_bytes()).ok()?;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    let volume = text(path.volume.as_bytes())?;
    let (fanout, file) = (text(&path.fanout)?, text(path.file.as_bytes())?);
    Some(cache.join("cache").join(volume).join(fanout).join(file))
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
    let failures = counters.source_errors + counters.verify_errors + counters.fills_without_space;
    writeln!(
        text,
        "READs: {}, of which failed: {failures}; fetched: {}",
        counters.reads,
        size(counters.bytes)
    )
}

/// A bar, and percent; full only if all is there.
fn bar(cached: u64, total: u64) -> (String, u64) {
    let part = |of: u64| match total {
        0 => of,
        _ => u64::try_from(u128::from(cached) * u128::from(of) / u128::from(total)).unwrap_or(of),
    };
    let full = usize::try_from(part(BAR).min(BAR)).unwrap_or(0);
    let width = usize::try_from(BAR).unwrap_or(0);
    let bar = format!("[{}{}]", "#".repeat(full), ".".repeat(width - full));
    (bar, part(100).min(100))
}

/// A number of bytes for people.
fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Mounted {
        Mounted {
            dir: "/mnt".into(),
            image: "web/image".into(),
            domain: Some("web".into()),
            blobs: vec!["blob".into()],
        }
    }

    #[test]
    fn what_is_cached_is_looked_up_in_the_store() {
        let root = tempfile::tempdir().unwrap();
        let path = file_of(root.path(), "erofs,web", "web/image").unwrap();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = fs::File::create(&path).unwrap();
        file.set_len(1 << 20).unwrap();
        let image = look_up(Some(root.path()), image());
        assert_eq!(image.objects[0].total, Some(1 << 20));
        assert_eq!(image.objects[0].cached, 0);
        assert_eq!(image.objects[1].total, None);
        let status = Status {
            daemon: None,
            daemon_error: Some("gone".into()),
            images: vec![image],
        };
        let text = text(&status);
        assert!(text.contains("no daemon: gone"), "{text}");
        assert!(text.contains("web/image on /mnt (domain web)"), "{text}");
        assert!(
            text.contains("[....................]   0 %  0 B of 1.00 MiB"),
            "{text}"
        );
    }

    #[test]
    fn a_bar_is_full_when_all_is_there() {
        assert_eq!(bar(0, 10).1, 0);
        assert_eq!(bar(999_999, 1_000_000).1, 99);
        assert!(bar(999_999, 1_000_000).0.contains('.'));
        assert_eq!(bar(10, 10), (format!("[{}]", "#".repeat(20)), 100));
        assert_eq!(bar(0, 0).1, 100);
        assert_eq!(bar(u64::MAX, u64::MAX).1, 100);
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
