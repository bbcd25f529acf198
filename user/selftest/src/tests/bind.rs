// SPDX-License-Identifier: MIT OR Apache-2.0

//! `bind`: which directories can hold a cache, and what a failure leaves behind.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::mount::UnmountFlags;

use crate::harness::eventually;
use crate::harness::expect_errno;
use crate::harness::kmsg::KernelLog;
use crate::harness::raw;
use crate::harness::same;
use crate::harness::skip;
use crate::harness::store::read_once;
use crate::harness::Context;
use crate::harness::SmallDisk;
use crate::harness::Test;
use crate::harness::MOUNT_FAILS;
use crate::harness::SOON;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "bind_directory",
        "a cache in something that is no directory",
        directory,
    ),
    Test::new(
        "bind_arguments",
        "a bind with an argument that means nothing",
        arguments,
    ),
    Test::new(
        "bind_tmpfs",
        "a cache on a file system that lacks what it needs",
        tmpfs,
    ),
    Test::new(
        "bind_read_only",
        "a cache on a file system that cannot be written",
        read_only,
    ),
    Test::new(
        "bind_idmapped",
        "a cache whose files belong to others than it thinks",
        idmapped,
    ),
    Test::new(
        "bind_again_elsewhere",
        "a cache that is not released with its device",
        again_elsewhere,
    ),
    Test::new(
        "d26_mode_after_failed_bind",
        "a failed bind that leaves the mode behind",
        mode_after_failed_bind,
    ),
    Test::new(
        "d61_directories_that_ignore_case",
        "two images in one file, because their names differ in their case alone",
        directories_that_ignore_case,
    ),
    Test::new(
        "d61_disk_that_ignores_case",
        "the same, on a file system that ignores it everywhere",
        disk_that_ignores_case,
    ),
];

/// Opens the device and tries to bind to `dir`.
fn bind(t: &Context, dir: &Path) -> Result<std::result::Result<(), Errno>> {
    let device = t.device()?;
    device.write_bytes(format!("dir {}", dir.display()).as_bytes())?;
    Ok(device.write_bytes(b"bind ondemand").map(drop))
}

fn directory(t: &Context) -> Result<()> {
    let device = t.device()?;
    let bound = device.write_bytes(b"bind ondemand");
    expect_errno("bind without dir", bound, &[Errno::INVAL])?;
    drop(device);

    let dir = t.new_dir()?;
    let file = dir.join("file");
    fs::write(&file, "")?;
    expect_errno("bind to a file", bind(t, &file)?, &[Errno::NOTDIR])?;
    expect_errno(
        "bind to nothing",
        bind(t, &dir.join("no"))?,
        &[Errno::NOENT],
    )?;
    bind(t, &dir)?.context("bind to a directory")
}

fn arguments(t: &Context) -> Result<()> {
    let device = t.device()?;
    let dir = t.new_dir()?;
    device.write_bytes(format!("dir {}", dir.display()).as_bytes())?;
    for command in ["bind offdemand", "bind ondemand please", "bind ondemand,"] {
        let bound = device.write_bytes(command.as_bytes());
        expect_errno(command, bound, &[Errno::INVAL])?;
    }
    device.write_bytes(b"bind ondemand")?;
    Ok(())
}

fn tmpfs(t: &Context) -> Result<()> {
    let dir = t.mount_point()?;
    rustix::mount::mount("none", &dir, "tmpfs", MountFlags::empty(), None)?;
    let errors = [Errno::OPNOTSUPP, Errno::INVAL];
    expect_errno("bind to a tmpfs", bind(t, &dir)?, &errors)
}

fn read_only(t: &Context) -> Result<()> {
    let image = t.dir.join("ext4");
    fs::File::create(&image)?.set_len(16 << 20)?;
    let made = Command::new("mkfs.ext4").arg("-q").arg(&image).status();
    if !made.is_ok_and(|status| status.success()) {
        return skip("no mkfs.ext4");
    }
    let dir = t.mount_point()?;
    let mounted = Command::new("mount")
        .args(["-t", "ext4", "-o", "loop,ro"])
        .args([&image, &dir])
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        return skip("cannot mount through a loop device");
    }
    expect_errno("bind", bind(t, &dir)?, &[Errno::ROFS])?;
    // The cache holds no reference to it.
    rustix::mount::unmount(&dir, UnmountFlags::empty()).context("umount after a failed bind")
}

fn idmapped(t: &Context) -> Result<()> {
    let (dir, at) = (t.new_dir()?, t.mount_point()?);
    // A task in a user namespace in which root is root; the pipe ends it with this test.
    let mut task = Command::new("unshare")
        .args(["--user", "--map-root-user", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    let proc = PathBuf::from(format!("/proc/{}", task.id()));
    let mapped = eventually("the user namespace has its maps", SOON, || {
        let is_there = |map| fs::read_to_string(proc.join(map)).map(|map| !map.trim().is_empty());
        let other =
            proc.join("ns/user").read_link()? != Path::new("/proc/self/ns/user").read_link()?;
        Ok(other && is_there("uid_map")? && is_there("gid_map")?)
    });
    if task.try_wait()?.is_some() {
        return skip("there are no user namespaces");
    }
    mapped?;
    let namespace = fs::File::open(proc.join("ns/user"))?;
    let mounted = raw::mount_idmapped(&dir, &at, &namespace);
    task.kill()?;
    task.wait()?;
    match mounted {
        Err(Errno::INVAL) => return skip("the file system cannot be mounted with mapped ids"),
        mounted => mounted.context("a mount with mapped ids")?,
    }
    let log = KernelLog::end()?;
    expect_errno("bind", bind(t, &at)?, &[Errno::INVAL])?;
    let lines = log.lines();
    ensure!(
        lines.iter().any(|line| line.text.contains("idmapped")),
        "the log does not tell: {lines:?}"
    );
    rustix::mount::unmount(&at, UnmountFlags::empty()).context("umount after a failed bind")
}

fn again_elsewhere(t: &Context) -> Result<()> {
    for _ in 0..20 {
        let dir = t.new_dir()?;
        drop(t.daemon_in(&dir)?);
        ensure!(dir.join("cache").is_dir(), "no cache directory");
        ensure!(dir.join("graveyard").is_dir(), "no graveyard directory");
        drop(t.daemon_in(&dir).context("the same directory again")?);
    }
    Ok(())
}

fn mode_after_failed_bind(t: &Context) -> Result<()> {
    let dir = t.new_dir()?.join("later");
    let device = t.device()?;
    device.write_bytes(format!("dir {}", dir.display()).as_bytes())?;
    let bound = device.write_bytes(b"bind ondemand");
    expect_errno("bind to nothing", bound, &[Errno::NOENT])?;
    fs::create_dir(&dir)?;
    let restored = device.write_bytes(b"restore");
    let errors = [Errno::OPNOTSUPP, Errno::IO, Errno::INVAL];
    expect_errno("restore after a failed bind", restored, &errors)?;
    let bound = device.write_bytes(b"bind");
    expect_errno("plain bind", bound, &[Errno::OPNOTSUPP])?;
    let restored = device.write_bytes(b"restore");
    expect_errno("restore after a plain bind", restored, &errors)?;
    device
        .write_bytes(b"bind ondemand")
        .context("bind ondemand, now that the directory is there")?;
    device.write_bytes(b"restore").context("restore")?;
    Ok(())
}

/// Has a new directory ignore the case of names in it.
fn ignoring_case(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    let done = Command::new("chattr").arg("+F").arg(dir).status();
    ensure!(done.is_ok_and(|status| status.success()), "chattr +F");
    Ok(())
}

/// A bind that is refused, with a line in the log that says why.
fn refused_for_case(t: &Context, dir: &Path) -> Result<()> {
    let log = KernelLog::end()?;
    expect_errno("bind", bind(t, dir)?, &[Errno::OPNOTSUPP])?;
    let lines = log.lines();
    ensure!(
        lines.iter().any(|line| line.text.contains("case of names")),
        "the log does not tell: {lines:?}"
    );
    Ok(())
}

fn directories_that_ignore_case(t: &Context) -> Result<()> {
    let mkfs = ["-O", "casefold", "-J", "size=4"];
    let disk = SmallDisk::made_with(t, &mkfs, &[], "user_xattr")?;
    let whole = disk.dir.join("whole");
    ignoring_case(&whole)?;
    refused_for_case(t, &whole)?;
    // What was made in it has inherited that.
    ensure!(
        whole.join("CACHE").is_dir(),
        "the directory does not ignore case"
    );

    let part = disk.dir.join("part");
    ignoring_case(&part.join("cache"))?;
    refused_for_case(t, &part)?;

    // Of a volume alone nobody knows before it is mounted.
    let volume = disk.dir.join("volume");
    ignoring_case(&volume.join("cache/Ierofs,plain"))?;
    let mut daemon = t.daemon_in(&volume)?;
    daemon.images = vec![t.images.get("plain")?, t.images.get("twin")?];
    let log = KernelLog::end()?;
    let at = t.mount_point()?;
    let mut mount = t.mount("fsid=plain", &at)?;
    daemon.serve(&mut mount)?.fails("mount", MOUNT_FAILS)?;
    let lines = log.lines();
    ensure!(
        lines.iter().any(|line| line.text.contains("case of names")),
        "the log does not tell: {lines:?}"
    );
    // Others on this disk are as good as anywhere.
    let twin = read_once(t, &mut daemon, "fsid=twin")?;
    same("twin", &twin, &t.images.contents("twin")?)
}

fn disk_that_ignores_case(t: &Context) -> Result<()> {
    let image = t.dir.join("xfs");
    fs::File::create(&image)?.set_len(400 << 20)?;
    let made = Command::new("mkfs.xfs")
        .args(["-q", "-n", "version=ci"])
        .arg(&image)
        .status();
    if !made.is_ok_and(|status| status.success()) {
        return skip("no mkfs.xfs");
    }
    let dir = t.mount_point()?;
    let mounted = Command::new("mount")
        .args(["-t", "xfs", "-o", "loop"])
        .args([&image, &dir])
        .stderr(Stdio::null())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        return skip("the kernel has no such XFS");
    }
    refused_for_case(t, &dir)?;
    rustix::mount::unmount(&dir, UnmountFlags::empty()).context("umount after a failed bind")
}
