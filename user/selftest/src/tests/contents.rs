// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a file of the store holds: who else reads it, writes that were cut, what a crash has left.

use std::fs;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Command;
use cachefiles_proto::Fill;
use rustix::fs::Advice;
use rustix::fs::FallocateFlags;
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use rustix::process::getrlimit;
use rustix::process::setrlimit;
use rustix::process::Resource;
use rustix::process::Rlimit;

use crate::harness::drop_caches;
use crate::harness::eventually;
use crate::harness::same;
use crate::harness::store::object_file;
use crate::harness::store::read_once;
use crate::harness::Aside;
use crate::harness::Context;
use crate::harness::Daemon;
use crate::harness::Image;
use crate::harness::SmallDisk;
use crate::harness::Stops;
use crate::harness::Test;
use crate::harness::SOON;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "d62_unwritten_is_no_data",
        "zeros for what a crash left allocated, as soon as a backup program has read it",
        unwritten,
    ),
    Test::new(
        "d62_unwritten_buffered",
        "the same with fills through memory",
        unwritten_buffered,
    ),
    Test::new(
        "d62_unwritten_on_xfs",
        "the same on XFS, in both modes",
        unwritten_on_xfs,
    ),
    Test::new(
        "d62_stop_pages_dropped_read",
        "zeros, if all of a file is read between the dropping of its pages and the search for data",
        read_before_search,
    ),
    Test::new(
        "d62_stop_pages_dropped_read_on_xfs",
        "the same on XFS",
        read_before_search_on_xfs,
    ),
    Test::new(
        "d62_taken_from_the_file",
        "allocated blocks that look like data to who reads the store later",
        taken_from_file,
    ),
    Test::new(
        "d62_many_extents",
        "an extent that is taken for its neighbour",
        many_extents,
    ),
    Test::new(
        "d62_small_blocks",
        "a page that is data in a part only, where blocks are smaller than pages",
        small_blocks,
    ),
    Test::new(
        "d62_store_read_all_the_time",
        "wrong data, or data that is asked for again, beside a process that reads all files",
        read_all_the_time,
    )
    .within(120),
    Test::new(
        "d62_store_read_all_the_time_on_xfs",
        "the same on XFS",
        read_all_the_time_on_xfs,
    )
    .within(120),
    Test::new(
        "d56_fill_cut_in_a_page",
        "zeros in the place of what a cut write has left out",
        cut_in_page,
    ),
    Test::new(
        "d56_fill_cut_in_a_page_buffered",
        "the same with fills through memory",
        cut_in_page_buffered,
    ),
    Test::new(
        "d56_cut_fills_beside_one_another",
        "fills of the same pages that wait for one another for ever, or undo one another",
        cut_beside,
    ),
    Test::new(
        "d66_full_btrfs",
        "space that is used up by writing over what is stored, where that is a copy",
        full_btrfs,
    ),
];

const HALF: usize = 512 << 10;
const MODES: [Fill; 2] = [Fill::Direct, Fill::Buffered];

/// A daemon that fills in this way. A module that knows one way alone is not told.
fn daemon(t: &Context, dir: &Path, fill: Fill) -> Result<Daemon> {
    let told = t.fills_in_memory() || fill == Fill::Buffered;
    let command = Command::Fill(fill);
    let setup = if told { vec![command] } else { vec![] };
    t.daemon_with(dir, &setup, &["plain"])
}

fn stored_file(dir: &Path) -> Result<PathBuf> {
    object_file(dir, "erofs,plain", "plain")
}

/// A store with the first half of the file of an image, not in use.
fn half_stored(t: &Context, dir: &Path, fill: Fill) -> Result<PathBuf> {
    let mut daemon = daemon(t, dir, fill)?;
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    let mut reader = t.block_reader(&at, 0, HALF)?;
    daemon.serve(&mut reader)?.ok("read")?;
    let mut umount = t.unmount(&at)?;
    daemon.serve(&mut umount)?.ok("umount")?;
    drop(daemon);
    let file = stored_file(dir)?;
    eventually("the file is there", SOON, || Ok(file.exists()))?;
    Ok(file)
}

/// Allocates all holes of a file: such extents a crash leaves in the middle of a direct write.
fn allocate(path: &Path) -> Result<()> {
    let file = File::options().write(true).open(path)?;
    let len = file.metadata()?.len();
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, len)?;
    Ok(file.sync_all()?)
}

/// Reads all of the image's file, block by block, and compares. What was stored is not asked for.
fn second_half_is_asked(t: &Context, daemon: &mut Daemon, at: &Path) -> Result<()> {
    let contents = t.images.contents("plain")?;
    let image = t.images.get("plain")?;
    let start = image.find(&contents[..4096])?;
    daemon.log.clear();
    let mut reader = t.block_reader(at, 0, contents.len())?;
    let data = daemon.serve(&mut reader)?.ok("read")?;
    same("the file", &data, &contents)?;
    let stored = start..start + u64::try_from(HALF)?;
    let again: Vec<_> = daemon
        .reads()
        .into_iter()
        .filter(|(off, _)| stored.contains(off))
        .collect();
    ensure!(again.is_empty(), "asked for what is stored: {again:?}");
    Ok(())
}

fn unwritten_in(t: &Context, dir: &Path, fill: Fill) -> Result<()> {
    let file = half_stored(t, dir, fill)?;
    allocate(&file)?;
    // Before it is in use, and meanwhile.
    fs::read(&file)?;
    let mut daemon = daemon(t, dir, fill)?;
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    fs::read(&file)?;
    second_half_is_asked(t, &mut daemon, &at)?;
    let mut umount = t.unmount(&at)?;
    daemon.serve(&mut umount)?.ok("umount")?;
    Ok(())
}

fn unwritten(t: &Context) -> Result<()> {
    unwritten_in(t, &t.new_dir()?, Fill::Direct)
}

fn unwritten_buffered(t: &Context) -> Result<()> {
    unwritten_in(t, &t.new_dir()?, Fill::Buffered)
}

fn unwritten_on_xfs(t: &Context) -> Result<()> {
    for fill in MODES {
        let disk = SmallDisk::xfs(t)?;
        unwritten_in(t, &disk.cache_dir()?, fill).with_context(|| format!("{fill:?}"))?;
    }
    Ok(())
}

fn read_before_search_in(t: &Context, dir: &Path, fill: Fill) -> Result<()> {
    let stops = Stops::open()?;
    let file = half_stored(t, dir, fill)?;
    allocate(&file)?;
    let mut daemon = daemon(t, dir, fill)?;
    let at = t.mount_point()?;
    stops.stop("pages-dropped")?;
    let mut mount = t.mount("fsid=plain", &at)?;
    stops.wait_parked("pages-dropped")?;
    fs::read(&file)?;
    stops.go("pages-dropped")?;
    daemon.serve(&mut mount)?.ok("mount")?;
    second_half_is_asked(t, &mut daemon, &at)?;
    let mut umount = t.unmount(&at)?;
    daemon.serve(&mut umount)?.ok("umount")?;
    Ok(())
}

fn read_before_search(t: &Context) -> Result<()> {
    for fill in MODES {
        read_before_search_in(t, &t.new_dir()?, fill).with_context(|| format!("{fill:?}"))?;
    }
    Ok(())
}

fn read_before_search_on_xfs(t: &Context) -> Result<()> {
    for fill in MODES {
        let disk = SmallDisk::xfs(t)?;
        read_before_search_in(t, &disk.cache_dir()?, fill).with_context(|| format!("{fill:?}"))?;
    }
    Ok(())
}

/// Bytes of a file that its file system calls data, once all of it was read through the page cache.
fn data_of(path: &Path) -> Result<u64> {
    let len = fs::read(path)?.len();
    let file = File::open(path)?;
    let (mut at, mut data) = (0, 0);
    while at < u64::try_from(len)? {
        let from = match rustix::fs::seek(&file, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => break,
            from => from?,
        };
        at = rustix::fs::seek(&file, SeekFrom::Hole(from))?;
        data += at - from;
    }
    Ok(data)
}

fn taken_from_file(t: &Context) -> Result<()> {
    let dir = t.new_dir()?;
    let file = half_stored(t, &dir, Fill::Direct)?;
    let (data, blocks) = (data_of(&file)?, file.metadata()?.blocks());
    allocate(&file)?;
    let allocated = file.metadata()?.blocks();
    ensure!(allocated > blocks, "{allocated} blocks, {blocks} before");
    let mut daemon = daemon(t, &dir, Fill::Direct)?;
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    let mut umount = t.unmount(&at)?;
    daemon.serve(&mut umount)?.ok("umount")?;
    drop(daemon);
    let (now, left) = (data_of(&file)?, file.metadata()?.blocks());
    ensure!(now == data, "{now} bytes are data, {data} before");
    ensure!(left <= blocks, "{left} blocks, {blocks} before");
    Ok(())
}

/// Stores every `step`-th page of the second half.
fn store_some(daemon: &Daemon, image: &Image, step: usize) -> Result<()> {
    let object = daemon.open.values().next().context("nothing is open")?;
    let pages = usize::try_from(image.size)? / 4096;
    for page in (pages / 2..pages - 1).step_by(step) {
        let off = u64::try_from(page * 4096)?;
        object.file.write_all_at(image.range(off, 4096), off)?;
    }
    Ok(())
}

fn many_extents(t: &Context) -> Result<()> {
    let image = t.images.get("plain")?;
    for step in [2, 3, 7] {
        let dir = t.new_dir()?;
        let mut before = daemon(t, &dir, Fill::Direct)?;
        let at = t.mounted(&mut before, "fsid=plain")?;
        store_some(&before, &image, step)?;
        let mut umount = t.unmount(&at)?;
        before.serve(&mut umount)?.ok("umount")?;
        drop(before);
        let file = stored_file(&dir)?;
        let data = data_of(&file)?;
        allocate(&file)?;
        fs::read(&file)?;
        let mut daemon = daemon(t, &dir, Fill::Direct)?;
        let at = t.mounted(&mut daemon, "fsid=plain")?;
        fs::read(&file)?;
        daemon.log.clear();
        let contents = t.images.contents("plain")?;
        let mut reader = t.block_reader(&at, 0, contents.len())?;
        let read = daemon.serve(&mut reader)?.ok("read")?;
        same("the file", &read, &contents)?;
        let asked: u64 = daemon.reads().iter().map(|(_, len)| len).sum();
        ensure!(
            asked + data <= image.size,
            "{asked} bytes asked for, {data} of {} were stored",
            image.size
        );
        let mut umount = t.unmount(&at)?;
        daemon.serve(&mut umount)?.ok("umount")?;
    }
    Ok(())
}

fn small_blocks(t: &Context) -> Result<()> {
    let disk = SmallDisk::with_blocks(t, 1024)?;
    let dir = disk.cache_dir()?;
    unwritten_in(t, &dir, Fill::Direct)?;
    // Now all is stored. Of a page of the second half only one block, of another all but one.
    let path = stored_file(&dir)?;
    let image = t.images.get("plain")?;
    let contents = t.images.contents("plain")?;
    let start = image.find(&contents[HALF..HALF + 4096])?;
    let file = File::options().write(true).open(&path)?;
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, punch, start + 1024, 3072)?;
    rustix::fs::fallocate(&file, punch, start + 8192, 1024)?;
    rustix::fs::fallocate(&file, FallocateFlags::empty(), start, 16384)?;
    drop(file);
    fs::read(&path)?;
    let mut daemon = daemon(t, &dir, Fill::Direct)?;
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    daemon.log.clear();
    let mut reader = t.block_reader(&at, 0, contents.len())?;
    let data = daemon.serve(&mut reader)?.ok("read")?;
    same("the file", &data, &contents)?;
    let wanted = [(start, 4096), (start + 8192, 4096)];
    ensure!(daemon.reads() == wanted, "asked for {:?}", daemon.reads());
    Ok(())
}

/// Reads all files below `dir` until it is told to stop, and lets their pages go every second time.
fn read_files(dir: &Path, stop: &AtomicBool, rounds: &AtomicUsize) {
    let mut dirs = vec![dir.to_owned()];
    let mut files = vec![];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                files.push(path);
            }
        }
    }
    while !stop.load(Ordering::Relaxed) {
        let round = rounds.fetch_add(1, Ordering::Relaxed);
        for path in &files {
            // It may be gone, or be replaced: then there is nothing to read.
            let _ = fs::read(path);
            if let (Ok(file), 1) = (File::open(path), round % 2) {
                let _ = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed);
            }
        }
    }
}

fn read_all_the_time_in(t: &Context, dir: &Path, fill: Fill) -> Result<()> {
    let contents = t.images.contents("plain")?;
    let file = half_stored(t, dir, fill)?;
    allocate(&file)?;
    let (stop, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| read_files(dir, &stop, &rounds));
        let result = (|| {
            let begun = rounds.load(Ordering::Relaxed);
            let mut daemon = daemon(t, dir, fill)?;
            let at = t.mounted(&mut daemon, "fsid=plain")?;
            // Small fills first, then large ones.
            let part = HALF + HALF / 2;
            let mut reader = t.block_reader(&at, 0, part)?;
            let data = daemon.serve(&mut reader)?.ok("read")?;
            same("the first part", &data, &contents[..part])?;
            let mut reader = t.reader(&at, 0, contents.len())?;
            let data = daemon.serve(&mut reader)?.ok("read")?;
            same("the file", &data, &contents)?;
            // All again, from what is stored, while it comes to the disk and after that.
            daemon.log.clear();
            for _ in 0..3 {
                drop_caches()?;
                let mut reader = t.reader(&at, 0, contents.len())?;
                let data = daemon.serve(&mut reader)?.ok("read")?;
                same("the stored file", &data, &contents)?;
                let wanted = rounds.load(Ordering::Relaxed) + 4;
                eventually("the files are read", SOON, || {
                    Ok(rounds.load(Ordering::Relaxed) >= wanted)
                })?;
            }
            ensure!(
                daemon.reads().is_empty(),
                "asked again: {:?}",
                daemon.reads()
            );
            let mut umount = t.unmount(&at)?;
            daemon.serve(&mut umount)?.ok("umount")?;
            drop(daemon);
            let mut daemon = self::daemon(t, dir, fill)?;
            let data = read_once(t, &mut daemon, "fsid=plain")?;
            same("the file, mounted again", &data, &contents)?;
            ensure!(
                daemon.reads().is_empty(),
                "asked again: {:?}",
                daemon.reads()
            );
            ensure!(
                rounds.load(Ordering::Relaxed) > begun + 8,
                "nobody has read"
            );
            Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        ensure!(reading.join().is_ok(), "the reader of files panicked");
        result
    })
}

fn read_all_the_time(t: &Context) -> Result<()> {
    for fill in MODES {
        read_all_the_time_in(t, &t.new_dir()?, fill).with_context(|| format!("{fill:?}"))?;
    }
    Ok(())
}

fn read_all_the_time_on_xfs(t: &Context) -> Result<()> {
    for fill in MODES {
        let disk = SmallDisk::xfs(t)?;
        read_all_the_time_in(t, &disk.cache_dir()?, fill).with_context(|| format!("{fill:?}"))?;
    }
    Ok(())
}

/// Lets this process write files no longer than `len` meanwhile. A write that begins below it is cut, without a
/// signal.
fn limited<T>(len: u64, call: impl FnOnce() -> T) -> Result<T> {
    let old = getrlimit(Resource::Fsize);
    let new = Rlimit {
        current: Some(len),
        maximum: old.maximum,
    };
    setrlimit(Resource::Fsize, new)?;
    let result = call();
    setrlimit(Resource::Fsize, old)?;
    Ok(result)
}

fn cut(t: &Context, fill: Fill, written: u64) -> Result<()> {
    let dir = t.new_dir()?;
    let mut daemon = daemon(t, &dir, fill)?;
    let image = t.images.get("plain")?;
    let contents = t.images.contents("plain")?;
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    let off = image.find(&contents[HALF..HALF + 4096])?;
    let object = daemon.open.values().next().context("nothing is open")?;
    let cut_at = |len: u64| {
        let data = image.range(off, 8192);
        limited(off + len, || object.file.write_at(data, off))
    };
    // What is left of a page is none of it: as if the limit were there.
    let result = cut_at(written)?;
    let tail = cut_at(written - 4096)?;
    let errno = tail.as_ref().err().and_then(cachefiles_proto::Error::errno);
    let hole = object.file.seek_hole(off)?;
    let mut reader = t.block_reader(&at, HALF, 8192)?;
    let data = daemon.serve(&mut reader)?.ok("read")?;
    same("what was cut", &data, &contents[HALF..HALF + 8192])?;
    ensure!(result? == 4096, "the write that was cut");
    ensure!(errno == Some(Errno::FBIG), "not even a page: {tail:?}");
    ensure!(
        hole == Some(off + 4096),
        "the hole is at {hole:?}, not {off} + 4096"
    );

    // The same again, and nobody asks for it: then it is a hole of the file.
    let off = off + 16384;
    let object = daemon.open.values().next().context("nothing is open")?;
    let data = image.range(off, 8192);
    ensure!(
        limited(off + written, || object.file.write_at(data, off))?? == 4096,
        "the second write that was cut"
    );
    let mut umount = t.unmount(&at)?;
    daemon.serve(&mut umount)?.ok("umount")?;
    drop(daemon);
    let file = stored_file(&dir)?;
    fs::read(&file)?;
    let hole = rustix::fs::seek(&File::open(&file)?, SeekFrom::Hole(off))?;
    ensure!(
        hole == off + 4096,
        "the file's hole is at {hole}, not {off} + 4096"
    );
    let mut daemon = self::daemon(t, &dir, fill)?;
    let data = read_once(t, &mut daemon, "fsid=plain")?;
    same("the file", &data, &contents)
}

fn cut_in_page(t: &Context) -> Result<()> {
    // A direct write is cut where it can be, at a sector.
    cut(t, Fill::Direct, 5120)
}

fn cut_in_page_buffered(t: &Context) -> Result<()> {
    cut(t, Fill::Buffered, 5000)
}

fn cut_beside(t: &Context) -> Result<()> {
    const ROUNDS: usize = 100;
    for fill in MODES {
        let dir = t.new_dir()?;
        let mut daemon = daemon(t, &dir, fill)?;
        let image = t.images.get("plain")?;
        let contents = t.images.contents("plain")?;
        let at = t.mounted(&mut daemon, "fsid=plain")?;
        let off = image.find(&contents[HALF..HALF + 4096])?;
        let opened = daemon.open.values().next().context("nothing is open")?;
        limited(off + 9216, || -> Result<()> {
            let threads = (0..3).map(|thread| {
                let file = rustix::io::fcntl_dupfd_cloexec(&opened.file, 3)?;
                let image = image.clone();
                // One that is whole, one that ends in the middle, one that hardly begins.
                let (from, len) = [(0, 8192), (4096, 8192), (8192, 8192)][thread];
                Aside::start("fills that are cut", move || {
                    let data = image.range(off + from, len);
                    for _ in 0..ROUNDS {
                        match rustix::io::pwrite(&file, data, off + from) {
                            Ok(written) => assert_eq!(written % 4096, 0),
                            Err(errno) => assert_eq!(errno, Errno::FBIG),
                        }
                    }
                })
            });
            for thread in threads.collect::<Result<Vec<_>>>()? {
                thread.end()?;
            }
            Ok(())
        })??;
        // The first two pages were written whole in every round, and stay.
        let hole = opened.file.seek_hole(off)?;
        ensure!(
            hole == Some(off + 8192),
            "{fill:?}: the hole is at {hole:?}"
        );
        let mut reader = t.block_reader(&at, HALF, 16384)?;
        let data = daemon.serve(&mut reader)?.ok("read")?;
        same("the file", &data, &contents[HALF..HALF + 16384])?;
        let mut umount = t.unmount(&at)?;
        daemon.serve(&mut umount)?.ok("umount")?;
    }
    Ok(())
}

fn full_btrfs(t: &Context) -> Result<()> {
    let disk = SmallDisk::btrfs(t)?;
    let dir = disk.cache_dir()?;
    half_stored(t, &dir, Fill::Direct)?;
    let device = t.device()?;
    for limit in ["brun 99%", "bcull 98%", "bstop 97%"] {
        device.write_bytes(limit.as_bytes()).context(limit)?;
    }
    device.send(&Command::Dir(dir))?;
    device.send(&Command::BindOnDemand)?;
    let mut daemon = Daemon::from_device(device);
    let image = t.images.get("plain")?;
    daemon.images.push(image.clone());
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    let contents = t.images.contents("plain")?;
    let off = image.find(&contents[..4096])?;
    let ballast = File::create(disk.dir.join("ballast"))?;
    rustix::fs::fallocate(&ballast, FallocateFlags::empty(), 0, 64 << 20)?;
    let object = daemon.open.values().next().context("nothing is open")?;
    let refused = object.file.write_at(image.range(off, 4096), off);
    let errno = refused
        .as_ref()
        .err()
        .and_then(cachefiles_proto::Error::errno);
    ensure!(
        errno == Some(Errno::NOBUFS),
        "over what is stored: {refused:?}"
    );
    let mut reader = t.block_reader(&at, 0, HALF)?;
    let data = daemon.serve(&mut reader)?.ok("read")?;
    same("what is stored", &data, &contents[..HALF])
}
