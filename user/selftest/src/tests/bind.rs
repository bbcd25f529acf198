// SPDX-License-Identifier: MIT OR Apache-2.0

//! `bind`: which directories can hold a cache, and what a failure leaves behind.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::mount::UnmountFlags;

use crate::harness::expect_errno;
use crate::harness::skip;
use crate::harness::Context;
use crate::harness::Test;

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
        "bind_again_elsewhere",
        "a cache that is not released with its device",
        again_elsewhere,
    ),
    Test::new(
        "d26_mode_after_failed_bind",
        "a failed bind that leaves the mode behind",
        mode_after_failed_bind,
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
