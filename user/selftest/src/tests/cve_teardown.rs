// SPDX-License-Identifier: MIT OR Apache-2.0

//! Published races around the end of objects, volumes and caches: each for a bounded number of
//! rounds. What is told of each is what the C module did before it was mended.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Buffer;
use cachefiles_proto::Command;
use cachefiles_proto::Device;
use cachefiles_proto::Readiness;
use mockd::files::close_under_users;
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::harness::drop_caches;
use crate::harness::errno_of;
use crate::harness::eventually;
use crate::harness::same;
use crate::harness::store::object_file;
use crate::harness::Context;
use crate::harness::Mock;
use crate::harness::Outcome;
use crate::harness::SmallDisk;
use crate::harness::Stage;
use crate::harness::Task;
use crate::harness::Test;
use crate::harness::SOON;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "cve_2024_26840_credentials_of_binds",
        "credentials that are lost with each bind, or each that fails",
        credentials_of_binds,
    )
    .within(180),
    Test::new(
        "cve_2024_40900_close_device_beside_read",
        "requests that are found, and used, after the device that they were for was closed",
        close_device_beside_read,
    )
    .within(180),
    Test::new(
        "cve_2024_41051_umount_with_reopen_pending",
        "the work of a reopen that outlives its object",
        umount_with_reopen_pending,
    )
    .within(180),
    Test::new(
        "cve_2024_41057_killed_during_mount",
        "a volume that is freed while an object in it is looked up",
        killed_during_mount,
    )
    .within(180),
    Test::new(
        "cve_2024_41058_failing_mount_beside_death",
        "a volume that is freed, and still found when the cache is withdrawn",
        failing_mount_beside_death,
    )
    .within(180),
    Test::new(
        "cve_2024_49870_cull_beside_mount",
        "a reference to a directory entry that is lost, and keeps the store's disk mounted",
        cull_beside_mount,
    )
    .within(180),
    Test::new(
        "cve_2024_56549_write_and_seek_beside_umount",
        "a write to, or a seek in, an anonymous file whose object is just being withdrawn",
        write_and_seek_beside_umount,
    )
    .within(180),
];

/// Credentials that are in use, and those that are cached, if the kernel tells. If it does not,
/// kmemleak does on the debug kernel.
fn credentials() -> Result<u64> {
    let slabs = fs::read_to_string("/proc/slabinfo").unwrap_or_default();
    let line = slabs.lines().find(|line| line.starts_with("cred"));
    let Some(line) = line else { return Ok(0) };
    let active = line.split_whitespace().nth(1);
    Ok(active.context("/proc/slabinfo")?.parse()?)
}

fn credentials_of_binds(t: &Context) -> Result<()> {
    const ROUNDS: u64 = 100;
    let bound = t.new_dir()?;
    let file = t.new_dir()?.join("file");
    fs::write(&file, "")?;
    let before = credentials()?;
    println!("{before} credentials before");
    for _ in 0..ROUNDS {
        drop(t.daemon_in(&bound)?);
        let device = t.device()?;
        // Found, and then refused.
        device.send(&Command::Dir(file.clone()))?;
        let refused = errno_of(device.send(&Command::BindOnDemand))?;
        ensure!(refused == Some(Errno::NOTDIR), "bind: {refused:?}");
    }
    // KASAN keeps what is freed for a while, and it counts as used. A kernel with kmemleak tells of
    // what is lost when the module is gone.
    if Path::new("/sys/kernel/debug/kmemleak").exists() {
        return Ok(());
    }
    // They are freed after a grace period, and counted a slab at a time.
    eventually("the credentials are given back", SOON, || {
        Ok(credentials()? < before + ROUNDS)
    })
    .with_context(|| format!("{before} credentials became {:?}", credentials()))
}

/// Waits until nobody has the device.
fn device_is_free(t: &Context) -> Result<()> {
    eventually("the device is free", SOON, || {
        Ok(errno_of(t.device())?.is_none())
    })
}

/// A mount that may fail, but must end; what there is is unmounted.
fn ends(t: &Context, mount: &mut Task, at: &Path) -> Result<bool> {
    match mount.wait(SOON)? {
        Outcome::Done(_) => {
            t.unmount(at)?.wait(SOON)?.ok("umount")?;
            Ok(true)
        }
        Outcome::Failed(Errno::IO | Errno::NOBUFS, _) => Ok(false),
        Outcome::Failed(errno, _) => anyhow::bail!("mount: {errno}"),
        Outcome::Killed(signal) => anyhow::bail!("mount: signal {signal}"),
    }
}

fn close_device_beside_read(t: &Context) -> Result<()> {
    // Threads that read, and a device that goes under them: by the end of the process, and by a
    // close of its own.
    for round in 0..6 {
        let dir = t.new_dir()?;
        let at = t.mount_point()?;
        if round % 2 == 0 {
            let mut mock = Mock::alone(
                t,
                &dir,
                "threads = 4\n[[rule]]\non = \"open\"\ndo = { die = \"after-read\" }",
            )?;
            let mut mount = t.mount("fsid=plain", &at)?;
            mock.died()?;
            ensure!(!ends(t, &mut mount, &at)?, "the mount succeeded");
        } else {
            let device = t.daemon_in(&dir)?.device;
            let mut mount = t.mount("fsid=plain", &at)?;
            close_under_readers(&device, round)?;
            ensure!(!ends(t, &mut mount, &at)?, "the mount succeeded");
        }
        device_is_free(t)?;
    }
    Ok(())
}

/// Reads a device in two threads, which drop what they get, and closes it when there is something
/// to be read, or just was.
fn close_under_readers(device: &Device, round: u32) -> Result<()> {
    let (got, gone) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut buffer = Buffer::new();
                while !gone.load(Ordering::Relaxed) {
                    // In the end it is another file, which has no messages.
                    if matches!(device.read_message(&mut buffer), Ok(Some(_))) {
                        got.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
        let there = eventually("an OPEN", SOON, || {
            let ready = device.wait(Readiness::MESSAGE, Some(Duration::ZERO))?;
            Ok(ready.message || got.load(Ordering::Relaxed))
        });
        for _ in 0..round * 200 {
            std::hint::spin_loop();
        }
        let closed = close_under_users(device);
        gone.store(true, Ordering::Relaxed);
        there.and(Ok(closed?))
    })
}

fn umount_with_reopen_pending(t: &Context) -> Result<()> {
    for round in 0..6 {
        let (mut daemon, _, at) = t.mounted_image("plain")?;
        drop_caches()?;
        let mut reader = t.block_reader(&at, 0, 65536)?;
        daemon.expect_read()?;
        // The READ brings a reopen about.
        daemon.open.clear();
        let open = match round % 3 {
            0 => None,
            1 => Some(daemon.expect_open()?),
            _ => {
                daemon.expect_open()?;
                None
            }
        };
        drop(daemon.device);
        reader
            .wait(SOON)?
            .fails("read", &[Errno::IO, Errno::NOBUFS])?;
        if round % 2 == 0 {
            t.unmount(&at)?.wait(SOON)?.ok("umount")?;
            drop(open);
        } else {
            drop(open);
            t.unmount(&at)?.wait(SOON)?.ok("umount")?;
        }
        device_is_free(t)?;
    }
    Ok(())
}

fn killed_during_mount(t: &Context) -> Result<()> {
    let dir = t.new_dir()?;
    let points = ["after-read", "before-copen", "after-copen"];
    let mut mounted = 0;
    for round in 0..8_u64 {
        let at = t.mount_point()?;
        let mut mock;
        let mut mount;
        if let Some(point) = points.get(usize::try_from(round)? % 4) {
            let script = format!("[[rule]]\non = \"open\"\ndo = {{ die = \"{point}\" }}");
            mock = Mock::alone(t, &dir, &script)?;
            mount = t.mount("fsid=plain", &at)?;
            mock.died()?;
        } else {
            // At any moment.
            mock = Mock::alone(t, &dir, "threads = 2")?;
            mount = t.mount("fsid=plain", &at)?;
            let _ = mock.ends_within(Duration::from_millis(10 * round))?;
            mock.end()?;
        }
        mounted += u32::from(ends(t, &mut mount, &at)?);
        device_is_free(t)?;
    }
    println!("{mounted} mounts succeeded");
    // The store is as good as ever.
    let mut daemon = t.daemon_in(&dir)?;
    daemon.images.push(t.images.get("plain")?);
    t.mounted(&mut daemon, "fsid=plain")?;
    Ok(())
}

fn failing_mount_beside_death(t: &Context) -> Result<()> {
    let dir = t.new_dir()?;
    for round in 0..6 {
        // No image has this name: the mount fails, in a volume that others are in, or not.
        let script = match round % 3 {
            0 => "[[rule]]\non = \"open\"\ndo = { die = \"after-copen\" }",
            1 => "[[rule]]\non = \"open\"\nnth = 2\ndo = { die = \"after-copen\" }",
            _ => "[[rule]]\non = \"open\"\nnth = 2\ndo = { die = \"before-copen\" }",
        };
        let mut mock = Mock::alone(t, &dir, script)?;
        let mut mounts = Vec::new();
        for name in ["unknown", "missing"] {
            let at = t.mount_point()?;
            let options = format!("domain_id=d{round},fsid={name}");
            mounts.push((t.mount(&options, &at)?, at));
        }
        mock.died()?;
        for (mut mount, at) in mounts {
            ensure!(!ends(t, &mut mount, &at)?, "the mount succeeded");
        }
        device_is_free(t)?;
    }
    Ok(())
}

fn cull_beside_mount(t: &Context) -> Result<()> {
    const ROUNDS: u32 = 10;
    let disk = SmallDisk::new(t, 64)?;
    let dir = disk.cache_dir()?;
    let file = object_file(&dir, "erofs,d", "small")?;
    let mut daemon = t.daemon_in(&dir)?;
    daemon.images.push(t.images.get("small")?);
    let script = format!(
        "threads = 2\n[[tick]]\nms = 1\ndo = {{ cull = \"{}\" }}",
        file.display()
    );
    let mock = Mock::start(t, &daemon.device, &script)?;
    for round in 0..ROUNDS {
        let at = t.mount_point()?;
        let mut mount = t.mount("domain_id=d,fsid=small", &at)?;
        mount
            .wait(SOON)?
            .ok(&format!("the mount of round {round}"))?;
        let mut reader = t.reader(&at, 0, 16 << 10)?;
        let data = reader.wait(SOON)?.ok("read")?;
        same("the file", &data, &t.images.contents("small")?)?;
        t.unmount(&at)?.wait(SOON)?.ok("umount")?;
    }
    let log = mock.log()?;
    let culled = log.lines().filter(|line| line.ends_with(": done")).count();
    let busy = log.lines().filter(|line| line.contains("busy")).count();
    println!("culled {culled} times, busy {busy} times");
    ensure!(culled > 0 && busy > 0, "there was no race");
    drop((mock, daemon));
    device_is_free(t)?;
    // A lost reference would keep it busy, or be told of.
    eventually(
        "the store's disk can be unmounted",
        SOON,
        || match rustix::mount::unmount(&disk.dir, UnmountFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::BUSY) => Ok(false),
            Err(errno) => Err(errno.into()),
        },
    )
}

fn write_and_seek_beside_umount(t: &Context) -> Result<()> {
    let mut stage = Stage::new(t, &["twin"])?;
    // CLOSE is not obeyed at once, so that the file is used before, while and after the object goes.
    let mock = stage.mock(
        "threads = 2\n[[tick]]\nms = 0\ndo = \"poke\"\n[[tick]]\nms = 1\ndo = \"poke\"\n\
         [[rule]]\non = \"close\"\ndo = { delay = 20 }",
    )?;
    for _ in 0..6 {
        stage.mount("plain")?;
        stage.reader("plain", 64 << 10, 64 << 10)?.finish()?;
        stage.unmount("plain")?;
    }
    stage
        .reader("twin", 0, 128 << 10)?
        .finish()
        .with_context(|| mock.tail())
}
