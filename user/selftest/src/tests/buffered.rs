// SPDX-License-Identifier: MIT OR Apache-2.0

//! `fill buffered`: small fills that are in memory first.
//!
//! All other tests can be run in this mode, too: `ondemand-selftest --setup "fill buffered"`. What is on
//! the disk after a loss of power: `scripts/vm/power-cut --setup "fill buffered"`.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::AnonymousFile;
use cachefiles_proto::Command;
use cachefiles_proto::Device;
use cachefiles_proto::Fill;
use rustix::io::Errno;
use rustix::thread::CpuSet;

use crate::harness::drop_caches;
use crate::harness::errno_of;
use crate::harness::eventually;
use crate::harness::expect_errno;
use crate::harness::same;
use crate::harness::skip;
use crate::harness::store::eventually_idle;
use crate::harness::store::in_memory;
use crate::harness::store::object_file;
use crate::harness::store::parent;
use crate::harness::Aside;
use crate::harness::Context;
use crate::harness::Daemon;
use crate::harness::Stops;
use crate::harness::Test;
use crate::harness::SOON;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "buffered_command",
        "a way of filling that is not there, or that is set too late",
        command,
    ),
    Test::new(
        "buffered_given_back",
        "memory that data takes twice for ever, or data that is gone with it",
        given_back,
    ),
    Test::new(
        "buffered_given_back_little",
        "memory of a fill that is smaller than what a processor collects before it lists pages",
        given_back_little,
    ),
    Test::new(
        "buffered_beside_large_fills",
        "old data from memory where a large fill has been, or the other way round",
        beside_large_fills,
    ),
    Test::new(
        "d55_stop_settle_wanted_umounted",
        "work of a withdrawn object that waits for its time: when that comes the module, and the queue, may be gone",
        settle_wanted_umounted,
    ),
];

/// A device that is to fill through memory, not bound yet.
fn device(t: &Context, dir: &Path) -> Result<Device> {
    let device = t.device()?;
    device
        .send(&Command::Fill(Fill::Buffered))
        .context("fill buffered")?;
    device.send(&Command::Dir(dir.to_owned()))?;
    Ok(device)
}

/// A daemon of a cache that is filled through memory.
pub(super) fn daemon(t: &Context, dir: &Path) -> Result<Daemon> {
    t.daemon_with(dir, &[Command::Fill(Fill::Buffered)], &["plain"])
}

fn command(t: &Context) -> Result<()> {
    let device = device(t, &t.new_dir()?)?;
    for text in ["fill", "fill cached", "fill buffered "] {
        let result = device.write_bytes(text.as_bytes());
        expect_errno(text, result, &[Errno::INVAL])?;
    }
    device.send(&Command::BindOnDemand)?;
    let busy = errno_of(device.send(&Command::Fill(Fill::Direct)))?;
    ensure!(busy == Some(Errno::BUSY), "after bind: {busy:?}");
    Ok(())
}

fn given_back(t: &Context) -> Result<()> {
    let dir = t.new_dir()?;
    let mut daemon = daemon(t, &dir)?;
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    let file = object_file(&dir, "erofs,plain", "plain")?;
    let contents = t.images.contents("plain")?;
    let mut reader = t.block_reader(&at, 0, 256 << 10)?;
    let data = daemon.serve(&mut reader)?.ok("read")?;
    same("what was filled", &data, &contents[..256 << 10])?;
    let reads = daemon.reads();
    ensure!(
        reads.iter().all(|(_, len)| *len < 64 << 10),
        "these are no small fills: {reads:?}"
    );
    eventually("the memory is given back", SOON, || {
        Ok(in_memory(&file)? == 0)
    })?;
    // It is on the disk, and nobody is asked for it again.
    daemon.log.clear();
    drop_caches()?;
    let mut reader = t.block_reader(&at, 0, 256 << 10)?;
    let data = daemon.serve(&mut reader)?.ok("read")?;
    same("what was on the disk", &data, &contents[..256 << 10])?;
    ensure!(
        daemon.reads().is_empty(),
        "asked again: {:?}",
        daemon.reads()
    );
    Ok(())
}

fn given_back_little(t: &Context) -> Result<()> {
    // The pages of a fill stay with the processor that it ran on until that has some more: so
    // everything else is to happen on another one.
    let here = rustix::thread::sched_getaffinity(None)?;
    let mut cpus = (0..CpuSet::MAX_CPU).filter(|&cpu| here.is_set(cpu));
    let (Some(of_others), Some(of_fill)) = (cpus.next(), cpus.next()) else {
        return skip("one processor");
    };
    let dir = t.new_dir()?;
    let mut daemon = daemon(t, &dir)?;
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    let file = object_file(&dir, "erofs,plain", "plain")?;
    eventually("what the mount read is on the disk", SOON, || {
        Ok(in_memory(&file)? == 0)
    })?;
    let (_, object) = daemon.open.first_key_value().context("not open")?;
    let block = mockd::image::Aligned::new(t.images.get("plain")?.range(512 << 10, 4096));
    let of_workers = Path::new("/sys/devices/virtual/workqueue/cpumask");
    let old = std::fs::read_to_string(of_workers).context("cpumask")?;
    std::fs::write(of_workers, format!("{:x}", 1 << of_others)).context("cpumask")?;
    let result = (|| {
        run_on(of_fill)?;
        object.file.write_all_at(block.get(), 512 << 10)?;
        run_on(of_others)?;
        ensure!(in_memory(&file)? > 0, "this is no fill through memory");
        eventually("the memory is given back", SOON, || {
            Ok(in_memory(&file)? == 0)
        })
    })();
    std::fs::write(of_workers, old.trim()).context("cpumask")?;
    rustix::thread::sched_setaffinity(None, &here)?;
    result?;
    t.unmount(&at)?.wait(SOON)?.ok("umount")?;
    Ok(())
}

/// Has this thread, and what it starts, run on one processor.
fn run_on(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).context("sched_setaffinity")
}

fn beside_large_fills(t: &Context) -> Result<()> {
    let dir = t.new_dir()?;
    let mut daemon = daemon(t, &dir)?;
    let image = t.images.get("plain")?;
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    let contents = t.images.contents("plain")?;
    let start = image.find(&contents[..4096])?;
    // One block of other data through memory, then all around it directly: the last one counts.
    let (_, object) = daemon.open.first_key_value().context("not open")?;
    let old = mockd::image::Aligned::new(&[0x5a; 4096]);
    let block = start + (64 << 10);
    object.file.write_all_at(old.get(), block)?;
    let large = image.range(start, 256 << 10);
    object.file.write_all_at(large, start)?;
    // And a small fill over what was stored by a large one, with the same data.
    object
        .file
        .write_all_at(image.range(block + 4096, 8192), block + 4096)?;
    daemon.log.clear();
    for _ in 0..2 {
        let mut reader = t.block_reader(&at, 0, 256 << 10)?;
        let data = daemon.serve(&mut reader)?.ok("read")?;
        same("the file", &data, &contents[..256 << 10])?;
        drop_caches()?;
    }
    ensure!(daemon.reads().is_empty(), "asked for what is stored");
    Ok(())
}

fn settle_wanted_umounted(t: &Context) -> Result<()> {
    const WANTED: &str = "settle-wanted";
    const WORK: &str = "settle-work";
    /// Work that waits does so for a second.
    const LONGER: Duration = Duration::from_millis(2500);
    let stops = Stops::open()?;
    let dir = t.new_dir()?;
    let mut daemon = daemon(t, &dir)?;
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    let file = object_file(&dir, "erofs,plain", "plain")?;
    eventually("what the mount read is on the disk", SOON, || {
        Ok(file.exists() && in_memory(&file)? == 0)
    })?;
    let (_, object) = daemon.open.first_key_value().context("not open")?;
    let its_file: AnonymousFile = object.file.as_fd().try_clone_to_owned()?.into();
    let block = mockd::image::Aligned::new(t.images.get("plain")?.range(512 << 10, 4096));
    stops.stop(WANTED)?;
    let fill = Aside::start("fill", move || {
        its_file.write_all_at(block.get(), 512 << 10)
    })?;
    stops.wait_parked(WANTED)?;
    t.unmount(&at)?.wait(SOON)?.ok("umount")?;
    std::env::set_current_dir(parent(&file)?)?;
    eventually_idle("Dplain", &mut daemon)?;
    std::env::set_current_dir("/")?;
    // The object is withdrawn: what is queued from now on is waited for by nobody.
    stops.stop(WORK)?;
    stops.go(WANTED)?;
    fill.end()?.context("fill")?;
    let begun = Instant::now();
    eventually("the time of the work comes", SOON, || {
        Ok(begun.elapsed() > LONGER)
    })?;
    let queued = stops.parked(WORK)?;
    stops.go(WORK)?;
    ensure!(!queued, "work of an object that is withdrawn was queued");
    Ok(())
}
