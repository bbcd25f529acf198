// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ondemandd prefetch`: reads a mounted image, so that the cache has it before somebody waits for it.
//!
//! It reads files as anybody would, so it needs no word with the daemon, and what is cached already costs
//! little. The pages that it brings into memory are given back. If there is a keeper to ask, it gives way to
//! those who read meanwhile, see `manners`.

mod manners;

use std::collections::HashSet;
use std::fs;
use std::fs::File;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::ensure;
use anyhow::Context;
use indicatif::ProgressBar;
use indicatif::ProgressStyle;
use rustix::fs::Advice;
use serde::Serialize;
use tracing::warn;

use self::manners::Manners;
use crate::cli;
use crate::mounted;
use crate::mounted::Mounted;

/// What is read at once.
const PART: usize = 1 << 20;

/// What `--json` prints.
#[derive(Debug, Default, Eq, PartialEq, Serialize)]
struct Report {
    files: usize,
    bytes: u64,
    /// Files that could not be read to their end; the log has a line for each.
    failed: u64,
    /// Pauses, of all jobs together, while others had requests in flight.
    paused_ms: u64,
}

/// A file to be read.
#[derive(Debug)]
struct Wanted {
    path: PathBuf,
    size: u64,
}

/// Reads all files of an image, or those in a list.
///
/// # Errors
///
/// The image is not mounted; the list cannot be read, or names what is not in the image; some file could
/// not be read.
pub fn run(args: &cli::Prefetch) -> anyhow::Result<()> {
    let root = find(&args.image, &mounted::all()?)?;
    let wanted = match &args.list {
        Some(list) => listed(&root, list)?,
        None => all_below(&root)?,
    };
    let report = read_all(&wanted, args.jobs.get(), &Manners::new(&args.run_dir));
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        let (files, bytes) = (report.files, indicatif::BinaryBytes(report.bytes));
        write!(out, "{files} files, {bytes}")?;
        if report.paused_ms > 0 {
            let pauses = Duration::from_millis(report.paused_ms);
            write!(out, "; gave way to others for {pauses:.1?}")?;
        }
        writeln!(out)?;
    }
    ensure!(
        report.failed == 0,
        "{} of {} files could not be read; the daemon's log says why",
        report.failed,
        report.files
    );
    Ok(())
}

/// Where an image is mounted; it is named as it was mounted, or by the directory.
fn find(image: &str, mounted: &[Mounted]) -> anyhow::Result<PathBuf> {
    let dir = fs::canonicalize(image).ok();
    let is_it = |it: &&Mounted| it.image == image || Some(&it.dir) == dir.as_ref();
    let found = mounted.iter().find(is_it).map(|it| it.dir.clone());
    found.with_context(|| {
        format!(
            "{image} is not mounted: `ondemandd mount {image} DIR` first; see `ondemandd status`"
        )
    })
}

/// The files of a list: a path below the root of the image in each line; empty lines do not count.
fn listed(root: &Path, list: &Path) -> anyhow::Result<Vec<Wanted>> {
    let text = fs::read_to_string(list)
        .with_context(|| format!("cannot read the list {}", list.display()))?;
    let mut wanted = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        if line.is_empty() {
            continue;
        }
        let place = || format!("{}:{number}: {}", list.display(), line.escape_debug());
        let relative = Path::new(line.trim_start_matches('/'));
        let is_plain = relative
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        ensure!(is_plain, "{}: leads out of the image", place());
        let path = root.join(relative);
        // A symbolic link in an image may lead anywhere: what it leads to is not followed.
        let found = fs::canonicalize(&path).with_context(place)?;
        ensure!(
            found.starts_with(root),
            "{}: leads out of the image",
            place()
        );
        let metadata = fs::metadata(&found).with_context(place)?;
        if metadata.is_dir() {
            wanted.extend(all_below(&found)?);
        } else if metadata.is_file() {
            let size = metadata.size();
            wanted.push(Wanted { path: found, size });
        }
    }
    Ok(wanted)
}

/// All regular files below a directory, each once, on its file system alone.
fn all_below(root: &Path) -> anyhow::Result<Vec<Wanted>> {
    let device = fs::symlink_metadata(root)
        .with_context(|| format!("cannot read {}", root.display()))?
        .dev();
    let mut wanted = Vec::new();
    let mut seen = HashSet::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        let cannot = || format!("cannot read {}", dir.display());
        for entry in fs::read_dir(&dir).with_context(cannot)? {
            let entry = entry.with_context(cannot)?;
            let metadata = entry.metadata().with_context(cannot)?;
            if metadata.dev() != device {
                continue;
            }
            if metadata.is_dir() {
                dirs.push(entry.path());
            } else if metadata.is_file() && seen.insert(metadata.ino()) {
                wanted.push(Wanted {
                    path: entry.path(),
                    size: metadata.size(),
                });
            }
        }
    }
    Ok(wanted)
}

/// Reads files, some at a time.
fn read_all(wanted: &[Wanted], jobs: usize, manners: &Manners) -> Report {
    let bar = ProgressBar::new(wanted.iter().map(|file| file.size).sum());
    if let Ok(style) =
        ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
    {
        bar.set_style(style);
    }
    let left = Mutex::new(wanted.iter());
    let (bytes, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(wanted.len()) {
            scope.spawn(|| {
                let mut buffer = vec![0; PART];
                loop {
                    let mut files = left.lock().unwrap_or_else(PoisonError::into_inner);
                    let Some(file) = files.next() else {
                        break;
                    };
                    drop(files);
                    let read = read_file(file, &mut buffer, manners, |more| {
                        bytes.fetch_add(more, Relaxed);
                        bar.inc(more);
                    });
                    if let Err(error) = read {
                        failed.fetch_add(1, Relaxed);
                        warn!(path = %file.path.display(), %error, "cannot read");
                    }
                }
            });
        }
    });
    bar.finish_and_clear();
    Report {
        files: wanted.len(),
        bytes: bytes.into_inner(),
        failed: failed.into_inner(),
        paused_ms: manners.paused_ms(),
    }
}

fn read_file(
    wanted: &Wanted,
    buffer: &mut [u8],
    manners: &Manners,
    mut note: impl FnMut(u64),
) -> std::io::Result<()> {
    let mut file = File::open(&wanted.path)?;
    let mut left = wanted.size;
    while left > 0 {
        match manners.read(|| file.read(buffer)) {
            // Shorter than the file system has said.
            Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => {
                let len = u64::try_from(len).unwrap_or(u64::MAX);
                left = left.saturating_sub(len);
                note(len);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    // Memory is for those who read it.
    let _ = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("root/a/b")).unwrap();
        fs::write(at("root/one"), [1; 5000]).unwrap();
        fs::write(at("root/a/two"), [2; 100]).unwrap();
        fs::hard_link(at("root/a/two"), at("root/a/b/same")).unwrap();
        fs::write(at("outside"), "x").unwrap();
        symlink("../outside", at("root/link")).unwrap();
        symlink("one", at("root/inside")).unwrap();
        root
    }

    fn root(tree: &tempfile::TempDir) -> PathBuf {
        fs::canonicalize(tree.path().join("root")).unwrap()
    }

    #[test]
    fn each_file_is_read_once() {
        let tree = tree();
        let wanted = all_below(&root(&tree)).unwrap();
        // Nobody is there to ask.
        let manners = Manners::new(tree.path());
        let report = read_all(&wanted, 3, &manners);
        let expected = Report {
            files: 2,
            bytes: 5100,
            ..Report::default()
        };
        assert_eq!(report, expected);
        fs::remove_file(root(&tree).join("one")).unwrap();
        assert_eq!(read_all(&wanted, 1, &manners).failed, 1);
        assert_eq!(read_all(&[], 4, &manners), Report::default());
    }

    #[test]
    fn a_list_stays_within_the_image() {
        let tree = tree();
        let list = tree.path().join("list");
        let read = |text: &str| {
            fs::write(&list, text).unwrap();
            listed(&root(&tree), &list)
        };
        let sizes = |text: &str| {
            let wanted = read(text).unwrap().into_iter();
            wanted.map(|file| file.size).collect::<Vec<_>>()
        };
        assert_eq!(sizes("/one\n\na/two\n"), [5000, 100]);
        assert_eq!(sizes("inside"), [5000]);
        assert_eq!(sizes("a"), [100]);
        for bad in [
            "one\n../outside",
            "one\nlink",
            "one\nnone",
            "one\na/../../outside",
        ] {
            let error = format!("{:#}", read(bad).unwrap_err());
            assert!(error.contains("list:2: "), "{error}");
        }
    }

    #[test]
    fn an_image_is_found_by_name_or_place() {
        let tree = tree();
        let mounted = [Mounted {
            dir: root(&tree),
            image: "web/image".into(),
            domain: None,
            blobs: Vec::new(),
        }];
        assert_eq!(find("web/image", &mounted).unwrap(), root(&tree));
        let place = tree.path().join("root");
        assert_eq!(
            find(place.to_str().unwrap(), &mounted).unwrap(),
            root(&tree)
        );
        let error = find("web/other", &mounted).unwrap_err().to_string();
        assert!(error.contains("ondemandd mount web/other DIR"), "{error}");
    }
}
