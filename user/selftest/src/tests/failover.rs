// SPDX-License-Identifier: MIT OR Apache-2.0

//! `restore`, and daemons that die.

use std::process::Stdio;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use rustix::io::Errno;

use crate::harness::drop_caches;
use crate::harness::expect_errno;
use crate::harness::same;
use crate::harness::Context;
use crate::harness::Daemon;
use crate::harness::Outcome;
use crate::harness::Task;
use crate::harness::Test;
use crate::harness::SOON;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "d06_restore_with_live_file",
        "a restore that destroys an OPEN which somebody is working on",
        restore_with_live_file,
    ),
    Test::new(
        "failover_restore_then_close",
        "an OPEN that restore skipped and that nobody sees again",
        restore_then_close,
    ),
    Test::new(
        "failover_close_then_restore",
        "an OPEN whose daemon died and that nobody sees again",
        close_then_restore,
    ),
    Test::new(
        "failover_restore_twice",
        "a second restore that loses or repeats something",
        restore_twice,
    ),
    Test::new(
        "failover_daemon_killed",
        "a reader that hangs, or gets wrong data, after its daemon was killed",
        daemon_killed,
    ),
    Test::new(
        "failover_killed_before_copen",
        "a mount that hangs after its daemon was killed",
        killed_before_copen,
    ),
    Test::new(
        "failover_killed_30_times",
        "anything that goes wrong only now and then when daemons die",
        killed_30_times,
    )
    .within(150),
];

fn restore_with_live_file(t: &Context) -> Result<()> {
    let mut daemon = t.daemon(&["small"])?;
    let image = daemon.images[0].clone();
    let mut mount = t.mount("fsid=small", &t.mount_point()?)?;
    let open = daemon.expect_open()?;
    for _ in 0..3 {
        daemon.restore()?;
        daemon.expect_nothing().context("after restore")?;
    }
    daemon.accept(open, &image).context("the first holder")?;
    daemon.serve(&mut mount)?.ok("mount")?;
    ensure!(daemon.opens() == 1, "{:?}", daemon.log);
    Ok(())
}

fn restore_then_close(t: &Context) -> Result<()> {
    let mut daemon = t.daemon(&["small"])?;
    let image = daemon.images[0].clone();
    let mut mount = t.mount("fsid=small", &t.mount_point()?)?;
    let first = daemon.expect_open()?;
    daemon.restore()?;
    daemon.expect_nothing().context("after restore")?;
    let (msg_id, object_id) = (first.msg_id, first.object_id);
    drop(first);
    let second = daemon.expect_open().context("after the file was closed")?;
    ensure!(second.object_id != object_id, "the same object id");
    ensure!(second.msg_id == msg_id, "another message id");
    daemon.accept(second, &image)?;
    daemon.serve(&mut mount)?.ok("mount")?;
    Ok(())
}

fn close_then_restore(t: &Context) -> Result<()> {
    let mut daemon = t.daemon(&["small"])?;
    let image = daemon.images[0].clone();
    let mut mount = t.mount("fsid=small", &t.mount_point()?)?;
    let first = daemon.expect_open()?;
    drop(first);
    // Until restore it belongs to whoever has read it, and may still refuse it.
    daemon.expect_nothing().context("after the close")?;
    daemon.restore()?;
    let second = daemon.expect_open().context("after restore")?;
    daemon.accept(second, &image)?;
    daemon.serve(&mut mount)?.ok("mount")?;
    Ok(())
}

fn restore_twice(t: &Context) -> Result<()> {
    let (mut daemon, image, at) = t.mounted_image("plain")?;
    drop_caches()?;
    let mut reader = t.block_reader(&at, 0, 4096)?;
    daemon.expect_read()?;
    daemon.open.clear();
    daemon.restore()?;
    daemon.restore()?;
    let open = daemon.expect_open()?;
    daemon.restore()?;
    daemon
        .expect_nothing()
        .context("with the reopen delivered")?;
    daemon.accept(open, &image)?;
    let read = daemon.expect_read()?;
    daemon.answer_read(&read)?;
    let data = daemon.serve(&mut reader)?.ok("read")?;
    daemon.restore()?;
    daemon.expect_nothing().context("with nothing to do")?;
    same("block 0", &data, &t.images.contents("plain")?[..4096])
}

/// A daemon in a process of its own, which kills itself at its message number `count`.
fn serving_process(t: &Context, daemon: &Daemon, count: u32) -> Result<Task> {
    let device = rustix::io::dup(&daemon.device)?;
    let images = t.settings.work_dir.to_string_lossy();
    Task::start(&["serve", &images, &count.to_string()], Stdio::from(device))
}

fn expect_killed(child: &mut Task) -> Result<()> {
    let outcome = child.wait(SOON)?;
    ensure!(outcome == Outcome::Killed(9), "the daemon: {outcome:?}");
    Ok(())
}

fn daemon_killed(t: &Context) -> Result<()> {
    let (mut daemon, _, at) = t.mounted_image("plain")?;
    let expected = t.images.contents("plain")?;
    // From here on this process is the supervisor: it holds the device and nothing else.
    daemon.open.clear();
    drop_caches()?;
    // The reopen, then the READ, which is not answered.
    let mut first = serving_process(t, &daemon, 2)?;
    let mut reader = t.block_reader(&at, 0, 256 << 10)?;
    expect_killed(&mut first)?;
    ensure!(reader.running()?, "the reader did not wait");
    let _second = serving_process(t, &daemon, 0)?;
    let data = reader.wait(SOON)?.ok("read")?;
    same("the file", &data, &expected[..256 << 10])
}

fn killed_before_copen(t: &Context) -> Result<()> {
    let daemon = t.daemon(&[])?;
    let at = t.mount_point()?;
    // Its first message is the OPEN.
    let mut first = serving_process(t, &daemon, 1)?;
    let mut mount = t.mount("fsid=plain", &at)?;
    expect_killed(&mut first)?;
    let mut second = serving_process(t, &daemon, 2)?;
    expect_killed(&mut second)?;
    let _third = serving_process(t, &daemon, 0)?;
    mount.wait(SOON)?.ok("mount")?;
    let mut reader = t.reader(&at, 0, 64 << 10)?;
    let data = reader.wait(SOON)?.ok("read")?;
    same("the file", &data, &t.images.contents("plain")?[..64 << 10])
}

fn killed_30_times(t: &Context) -> Result<()> {
    let (mut daemon, _, plain) = t.mounted_image("plain")?;
    daemon.images.push(t.images.get("lz4")?);
    let lz4 = t.mounted(&mut daemon, "fsid=lz4")?;
    daemon.open.clear();
    drop_caches()?;
    let plain_data = t.images.contents("plain")?;
    let lz4_data = t.images.contents("lz4")?;
    let mut readers = [
        (t.block_reader(&plain, 0, plain_data.len())?, &plain_data),
        (t.block_reader(&plain, 0, plain_data.len())?, &plain_data),
        (t.reader(&lz4, 0, lz4_data.len())?, &lz4_data),
    ];
    for round in 0..30 {
        let count = 1 + round % 7;
        let mut child = serving_process(t, &daemon, count)?;
        expect_killed(&mut child).with_context(|| {
            let readers = readers.each_ref().map(|(reader, _)| reader.stuck());
            format!("round {round}; readers:\n{}", readers.join("\n"))
        })?;
    }
    let _last = serving_process(t, &daemon, 0)?;
    for (reader, expected) in &mut readers {
        let data = reader.wait(SOON)?.ok("read")?;
        same(reader.what(), &data, expected)?;
    }
    // A stale answer of one of the dead changes nothing.
    expect_errno("stale copen", daemon.copen(3, 4096), &[Errno::INVAL])
}
