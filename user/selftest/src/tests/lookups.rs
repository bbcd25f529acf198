// SPDX-License-Identifier: MIT OR Apache-2.0

//! Lookups that find no file for their object: what the object is for is read as soon as there is one.
//!
//! It is always the blob of an image that has no file: a mount does not wait for it.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Message;
use cachefiles_proto::Open;
use rustix::io::Errno;

use super::disk_full::bound;
use super::disk_full::BLOCKS;
use super::disk_full::DISK;
use crate::harness::drop_caches;
use crate::harness::errno_of;
use crate::harness::image::with_device;
use crate::harness::image::BLOB;
use crate::harness::same;
use crate::harness::store::eventually_idle;
use crate::harness::store::object_file;
use crate::harness::store::parent;
use crate::harness::store::read_once;
use crate::harness::store::Immutable;
use crate::harness::Context;
use crate::harness::Daemon;
use crate::harness::Image;
use crate::harness::Outcome;
use crate::harness::SmallDisk;
use crate::harness::Stops;
use crate::harness::Task;
use crate::harness::Test;
use crate::harness::MOUNT_FAILS;
use crate::harness::SOON;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "d58_blob_on_full_disk",
        "a blob that is EIO until it is mounted again, since the disk was full at its mount",
        on_full_disk,
    ),
    Test::new(
        "d58_fd_without_file",
        "an fd of an object without a file that says nothing of it, or never gets one",
        fd_without_file,
    ),
    Test::new(
        "d58_blob_in_use",
        "a blob that is EIO until it is mounted again, since its file was in use for a moment",
        in_use,
    ),
    Test::new(
        "d58_blob_in_the_way",
        "a blob that is EIO until it is mounted again, since its name was taken for a moment",
        in_the_way,
    ),
    Test::new(
        "d58_lz4_blob_on_full_disk",
        "compressed reads that corrupt memory, since the blob has no file",
        lz4_on_full_disk,
    ),
    Test::new(
        "d58_lz4_blob_without_name",
        "compressed reads that corrupt memory, since the blob's key is too long for a name",
        lz4_without_name,
    ),
    Test::new(
        "d58_stop_lz4_blob_of_dead_cache",
        "compressed reads that corrupt memory, since the device was closed before the blob was looked up",
        lz4_of_dead_cache,
    ),
];

/// An image and its blob, and how to mount them.
struct Pair {
    primary: Arc<Image>,
    blob: Arc<Image>,
    contents: Vec<u8>,
    options: String,
}

impl Pair {
    fn new(primary: Arc<Image>, blob: Arc<Image>, contents: Vec<u8>) -> Self {
        let (fsid, device) = (&primary.name, &blob.name);
        let options = format!("domain_id=d,fsid={fsid},device={device}");
        Pair {
            primary,
            blob,
            contents,
            options,
        }
    }

    fn plain(t: &Context) -> Result<Self> {
        let (primary, blob) = (t.images.get("chunked")?, t.images.get(BLOB)?);
        Ok(Pair::new(primary, blob, t.images.contents("chunked")?))
    }

    /// With compressed data in a blob of this name.
    fn compressed(t: &Context, name: &str) -> Result<Self> {
        // The name that counts is that of the mount option.
        let (primary, blob) = with_device(t.images.get("lz4")?.as_ref(), BLOB)?;
        let (primary, blob) = (Image::new("split", &primary), Image::new(name, &blob));
        Ok(Pair::new(primary, blob, t.images.contents("lz4")?))
    }

    /// Where the blob's file is.
    fn file(&self, dir: &Path) -> Result<PathBuf> {
        object_file(dir, "erofs,d", &self.blob.name)
    }

    /// Has both stored, and waits until the blob is not in use any more.
    fn store(&self, t: &Context, daemon: &mut Daemon, dir: &Path) -> Result<()> {
        daemon.images = vec![Arc::clone(&self.primary), Arc::clone(&self.blob)];
        let data = read_once(t, daemon, &self.options)?;
        same("the file, to be stored", &data, &self.contents)?;
        let file = self.file(dir)?;
        std::env::set_current_dir(parent(&file)?)?;
        let name = file.file_name().context("no name")?;
        eventually_idle(&name.to_string_lossy(), daemon)
    }

    /// Removes the blob's file, in whose directory this process is since [`Pair::store`].
    fn cull(&self, daemon: &Daemon) -> Result<()> {
        daemon.command(&format!("cull D{}", self.blob.name))?;
        Ok(std::env::set_current_dir("/")?)
    }

    /// Mounts it while there is no file for the blob, which the daemon is told with this error; `mend` sees
    /// to it that there can be one. What was not to be read before is read after that.
    fn heals(
        &self,
        t: &Context,
        daemon: &mut Daemon,
        told: Errno,
        mend: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let mut refused = Vec::new();
        let at = t.mount_point()?;
        let mut mount = t.mount(&self.options, &at)?;
        serve(daemon, &mut mount, &mut refused)?.ok("mount")?;
        let mut reader = t.block_reader(&at, 0, 4096)?;
        let outcome = serve(daemon, &mut reader, &mut refused)?;
        outcome.fails("a read without a file", MOUNT_FAILS)?;

        mend()?;
        drop_caches()?;
        let mut reader = t.reader(&at, 0, self.contents.len())?;
        let data = daemon.serve(&mut reader)?.ok("a read of the same mount")?;
        same("the file", &data, &self.contents)?;
        ensure!(
            !refused.is_empty() && refused.iter().all(|errno| *errno == told),
            "copen said {refused:?}, should have been: {told}"
        );
        // The mount's, and that of each try to read the page.
        ensure!(refused.len() < 8, "{} OPENs", refused.len());
        let mut umount = t.unmount(&at)?;
        daemon.serve(&mut umount)?.ok("umount")?;
        Ok(())
    }
}

/// Serves until the task has ended; `refused` gets what `copen` says to sizes.
fn serve(daemon: &mut Daemon, task: &mut Task, refused: &mut Vec<Errno>) -> Result<Outcome> {
    daemon.serve_with(task, |daemon, message| {
        refused.extend(daemon.answer_or_close(message)?);
        Ok(())
    })
}

fn blob_on_full_disk(t: &Context, pair: &Pair) -> Result<()> {
    let disk = SmallDisk::new(t, DISK)?;
    let ballast = disk.ballast()?;
    let (mut daemon, dir) = bound(t, &disk, BLOCKS)?;
    pair.store(t, &mut daemon, &dir)?;
    pair.cull(&daemon)?;
    ballast.leave(9, 0)?;
    // The domain's volume is there, but not the image: its mount fails as any of its reads would.
    let mut other = t.mount("domain_id=d,fsid=small", &t.mount_point()?)?;
    daemon.images.push(t.images.get("small")?);
    let mut refused = Vec::new();
    let outcome = serve(&mut daemon, &mut other, &mut refused)?;
    outcome
        .clone()
        .fails("a mount of what is not stored", MOUNT_FAILS)?;
    pair.heals(t, &mut daemon, Errno::NOBUFS, || ballast.clear())?;
    let data = read_once(t, &mut daemon, "domain_id=d,fsid=small")?;
    same("the other image", &data, &t.images.contents("small")?)?;
    outcome.fails("a mount of what is not stored", &[Errno::IO])?;
    ensure!(refused == [Errno::NOBUFS], "its OPENs: {refused:?}");
    Ok(())
}

fn on_full_disk(t: &Context) -> Result<()> {
    blob_on_full_disk(t, &Pair::plain(t)?)
}

fn lz4_on_full_disk(t: &Context) -> Result<()> {
    blob_on_full_disk(t, &Pair::compressed(t, BLOB)?)
}

fn fd_without_file(t: &Context) -> Result<()> {
    let disk = SmallDisk::new(t, DISK)?;
    let ballast = disk.ballast()?;
    let (mut daemon, dir) = bound(t, &disk, BLOCKS)?;
    let pair = Pair::plain(t)?;
    pair.store(t, &mut daemon, &dir)?;
    pair.cull(&daemon)?;
    ballast.leave(9, 0)?;
    let at = t.mount_point()?;
    let mut mount = t.mount(&pair.options, &at)?;
    let mut kept: Option<Open> = None;
    let outcome = daemon.serve_with(&mut mount, |daemon, message| match message {
        Message::Open(open) if open.cookie_key == pair.blob.name.as_bytes() => {
            kept = Some(open);
            Ok(())
        }
        other => daemon.answer(other),
    })?;
    outcome.ok("mount")?;
    let open = match kept {
        Some(open) => open,
        None => daemon.expect_open()?,
    };
    let block = pair.blob.range(0, 4096);
    for what in ["the first", "the second"] {
        let written = errno_of(open.file.write_at(block, 0))?;
        ensure!(written == Some(Errno::NOBUFS), "{what} write: {written:?}");
        let sought = errno_of(open.file.seek_data(0))?;
        ensure!(sought == Some(Errno::NOBUFS), "{what} lseek: {sought:?}");
    }
    // The same fd, with space again, and before copen.
    ballast.clear()?;
    open.file.write_all_at(block, 0).context("write")?;
    let data = open.file.seek_data(0).context("lseek")?;
    ensure!(data == Some(0), "what was written is not there: {data:?}");
    daemon.accept(open, &pair.blob)?;
    daemon.log.clear();
    let mut reader = t.reader(&at, 0, pair.contents.len())?;
    let data = daemon.serve(&mut reader)?.ok("read")?;
    same("the file", &data, &pair.contents)?;
    let reads = daemon.reads();
    ensure!(reads.iter().all(|(off, _)| *off != 0), "asked: {reads:?}");
    Ok(())
}

fn in_use(t: &Context) -> Result<()> {
    let dir = t.new_dir()?;
    let mut daemon = t.daemon_in(&dir)?;
    let pair = Pair::plain(t)?;
    pair.store(t, &mut daemon, &dir)?;
    pair.cull(&daemon)?;
    // Another name of a file that an object uses: that of the image itself.
    let file = pair.file(&dir)?;
    let primary = object_file(&dir, "erofs,d", &pair.primary.name)?;
    fs::hard_link(primary, &file)?;
    pair.heals(t, &mut daemon, Errno::BUSY, || Ok(fs::remove_file(&file)?))
}

fn in_the_way(t: &Context) -> Result<()> {
    let dir = t.new_dir()?;
    let mut daemon = t.daemon_in(&dir)?;
    let pair = Pair::plain(t)?;
    pair.store(t, &mut daemon, &dir)?;
    pair.cull(&daemon)?;
    let file = pair.file(&dir)?;
    fs::create_dir(&file)?;
    let flag = Immutable::new(&file)?;
    pair.heals(t, &mut daemon, Errno::PERM, || {
        drop(flag);
        Ok(())
    })
}

fn lz4_without_name(t: &Context) -> Result<()> {
    let mut daemon = t.daemon(&[])?;
    let pair = Pair::compressed(t, &"k".repeat(253))?;
    daemon.images = vec![Arc::clone(&pair.primary), Arc::clone(&pair.blob)];
    let mut refused = Vec::new();
    let at = t.mount_point()?;
    let mut mount = t.mount(&pair.options, &at)?;
    serve(&mut daemon, &mut mount, &mut refused)?.ok("mount")?;
    for offset in [0, 1 << 20] {
        let mut reader = t.reader(&at, offset, 64 << 10)?;
        let outcome = serve(&mut daemon, &mut reader, &mut refused)?;
        outcome.fails("a read of a blob without a name", &[Errno::IO])?;
    }
    ensure!(
        !refused.is_empty() && refused.iter().all(|errno| *errno == Errno::NAMETOOLONG),
        "copen said {refused:?}"
    );
    let mut umount = t.unmount(&at)?;
    daemon.serve(&mut umount)?.ok("umount")?;
    Ok(())
}

fn lz4_of_dead_cache(t: &Context) -> Result<()> {
    let stops = Stops::open()?;
    let mut daemon = t.daemon(&[])?;
    let pair = Pair::compressed(t, BLOB)?;
    let at = t.mount_point()?;
    let mut mount = t.mount(&pair.options, &at)?;
    let open = daemon.expect_open()?;
    let object = daemon.accept(open, &pair.primary)?;
    let read = daemon.expect_read()?;
    stops.stop("read-ended")?;
    let primary = pair.primary.bytes();
    daemon.object(object)?.file.write_all_at(primary, 0)?;
    daemon.answer_read(&read)?;
    stops.wait_parked("read-ended")?;
    // The mount has not come to the device table. The anonymous file keeps the cache.
    let kept = std::mem::take(&mut daemon.open);
    drop(daemon);
    stops.go("read-ended")?;
    mount.wait(SOON)?.ok("mount of what is stored")?;
    let mut reader = t.reader(&at, 0, 64 << 10)?;
    let outcome = reader.wait(SOON)?;
    outcome.fails("a read of what is not stored", &[Errno::IO])?;
    t.unmount(&at)?.wait(SOON)?.ok("umount")?;
    drop(kept);
    Ok(())
}
