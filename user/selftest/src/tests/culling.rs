// SPDX-License-Identifier: MIT OR Apache-2.0

//! `cull` and `inuse`: what a daemon may remove, and what becomes of the rest.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Device;
use ondemand_deadline::Deadline;
use rustix::fs::Mode;
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::mount::UnmountFlags;

use crate::harness::expect_errno;
use crate::harness::same;
use crate::harness::skip;
use crate::harness::store::eventually_idle;
use crate::harness::store::grave;
use crate::harness::store::object_file;
use crate::harness::store::parent;
use crate::harness::store::read_once;
use crate::harness::store::Immutable;
use crate::harness::Context;
use crate::harness::Daemon;
use crate::harness::Test;
use crate::harness::SOON;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "store_cull",
        "an object in use that is culled, or an idle one that is not",
        cull,
    ),
    Test::new(
        "d04_cull_outside",
        "a daemon without rights that deletes any file",
        cull_outside,
    ),
    Test::new(
        "d28_cull_arguments",
        "a name that leads elsewhere, or a cache that is not there yet",
        arguments,
    ),
    Test::new(
        "cull_through_another_mount",
        "a daemon that cannot cull from a mount namespace of its own",
        another_mount,
    ),
    Test::new(
        "cull_volume",
        "a volume in use that is culled, or an idle one that is deleted where it stands",
        volume,
    ),
    Test::new(
        "cull_no_files",
        "links and other things in the store that cannot be removed, or are followed",
        no_files,
    ),
    Test::new(
        "d14_cull_immutable",
        "an object that is in use for ever after it could not be culled",
        immutable,
    ),
    Test::new(
        "d13_cull_mount_point",
        "a cache that dies because one name cannot be culled",
        mount_point,
    ),
    Test::new(
        "cull_racing_mounts",
        "a mount that fails, or reads wrong data, because its object was just culled",
        racing_mounts,
    )
    .within(240),
];

/// Without culling there is nothing to test.
fn needs_culling(daemon: &Daemon) -> Result<()> {
    match daemon.command("inuse name") {
        Err(Errno::OPNOTSUPP) => skip("the module has no culling"),
        _ => Ok(()),
    }
}

const OPTIONS: &str = "domain_id=dom,fsid=small";

/// A cache in which `small` is stored and not in use, and the file; the current directory is the
/// file's.
fn stored(t: &Context) -> Result<(Daemon, PathBuf, PathBuf)> {
    let dir = t.new_dir()?;
    let mut daemon = t.daemon_in(&dir)?;
    needs_culling(&daemon)?;
    daemon.images = vec![t.images.get("small")?];
    read_once(t, &mut daemon, OPTIONS)?;
    let file = object_file(&dir, "erofs,dom", "small")?;
    // Not before it has its name is its directory there for sure.
    std::env::set_current_dir(parent(&file)?)?;
    eventually_idle("Dsmall", &mut daemon)?;
    Ok((daemon, dir, file))
}

/// The cache is as good as ever: `small` is mounted, and fetched or not.
fn works(t: &Context, daemon: &mut Daemon, what: &str) -> Result<()> {
    let data = read_once(t, daemon, OPTIONS).context(what.to_owned())?;
    same(what, &data, &t.images.contents("small")?)
}

/// How many objects were culled since the kernel was started.
fn culled() -> Result<u32> {
    const STATS: &str = "/proc/fs/fscache/stats";
    let Ok(stats) = fs::read_to_string(STATS) else {
        return skip("the kernel counts nothing");
    };
    let number = stats
        .split_whitespace()
        .find_map(|word| word.strip_prefix("cull="))
        .with_context(|| format!("no cull= in {STATS}"))?;
    Ok(number.parse()?)
}

fn cull(t: &Context) -> Result<()> {
    let (mut daemon, _, file) = stored(t)?;
    let at = t.mounted(&mut daemon, OPTIONS)?;
    expect_errno("inuse", daemon.command("inuse Dsmall"), &[Errno::BUSY])?;
    let before = culled()?;
    expect_errno("cull", daemon.command("cull Dsmall"), &[Errno::BUSY])?;
    ensure!(file.exists(), "the object in use is gone");
    ensure!(culled()? == before, "what was not culled was counted");
    let mut umount = t.unmount(&at)?;
    daemon.serve(&mut umount)?.ok("umount")?;
    eventually_idle("Dsmall", &mut daemon)?;
    daemon.command("cull Dsmall").context("cull")?;
    ensure!(!file.exists(), "the object is still there");
    let counted = culled()? - before;
    ensure!(counted == 1, "{counted} were counted as culled");
    for command in ["cull Dsmall", "inuse Dsmall"] {
        let errors = [Errno::NOENT, Errno::STALE];
        expect_errno(command, daemon.command(command), &errors)?;
    }
    // It is fetched again.
    let reads = daemon.reads().len();
    works(t, &mut daemon, "the image after it was culled")?;
    ensure!(daemon.reads().len() > reads, "nothing was fetched");
    Ok(())
}

fn cull_outside(t: &Context) -> Result<()> {
    let (mut daemon, dir, _) = stored(t)?;
    let outside = t.new_dir()?;
    let grave = dir.join("graveyard");
    // `cache` itself, seen from the directory above, is not in the store either.
    for place in [&outside, &grave, &dir] {
        fs::write(place.join("file"), "kept")?;
        fs::create_dir(place.join("directory"))?;
        std::env::set_current_dir(place)?;
        for command in ["cull file", "cull directory", "inuse file", "cull nothing"] {
            let what = format!("{command} in {}", place.display());
            expect_errno(what, daemon.command(command), &[Errno::PERM])?;
        }
        let kept = fs::read(place.join("file"))?;
        ensure!(kept == b"kept", "the file has changed");
        fs::remove_dir(place.join("directory")).context("rmdir")?;
        fs::remove_file(place.join("file")).context("unlink")?;
    }
    // Another file system altogether.
    std::env::set_current_dir("/proc")?;
    for command in ["cull version", "inuse version"] {
        expect_errno(command, daemon.command(command), &[Errno::XDEV])?;
    }
    works(t, &mut daemon, "the image afterwards")
}

fn arguments(t: &Context) -> Result<()> {
    let device = t.device()?;
    for command in ["cull name", "inuse name"] {
        let written = device.write_bytes(command.as_bytes());
        if written == Err(Errno::OPNOTSUPP) {
            return skip("the module has no culling");
        }
        let what = format!("{command} before bind");
        expect_errno(what, written, &[Errno::IO])?;
    }
    drop(device);
    let (mut daemon, _, file) = stored(t)?;
    for word in ["cull", "inuse"] {
        for name in ["", "/", "/etc", "a/b", "../@00", "Dsmall/", ".", ".."] {
            let command = format!("{word} {name}");
            expect_errno(&command, daemon.command(&command), &[Errno::INVAL])?;
        }
        let command = format!("{word} {}", "n".repeat(256));
        let errors = [Errno::NAMETOOLONG];
        expect_errno("a name of 256 bytes", daemon.command(&command), &errors)?;
        let command = format!("{word} nothing");
        let errors = [Errno::NOENT, Errno::STALE];
        expect_errno(&command, daemon.command(&command), &errors)?;
    }
    ensure!(file.exists(), "the object is gone");
    works(t, &mut daemon, "the image afterwards")
}

fn another_mount(t: &Context) -> Result<()> {
    let (mut daemon, dir, file) = stored(t)?;
    // The store alone, and all that is around it.
    for (from, below) in [
        (dir.join("cache"), PathBuf::from("cache")),
        (dir.clone(), PathBuf::new()),
    ] {
        let at = t.mount_point()?;
        rustix::mount::mount_bind(&from, &at)?;
        let inside = parent(&file)?.strip_prefix(dir.join(below))?;
        std::env::set_current_dir(at.join(inside))?;
        daemon.command("inuse Dsmall").context("inuse")?;
        daemon.command("cull Dsmall").context("cull")?;
        ensure!(!file.exists(), "the object is still there");
        works(t, &mut daemon, "the image after it was culled")?;
        eventually_idle("Dsmall", &mut daemon)?;
        std::env::set_current_dir("/")?;
        rustix::mount::unmount(&at, UnmountFlags::empty()).context("umount of the bind mount")?;
    }
    // A read-only mount of it is still a way in: it is the cache's own that is written to.
    let at = t.mount_point()?;
    rustix::mount::mount_bind(&dir, &at)?;
    let flags = MountFlags::BIND | MountFlags::RDONLY;
    rustix::mount::mount_remount(&at, flags, "")?;
    std::env::set_current_dir(at.join(parent(&file)?.strip_prefix(&dir)?))?;
    daemon.command("cull Dsmall").context("cull, read-only")?;
    std::env::set_current_dir("/")?;
    Ok(())
}

fn volume(t: &Context) -> Result<()> {
    let (mut daemon, dir, file) = stored(t)?;
    let at = t.mounted(&mut daemon, OPTIONS)?;
    let fanout = parent(&file)?;
    let volume = parent(fanout)?;
    let fanout_name = fanout.file_name().context("no name")?.to_string_lossy();
    // While the image is mounted.
    std::env::set_current_dir(volume)?;
    for word in ["inuse", "cull"] {
        let command = format!("{word} {fanout_name}");
        expect_errno(&command, daemon.command(&command), &[Errno::BUSY])?;
    }
    std::env::set_current_dir(dir.join("cache"))?;
    for command in ["inuse Ierofs,dom", "cull Ierofs,dom"] {
        expect_errno(command, daemon.command(command), &[Errno::BUSY])?;
    }
    let mut umount = t.unmount(&at)?;
    daemon.serve(&mut umount)?.ok("umount")?;
    eventually_idle("Ierofs,dom", &mut daemon)?;

    let before = culled()?;
    daemon.command("cull Ierofs,dom").context("cull")?;
    ensure!(!volume.exists(), "the volume is still there");
    let counted = culled()? - before;
    ensure!(counted == 1, "{counted} were counted as culled");
    let buried = grave(&dir)?.join(&*fanout_name).join("Dsmall");
    ensure!(buried.is_file(), "{} is not there", buried.display());
    let reads = daemon.reads().len();
    works(t, &mut daemon, "the image after its volume was culled")?;
    ensure!(daemon.reads().len() > reads, "nothing was fetched");
    // Another grave, since the first is taken.
    eventually_idle("Ierofs,dom", &mut daemon)?;
    daemon.command("cull Ierofs,dom").context("second cull")?;
    let graves = fs::read_dir(dir.join("graveyard"))?.count();
    ensure!(graves == 2, "{graves} graves after a second cull");
    Ok(())
}

fn no_files(t: &Context) -> Result<()> {
    let (mut daemon, dir, file) = stored(t)?;
    let outside = t.new_dir()?.join("outside");
    fs::write(&outside, "kept")?;
    symlink(&outside, "link")?;
    symlink("Dsmall", "own")?;
    symlink("nowhere", "dead")?;
    rustix::fs::mkfifoat(CWD, "fifo", Mode::RWXU)?;
    fs::create_dir("empty")?;
    for name in ["link", "own", "dead", "fifo", "empty"] {
        daemon
            .command(&format!("inuse {name}"))
            .with_context(|| format!("inuse {name}"))?;
        daemon
            .command(&format!("cull {name}"))
            .with_context(|| format!("cull {name}"))?;
        let left = fs::symlink_metadata(name).is_ok();
        ensure!(!left, "{name} is still there");
    }
    ensure!(fs::read(&outside)? == b"kept", "a link was followed");
    ensure!(file.exists(), "the object is gone");
    ensure!(grave(&dir)?.is_dir(), "the directory was not buried");
    works(t, &mut daemon, "the image afterwards")
}

fn immutable(t: &Context) -> Result<()> {
    let (mut daemon, dir, file) = stored(t)?;
    let flag = Immutable::new(&file)?;
    expect_errno("cull", daemon.command("cull Dsmall"), &[Errno::PERM])?;
    drop(flag);
    daemon.command("inuse Dsmall").context("inuse")?;
    works(t, &mut daemon, "the image that could not be culled")?;
    // A directory that cannot be moved.
    fs::create_dir("dir")?;
    let flag = Immutable::new(Path::new("dir"))?;
    expect_errno("cull", daemon.command("cull dir"), &[Errno::PERM])?;
    drop(flag);
    daemon.command("inuse dir").context("inuse")?;
    daemon.command("cull dir").context("cull")?;
    ensure!(grave(&dir)?.is_dir(), "the directory was not buried");
    eventually_idle("Dsmall", &mut daemon)?;
    daemon.command("cull Dsmall").context("cull")?;
    ensure!(!file.exists(), "the object is still there");
    Ok(())
}

fn mount_point(t: &Context) -> Result<()> {
    let (mut daemon, _, file) = stored(t)?;
    let at = t.mounted(&mut daemon, OPTIONS)?;
    fs::create_dir("dir")?;
    rustix::mount::mount("none", "dir", "tmpfs", MountFlags::empty(), None)?;
    fs::write("plainfile", "")?;
    rustix::mount::mount_bind("/proc/version", "plainfile")?;
    for command in ["cull dir", "cull plainfile"] {
        expect_errno(command, daemon.command(command), &[Errno::BUSY])?;
    }
    // What is mounted reads on, and new mounts are served.
    let mut reader = t.reader(&at, 0, 16 << 10)?;
    let data = daemon.serve(&mut reader)?.ok("read")?;
    same("the mounted image", &data, &t.images.contents("small")?)?;
    daemon.images.push(t.images.get("plain")?);
    let data = read_once(t, &mut daemon, "fsid=plain")?;
    same("a new image", &data, &t.images.contents("plain")?)?;
    for name in ["dir", "plainfile"] {
        rustix::mount::unmount(name, UnmountFlags::empty()).context("umount")?;
        daemon
            .command(&format!("cull {name}"))
            .with_context(|| format!("cull {name} after umount"))?;
        ensure!(!Path::new(name).exists(), "{name} is still there");
    }
    ensure!(file.exists(), "the object is gone");
    Ok(())
}

fn racing_mounts(t: &Context) -> Result<()> {
    const ROUNDS: u32 = 24;
    let (mut daemon, _, _) = stored(t)?;
    let expected = t.images.contents("small")?;
    let device = Device::from_owned_fd(rustix::io::fcntl_dupfd_cloexec(&daemon.device, 3)?)?;
    // How long after the start of the mount is culled: it draws near the moment at which the object
    // is looked up, from both sides.
    let start = Instant::now();
    let at = t.mounted(&mut daemon, OPTIONS)?;
    let mut delay = start.elapsed() / 2;
    let mut umount = t.unmount(&at)?;
    daemon.serve(&mut umount)?.ok("umount")?;
    let (mut culled, mut busy) = (0, 0);
    // Where the first mount took much longer than others do, it is a while before either can win.
    let mut deadline = Deadline::after(SOON);
    for round in 0.. {
        let enough = culled > 0 && busy > 0 || deadline.passed();
        if round >= ROUNDS && enough {
            break;
        }
        eventually_idle("Dsmall", &mut daemon)?;
        let at = t.mount_point()?;
        let start = Instant::now();
        let outcome = std::thread::scope(|scope| -> Result<_> {
            let culler = scope.spawn(|| {
                while start.elapsed() < delay {
                    std::hint::spin_loop();
                }
                device.write_bytes(b"cull Dsmall")
            });
            let mut mount = t.mount(OPTIONS, &at)?;
            daemon
                .serve(&mut mount)?
                .ok(&format!("the mount of round {round}"))?;
            culler
                .join()
                .map_err(|_| anyhow::anyhow!("the culler panicked"))
        })?;
        match outcome {
            Ok(_) => {
                culled += 1;
                delay = delay * 5 / 4;
            }
            Err(Errno::BUSY) => {
                busy += 1;
                delay = delay * 4 / 5;
            }
            Err(errno) => anyhow::bail!("cull in round {round}: {errno}"),
        }
        let mut reader = t.reader(&at, 0, expected.len())?;
        let data = daemon.serve(&mut reader)?.ok("read")?;
        same(&format!("round {round}"), &data, &expected)?;
        let mut umount = t.unmount(&at)?;
        daemon.serve(&mut umount)?.ok("umount")?;
    }
    println!("{culled} times the culler came first, {busy} times the mount");
    ensure!(culled > 0 && busy > 0, "there was no race");
    Ok(())
}
