// SPDX-License-Identifier: MIT OR Apache-2.0

//! A disk that is frozen or read-only for a while.

use std::path::Path;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use rustix::io::Errno;

use crate::harness::drop_caches;
use crate::harness::eventually;
use crate::harness::procfs;
use crate::harness::same;
use crate::harness::store::eventually_exists;
use crate::harness::store::eventually_idle;
use crate::harness::store::object_file;
use crate::harness::store::parent;
use crate::harness::store::read_once;
use crate::harness::Context;
use crate::harness::Outcome;
use crate::harness::SmallDisk;
use crate::harness::Test;
use crate::harness::MOUNT_FAILS;
use crate::harness::SOON;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "d25_mount_while_frozen",
        "directories that are made on a frozen disk",
        mount_while_frozen,
    ),
    Test::new(
        "d25_write_while_frozen",
        "data, or a name, that is written to a frozen disk",
        write_while_frozen,
    ),
    Test::new(
        "d25_cull_while_frozen",
        "a name that is removed from a frozen disk",
        cull_while_frozen,
    ),
    Test::new(
        "d25_read_only",
        "files that are made on a read-only disk, or a cache that does not come back",
        read_only,
    ),
    Test::new(
        "d13_failed_disk",
        "a disk that fails, and takes more with it than itself",
        failed_disk,
    ),
];

const DISK: u64 = 40;

/// Waits until somebody, a thread of this process or a worker of the kernel, waits for the disk to
/// be thawed.
fn eventually_waits_for_thaw() -> Result<()> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    eventually("somebody waits for the disk to be thawed", SOON, || {
        Ok(procfs::processes()
            .iter()
            .filter(|process| process.state == 'D' || process.pid == own)
            .flat_map(procfs::stacks)
            .any(|line| line.contains("percpu_rwsem_wait") || line.contains("percpu_down_read")))
    })
}

fn mount_while_frozen(t: &Context) -> Result<()> {
    let disk = SmallDisk::new(t, DISK)?;
    let mut daemon = t.daemon_in(&disk.cache_dir()?)?;
    daemon.images = vec![t.images.get("small")?, t.images.get("plain")?];
    let frozen = disk.freeze()?;
    let at = t.mount_point()?;
    let mut mount = t.mount("fsid=small", &at)?;
    eventually_waits_for_thaw()?;
    ensure!(mount.running()?, "the mount has ended");
    daemon.expect_nothing()?;
    ensure!(
        !disk.dir.join("c/cache/Ierofs,small").exists(),
        "a directory was made"
    );
    frozen.thaw()?;
    daemon.serve(&mut mount)?.ok("mount")?;
    let expected = t.images.contents("small")?;
    let mut reader = t.reader(&at, 0, expected.len())?;
    let data = daemon.serve(&mut reader)?.ok("read")?;
    same("the file", &data, &expected)
}

fn write_while_frozen(t: &Context) -> Result<()> {
    let disk = SmallDisk::new(t, DISK)?;
    let dir = disk.cache_dir()?;
    let mut daemon = t.daemon_in(&dir)?;
    let image = t.images.get("plain")?;
    daemon.images = vec![image.clone()];
    let expected = t.images.contents("plain")?;
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    drop_caches()?;
    let mut reader = t.block_reader(&at, 8192, 4096)?;
    let read = daemon.expect_read()?;

    // A write waits; what is stored is read meanwhile.
    let frozen = disk.freeze()?;
    std::thread::scope(|scope| -> Result<()> {
        let object = daemon.object(read.object_id)?;
        let data = image.range(read.off, read.len);
        let writer = scope.spawn(|| object.file.write_all_at(data, read.off));
        let waits = eventually_waits_for_thaw();
        let unfinished = !writer.is_finished();
        let thawed = frozen.thaw();
        writer
            .join()
            .map_err(|_| anyhow::anyhow!("the writer panicked"))??;
        waits?;
        ensure!(unfinished, "it was written while the disk was frozen");
        thawed
    })?;
    daemon
        .object(read.object_id)?
        .file
        .read_complete(read.msg_id)?;
    let data = daemon.serve(&mut reader)?.ok("read")?;
    same("block 2", &data, &expected[8192..12288])?;

    // An unmount may wait or not; it ends, and the file is there.
    let frozen = disk.freeze()?;
    drop_caches()?;
    let mut reader = t.block_reader(&at, 8192, 4096)?;
    let data = daemon
        .serve(&mut reader)?
        .ok("a cached read while frozen")?;
    same("block 2, frozen", &data, &expected[8192..12288])?;
    let mut umount = t.unmount(&at)?;
    eventually("the umount waits, or has ended", SOON, || {
        Ok(umount.blocked_in(libc::SYS_umount2) || !umount.running()?)
    })?;
    frozen.thaw()?;
    daemon.serve(&mut umount)?.ok("umount")?;
    let file = object_file(&dir, "erofs,plain", "plain")?;
    eventually_exists(&file, &mut daemon)?;
    let data = read_once(t, &mut daemon, "fsid=plain")?;
    same("the file", &data, &expected)
}

fn cull_while_frozen(t: &Context) -> Result<()> {
    let disk = SmallDisk::new(t, DISK)?;
    let dir = disk.cache_dir()?;
    let mut daemon = t.daemon_in(&dir)?;
    daemon.images = vec![t.images.get("small")?];
    read_once(t, &mut daemon, "fsid=small")?;
    let file = object_file(&dir, "erofs,small", "small")?;
    std::env::set_current_dir(parent(&file)?)?;
    eventually_idle("Dsmall", &mut daemon)?;
    let frozen = disk.freeze()?;
    std::thread::scope(|scope| -> Result<()> {
        let culler = scope.spawn(|| daemon.command("cull Dsmall"));
        let waits = eventually_waits_for_thaw();
        let unfinished = !culler.is_finished();
        let there = file.exists();
        let thawed = frozen.thaw();
        let culled = culler
            .join()
            .map_err(|_| anyhow::anyhow!("the culler panicked"))?;
        waits?;
        ensure!(unfinished && there, "culled while the disk was frozen");
        thawed?;
        culled.context("cull")
    })?;
    std::env::set_current_dir("/")?;
    ensure!(!file.exists(), "the object is still there");
    Ok(())
}

fn read_only(t: &Context) -> Result<()> {
    let disk = SmallDisk::new(t, DISK)?;
    let mut daemon = t.daemon_in(&disk.cache_dir()?)?;
    daemon.images = vec![t.images.get("small")?, t.images.get("plain")?];
    read_once(t, &mut daemon, "fsid=small")?;
    // A file is closed in the background.
    eventually("remount,ro", SOON, || disk.remount("ro"))?;
    for fsid in ["plain", "small"] {
        let at = t.mount_point()?;
        let mut mount = t.mount(&format!("fsid={fsid}"), &at)?;
        let outcome = daemon.serve_with(&mut mount, |daemon, message| {
            let refused = daemon.answer_or_close(message)?;
            ensure!(
                refused.is_none_or(|errno| errno == Errno::ROFS),
                "copen on a read-only disk: {refused:?}"
            );
            Ok(())
        })?;
        // What is stored may be served.
        if fsid == "plain" || !matches!(outcome, Outcome::Done(_)) {
            let what = format!("a mount of {fsid} on a read-only disk");
            outcome.fails(&what, MOUNT_FAILS)?;
        }
    }
    ensure!(disk.remount("rw")?, "remount,rw");
    for fsid in ["small", "plain"] {
        let data = read_once(t, &mut daemon, &format!("fsid={fsid}"))?;
        same(fsid, &data, &t.images.contents(fsid)?)?;
    }
    Ok(())
}

fn failed_disk(t: &Context) -> Result<()> {
    let disk = SmallDisk::new(t, DISK)?;
    let mut daemon = t.daemon_in(&disk.cache_dir()?)?;
    daemon.images = vec![t.images.get("small")?, t.images.get("plain")?];
    let expected = t.images.contents("small")?;
    let at = t.mounted(&mut daemon, "fsid=small")?;
    let mut reader = t.reader(&at, 0, expected.len())?;
    daemon.serve(&mut reader)?.ok("read")?;
    ensure!(disk.remount("errors=remount-ro")?, "remount");
    let stat = rustix::fs::stat(&disk.dir)?;
    let device = std::fs::read_link(format!(
        "/sys/dev/block/{}:{}",
        rustix::fs::major(stat.st_dev),
        rustix::fs::minor(stat.st_dev)
    ))?;
    let device = device.file_name().context("no device")?.to_owned();
    let trigger = Path::new("/sys/fs/ext4")
        .join(device)
        .join("trigger_fs_error");
    std::fs::write(&trigger, "a test").with_context(|| trigger.display().to_string())?;
    let mut mount = t.mount("fsid=plain", &t.mount_point()?)?;
    daemon
        .serve(&mut mount)?
        .fails("a mount of what is not stored", MOUNT_FAILS)?;
    // ext4 lets nobody read after such an error, others might.
    drop_caches()?;
    let mut reader = t.reader(&at, 0, expected.len())?;
    match daemon.serve(&mut reader)? {
        Outcome::Done(data) => same("the stored image", &data, &expected)?,
        outcome => outcome.fails("a cached read", &[Errno::IO])?,
    }
    let mut umount = t.unmount(&at)?;
    daemon.serve(&mut umount)?.ok("umount")?;
    drop(daemon);
    // Neither the device nor the module has suffered.
    let mut daemon = t.daemon(&["small"])?;
    let data = read_once(t, &mut daemon, "fsid=small")?;
    same("the image on a good disk", &data, &expected)
}
