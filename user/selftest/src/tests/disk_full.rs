// SPDX-License-Identifier: MIT OR Apache-2.0

//! Limits: when the daemon is asked to cull, and what a full disk does to readers.

use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;
use std::time::Instant;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Command;
use cachefiles_proto::Device;
use cachefiles_proto::Message;
use cachefiles_proto::Readiness;
use ondemand_deadline::scaled;
use rustix::io::Errno;

use crate::harness::drop_caches;
use crate::harness::errno_of;
use crate::harness::eventually;
use crate::harness::expect_errno;
use crate::harness::same;
use crate::harness::skip;
use crate::harness::store::eventually_idle;
use crate::harness::store::object_file;
use crate::harness::store::parent;
use crate::harness::store::read_once;
use crate::harness::wait::at_once;
use crate::harness::wait::received;
use crate::harness::Context;
use crate::harness::Daemon;
use crate::harness::SmallDisk;
use crate::harness::Test;
use crate::harness::MOUNT_FAILS;
use crate::harness::SOON;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "d28_limits_after_bind",
        "limits that are accepted when they have no effect any more",
        limits_after_bind,
    ),
    Test::new(
        "limits_ask_for_culling",
        "a daemon that is asked to cull too early, too late, or for ever",
        ask_for_culling,
    ),
    Test::new(
        "limits_at_bind",
        "a cache that is too full from the start, and nobody is told",
        at_bind,
    ),
    Test::new(
        "limits_space_given_back",
        "a daemon that is asked to cull although there is space again",
        space_given_back,
    ),
    Test::new(
        "d63_poll_asks_no_disk",
        "a disk that is asked for its space in each poll, and holds up the messages that do not need it",
        poll_asks_no_disk,
    ),
    Test::new(
        "limits_wake_culler",
        "a daemon that sleeps when culling is wanted",
        wake_culler,
    ),
    Test::new("limits_files", "files that are not counted", files),
    Test::new(
        "disk_full",
        "a full disk that takes more than what is new: cached data, other mounts, the cache",
        full,
    )
    .within(120),
];

/// Only culling is waited for.
const CULL: Readiness = Readiness {
    message: false,
    cull: true,
    dead: false,
};

/// Mebibytes of the disks here: an image of one is two hundredths and a half.
pub(super) const DISK: u64 = 40;

fn limits_after_bind(t: &Context) -> Result<()> {
    let daemon = t.daemon(&[])?;
    for word in ["brun", "bcull", "bstop", "frun", "fcull", "fstop"] {
        // In order, were it not for the state of the cache.
        let percent = match &word[1..] {
            "run" => 8,
            "cull" => 6,
            _ => 2,
        };
        let command = format!("{word} {percent}%");
        expect_errno(&command, daemon.command(&command), &[Errno::BUSY])?;
    }
    daemon.restore().context("the cache is alive")
}

/// Binds to a directory of the disk with these limits on blocks.
pub(super) fn bound(t: &Context, disk: &SmallDisk, limits: &[&str]) -> Result<(Daemon, PathBuf)> {
    let dir = disk.cache_dir()?;
    let device = t.device()?;
    for limit in limits {
        device
            .write_bytes(limit.as_bytes())
            .with_context(|| (*limit).to_owned())?;
    }
    device.send(&Command::Dir(dir.clone()))?;
    device.send(&Command::BindOnDemand)?;
    let mut daemon = Daemon::from_device(device);
    for name in ["small", "plain", "twin"] {
        daemon.images.push(t.images.get(name)?);
    }
    Ok((daemon, dir))
}

/// Run at half, cull at 40 %, stop at 10 %.
pub(super) const BLOCKS: &[&str] = &["brun 50%", "bcull 40%", "bstop 10%"];

/// What poll says now: asked alone, and together with messages.
fn wants_culling(device: &Device) -> Result<bool> {
    let alone = device.wait(CULL, Some(Duration::ZERO))?;
    let both = Readiness {
        message: true,
        ..CULL
    };
    let both = device.wait(both, Some(Duration::ZERO))?;
    ensure!(!alone.dead, "the cache died");
    ensure!(alone.cull == both.cull, "{alone:?}, but {both:?}");
    Ok(alone.cull)
}

fn culling_is(daemon: &Daemon, wanted: bool, when: &str) -> Result<()> {
    let wants = wants_culling(&daemon.device)?;
    ensure!(wants == wanted, "culling wanted {when}: {wants}");
    Ok(())
}

/// Data is written over what the object `small` has, which makes the cache look at the space.
fn look(t: &Context, daemon: &mut Daemon, at: &Path) -> Result<()> {
    drop_caches()?;
    let mut reader = t.reader(at, 0, 4096)?;
    daemon.serve(&mut reader)?.ok("read")?;
    let small = t.images.get("small")?;
    for object in daemon.open.values() {
        if object.image.name == small.name {
            object.file.write_all_at(small.range(0, 4096), 0)?;
        }
    }
    Ok(())
}

fn ask_for_culling(t: &Context) -> Result<()> {
    let disk = SmallDisk::new(t, DISK)?;
    let ballast = disk.ballast()?;
    let (mut daemon, _) = bound(t, &disk, BLOCKS)?;
    let at = t.mounted(&mut daemon, "fsid=small")?;
    culling_is(&daemon, false, "on an empty disk")?;
    for (percent, wanted) in [
        // Between cull and run nothing changes.
        (45, false),
        (41, false),
        (39, true),
        (45, true),
        (49, true),
        (51, false),
        (45, false),
        (39, true),
        // Below stop it is wanted all the more.
        (5, true),
        (60, false),
    ] {
        ballast.leave(percent, 0)?;
        look(t, &mut daemon, &at)
            .or_else(|error| if percent < 10 { Ok(()) } else { Err(error) })?;
        culling_is(&daemon, wanted, &format!("with {percent} % available"))?;
    }
    Ok(())
}

fn at_bind(t: &Context) -> Result<()> {
    let disk = SmallDisk::new(t, DISK)?;
    let ballast = disk.ballast()?;
    ballast.leave(30, 0)?;
    let (daemon, _) = bound(t, &disk, BLOCKS)?;
    culling_is(&daemon, true, "at bind with 30 % available")?;
    drop(daemon);
    ballast.leave(60, 0)?;
    let daemon = t.daemon_in(&disk.dir.join("c"))?;
    culling_is(&daemon, false, "at bind with 60 % available")
}

fn space_given_back(t: &Context) -> Result<()> {
    let disk = SmallDisk::new(t, DISK)?;
    let ballast = disk.ballast()?;
    let (mut daemon, dir) = bound(t, &disk, BLOCKS)?;
    read_once(t, &mut daemon, "fsid=plain")?;
    let file = object_file(&dir, "erofs,plain", "plain")?;
    ballast.leave(39, 0)?;
    read_once(t, &mut daemon, "fsid=small")?;
    culling_is(&daemon, true, "with 39 % available")?;
    // Somebody else gives back: who polls has it looked at.
    ballast.leave(49, 0)?;
    culling_is(&daemon, true, "with 49 % available")?;
    ballast.leave(60, 0)?;
    eventually(
        "with 60 % available culling is wanted no more",
        SOON,
        || Ok(!wants_culling(&daemon.device)?),
    )?;

    // The object that is culled is what was too much.
    ballast.leave(39, 0)?;
    read_once(t, &mut daemon, "fsid=twin")?;
    culling_is(&daemon, true, "with 39 % available again")?;
    ballast.leave(50, 100)?;
    culling_is(&daemon, true, "just before the object is culled")?;
    std::env::set_current_dir(parent(&file)?)?;
    eventually_idle("Dplain", &mut daemon)?;
    daemon.command("cull Dplain").context("cull")?;
    std::env::set_current_dir("/")?;
    culling_is(&daemon, false, "after the object was culled")
}

/// Calls of a function of the kernel by this process, while it does something.
fn calls_of(function: &str, work: impl FnOnce() -> Result<()>) -> Result<usize> {
    let tracing = Path::new("/sys/kernel/tracing");
    let probes = tracing.join("kprobe_events");
    let add = |line: &str| -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new().append(true).open(&probes)?;
        file.write_all(line.as_bytes())
    };
    if add(&format!("p:ondemand_selftest/{function} {function}\n")).is_err() {
        return skip("no kprobe events");
    }
    let enable = tracing.join(format!("events/ondemand_selftest/{function}/enable"));
    let traced = || -> Result<String> {
        std::fs::write(tracing.join("trace"), "")?;
        std::fs::write(&enable, "1")?;
        work()?;
        Ok(std::fs::read_to_string(tracing.join("trace"))?)
    };
    let trace = traced();
    std::fs::write(&enable, "0")?;
    add(&format!("-:ondemand_selftest/{function}\n"))?;
    let (task, call) = (
        format!("-{} ", std::process::id()),
        format!(" {function}: "),
    );
    Ok(trace?
        .lines()
        .filter(|line| line.contains(&task) && line.contains(&call))
        .count())
}

fn poll_asks_no_disk(t: &Context) -> Result<()> {
    let disk = SmallDisk::new(t, DISK)?;
    let ballast = disk.ballast()?;
    let (mut daemon, _) = bound(t, &disk, BLOCKS)?;
    ballast.leave(39, 0)?;
    read_once(t, &mut daemon, "fsid=small")?;
    culling_is(&daemon, true, "with 39 % available")?;
    let calls = calls_of("vfs_statfs", || {
        for _ in 0..200 {
            culling_is(&daemon, true, "with 39 % available")?;
        }
        Ok(())
    })?;
    ensure!(calls == 0, "{calls} times in 200 polls");
    Ok(())
}

fn wake_culler(t: &Context) -> Result<()> {
    let disk = SmallDisk::new(t, DISK)?;
    let ballast = disk.ballast()?;
    let (mut daemon, _) = bound(t, &disk, BLOCKS)?;
    let at = t.mounted(&mut daemon, "fsid=small")?;
    ballast.leave(30, 0)?;
    culling_is(&daemon, false, "before anybody has looked")?;
    let device = Device::from_owned_fd(rustix::io::fcntl_dupfd_cloexec(&daemon.device, 3)?)?;
    let (tell, told) = mpsc::channel();
    std::thread::scope(|scope| {
        let culler = scope.spawn(|| {
            let _ = tell.send(rustix::thread::gettid());
            device.wait(CULL, Some(scaled(SOON)))
        });
        let thread = received(&told, SOON)?.as_raw_nonzero();
        let wchan = format!("/proc/self/task/{thread}/wchan");
        eventually("the culler sleeps in poll", SOON, || {
            Ok(std::fs::read_to_string(&wchan)?.contains("poll"))
        })?;
        let start = Instant::now();
        look(t, &mut daemon, &at)?;
        let woken = culler
            .join()
            .map_err(|_| anyhow::anyhow!("the culler panicked"))??;
        ensure!(woken.cull, "not woken: {woken:?}");
        at_once("woken", start.elapsed())
    })
}

fn files(t: &Context) -> Result<()> {
    let disk = SmallDisk::new(t, DISK)?;
    let (mut daemon, _) = bound(t, &disk, &["frun 70%", "fcull 60%", "fstop 50%"])?;
    read_once(t, &mut daemon, "fsid=small")?;
    culling_is(&daemon, false, "on an empty disk")?;
    let all = rustix::fs::statvfs(&disk.dir)?.f_files;
    let dir = disk.dir.join("many");
    std::fs::create_dir(&dir)?;
    for number in 0..all * 11 / 20 {
        std::fs::File::create(dir.join(number.to_string()))?;
    }
    let at = t.mount_point()?;
    let mut mount = t.mount("fsid=twin", &at)?;
    daemon
        .serve(&mut mount)?
        .fails("a mount that needs a new file", MOUNT_FAILS)?;
    culling_is(&daemon, true, "without files")?;
    std::fs::remove_dir_all(&dir)?;
    let data = read_once(t, &mut daemon, "fsid=twin")?;
    same("the new image", &data, &t.images.contents("twin")?)?;
    culling_is(&daemon, false, "with files again")
}

fn full(t: &Context) -> Result<()> {
    const HALF: usize = 512 << 10;
    let disk = SmallDisk::new(t, DISK)?;
    let ballast = disk.ballast()?;
    let (mut daemon, _) = bound(t, &disk, BLOCKS)?;
    let plain = t.images.get("plain")?;
    let expected = t.images.contents("plain")?;
    let small = t.images.contents("small")?;
    // One image that is half there, one that is there and mounted, one that is only stored.
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    let mut reader = t.reader(&at, 0, HALF)?;
    daemon.serve(&mut reader)?.ok("read")?;
    let at_small = t.mounted(&mut daemon, "fsid=small")?;
    let mut reader = t.reader(&at_small, 0, small.len())?;
    daemon.serve(&mut reader)?.ok("read")?;
    daemon.images.push(plain.named("stored"));
    let data = read_once(t, &mut daemon, "fsid=stored")?;
    same("the stored image", &data, &expected)?;

    ballast.leave(9, 0)?;
    drop_caches()?;
    let mut reader = t.block_reader(&at, expected.len() - 4096, 4096)?;
    let mut reads = 0;
    let outcome = daemon.serve_with(&mut reader, |daemon, message| {
        let Message::Read(read) = message else {
            anyhow::bail!("should be a READ: {message:?}");
        };
        // The page is read again when its readahead has failed.
        reads += 1;
        ensure!(reads < 8, "asked again and again: {read:?}");
        let file = &daemon.object(read.object_id)?.file;
        let data = plain.range(read.off, read.len);
        let written = errno_of(file.write_at(data, read.off))?;
        ensure!(written == Some(Errno::NOBUFS), "new data: {written:?}");
        Ok(file.read_complete(read.msg_id)?)
    })?;
    outcome.fails("a reader of what is not stored", &[Errno::IO])?;

    // What is stored is read, mounted or not, and can be stored again.
    let offset = plain.find(&expected[..4096])?;
    let object = daemon.open.values().find(|it| it.image.name == "plain");
    object
        .context("plain is not open")?
        .file
        .write_all_at(plain.range(offset, 4096), offset)
        .context("writing over what is stored")?;
    let nothing = |_: &mut Daemon, message| anyhow::bail!("should be cached: {message:?}");
    drop_caches()?;
    let mut reader = t.block_reader(&at, 0, HALF)?;
    let data = daemon.serve_with(&mut reader, nothing)?.ok("cached read")?;
    same("the stored half", &data, &expected[..HALF])?;
    let mut reader = t.block_reader(&at_small, 0, small.len())?;
    let data = daemon.serve_with(&mut reader, nothing)?.ok("cached read")?;
    same("the other mount", &data, &small)?;
    let at_stored = t.mounted(&mut daemon, "fsid=stored")?;
    let mut reader = t.reader(&at_stored, 0, expected.len())?;
    let data = daemon.serve_with(&mut reader, nothing)?.ok("cached read")?;
    same("the stored image, mounted again", &data, &expected)?;
    let mut mount = t.mount("fsid=twin", &t.mount_point()?)?;
    daemon
        .serve(&mut mount)?
        .fails("a mount of what is not stored", MOUNT_FAILS)?;

    // With space again all is as before.
    ballast.clear()?;
    drop_caches()?;
    let mut reader = t.reader(&at, 0, expected.len())?;
    let data = daemon.serve(&mut reader)?.ok("read with space again")?;
    same("the file", &data, &expected)?;
    let data = read_once(t, &mut daemon, "fsid=twin")?;
    same("the new image", &data, &t.images.contents("twin")?)
}
