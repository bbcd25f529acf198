// SPDX-License-Identifier: MIT OR Apache-2.0

//! Suspending the machine while somebody waits for the daemon.

use std::fs;
use std::path::Path;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;

use crate::harness::drop_caches;
use crate::harness::eventually;
use crate::harness::same;
use crate::harness::skip;
use crate::harness::store::read_once;
use crate::harness::Context;
use crate::harness::Test;
use crate::harness::SOON;

pub(crate) const TESTS: &[Test] = &[Test::new(
    "d18_suspend",
    "a machine that cannot be suspended because a daemon has not answered",
    suspend,
)];

const TEST: &str = "/sys/power/pm_test";
const STATE: &str = "/sys/power/state";

/// Settings of the kernel, which are put back when this is dropped.
struct Settings(Vec<(&'static str, String)>);

impl Settings {
    fn set(&mut self, path: &'static str, value: &str) -> Result<()> {
        let old = fs::read_to_string(path)?;
        // One of several words stands in brackets.
        let chosen = old
            .split_once('[')
            .and_then(|(_, rest)| rest.split_once(']'))
            .map_or(old.trim(), |(word, _)| word);
        fs::write(path, value).with_context(|| format!("{value} to {path}"))?;
        self.0.push((path, chosen.to_owned()));
        Ok(())
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        for (path, old) in &self.0 {
            // The next test that needs it would tell.
            let _ = fs::write(path, old);
        }
    }
}

fn suspend(t: &Context) -> Result<()> {
    if !Path::new(TEST).exists() {
        return skip("the kernel cannot test a suspend (CONFIG_PM_DEBUG)");
    }
    let mut settings = Settings(Vec::new());
    // Tasks are frozen, and thawed at once; five seconds are allowed for it, on the reference machine.
    settings.set(TEST, "freezer")?;
    settings.set("/sys/module/suspend/parameters/pm_test_delay", "0")?;
    let milliseconds = (50 * ondemand_deadline::percent()).to_string();
    settings.set("/sys/power/pm_freeze_timeout", &milliseconds)?;
    // A mount in progress holds up whoever syncs all file systems, whatever it waits for.
    settings.set("/sys/power/sync_on_suspend", "0")?;

    let names = ["plain", "small", "twin", "lz4"];
    let mut daemon = t.daemon(&names)?;
    let expected = t.images.contents("plain")?;
    let plain = t.mounted(&mut daemon, "fsid=plain")?;
    let small = t.mounted(&mut daemon, "fsid=small")?;
    drop_caches()?;
    // A READ that the daemon has, an OPEN that it has, and of each one that it has not read; and
    // the CLOSE of an image that is unmounted.
    let mut has_read = t.block_reader(&plain, 8192, 4096)?;
    let read = daemon.expect_read()?;
    let twin = t.mount_point()?;
    let mut has_open = t.mount("fsid=twin", &twin)?;
    let open = daemon.expect_open()?;
    let mut unread_read = t.block_reader(&plain, 65536, 4096)?;
    let lz4 = t.mount_point()?;
    let mut unread_open = t.mount("fsid=lz4", &lz4)?;
    let mut umount = t.unmount(&small)?;
    let closed = umount.wait(SOON)?.ok("umount");
    for (task, call) in [
        (&has_read, libc::SYS_pread64),
        (&has_open, libc::SYS_mount),
        (&unread_read, libc::SYS_pread64),
        (&unread_open, libc::SYS_mount),
    ] {
        eventually(
            "all wait for the daemon",
            SOON,
            || Ok(task.blocked_in(call)),
        )?;
    }

    let states = fs::read_to_string(STATE)?;
    let states: Vec<&str> = states
        .split_whitespace()
        .filter(|state| matches!(*state, "freeze" | "mem"))
        .collect();
    ensure!(!states.is_empty(), "no suspend in {STATE}");
    for state in states {
        fs::write(STATE, state).with_context(|| format!("suspend to {state}"))?;
        for task in [&has_read, &has_open, &unread_read, &unread_open] {
            ensure!(task.running()?, "{} has ended", task.what());
        }
    }
    closed?;

    let image = daemon.images[2].clone();
    daemon.answer_read(&read)?;
    daemon.accept(open, &image)?;
    let data = daemon.serve(&mut has_read)?.ok("read")?;
    same("block 2", &data, &expected[8192..12288])?;
    let data = daemon.serve(&mut unread_read)?.ok("read")?;
    same("block 16", &data, &expected[65536..69632])?;
    daemon.serve(&mut has_open)?.ok("mount")?;
    daemon.serve(&mut unread_open)?.ok("mount")?;
    let data = read_once(t, &mut daemon, "fsid=small")?;
    same(
        "the image that was unmounted",
        &data,
        &t.images.contents("small")?,
    )
}
