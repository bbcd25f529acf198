// SPDX-License-Identifier: MIT OR Apache-2.0

//! Unmounting, CLOSE, and the end of the device.

use std::time::Instant;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use rustix::io::Errno;

use crate::harness::drop_caches;
use crate::harness::errno_of;
use crate::harness::eventually;
use crate::harness::same;
use crate::harness::wait::at_once;
use crate::harness::Context;
use crate::harness::Daemon;
use crate::harness::Event;
use crate::harness::Test;
use crate::harness::SOON;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "close_message",
        "a CLOSE that is missing, comes twice or names another object",
        close_message,
    ),
    Test::new(
        "d10_close_unread",
        "a CLOSE that nobody reads and that blocks the next mount",
        close_unread,
    ),
    Test::new(
        "close_umount_with_old_file_open",
        "an old descriptor that blocks the next mount of the image",
        umount_with_old_file_open,
    ),
    Test::new(
        "close_write_after_umount",
        "a write to the file of an object that is gone",
        write_after_umount,
    ),
    Test::new(
        "close_device_with_read_in_flight",
        "readers that outlive the device, or a device that stays busy",
        device_with_read_in_flight,
    ),
    Test::new(
        "close_device_with_open_in_flight",
        "a mount that outlives the device",
        device_with_open_in_flight,
    ),
    Test::new(
        "close_device_keeps_data",
        "data that is lost with the daemon",
        device_keeps_data,
    ),
];

fn close_message(t: &Context) -> Result<()> {
    let (mut daemon, _, first) = t.mounted_image("plain")?;
    daemon.images.push(t.images.get("small")?);
    let second = t.mounted(&mut daemon, "fsid=small")?;
    let ids: Vec<u32> = daemon.open.keys().copied().collect();
    ensure!(ids == [1, 2], "open objects: {ids:?}");
    for (at, object_id) in [(second, 2), (first, 1)] {
        let mut umount = t.unmount(&at)?;
        let close = daemon.expect_close()?;
        ensure!(close.object_id == object_id, "{close:?}");
        daemon.serve(&mut umount)?.ok("umount")?;
        daemon.open.remove(&object_id);
    }
    daemon.expect_nothing()
}

fn close_unread(t: &Context) -> Result<()> {
    let (mut daemon, _, at) = t.mounted_image("small")?;
    t.unmount(&at)?.wait(SOON)?.ok("umount")?;
    eventually("a CLOSE", SOON, || daemon.has_message())?;
    daemon.open.clear();
    eventually("the CLOSE goes with its file", SOON, || {
        Ok(!daemon.has_message()?)
    })?;
    daemon.expect_nothing()?;
    t.mounted(&mut daemon, "fsid=small")?;
    let closes = daemon.log.iter().filter(|e| matches!(e, Event::Close(..)));
    ensure!(closes.count() == 0, "{:?}", daemon.log);
    Ok(())
}

fn umount_with_old_file_open(t: &Context) -> Result<()> {
    let (mut daemon, _, at) = t.mounted_image("small")?;
    let mut old = Vec::new();
    let mut at = at;
    for _ in 0..5 {
        t.unmount(&at)?.wait(SOON)?.ok("umount")?;
        // The CLOSE is read, and not obeyed.
        let close = daemon.expect_close()?;
        let opened = daemon.open.remove(&close.object_id);
        old.push(opened.context("CLOSE of an object that is not open")?);
        at = t.mounted(&mut daemon, "fsid=small")?;
    }
    Ok(())
}

fn write_after_umount(t: &Context) -> Result<()> {
    let (mut daemon, image, at) = t.mounted_image("plain")?;
    let mut umount = t.unmount(&at)?;
    let close = daemon.expect_close()?;
    daemon.serve(&mut umount)?.ok("umount")?;
    let object = daemon.object(close.object_id)?;
    // Once the object is withdrawn there is nothing to write to.
    eventually("the object is withdrawn", SOON, || {
        let written = rustix::io::pwrite(&object.file, image.range(0, 4096), 0);
        Ok(written.is_err())
    })?;
    ensure!(object.file.seek_data(0).is_err(), "lseek works");
    ensure!(object.file.read_complete(0).is_err(), "ioctl works");
    Ok(())
}

fn device_with_read_in_flight(t: &Context) -> Result<()> {
    let (mut daemon, _, at) = t.mounted_image("plain")?;
    drop_caches()?;
    let mut readers = Vec::new();
    for block in 0..4 {
        readers.push(t.block_reader(&at, block * 65536, 4096)?);
        daemon.expect_read()?;
    }
    // One that no daemon has read.
    readers.push(t.block_reader(&at, 5 * 65536, 4096)?);
    eventually("the fifth READ", SOON, || daemon.has_message())?;
    let Daemon { open, device, .. } = daemon;
    let start = Instant::now();
    drop(device);
    for reader in &mut readers {
        reader
            .wait(SOON)?
            .fails("read", &[Errno::IO, Errno::NOBUFS])?;
    }
    at_once("readers failed", start.elapsed())?;
    // The anonymous file alone keeps the cache.
    let busy = errno_of(t.device())?;
    ensure!(busy == Some(Errno::BUSY), "with a file open: {busy:?}");
    drop(open);
    drop(t.device().context("with all files closed")?);
    t.unmount(&at)?.wait(SOON)?.ok("umount")?;
    Ok(())
}

fn device_with_open_in_flight(t: &Context) -> Result<()> {
    let mut daemon = t.daemon(&["small"])?;
    let mut delivered = t.mount("domain_id=d,fsid=small", &t.mount_point()?)?;
    let open = daemon.expect_open()?;
    let mut queued = t.mount("domain_id=d,fsid=other", &t.mount_point()?)?;
    eventually("the second OPEN", SOON, || daemon.has_message())?;
    drop(daemon);
    let errors = [Errno::IO, Errno::NOBUFS];
    delivered
        .wait(SOON)?
        .fails("the delivered mount", &errors)?;
    queued.wait(SOON)?.fails("the queued mount", &errors)?;
    let busy = errno_of(t.device())?;
    ensure!(busy == Some(Errno::BUSY), "with a file open: {busy:?}");
    drop(open);
    let mut daemon = t.daemon(&["small"]).context("the next cache")?;
    t.mounted(&mut daemon, "domain_id=d,fsid=small")?;
    Ok(())
}

fn device_keeps_data(t: &Context) -> Result<()> {
    let dir = t.new_dir()?;
    let expected = t.images.contents("plain")?;
    let mut daemon = t.daemon_in(&dir)?;
    daemon.images.push(t.images.get("plain")?);
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    let mut reader = t.reader(&at, 0, 256 << 10)?;
    daemon.serve(&mut reader)?.ok("read")?;
    let reads = daemon.reads();
    // The daemon goes while the image is mounted.
    drop(daemon);
    t.unmount(&at)?.wait(SOON)?.ok("umount")?;

    let mut daemon = t.daemon_in(&dir)?;
    daemon.images.push(t.images.get("plain")?);
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    let mut reader = t.block_reader(&at, 0, 256 << 10)?;
    let data = daemon.serve(&mut reader)?.ok("read")?;
    same("the file", &data, &expected[..256 << 10])?;
    let again = daemon.reads();
    ensure!(again.is_empty(), "READs of {reads:?}, then of {again:?}");
    Ok(())
}
