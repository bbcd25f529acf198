// SPDX-License-Identifier: MIT OR Apache-2.0

//! Objects whose anonymous file was closed, and that a READ opens again.

use std::sync::mpsc;
use std::thread;

use anyhow::bail;
use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Message;
use ondemand_deadline::Deadline;
use rustix::event::eventfd;
use rustix::event::EventfdFlags;
use rustix::io::Errno;

use crate::harness::drop_caches;
use crate::harness::eventually;
use crate::harness::expect_errno;
use crate::harness::same;
use crate::harness::wait::readable;
use crate::harness::wait::received;
use crate::harness::Context;
use crate::harness::Daemon;
use crate::harness::Task;
use crate::harness::Test;
use crate::harness::SOON;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "d05_close_with_delivered_read",
        "a reader that hangs when its READ's object is closed",
        close_with_delivered_read,
    ),
    Test::new(
        "d05_close_with_queued_read",
        "a reader that hangs when its object is closed before its READ is read",
        close_with_queued_read,
    ),
    Test::new(
        "reopen_after_idle_close",
        "an object that stays closed",
        after_idle_close,
    ),
    Test::new(
        "d07_reopen_refused_close_first",
        "OPENs without end for a reader that could be given an error",
        refused_close_first,
    ),
    Test::new(
        "d07_reopen_refused_copen_first",
        "OPENs without end for a reader that could be given an error",
        refused_copen_first,
    ),
    Test::new(
        "d08_poller_wakes_on_refused_reopen",
        "a daemon that sleeps in poll while there is a message",
        poller_wakes_on_refusal,
    ),
    Test::new(
        "d08_poller_wakes_on_close_in_reopen",
        "a daemon that sleeps in poll while there is a message",
        poller_wakes_on_close,
    ),
    Test::new(
        "d08_poller_wakes_on_close_with_read",
        "a daemon that sleeps in poll while there is a message",
        poller_wakes_on_close_with_read,
    ),
    Test::new(
        "d19_reopen_closed_before_copen",
        "a reader that waits for a reopen which has failed",
        closed_before_copen,
    ),
    Test::new(
        "d20_reopen_with_another_size",
        "an object that changes its size under its readers",
        another_size,
    ),
    Test::new(
        "reopen_kill_reader_meanwhile",
        "a reader that cannot be killed while its object is opened again",
        kill_reader_meanwhile,
    ),
    Test::new(
        "d33_umount_while_reopening",
        "an unmount during a reopen that leaves something behind",
        umount_while_reopening,
    ),
];

/// Mounts `plain`, reads a block of it, and closes the object with the READ delivered.
fn closed_object(t: &Context) -> Result<(Daemon, Task, std::path::PathBuf)> {
    let (mut daemon, _, at) = t.mounted_image("plain")?;
    drop_caches()?;
    let reader = t.block_reader(&at, 0, 4096)?;
    let read = daemon.expect_read()?;
    drop(daemon.open.remove(&read.object_id));
    Ok((daemon, reader, at))
}

fn first_block(t: &Context) -> Result<Vec<u8>> {
    Ok(t.images.contents("plain")?[..4096].to_vec())
}

fn close_with_delivered_read(t: &Context) -> Result<()> {
    let (mut daemon, mut reader, _) = closed_object(t)?;
    let image = daemon.images[0].clone();
    let open = daemon.expect_open()?;
    let object_id = daemon.accept(open, &image)?;
    let read = daemon.expect_read()?;
    ensure!(read.object_id == object_id, "{read:?} for {object_id}");
    daemon.answer_read(&read)?;
    let data = daemon.serve(&mut reader)?.ok("read")?;
    same("block 0", &data, &first_block(t)?)
}

fn close_with_queued_read(t: &Context) -> Result<()> {
    let (mut daemon, _, at) = t.mounted_image("plain")?;
    drop_caches()?;
    let mut reader = t.block_reader(&at, 0, 4096)?;
    eventually("a READ", SOON, || daemon.has_message())?;
    daemon.open.clear();
    let data = daemon.serve(&mut reader)?.ok("read")?;
    same("block 0", &data, &first_block(t)?)
}

fn after_idle_close(t: &Context) -> Result<()> {
    let (mut daemon, image, at) = t.mounted_image("plain")?;
    daemon.open.clear();
    daemon.expect_nothing().context("with nothing to be read")?;
    drop_caches()?;
    let mut reader = t.block_reader(&at, 0, 4096)?;
    let open = daemon.expect_open()?;
    daemon.expect_nothing().context("with the READ held back")?;
    daemon.accept(open, &image)?;
    let data = daemon.serve(&mut reader)?.ok("read")?;
    same("block 0", &data, &first_block(t)?)
}

/// Refuses reopens until the reader has its error, then serves the next one.
fn refused(t: &Context, close_first: bool) -> Result<()> {
    let (mut daemon, mut reader, at) = closed_object(t)?;
    let mut opens = 0;
    let outcome = daemon.serve_with(&mut reader, |daemon, message| match message {
        Message::Open(open) => {
            opens += 1;
            ensure!(opens <= 16, "{opens} OPENs for one read()");
            let (msg_id, file) = (open.msg_id, open.file);
            if close_first {
                drop(file);
                daemon.copen_error(msg_id, Errno::NOENT)?;
            } else {
                daemon.copen_error(msg_id, Errno::NOENT)?;
                drop(file);
            }
            Ok(())
        }
        other => bail!("no object is open: {other:?}"),
    })?;
    outcome.fails("read", &[Errno::IO])?;
    daemon
        .expect_nothing()
        .context("after the reader's error")?;
    let mut reader = t.block_reader(&at, 0, 4096)?;
    let data = daemon.serve(&mut reader)?.ok("the next read")?;
    same("block 0", &data, &first_block(t)?)
}

fn refused_close_first(t: &Context) -> Result<()> {
    refused(t, true)
}

fn refused_copen_first(t: &Context) -> Result<()> {
    refused(t, false)
}

/// With a thread asleep in `poll`, brings about `cause`; then the thread must wake if there is a
/// message, until the reader has ended.
fn poller_wakes(
    t: &Context,
    daemon: &mut Daemon,
    reader: &mut Task,
    cause: impl FnOnce(&mut Daemon) -> Result<()>,
) -> Result<()> {
    let device = rustix::io::dup(&daemon.device)?;
    let stop = eventfd(0, EventfdFlags::CLOEXEC)?;
    let (tell, told) = mpsc::channel();
    thread::scope(|scope| {
        let poller = scope.spawn(|| {
            let _ = tell.send(rustix::thread::gettid());
            // Longer than all waits below together, which must not end by its own deadline.
            readable([&device, &stop], &mut Deadline::after(SOON * 4))
        });
        let run = || -> Result<()> {
            let wchan = format!(
                "/proc/self/task/{}/wchan",
                received(&told, SOON)?.as_raw_nonzero()
            );
            eventually("the thread sleeps in poll", SOON, || {
                Ok(std::fs::read_to_string(&wchan)?.contains("poll"))
            })?;
            cause(daemon)?;
            eventually("a message, or the reader's end", SOON, || {
                Ok(daemon.has_message()? || !reader.running()?)
            })?;
            if daemon.has_message()? {
                eventually("the thread in poll wakes", SOON / 3, || {
                    Ok(poller.is_finished())
                })?;
            }
            Ok(())
        };
        let result = run();
        rustix::io::write(&stop, &1_u64.to_ne_bytes())?;
        result
    })?;
    daemon.serve(reader)?;
    // Whatever became of that reader: the object works.
    drop_caches()?;
    let mut reader = t.block_reader(&t.settings.work_dir.join("m0"), 0, 4096)?;
    let data = daemon.serve(&mut reader)?.ok("the next read")?;
    same("block 0", &data, &first_block(t)?)
}

fn poller_wakes_on_refusal(t: &Context) -> Result<()> {
    let (mut daemon, mut reader, _) = closed_object(t)?;
    // The C module would otherwise not come this far (D5).
    daemon.restore()?;
    let open = daemon.expect_open()?;
    poller_wakes(t, &mut daemon, &mut reader, |daemon| {
        let (msg_id, file) = (open.msg_id, open.file);
        drop(file);
        Ok(daemon.copen_error(msg_id, Errno::NOENT)?)
    })
}

fn poller_wakes_on_close(t: &Context) -> Result<()> {
    let (mut daemon, mut reader, _) = closed_object(t)?;
    daemon.restore()?;
    let open = daemon.expect_open()?;
    poller_wakes(t, &mut daemon, &mut reader, |daemon| {
        let msg_id = open.msg_id;
        drop(open);
        // Here the OPEN stays with its reader until it is answered or restored.
        if !daemon.has_message()? {
            expect_errno("copen", daemon.copen(msg_id, 1 << 20), &[Errno::BADFD])?;
        }
        Ok(())
    })
}

fn poller_wakes_on_close_with_read(t: &Context) -> Result<()> {
    let (mut daemon, _, at) = t.mounted_image("plain")?;
    drop_caches()?;
    let mut reader = t.block_reader(&at, 0, 4096)?;
    let read = daemon.expect_read()?;
    poller_wakes(t, &mut daemon, &mut reader, |daemon| {
        drop(daemon.open.remove(&read.object_id));
        Ok(())
    })
}

fn closed_before_copen(t: &Context) -> Result<()> {
    let (mut daemon, mut reader, at) = closed_object(t)?;
    daemon.restore()?;
    let size = daemon.images[0].size;
    let mut opens = 0;
    daemon.serve_with(&mut reader, |daemon, message| match message {
        Message::Open(open) if opens < 3 => {
            opens += 1;
            let (msg_id, file) = (open.msg_id, open.file);
            drop(file);
            expect_errno("copen", daemon.copen(msg_id, size), &[Errno::BADFD])
        }
        other => daemon.answer(other),
    })?;
    ensure!(opens > 0, "no OPEN");
    drop_caches()?;
    let mut reader = t.block_reader(&at, 0, 4096)?;
    let data = daemon.serve(&mut reader)?.ok("the next read")?;
    same("block 0", &data, &first_block(t)?)
}

fn another_size(t: &Context) -> Result<()> {
    let (mut daemon, mut reader, at) = closed_object(t)?;
    daemon.restore()?;
    let size = daemon.images[0].size;
    let mut wrong = [size - 4096, size + 4096, 0, size + 1].into_iter().cycle();
    let mut opens = 0;
    let outcome = daemon.serve_with(&mut reader, |daemon, message| match message {
        Message::Open(open) => {
            opens += 1;
            ensure!(opens <= 16, "{opens} OPENs for one read()");
            let size = wrong.next().unwrap_or_default();
            let copen = daemon.copen(open.msg_id, size);
            expect_errno(format!("copen with {size}"), copen, &[Errno::INVAL])
        }
        other => bail!("no object is open: {other:?}"),
    })?;
    outcome.fails("read", &[Errno::IO])?;
    let mut reader = t.block_reader(&at, 0, 4096)?;
    let data = daemon.serve(&mut reader)?.ok("with the right size")?;
    same("block 0", &data, &first_block(t)?)
}

fn kill_reader_meanwhile(t: &Context) -> Result<()> {
    let (mut daemon, mut reader, at) = closed_object(t)?;
    daemon.restore()?;
    let open = daemon.expect_open()?;
    let image = daemon.images[0].clone();
    reader.kill()?;
    reader.wait(SOON)?;
    // The reopen goes on without it.
    daemon.accept(open, &image)?;
    daemon
        .expect_nothing()
        .context("the READ's reader is dead")?;
    let mut reader = t.block_reader(&at, 0, 4096)?;
    let data = daemon.serve(&mut reader)?.ok("the next read")?;
    same("block 0", &data, &first_block(t)?)
}

fn umount_while_reopening(t: &Context) -> Result<()> {
    let (mut daemon, mut reader, at) = closed_object(t)?;
    daemon.restore()?;
    let open = daemon.expect_open()?;
    reader.kill()?;
    reader.wait(SOON)?;
    let mut umount = t.unmount(&at)?;
    daemon.serve(&mut umount)?.ok("umount")?;
    // The object is gone: the answer comes too late, and nothing must come of it.
    let (msg_id, file) = (open.msg_id, open.file);
    let late = daemon.copen(msg_id, daemon.images[0].size);
    ensure!(
        matches!(late, Ok(()) | Err(Errno::INVAL | Errno::BADFD)),
        "late copen: {late:?}"
    );
    drop(file);
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    let mut reader = t.block_reader(&at, 0, 4096)?;
    let data = daemon.serve(&mut reader)?.ok("read after a remount")?;
    same("block 0", &data, &first_block(t)?)
}
