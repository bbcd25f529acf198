// SPDX-License-Identifier: MIT OR Apache-2.0

//! Cutting the power of a machine whose cache is in use, and looking at the store after the next boot.
//!
//! Each boot calls [`run`] once. It checks what the boot before has left; then it fills, and has the
//! power cut meanwhile. Boot 0 finds an empty disk; the last one only checks.
//!
//! - Boot 0: one image, of which the first half is read. When its file has its name and the journal
//!   has been committed, the power is cut. The image is mounted all the time.
//! - Boots 1 ...: many images, mounted and read as fast as it goes; the power is cut at a random time.
//!
//! Whatever is left then, what is read must be right: neither zeros nor what was there before.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use std::time::Instant;

use anyhow::bail;
use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use ondemand_deadline::scaled;
use rustix::mount::MountFlags;

use super::items::file_length;
use super::items::Item;
use super::listing::Listing;
use super::report::comment;
use super::report::Report;
use super::visit;
use super::visit::Catalogue;
use crate::harness::eventually;
use crate::harness::image;
use crate::harness::Context;
use crate::harness::Outcome;
use crate::harness::SOON;

/// What a boot is to do.
#[derive(Clone, Debug)]
pub struct Boot {
    /// Its number, from 0.
    pub number: u32,
    /// How many there are.
    pub boots: u32,
    /// For the times at which the power is cut.
    pub seed: u64,
    /// The mount point of the disk.
    pub disk: PathBuf,
    /// The file that cuts the power when it is made, after so many milliseconds as it holds; the last
    /// boot needs none.
    pub switch: Option<PathBuf>,
}

/// How many images are filled when the power is cut.
const IMAGES: u32 = 40;

/// When the power is cut after filling has begun: between these, in milliseconds.
const EARLIEST: u64 = 300;
const LATEST: u64 = 2000;

/// Checks and fills, and prints one result, whose number is that of the boot and one. Does not return
/// if the power is cut.
///
/// # Errors
///
/// The directory of the cache cannot be made; filling failed; the power was not cut.
pub fn run(t: &Context, boot: &Boot) -> Result<ExitCode> {
    let store = boot.disk.join("power-cut");
    fs::create_dir_all(&store)?;
    let number = boot.number;
    let mut report = Report::after(number);
    match number {
        0 => fill_early(t, boot, &store, &mut report)?,
        1 => drop(report.step("cut_keeps_what_was_fetched", || early_is_there(t, &store))),
        _ => {
            let name = format!("cut_while_filling_{}", number - 1);
            report.step(&name, || all_is_right(t, &store, number - 1));
        }
    }
    if number + 1 < boot.boots {
        fill_much(t, boot, &store)?;
    }
    Ok(report.exit_code())
}

/// The image of boot 0, of which the first half is read.
fn early() -> Item {
    Item::whole(Some(b"cut"), *b"early", "plain")
}

/// How much of it is read, in bytes.
fn early_part() -> usize {
    file_length("plain") / 2
}

/// The images of a later boot: new ones, and some that change their size from boot to boot.
fn many(boot: u32) -> Vec<Item> {
    (0..IMAGES)
        .map(|index| match index % 4 {
            3 => {
                let image = if boot % 2 == 0 { "small" } else { "plain" };
                Item::whole(Some(b"cut"), format!("changing-{index}"), image)
            }
            kind => {
                let image = if kind == 0 { "twin" } else { "plain" };
                Item::whole(Some(b"cut"), format!("boot-{boot}-{index}"), image)
            }
        })
        .collect()
}

/// Reads the first half of an image and has the power cut once that should be safe.
fn fill_early(t: &Context, boot: &Boot, store: &Path, report: &mut Report) -> Result<()> {
    commit_often(&boot.disk)?;
    let item = early().partial(&[(0, early_part())]);
    let catalogue = Catalogue::new(&t.images, std::slice::from_ref(&item))?;
    let mut daemon = t.daemon_in(store)?;
    let mut task = visit::start(t, "stay", std::slice::from_ref(&item), "early")?;
    let outcome = daemon.serve_with(&mut task, |daemon, message| {
        catalogue.answer(daemon, message)
    })?;
    outcome.ok("mount and read")?;
    let path = store.join(item.path(&item.key)?);
    let start = Instant::now();
    // The power is cut in either case: what the next boot finds is the point.
    report.step("cut_named_while_mounted", || {
        eventually("the file has a name", SOON, || Ok(path.exists()))?;
        comment(format!("named after {} ms", start.elapsed().as_millis()));
        Ok(())
    });
    committed(&boot.disk)?;
    cut(boot, 0)
}

/// Mounts and reads as fast as it goes, and has the power cut meanwhile.
fn fill_much(t: &Context, boot: &Boot, store: &Path) -> Result<()> {
    commit_often(&boot.disk)?;
    let items = many(boot.number);
    // Some stay mounted, the others are unmounted when they have been read.
    let (stay, leave) = items.split_at(items.len() / 2);
    let catalogue = Catalogue::new(&t.images, &items)?;
    let mut daemon = t.daemon_in(store)?;
    let mut tasks = [
        visit::start(t, "stay", stay, "stay")?,
        visit::start(t, "visit", leave, "leave")?,
    ];
    switch(boot, EARLIEST + random(boot) % (LATEST - EARLIEST))?;
    for task in &mut tasks {
        let outcome =
            daemon.serve_with(task, |daemon, message| catalogue.answer(daemon, message))?;
        ensure!(
            matches!(outcome, Outcome::Done(_)),
            "filling: {:?}",
            outcome.ok("fill")
        );
    }
    wait_for_the_end()
}

/// Boot 1: what was fetched before the cut is there, and is not asked for again.
fn early_is_there(t: &Context, store: &Path) -> Result<()> {
    let item = early();
    let listing = Listing::of(store)?;
    let reads = visit::visit(t, store, std::slice::from_ref(&item))?;
    let entry = listing.get(&item.path(&item.key)?);
    comment(format!(
        "before: {} KiB stored; fetched again: {} KiB in {} READs",
        entry.map_or(0, |entry| entry.stored() >> 10),
        reads.iter().map(|(.., len)| len >> 10).sum::<u64>(),
        reads.len()
    ));
    let entry = entry.context("the cut has lost the file")?;
    ensure!(entry.object_size().is_some(), "a name without an attribute");
    for (_, off, len) in &reads {
        ensure!(
            !entry.overlaps(*off, *len),
            "asked again for {off}+{len}, which is stored"
        );
    }
    let stored = entry.stored();
    ensure!(
        stored >= u64::try_from(early_part())?,
        "{stored} bytes were stored, {} were read",
        early_part()
    );
    // The whole file lies in the rest; the mount itself was asked for once, before the cut.
    let asked: u64 = reads.iter().map(|(.., len)| len).sum();
    ensure!(
        asked <= u64::try_from(file_length(item.image) - early_part())?,
        "{asked} bytes were asked for again"
    );
    Ok(())
}

/// After a cut at any time: whatever is left, all that is read is right, and what is a hole, only
/// that, is asked for.
fn all_is_right(t: &Context, store: &Path, boot: u32) -> Result<()> {
    let listing = Listing::of(store)?;
    for (path, entry) in listing
        .files()
        .filter(|(path, _)| path.starts_with("cache"))
    {
        let sized = entry.object_size().is_some();
        ensure!(sized, "{} has a name and no attribute", path.display());
    }
    let mut items = many(boot);
    items.push(early());
    let mut found: BTreeMap<Vec<u8>, _> = BTreeMap::new();
    for item in &items {
        let size = t.images.get(item.image)?.size;
        let entry = listing.get(&item.path(&item.key)?);
        // One of another size is from an earlier boot, and will be replaced.
        if let Some(entry) = entry.filter(|entry| entry.object_size() == Some(size)) {
            found.insert(item.key.clone(), entry);
        }
    }
    let stored: u64 = found.values().map(|entry| entry.stored()).sum();
    let reads = visit::visit(t, store, &items)?;
    let asked: u64 = reads.iter().map(|(.., len)| len).sum();
    comment(format!(
        "{} of {} files had a name, {} KiB stored; fetched again: {} KiB",
        found.len(),
        items.len(),
        stored >> 10,
        asked >> 10
    ));
    for (key, off, len) in &reads {
        let stored = found
            .get(key)
            .is_some_and(|entry| entry.overlaps(*off, *len));
        let name = key.escape_ascii();
        ensure!(!stored, "asked for {off}+{len} of {name}, which is stored");
    }
    Ok(())
}

/// Has the journal committed every second, so that a test need not wait for long.
fn commit_often(disk: &Path) -> Result<()> {
    rustix::mount::mount_remount(disk, MountFlags::NOATIME, c"commit=1")
        .with_context(|| format!("remount {}", disk.display()))
}

/// Waits until all changes so far have been committed by the journal, which does so by itself: two
/// transactions must end, for one may be ending already.
fn committed(disk: &Path) -> Result<()> {
    let info = journal_info(disk)?;
    let count = || -> Result<u64> {
        let text = fs::read_to_string(&info)?;
        let number = text.split_whitespace().next().context("empty")?;
        Ok(number.parse()?)
    };
    let before = count()?;
    let mark = disk.join("mark");
    let mut touched = 0_u64;
    eventually("the journal has been committed", SOON, || {
        // An empty transaction does not end.
        touched += 1;
        fs::write(&mark, touched.to_string())?;
        Ok(count()? >= before + 2)
    })
    .with_context(|| info.display().to_string())
}

/// Where ext4's journal counts its transactions.
fn journal_info(disk: &Path) -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let device = mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            Some((fields.next()?, fields.next()?))
        })
        .find(|(_, at)| Path::new(at) == disk)
        .and_then(|(device, _)| Path::new(device).file_name()?.to_str())
        .with_context(|| format!("{} is not mounted", disk.display()))?;
    let dirs = fs::read_dir("/proc/fs/jbd2").context("no journal of ext4")?;
    for dir in dirs.flatten() {
        let name = dir.file_name();
        if name.to_string_lossy().starts_with(&format!("{device}-")) {
            return Ok(dir.path().join("info"));
        }
    }
    bail!("no journal of {device}")
}

/// A number that belongs to this boot and the seed.
fn random(boot: &Boot) -> u64 {
    let seed = boot.seed.wrapping_add(u64::from(boot.number));
    let bytes = image::contents(seed, 8, 1);
    bytes
        .first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Has the power cut after so many milliseconds.
fn switch(boot: &Boot, milliseconds: u64) -> Result<()> {
    println!("# cut after {milliseconds} ms");
    let switch = boot.switch.as_ref().context("no switch")?;
    fs::write(switch, milliseconds.to_string()).with_context(|| switch.display().to_string())
}

fn cut(boot: &Boot, milliseconds: u64) -> Result<()> {
    switch(boot, milliseconds)?;
    wait_for_the_end()
}

fn wait_for_the_end() -> Result<()> {
    std::thread::park_timeout(scaled(SOON + Duration::from_secs(15)));
    bail!("the power was not cut")
}
