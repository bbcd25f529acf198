// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the holder of the device may not do, or not do to itself.

use std::fs;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use crate::harness::expect_errno;
use crate::harness::same;
use crate::harness::store::read_once;
use crate::harness::Context;
use crate::harness::Test;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "d50_bind_without_capability",
        "a device that was passed on before bind, and makes any directory a store",
        bind_without_capability,
    ),
    Test::new(
        "d13_cull_around_graveyard",
        "a cull that waits for a lock that it holds itself, and its file system with it",
        around_graveyard,
    ),
];

fn bind_without_capability(t: &Context) -> Result<()> {
    let dir = t.new_dir()?;
    let device = t.device()?;
    device.write_bytes(format!("dir {}", dir.display()).as_bytes())?;
    let all = rustix::thread::capabilities(None)?;
    let mut less = all;
    less.effective.remove(CapabilitySet::SYS_ADMIN);
    rustix::thread::set_capabilities(None, less)?;
    let bound = device.write_bytes(b"bind ondemand");
    rustix::thread::set_capabilities(None, all)?;
    expect_errno("bind without CAP_SYS_ADMIN", bound, &[Errno::PERM])?;
    ensure!(!dir.join("cache").exists(), "a store was made");
    device
        .write_bytes(b"bind ondemand")
        .context("bind with it")?;
    Ok(())
}

/// The graveyard is moved into the store: itself, and what contains it, cannot be buried in it.
fn around_graveyard(t: &Context) -> Result<()> {
    let dir = t.new_dir()?;
    let mut daemon = t.daemon_in(&dir)?;
    let store = dir.join("cache");
    std::env::set_current_dir(&store)?;
    fs::rename(dir.join("graveyard"), store.join("graveyard"))?;
    expect_errno("itself", daemon.command("cull graveyard"), &[Errno::BUSY])?;
    fs::create_dir(store.join("around"))?;
    fs::rename(store.join("graveyard"), store.join("around/graveyard"))?;
    expect_errno("around", daemon.command("cull around"), &[Errno::BUSY])?;
    ensure!(store.join("around/graveyard").is_dir(), "it is gone");
    // No lock is held any more, and the cache is alive.
    fs::rename(store.join("around/graveyard"), dir.join("graveyard"))?;
    daemon.command("cull around").context("cull")?;
    daemon.images = vec![t.images.get("small")?];
    let data = read_once(t, &mut daemon, "fsid=small")?;
    same("the file", &data, &t.images.contents("small")?)
}
