// SPDX-License-Identifier: MIT OR Apache-2.0

//! Races of an end: of the device, of an object, of a file that is committed or culled.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::path::PathBuf;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::AnonymousFile;
use rustix::fd::AsFd as _;
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::races::expect_held;
use super::races::reads;
use crate::harness::errno_of;
use crate::harness::eventually;
use crate::harness::expect_errno;
use crate::harness::same;
use crate::harness::stops::second;
use crate::harness::store::eventually_exists;
use crate::harness::store::eventually_idle;
use crate::harness::store::object_file;
use crate::harness::store::parent;
use crate::harness::store::read_once;
use crate::harness::store::ATTRIBUTE;
use crate::harness::Aside;
use crate::harness::Context;
use crate::harness::Daemon;
use crate::harness::SmallDisk;
use crate::harness::Stops;
use crate::harness::Test;
use crate::harness::MOUNT_FAILS;
use crate::harness::SOON;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "stop_device_closed_mount_and_write",
        "a mount or a file that is served by a cache which has no daemon any more",
        device_closed,
    ),
    Test::new(
        "stop_withdraw_begun_mount_and_umount",
        "a mount that comes into a cache that goes, or an unmount that waits for ever",
        withdraw_begun,
    ),
    Test::new(
        "stop_finish_dropped_mounted_again",
        "a second mount that gets the object, or the file, of the first one",
        finish_mounted_again,
    ),
    Test::new(
        "stop_finish_dropped_device_closed",
        "a cache that ends before its last object has",
        finish_device_closed,
    ),
    Test::new(
        "d38_stop_commit_umounted",
        "a file that gets its name twice, or none",
        commit_umounted,
    ),
    Test::new(
        "d38_stop_commit_device_closed",
        "a withdrawal that waits for a commit, or a commit that uses what is freed",
        commit_device_closed,
    ),
    Test::new(
        "stop_cull_begun_mounted",
        "a file that is culled though it was mounted meanwhile",
        cull_mounted,
    ),
    Test::new(
        "cve_2024_49870_stop_cull_begun_umounted",
        "a cull that keeps hold of what it looked at: its file system stays busy",
        cull_umounted,
    ),
];

/// A daemon for `plain` in `dir`, and where that is mounted.
fn mounted_in(t: &Context, dir: &Path) -> Result<(Daemon, PathBuf)> {
    let mut daemon = t.daemon_in(dir)?;
    daemon.images.push(t.images.get("plain")?);
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    Ok((daemon, at))
}

fn another_file(daemon: &Daemon) -> Result<AnonymousFile> {
    let opened = daemon.open.values().next().context("nothing is open")?;
    Ok(opened.file.as_fd().try_clone_to_owned()?.into())
}

/// Whatever is done to a file whose object ends has an answer.
fn poke(file: &AnonymousFile, data: &[u8]) -> Result<()> {
    let write = errno_of(file.write_all_at(data, 0))?;
    ensure!(
        matches!(write, None | Some(Errno::NOBUFS)),
        "write: {write:?}"
    );
    let seek = errno_of(file.seek_data(0))?;
    ensure!(matches!(seek, None | Some(Errno::NOBUFS)), "seek: {seek:?}");
    let complete = errno_of(file.read_complete(1))?;
    ensure!(
        complete == Some(Errno::INVAL),
        "READ_COMPLETE: {complete:?}"
    );
    Ok(())
}

fn device_closed(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let dir = t.new_dir()?;
    let (daemon, at) = mounted_in(t, &dir)?;
    let file = another_file(&daemon)?;
    let image = daemon.images[0].clone();
    stops.stop("device-closed")?;
    let closing = Aside::start("close of the device", move || drop(daemon))?;
    stops.wait_parked("device-closed")?;
    poke(&file, image.bytes())?;
    t.mount("fsid=twin", &t.mount_point()?)?
        .wait(SOON)?
        .fails("mount", MOUNT_FAILS)?;
    expect_held(t)?;
    stops.go("device-closed")?;
    closing.end()?;
    // The last file holds the cache, and what it is given is stored.
    expect_held(t)?;
    poke(&file, image.bytes())?;
    t.unmount(&at)?.wait(SOON)?.ok("umount")?;
    drop(file);
    let (mut daemon, at) = mounted_in(t, &dir)?;
    reads(t, &mut daemon, &at)
}

fn withdraw_begun(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let dir = t.new_dir()?;
    let (daemon, at) = mounted_in(t, &dir)?;
    stops.stop("withdraw-begun")?;
    let closing = Aside::start("close of the device", move || drop(daemon))?;
    stops.wait_parked("withdraw-begun")?;
    let mut mount = t.mount("fsid=twin", &t.mount_point()?)?;
    let mut umount = t.unmount(&at)?;
    let again = t.mount_point()?;
    let mut remount = t.mount("fsid=plain", &again)?;
    expect_held(t)?;
    for task in [&mount, &remount] {
        eventually("it waits, or has ended", SOON, || Ok(task.blocked()))?;
    }
    stops.go("withdraw-begun")?;
    closing.end()?;
    mount.wait(SOON)?.fails("mount", MOUNT_FAILS)?;
    umount.wait(SOON)?.ok("umount")?;
    // Busy, if the one that goes still had the volume.
    let fails = [MOUNT_FAILS, &[Errno::BUSY]].concat();
    remount
        .wait(SOON)?
        .fails("mount of the same image", &fails)?;
    let (mut daemon, at) = mounted_in(t, &dir)?;
    reads(t, &mut daemon, &at)
}

fn finish_mounted_again(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let dir = t.new_dir()?;
    let (mut daemon, at) = mounted_in(t, &dir)?;
    let file = another_file(&daemon)?;
    let image = daemon.images[0].clone();
    stops.stop("finish-dropped")?;
    let mut umount = t.unmount(&at)?;
    stops.wait_parked("finish-dropped")?;
    let at = t.mount_point()?;
    let mut mount = t.mount("fsid=plain", &at)?;
    eventually("the mount waits", SOON, || {
        Ok(mount.blocked_in(libc::SYS_mount))
    })?;
    poke(&file, image.bytes())?;
    stops.go("finish-dropped")?;
    daemon.serve(&mut umount)?.ok("umount")?;
    daemon.serve(&mut mount)?.ok("mount")?;
    poke(&file, image.bytes())?;
    reads(t, &mut daemon, &at)
}

fn finish_device_closed(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let dir = t.new_dir()?;
    let (daemon, at) = mounted_in(t, &dir)?;
    stops.stop("finish-dropped")?;
    let mut umount = t.unmount(&at)?;
    stops.wait_parked("finish-dropped")?;
    stops.stop("device-closed")?;
    let closing = Aside::start("close of the device", move || drop(daemon))?;
    stops.wait_parked("device-closed")?;
    stops.go("device-closed")?;
    // The withdrawal waits for the object.
    expect_held(t)?;
    closing.expect_running()?;
    stops.go("finish-dropped")?;
    closing.end()?;
    umount.wait(SOON)?.ok("umount")?;
    let (mut daemon, at) = mounted_in(t, &dir)?;
    reads(t, &mut daemon, &at)
}

/// The file of `plain` has one name, and the attribute of its size.
fn committed(file: &Path, size: u64) -> Result<u64> {
    let meta = file
        .metadata()
        .with_context(|| file.display().to_string())?;
    ensure!(meta.nlink() == 1, "{} names", meta.nlink());
    let mut value = [0; 64];
    rustix::fs::getxattr(file, ATTRIBUTE, &mut value).context("the attribute")?;
    let told = u64::from_be_bytes(*value.first_chunk().context("short")?);
    ensure!(told == size, "the attribute's size is {told}");
    Ok(meta.ino())
}

fn commit_umounted(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let dir = t.new_dir()?;
    let file = object_file(&dir, "erofs,plain", "plain")?;
    stops.stop("commit-work")?;
    let (mut daemon, at) = mounted_in(t, &dir)?;
    let size = daemon.images[0].size;
    stops.wait_parked("commit-work")?;
    ensure!(!file.exists(), "there is a name before the commit");
    let mut umount = t.unmount(&at)?;
    daemon.serve(&mut umount)?.ok("umount")?;
    eventually_exists(&file, &mut daemon)?;
    let inode = committed(&file, size)?;
    let reads_before = daemon.reads().len();
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    ensure!(
        daemon.reads().len() == reads_before,
        "what is stored was asked for"
    );
    stops.go("commit-work")?;
    reads(t, &mut daemon, &at)?;
    ensure!(
        committed(&file, size)? == inode,
        "another file has the name"
    );
    Ok(())
}

fn commit_device_closed(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let dir = t.new_dir()?;
    let file = object_file(&dir, "erofs,plain", "plain")?;
    stops.stop("commit-work")?;
    let (daemon, at) = mounted_in(t, &dir)?;
    let size = daemon.images[0].size;
    stops.wait_parked("commit-work")?;
    let closing = Aside::start("close of the device", move || drop(daemon))?;
    closing.end()?;
    let inode = committed(&file, size)?;
    t.unmount(&at)?.wait(SOON)?.ok("umount")?;
    let (mut daemon, at) = mounted_in(t, &dir)?;
    ensure!(daemon.reads().is_empty(), "what is stored was asked for");
    stops.go("commit-work")?;
    reads(t, &mut daemon, &at)?;
    ensure!(
        committed(&file, size)? == inode,
        "another file has the name"
    );
    Ok(())
}

/// Stores `plain`, goes to its directory, and has another thread cull it, which stops at the beginning.
fn culling(
    t: &Context,
    stops: &Stops,
    daemon: &mut Daemon,
    file: &Path,
) -> Result<Aside<Result<(), Errno>>> {
    daemon.images.push(t.images.get("plain")?);
    read_once(t, daemon, "fsid=plain")?;
    eventually_exists(file, daemon)?;
    std::env::set_current_dir(parent(file)?)?;
    eventually_idle("Dplain", daemon)?;
    stops.stop("cull-begun")?;
    let device = second(daemon)?;
    Aside::start("cull", move || device.write_bytes(b"cull Dplain").map(drop))
}

fn cull_mounted(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let dir = t.new_dir()?;
    let mut daemon = t.daemon_in(&dir)?;
    let file = object_file(&dir, "erofs,plain", "plain")?;
    let cull = culling(t, &stops, &mut daemon, &file)?;
    stops.wait_parked("cull-begun")?;
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    stops.go("cull-begun")?;
    expect_errno("cull", cull.end()?, &[Errno::BUSY])?;
    ensure!(file.exists(), "the file in use is gone");
    let before = daemon.reads().len();
    reads(t, &mut daemon, &at)?;
    ensure!(
        daemon.reads().len() == before,
        "what is stored was asked for"
    );
    Ok(())
}

fn cull_umounted(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let disk = SmallDisk::new(t, 32)?;
    let dir = disk.cache_dir()?;
    let mut daemon = t.daemon_in(&dir)?;
    let file = object_file(&dir, "erofs,plain", "plain")?;
    let cull = culling(t, &stops, &mut daemon, &file)?;
    stops.wait_parked("cull-begun")?;
    let data = read_once(t, &mut daemon, "fsid=plain")?;
    same("all", &data, &t.images.contents("plain")?)?;
    eventually_idle("Dplain", &mut daemon)?;
    stops.go("cull-begun")?;
    cull.end()?.context("cull")?;
    ensure!(!file.exists(), "the file is still there");
    std::env::set_current_dir("/")?;
    drop(daemon);
    eventually("the disk can be unmounted", SOON, || {
        Ok(rustix::mount::unmount(&disk.dir, UnmountFlags::empty()).is_ok())
    })
}
