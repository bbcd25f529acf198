// SPDX-License-Identifier: MIT OR Apache-2.0

//! When a new file gets its name, and what becomes of it if it cannot.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;

use crate::harness::drop_caches;
use crate::harness::kmsg::KernelLog;
use crate::harness::same;
use crate::harness::store::eventually_exists;
use crate::harness::store::object_file;
use crate::harness::store::parent;
use crate::harness::store::read_once;
use crate::harness::store::Immutable;
use crate::harness::store::ATTRIBUTE;
use crate::harness::Context;
use crate::harness::Daemon;
use crate::harness::Test;
use crate::store::listing::IDENTITY;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "d38_named_while_mounted",
        "data that is lost with the machine, because its file had no name yet",
        named_while_mounted,
    ),
    Test::new(
        "d38_stored_after_death",
        "data that is lost with its daemon",
        stored_after_death,
    ),
    Test::new(
        "d37_failed_commit",
        "data that is lost, and nobody is told",
        failed_commit,
    ),
    Test::new(
        "d59_commit_tried_again",
        "a mount that has no file for weeks, because its commit failed for a moment",
        commit_tried_again,
    ),
];

/// Half of what `plain` holds.
const HALF: usize = 512 << 10;

fn named_while_mounted(t: &Context) -> Result<()> {
    let dir = t.new_dir()?;
    let mut daemon = t.daemon_in(&dir)?;
    daemon.images = vec![t.images.get("plain")?];
    let expected = t.images.contents("plain")?;
    let file = object_file(&dir, "erofs,plain", "plain")?;
    // The mount itself reads the first block.
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    eventually_exists(&file, &mut daemon)?;
    let mut value = [0; 64];
    let len = rustix::fs::getxattr(&file, ATTRIBUTE, &mut value).context("the attribute")?;
    ensure!(len == 18, "an attribute of {len} bytes");
    let size = u64::from_be_bytes(*value.first_chunk().context("short")?);
    let wanted = daemon.images[0].size;
    ensure!(size == wanted, "the attribute's size is {size}");

    let before = file.metadata()?;
    let mut reader = t.reader(&at, 0, HALF)?;
    daemon.serve(&mut reader)?.ok("read")?;
    let after = file.metadata()?;
    ensure!(before.ino() == after.ino(), "another file has the name");
    let more = (after.blocks() - before.blocks()) * 512;
    ensure!(more >= HALF as u64, "only {more} bytes went to the file");

    // As after a crash of the machine: what is on the disk now, and nobody has unmounted.
    let copy = t.new_dir()?;
    let copied = Command::new("cp")
        .args(["-a", "--sparse=always"])
        .args([dir.join("cache"), dir.join("graveyard")])
        .arg(&copy)
        .status()?;
    ensure!(copied.success(), "cp: {copied}");
    // A crash copies nothing, and what was copied is not served: without this the copy is taken for the original.
    let copy_of_file = object_file(&copy, "erofs,plain", "plain")?;
    rustix::fs::removexattr(&copy_of_file, IDENTITY).context(IDENTITY)?;
    drop(daemon);
    let mut umount = t.unmount(&at)?;
    umount.wait(crate::harness::SOON)?.ok("umount")?;
    cached(t, &copy, &expected[..HALF], "the copy")?;
    cached(t, &dir, &expected[..HALF], "the original")
}

/// Mounts `plain` from the store in `dir` and reads what must be there.
fn cached(t: &Context, dir: &std::path::Path, expected: &[u8], what: &str) -> Result<()> {
    let mut daemon = t.daemon_in(dir)?;
    daemon.images = vec![t.images.get("plain")?];
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    drop_caches()?;
    let mut reader = t.block_reader(&at, 0, expected.len())?;
    let data = daemon.serve(&mut reader)?.ok("read")?;
    same(what, &data, expected)?;
    let reads = daemon.reads();
    ensure!(
        reads.is_empty(),
        "{what}: READs of what was stored: {reads:?}"
    );
    let mut umount = t.unmount(&at)?;
    daemon.serve(&mut umount)?.ok("umount")?;
    Ok(())
}

fn stored_after_death(t: &Context) -> Result<()> {
    let dir = t.new_dir()?;
    let mut daemon = t.daemon_in(&dir)?;
    daemon.images = vec![t.images.get("plain")?];
    let expected = t.images.contents("plain")?;
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    let mut reader = t.reader(&at, 0, HALF)?;
    daemon.serve(&mut reader)?.ok("read")?;
    // The image is mounted still.
    drop(daemon);
    let mut umount = t.unmount(&at)?;
    umount.wait(crate::harness::SOON)?.ok("umount")?;
    cached(t, &dir, &expected[..HALF], "the stored half")
}

fn failed_commit(t: &Context) -> Result<()> {
    let dir = t.new_dir()?;
    let mut daemon = t.daemon_in(&dir)?;
    daemon.images = vec![t.images.get("plain")?, t.images.get("small")?];
    let image = daemon.images[0].clone();
    let expected = t.images.contents("plain")?;
    let file = object_file(&dir, "erofs,plain", "plain")?;
    let log = KernelLog::end()?;
    let at = t.mount_point()?;
    let mut mount = t.mount("fsid=plain", &at)?;
    // The file exists, without a name; nothing was stored yet.
    let open = daemon.expect_open()?;
    let flag = Immutable::new(parent(&file)?)?;
    daemon.accept(open, &image)?;
    daemon.serve(&mut mount)?.ok("mount")?;
    let mut reader = t.reader(&at, 0, expected.len())?;
    let data = daemon.serve(&mut reader)?.ok("read")?;
    same("the file", &data, &expected)?;
    let others = read_once(t, &mut daemon, "fsid=small")?;
    same("another image", &others, &t.images.contents("small")?)?;
    let mut umount = t.unmount(&at)?;
    daemon.serve(&mut umount)?.ok("umount")?;
    told(&mut daemon, &log)?;
    drop(flag);
    ensure!(!file.exists(), "the file has a name");

    let reads = daemon.reads().len();
    let data = read_once(t, &mut daemon, "fsid=plain")?;
    same("the file, once more", &data, &expected)?;
    ensure!(daemon.reads().len() > reads, "nothing was fetched");
    eventually_exists(&file, &mut daemon)?;
    drop(daemon);
    let names = fs::read_dir(parent(&file)?)?.count();
    ensure!(names == 1, "{names} names");
    Ok(())
}

fn commit_tried_again(t: &Context) -> Result<()> {
    const LITTLE: usize = 64 << 10;
    let dir = t.new_dir()?;
    let mut daemon = t.daemon_in(&dir)?;
    daemon.images = vec![t.images.get("plain")?];
    let image = daemon.images[0].clone();
    let expected = t.images.contents("plain")?;
    let file = object_file(&dir, "erofs,plain", "plain")?;
    let log = KernelLog::end()?;
    let at = t.mount_point()?;
    let mut mount = t.mount("fsid=plain", &at)?;
    let open = daemon.expect_open()?;
    let flag = Immutable::new(parent(&file)?)?;
    daemon.accept(open, &image)?;
    daemon.serve(&mut mount)?.ok("mount")?;
    let mut reader = t.block_reader(&at, 0, LITTLE)?;
    daemon.serve(&mut reader)?.ok("read")?;
    told(&mut daemon, &log)?;
    ensure!(!file.exists(), "the file has a name");
    drop(flag);
    // Nothing is filled any more.
    let reads = daemon.reads().len();
    eventually_exists(&file, &mut daemon)?;
    ensure!(daemon.reads().len() == reads, "something was filled");
    drop(daemon);
    t.unmount(&at)?.wait(crate::harness::SOON)?.ok("umount")?;
    cached(t, &dir, &expected[..LITTLE], "what was filled before")
}

/// Waits for a line in the kernel's log that names the object `plain`, and no report.
fn told(daemon: &mut Daemon, log: &KernelLog) -> Result<()> {
    let mut lines = Vec::new();
    let found = crate::harness::store::served_until(daemon, "a line in the log", |_| {
        lines.extend(log.lines());
        // The last attempt is made when the object ends.
        Ok(lines
            .iter()
            .any(|line| line.text.contains("erofs,plain/Dplain")))
    });
    for line in &lines {
        println!("kernel: {}", line.text);
    }
    found
}
