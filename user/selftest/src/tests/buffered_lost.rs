// SPDX-License-Identifier: MIT OR Apache-2.0

//! `fill buffered`: data that was in memory and never came to the disk.

use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command as Program;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Command;
use cachefiles_proto::Fill;
use rustix::io::Errno;

use super::buffered::daemon;
use crate::faults::injector::Injector;
use crate::faults::plan::Kind;
use crate::harness::drop_caches;
use crate::harness::eventually;
use crate::harness::kmsg::KernelLog;
use crate::harness::same;
use crate::harness::skip;
use crate::harness::store::in_memory;
use crate::harness::store::object_file;
use crate::harness::Context;
use crate::harness::Daemon;
use crate::harness::Outcome;
use crate::harness::SmallDisk;
use crate::harness::Stops;
use crate::harness::Test;
use crate::harness::SOON;

/// The part of the file in the image that is lost, in bytes.
const PART: Range<usize> = 256 << 10..(256 << 10) + (32 << 10);

/// Another part, of which nothing is stored.
const LATER: Range<usize> = 512 << 10..(512 << 10) + (32 << 10);

/// Where the work waits that would find out that data was lost.
const SETTLE_WORK: &str = "settle-work";

/// What the module says when data was lost.
const LOST: &str = "writing filled data to the disk failed";

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "buffered_disk_fails",
        "zeros in the place of data that never came to the disk; an image that cannot be mounted ever after (D52)",
        disk_fails,
    ),
    Test::new(
        "d53_lost_then_direct",
        "zeros in the place of data that never came to the disk, once fills are direct",
        lost_then_direct,
    ),
    Test::new(
        "d67_write_that_fails_at_once",
        "zeros in the place of data whose write failed at once: ext4 notes it as written all the same",
        fails_at_once,
    ),
    Test::new(
        "buffered_stop_lost_then_untold",
        "zeros in the place of lost data, once the file was synced since its version is not known any more",
        lost_then_untold,
    ),
    Test::new(
        "buffered_stop_lost_then_synced",
        "zeros in the place of lost data, once the file system syncs each write",
        lost_then_synced,
    ),
];

/// A disk in a file that its file system has no space for, once that is full: what was never written there
/// fails. Told is the directory of that file, too.
fn thin_disk(t: &Context) -> Result<(SmallDisk, PathBuf)> {
    let host = t.mount_point()?;
    let mounted = Program::new("mount")
        .args(["-t", "tmpfs", "-o", "size=24m", "none"])
        .arg(&host)
        .status();
    ensure!(mounted.is_ok_and(|status| status.success()), "no tmpfs");
    let disk = SmallDisk::of_image(t, &host.join("disk"), 64, "user_xattr")?;
    Ok((disk, host))
}

/// Has the file system of a disk use all of its journal, so that this fails no more.
fn use_journal(disk: &SmallDisk) -> Result<()> {
    // Four MiB, of which each takes a few blocks.
    for _ in 0..400 {
        let path = disk.dir.join("journal");
        File::create(&path)?.sync_all()?;
        std::fs::remove_file(&path)?;
    }
    Ok(())
}

/// Takes all space of a directory.
fn fill_up(host: &Path) -> Result<File> {
    let mut ballast = File::create(host.join("ballast"))?;
    while ballast.write_all(&[0; 4096]).is_ok() {}
    Ok(ballast)
}

/// Mounts the image, and waits until what that has brought in is on the disk.
fn mounted_and_settled(t: &Context, dir: &Path, daemon: &mut Daemon) -> Result<PathBuf> {
    let at = t.mounted(daemon, "fsid=plain")?;
    let file = object_file(dir, "erofs,plain", "plain")?;
    eventually("what was read is on the disk", SOON, || {
        Ok(file.exists() && in_memory(&file)? == 0)
    })?;
    Ok(at)
}

/// Fills a part of the file in the image, which is small enough to go through memory.
fn fill(t: &Context, daemon: &Daemon, part: &Range<usize>) -> Result<()> {
    let image = t.images.get("plain")?;
    let contents = t.images.contents("plain")?;
    let at = image.find(&contents[part.start..part.start + 4096])?;
    let (_, object) = daemon.open.first_key_value().context("not open")?;
    let len = u64::try_from(part.len())?;
    object.file.write_all_at(image.range(at, len), at)?;
    Ok(())
}

/// Waits until the module has said that data was lost.
fn told(log: &KernelLog) -> Result<()> {
    eventually("the failure is told", SOON, || {
        Ok(log.lines().iter().any(|line| line.text.contains(LOST)))
    })
}

fn disk_fails(t: &Context) -> Result<()> {
    let (disk, host) = thin_disk(t)?;
    let dir = disk.cache_dir()?;
    let log = KernelLog::end()?;
    let mut daemon = daemon(t, &dir)?;
    let at = mounted_and_settled(t, &dir, &mut daemon)?;
    use_journal(&disk)?;
    let ballast = fill_up(&host)?;

    fill(t, &daemon, &PART)?;
    told(&log)?;
    drop_caches()?;
    let mut reader = t.block_reader(&at, PART.start, PART.len())?;
    daemon.serve(&mut reader)?.fails("read", &[Errno::IO])?;
    // There is space again; the file remembers, the next user of it begins with what is on the disk.
    ballast.set_len(0)?;
    let mut reader = t.block_reader(&at, PART.start, PART.len())?;
    daemon.serve(&mut reader)?.fails("read", &[Errno::IO])?;
    let mut umount = t.unmount(&at)?;
    daemon.serve(&mut umount)?.ok("umount")?;
    asked_again(t, &mut daemon, &PART)
}

/// Mounts the image, and reads a part that is not stored.
fn asked_again(t: &Context, daemon: &mut Daemon, part: &Range<usize>) -> Result<()> {
    let contents = t.images.contents("plain")?;
    let at = t.mounted(daemon, "fsid=plain")?;
    daemon.log.clear();
    let mut reader = t.block_reader(&at, part.start, part.len())?;
    let data = daemon.serve(&mut reader)?.ok("read of what was lost")?;
    same("what was lost", &data, &contents[part.clone()])?;
    let asked: u64 = daemon.reads().iter().map(|(_, len)| len).sum();
    ensure!(
        asked == u64::try_from(part.len())?,
        "{asked} bytes asked for"
    );
    let mut umount = t.unmount(&at)?;
    daemon.serve(&mut umount)?.ok("umount")?;
    Ok(())
}

fn lost_then_direct(t: &Context) -> Result<()> {
    let (disk, host) = thin_disk(t)?;
    let dir = disk.cache_dir()?;
    let mut buffered = daemon(t, &dir)?;
    let at = mounted_and_settled(t, &dir, &mut buffered)?;
    use_journal(&disk)?;
    let ballast = fill_up(&host)?;
    fill(t, &buffered, &PART)?;
    let mut umount = t.unmount(&at)?;
    buffered.serve(&mut umount)?.ok("umount")?;
    // What was in memory is to be on the disk when the object is withdrawn, and has failed.
    drop(buffered);
    ballast.set_len(0)?;
    let mut direct = t.daemon_with(&dir, &[Command::Fill(Fill::Direct)], &["plain"])?;
    asked_again(t, &mut direct, &PART)
}

/// A disk whose requests can fail.
fn failing_disk(t: &Context) -> Result<(SmallDisk, Injector)> {
    if !Path::new("/sys/kernel/debug/fail_make_request").exists() {
        return skip("the kernel cannot have disk requests fail");
    }
    let disk = SmallDisk::new(t, 64)?;
    let mut injector = Injector::new(Kind::Disk)?;
    injector.use_disk(&disk.block_device()?)?;
    Ok((disk, injector))
}

/// Has the next request to the disk fail.
fn next_fails(disk: &SmallDisk, injector: &mut Injector) -> Result<()> {
    // So that it is that of the data. It tells of what has failed before.
    let _ = rustix::fs::syncfs(File::open(&disk.dir)?);
    injector.arm(1)?;
    injector.on()
}

/// The device is gone when the write is given to it, and comes back: while the image is mounted, and when it is
/// unmounted.
fn fails_at_once(t: &Context) -> Result<()> {
    let (disk, mut injector) = failing_disk(t)?;
    let dir = disk.cache_dir()?;
    let mut daemon = daemon(t, &dir)?;

    for (mounted, part) in [(true, PART), (false, LATER)] {
        let log = KernelLog::end()?;
        let at = mounted_and_settled(t, &dir, &mut daemon)?;
        next_fails(&disk, &mut injector)?;
        fill(t, &daemon, &part)?;
        if mounted {
            told(&log)?;
        }
        let mut umount = t.unmount(&at)?;
        daemon.serve(&mut umount)?.ok("umount")?;
        if !mounted {
            told(&log)?;
        }
        ensure!(injector.disarm()?, "nothing has failed");
        asked_again(t, &mut daemon, &part)?;
    }
    Ok(())
}

/// Fills [`PART`], and has the write of it fail that somebody else begins. The module has not looked at that when this
/// returns: its work waits at [`SETTLE_WORK`].
fn lose(
    t: &Context,
    stops: &Stops,
    disk: &SmallDisk,
    injector: &mut Injector,
    daemon: &Daemon,
) -> Result<()> {
    stops.stop(SETTLE_WORK)?;
    next_fails(disk, injector)?;
    fill(t, daemon, &PART)?;
    let _ = rustix::fs::syncfs(File::open(&disk.dir)?);
    ensure!(injector.disarm()?, "nothing has failed");
    stops.wait_parked(SETTLE_WORK)
}

/// The module looks at what was lost. It is not served, and asked for again by the next mount.
fn noticed(t: &Context, stops: &Stops, dir: &Path, daemon: &mut Daemon, at: &Path) -> Result<()> {
    let contents = t.images.contents("plain")?;
    let file = object_file(dir, "erofs,plain", "plain")?;
    ensure!(in_memory(&file)? > 0, "the work did not wait");
    stops.go(SETTLE_WORK)?;
    eventually("the memory is given back", SOON, || {
        Ok(in_memory(&file)? == 0)
    })?;
    drop_caches()?;
    let mut reader = t.block_reader(at, PART.start, PART.len())?;
    match daemon.serve(&mut reader)? {
        Outcome::Done(data) => same("what was lost", &data, &contents[PART])?,
        failed => failed.fails("read of what was lost", &[Errno::IO])?,
    }
    let mut umount = t.unmount(at)?;
    daemon.serve(&mut umount)?.ok("umount")?;
    asked_again(t, daemon, &PART)
}

fn lost_then_untold(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let (disk, mut injector) = failing_disk(t)?;
    let dir = disk.cache_dir()?;
    let setup = [Command::Fill(Fill::Buffered), Command::Identity];
    let mut daemon = t.daemon_with(&dir, &setup, &["plain"])?;
    daemon.token = Some("aa00".parse()?);
    let at = mounted_and_settled(t, &dir, &mut daemon)?;
    lose(t, &stops, &disk, &mut injector, &daemon)?;

    // A daemon that tells no tokens takes over. That the file cannot be synced is an error of its first `copen`, and
    // not of the next one.
    daemon.open.clear();
    daemon.token = None;
    let mut refused = Vec::new();
    for _ in 0..2 {
        let mut reader = t.block_reader(&at, LATER.start, 4096)?;
        daemon.serve_with(&mut reader, |daemon, message| {
            refused.extend(daemon.answer_or_close(message)?);
            Ok(())
        })?;
    }
    ensure!(
        refused == [Errno::IO] && !daemon.open.is_empty(),
        "copen said {refused:?}"
    );
    noticed(t, &stops, &dir, &mut daemon, &at)
}

fn lost_then_synced(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let (disk, mut injector) = failing_disk(t)?;
    let dir = disk.cache_dir()?;
    let mut daemon = daemon(t, &dir)?;
    let at = mounted_and_settled(t, &dir, &mut daemon)?;
    lose(t, &stops, &disk, &mut injector, &daemon)?;

    // The file system syncs what is written from now on, and tells of what it could not write before.
    ensure!(disk.remount("sync")?, "mount -o remount,sync");
    let failed = fill(t, &daemon, &LATER);
    ensure!(failed.is_err(), "the fill was not synced");
    noticed(t, &stops, &dir, &mut daemon, &at)
}
