// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ondemandd scrub IMAGE`: reads what is cached of an image, holds it against the manifest, and drops what does not
//! fit, so that it is fetched again.
//!
//! A manifest protects what is fetched while it is there. This is for what was there before, and for disks.
//!
//! | module | what it is |
//! |---|---|
//! | `check` | which chunks of a stored file are there, and right |
//! | `mend` | how single chunks go |

mod check;
mod mend;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use anyhow::ensure;
use anyhow::Context;
use indicatif::ProgressBar;
use indicatif::ProgressStyle;
use serde::Serialize;

use self::check::Checked;
use self::mend::Mended;
use crate::cli;
use crate::control;
use crate::control::Answer;
use crate::control::Request;
use crate::counters::Counters;
use crate::cull::store::Store;
use crate::images::size;
use crate::manifest::Manifest;
use crate::manifest::LONGEST;
use crate::record::Name;
use crate::source::names::SourceList;
use crate::source::names::Sources;

/// How long the keeper may take to answer what it knows.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How often the bar is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(200);

/// How it ended; its number is the exit status.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum End {
    /// All that is cached is right.
    Clean = 0,
    /// Something was wrong, and is gone.
    Dropped = 3,
    /// Something is wrong, and could not go: it is in use.
    Left = 4,
}

/// What was found of one object.
#[derive(Debug, Serialize)]
struct Report {
    key: String,
    /// Bytes of the object, and how many of them are cached.
    size: u64,
    cached: u64,
    /// Chunks that were held against the manifest, and those of them that did not fit.
    checked: u64,
    wrong: u64,
    /// Chunks that are cached in part: they cannot be held against anything.
    partial: u64,
    #[serde(flatten)]
    mended: Mended,
}

/// Scrubs an image and the blobs that are named with it.
///
/// # Errors
///
/// No keeper answers, there is no manifest, or the store cannot be read.
pub fn run(args: &cli::Scrub) -> anyhow::Result<End> {
    let dir = cache_of(&args.run_dir)?;
    let store = Store::open(&dir).with_context(|| format!("cannot open {}", dir.display()))?;
    let volume = cli::volume_of(&args.image, args.domain.as_deref());
    let manifests = match &args.manifest {
        Some(path) => vec![read_manifest(path)?],
        None => {
            let sources = sources_of(&args.run_dir)?;
            let keys = [&args.image].into_iter().chain(&args.blob);
            keys.map(|key| manifest_of(&sources, key))
                .collect::<anyhow::Result<_>>()?
        }
    };
    let keys = [&args.image].into_iter().chain(&args.blob);
    let mut reports = Vec::new();
    for (key, manifest) in keys.zip(&manifests) {
        reports.push(scrub(args, &store, &volume, key, manifest)?);
    }
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &reports)?;
        writeln!(out)?;
    } else {
        for report in &reports {
            writeln!(out, "{}", text(report))?;
        }
    }
    Ok(reports.iter().map(end_of).max().unwrap_or(End::Clean))
}

fn scrub(
    args: &cli::Scrub,
    store: &Store,
    volume: &str,
    key: &str,
    manifest: &Manifest,
) -> anyhow::Result<Report> {
    let place = Name::of(volume.as_bytes(), key.as_bytes()).place();
    let place = place.with_context(|| format!("{key}: no object has such a name"))?;
    let mut report = Report {
        key: key.to_owned(),
        size: manifest.size(),
        cached: 0,
        checked: 0,
        wrong: 0,
        partial: 0,
        mended: Mended::Nothing,
    };
    let cannot = || format!("cannot read what is stored of {key}");
    let Some(file) = check::open(store, &place).with_context(cannot)? else {
        return Ok(report);
    };
    let bar = ProgressBar::new(manifest.size()).with_style(style());
    // Drawn on a terminal only, and not for what is done at once.
    bar.enable_steady_tick(DRAW_EVERY);
    let checked = check::check(&file, manifest, |bytes| bar.set_position(bytes));
    bar.finish_and_clear();
    let checked = checked.with_context(cannot)?;
    let Checked {
        chunks,
        cached,
        wrong,
        partial,
    } = &checked;
    report.cached = *cached;
    report.checked = *chunks;
    report.wrong = wrong.len() as u64;
    report.partial = partial.len() as u64;
    report.mended = mend::mend(&args.run_dir, store, volume, key, &place, &file, &checked)?;
    Ok(report)
}

/// Where the cache is.
fn cache_of(run_dir: &Path) -> anyhow::Result<std::path::PathBuf> {
    let report = control::client::stats(run_dir, ANSWER_WITHIN)?;
    let report = report.with_context(|| {
        format!(
            "no keeper answers in {}: `ondemandd scrub` is for a daemon that runs",
            run_dir.display()
        )
    })?;
    report
        .cache
        .context("the keeper does not say where the cache is")
}

/// Where blobs come from, and with them their manifests.
fn sources_of(run_dir: &Path) -> anyhow::Result<Sources> {
    let answer = control::client::ask(run_dir, &Request::Sources, ANSWER_WITHIN)?;
    let list: SourceList = match answer.context("no keeper answers any more")? {
        Answer::Sources { sources } => *sources,
        Answer::Error { error } => bail!("the keeper says: {error}"),
        other => bail!("the keeper gives another answer: {other:?}"),
    };
    Sources::open(&list, &Arc::new(Counters::create()?))
        .context("cannot ask the sources for manifests; give one with --manifest")
}

fn manifest_of(sources: &Sources, key: &str) -> anyhow::Result<Manifest> {
    let (_, source, rest) = sources.find(key.as_bytes())?;
    let blob = source
        .lookup(rest)
        .with_context(|| format!("{key} at its source"))?;
    let manifest = source.manifest(rest, &blob, false)?;
    manifest.with_context(|| {
        format!(
            "{key} has no manifest that is looked for, so there is nothing to hold it against: make one \
             (`ondemandd manifest`), set verify = \"if-present\", or give one with --manifest; \
             `ondemandd evict` drops all of it"
        )
    })
}

fn read_manifest(path: &Path) -> anyhow::Result<Manifest> {
    let cannot = || format!("cannot use the manifest {}", path.display());
    let len = std::fs::metadata(path).with_context(cannot)?.len();
    ensure!(len <= LONGEST, "{}: it is too long", cannot());
    let text = std::fs::read(path).with_context(cannot)?;
    Manifest::parse(&text).with_context(cannot)
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:40} {percent:>3} % {bytes}/{total_bytes} {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn end_of(report: &Report) -> End {
    match report.mended {
        Mended::Nothing => End::Clean,
        Mended::Chunks | Mended::File => End::Dropped,
        Mended::InUse => End::Left,
    }
}

fn text(report: &Report) -> String {
    let Report {
        key,
        checked,
        wrong,
        partial,
        ..
    } = report;
    let percent = match report.size {
        0 => 100,
        all => u128::from(report.cached) * 100 / u128::from(all),
    };
    let what = match report.mended {
        Mended::Nothing => "right",
        Mended::Chunks => "these were dropped, and are fetched again when they are wanted",
        Mended::File => "all of it was dropped, and is fetched again when it is wanted",
        Mended::InUse => "it is in use: unmount it, and scrub it again",
    };
    let (cached, all) = (size(report.cached), size(report.size));
    format!(
        "{key}: {cached} of {all} are cached ({percent} %); {checked} chunks checked, {wrong} wrong, \
         {partial} incomplete; {what}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_is_the_exit_status() {
        let report = |mended| Report {
            key: "image".into(),
            size: 1 << 20,
            cached: 1 << 18,
            checked: 4,
            wrong: 1,
            partial: 0,
            mended,
        };
        let all = [Mended::Nothing, Mended::Chunks, Mended::InUse, Mended::File];
        let ends = all.map(|mended| end_of(&report(mended)));
        assert_eq!(ends.map(|end| end as u8), [0, 3, 4, 3]);
        assert_eq!(ends.iter().max(), Some(&End::Left));
        let line = text(&report(Mended::InUse));
        assert!(
            line.contains("256.00 KiB of 1.00 MiB are cached (25 %)"),
            "{line}"
        );
        assert!(line.contains("unmount"), "{line}");
        let json = serde_json::to_value(report(Mended::Chunks)).unwrap();
        assert_eq!(json["dropped"], "chunks");
    }
}
