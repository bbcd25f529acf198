// SPDX-License-Identifier: MIT OR Apache-2.0

//! Published races around requests, with daemons of several threads: each for a bounded number of
//! rounds. What is told of each is what the C module did before it was mended.

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use rustix::io::Errno;

use crate::harness::drop_caches;
use crate::harness::eventually;
use crate::harness::expect_errno;
use crate::harness::mock::Reader;
use crate::harness::raw;
use crate::harness::Context;
use crate::harness::Mock;
use crate::harness::Stage;
use crate::harness::Task;
use crate::harness::Test;
use crate::harness::SOON;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "cve_2024_39510_restore_and_close_beside_read",
        "an object that is freed while a CLOSE is read, because another thread took it after restore",
        restore_and_close_beside_read,
    )
    .within(180),
    Test::new(
        "cve_2024_40899_restore_beside_copen",
        "an OPEN that two threads have, and that is freed by the answer of the first",
        restore_beside_copen,
    )
    .within(180),
    Test::new(
        "cve_2024_40913_close_beside_failing_read",
        "an anonymous file that can be closed before its read has succeeded",
        close_beside_failing_read,
    )
    .within(180),
    Test::new(
        "cve_2024_41050_copen_of_ids_used_again",
        "an answer that comes late and ends another OPEN, so that a READ hangs",
        copen_of_ids_used_again,
    )
    .within(180),
    Test::new(
        "cve_2024_41074_errors_for_any_id_in_reopens",
        "an object that stays half open after an error answer, so that a READ hangs",
        errors_for_any_id,
    )
    .within(180),
    Test::new(
        "cve_2024_41075_answers_of_any_kind_for_any_id",
        "a copen that ends a READ, or a READ that another object's file ends",
        answers_for_any_id,
    )
    .within(180),
    Test::new(
        "cve_2024_42250_poll_beside_ending_requests",
        "a poll that looks at requests while they are freed",
        poll_beside_requests,
    )
    .within(180),
];

/// How much most readers read, in bytes: 32 READs.
const PART: usize = 128 << 10;

/// Mounts and unmounts images of one domain, while the daemon does as its script says.
fn mount_again_and_again(t: &Context, mock: &Mock, rounds: usize) -> Result<()> {
    for round in 0..rounds {
        let mut mounts = Vec::new();
        for name in ["small", "plain"] {
            let at = t.mount_point()?;
            let options = format!("domain_id=d,fsid={name}");
            mounts.push((t.mount(&options, &at)?, at));
        }
        for (mut mount, at) in mounts {
            mount
                .wait(SOON)
                .and_then(|outcome| outcome.ok("mount"))
                .with_context(|| format!("round {round}:\n{}", mock.tail()))?;
            t.unmount(&at)?.wait(SOON)?.ok("umount")?;
        }
    }
    Ok(())
}

fn restore_and_close_beside_read(t: &Context) -> Result<()> {
    let mut stage = Stage::new(t, &["twin"])?;
    // CLOSE messages come from the unmounts; their files are closed by any of the threads, and by
    // none sometimes, so that some of the CLOSEs are withdrawn.
    let mock = stage.mock(
        "threads = 4\n[[tick]]\nms = 1\ndo = { restore = 1 }\n\
         [[rule]]\non = \"close\"\nevery = 3\ndo = \"close-all\"\n\
         [[rule]]\non = \"close\"\nevery = 2\ndo = { delay = 3 }\n\
         [[rule]]\non = \"read\"\nevery = 8\ndo = \"close-all\"",
    )?;
    let reader = stage.insisting_reader("twin", PART)?;
    // An OPEN whose file is closed before the answer fails, and its mount with it. They must end.
    for _ in 0..5 {
        for name in ["small", "plain"] {
            let at = t.mount_point()?;
            let mut mount = t.mount(&format!("domain_id=d,fsid={name}"), &at)?;
            if mount.wait(SOON)?.ok("mount").is_ok() {
                t.unmount(&at)?.wait(SOON)?.ok("umount")?;
            }
        }
    }
    reader.finish().with_context(|| mock.tail())?;
    ensure!(mock.said("CLOSE")?, "there was no CLOSE");
    drop(mock);
    let good = stage.mock("")?;
    stage.mount("plain")?;
    stage.reader("plain", 0, PART)?.finish()?;
    drop(good);
    Ok(())
}

fn restore_beside_copen(t: &Context) -> Result<()> {
    let stage = Stage::new(t, &["plain"])?;
    let mock = stage.mock(
        "threads = 4\n[[tick]]\nms = 1\ndo = { restore = 1 }\n\
         [[rule]]\non = \"open\"\ndo = { delay = 5 }\n\
         [[rule]]\non = \"read\"\nevery = 7\ndo = { close-early = \"before\" }",
    )?;
    let reader = stage.reader("plain", 0, PART)?;
    // Nobody closes a file before its OPEN was answered: no mount may fail.
    mount_again_and_again(t, &mock, 5)?;
    reader.finish().with_context(|| mock.tail())?;
    ensure!(
        !mock.said("copen")?,
        "an answer was refused:\n{}",
        mock.tail()
    );
    Ok(())
}

fn close_beside_failing_read(t: &Context) -> Result<()> {
    const ROUNDS: u32 = 200;
    let mut daemon = t.daemon(&["plain"])?;
    let at = t.mount_point()?;
    let mut mount = t.mount("fsid=plain", &at)?;
    eventually("an OPEN", SOON, || daemon.has_message())?;
    // In a process of its own, where any number may be closed.
    let device = rustix::io::dup(&daemon.device)?;
    let rounds = ROUNDS.to_string();
    let mut closer = Task::start(&["close-beside-read", &rounds], device.into())?;
    let output = closer.wait(SOON)?.ok("the reads into forbidden memory")?;
    let output = String::from_utf8_lossy(&output);
    ensure!(output == format!("{ROUNDS} 0"), "EFAULTs, closed: {output}");
    // The OPEN is still there, once, and its first file is the first that anybody sees.
    daemon.serve(&mut mount)?.ok("mount")?;
    ensure!(daemon.opens() == 1, "{:?}", daemon.log);
    drop_caches()?;
    let mut reader = t.block_reader(&at, 0, 8192)?;
    daemon.serve(&mut reader)?.ok("read")?;
    let page = raw::ForbiddenPage::new()?;
    ensure!(!daemon.has_message()?, "a message is left");
    let read = raw::read_into(&daemon.device, &page);
    ensure!(read == Ok(0), "with nothing to read: {read:?}");
    Ok(())
}

fn copen_of_ids_used_again(t: &Context) -> Result<()> {
    let mut daemon = t.daemon(&["plain", "small"])?;
    for round in 0..6 {
        let mut failed = t.mount("domain_id=d,fsid=plain", &t.mount_point()?)?;
        let stale = daemon.expect_open()?.msg_id;
        daemon.copen_error(stale, Errno::IO)?;
        failed
            .wait(SOON)?
            .fails("the first mount", &[Errno::IO, Errno::NOBUFS])?;
        // The next one, whose number must be another.
        let at = t.mount_point()?;
        let mut mount = t.mount("domain_id=d,fsid=small", &at)?;
        let open = daemon.expect_open()?;
        ensure!(open.msg_id != stale, "round {round}: {stale} is used again");
        for answer in ["-1", "-5", "4096", "16384"] {
            let late = daemon.command(&format!("copen {stale},{answer}"));
            expect_errno("the late copen", late, &[Errno::INVAL])?;
        }
        let image = daemon.images[1].clone();
        daemon.accept(open, &image)?;
        daemon.serve(&mut mount)?.ok("the second mount")?;
        let mut umount = t.unmount(&at)?;
        daemon.serve(&mut umount)?.ok("umount")?;
    }
    Ok(())
}

/// Reads two images while answers are made up, in lives of which each begins with reopens.
fn among_made_up_answers(t: &Context, noise: &str) -> Result<()> {
    const LIVES: u32 = 3;
    let stage = Stage::new(t, &["plain", "twin"])?;
    let readers = [
        stage.insisting_reader("plain", PART)?,
        stage.insisting_reader("twin", PART)?,
    ];
    let mut taken = 0;
    for life in 0..LIVES {
        let mut mock = stage.mock(&format!(
            "threads = 2\nseed = {life}\n{noise}\
             [[rule]]\non = \"read\"\nevery = 6\ndo = {{ close-early = \"after\" }}\n\
             [[rule]]\non = \"read\"\nnth = 15\ndo = {{ die = \"mid-fill\" }}"
        ))?;
        mock.died()?;
        taken += mock.log()?.matches(" was taken").count();
    }
    println!("{taken} of the answers were taken");
    stage.finish(readers)
}

fn errors_for_any_id(t: &Context) -> Result<()> {
    among_made_up_answers(
        t,
        "[[tick]]\nms = 1\ndo = { noise = 256 }\n[[rule]]\non = \"open\"\ndo = { delay = 5 }\n",
    )
}

fn answers_for_any_id(t: &Context) -> Result<()> {
    among_made_up_answers(
        t,
        "[[tick]]\nms = 1\ndo = { noise = 64 }\n[[tick]]\nms = 1\ndo = { noise = 512 }\n",
    )
}

fn poll_beside_requests(t: &Context) -> Result<()> {
    let stage = Stage::new(t, &["plain", "twin"])?;
    let mock = stage.mock(
        "threads = 2\npollers = 2\n\
         [[rule]]\non = \"read\"\nevery = 7\ndo = { close-early = \"before\" }",
    )?;
    let readers = vec![
        stage.reader("plain", 0, PART)?,
        stage.reader("twin", 0, PART)?,
        stage.fast_reader("twin", 0, usize::MAX)?,
    ];
    let mut killed = stage.reader("plain", 512 << 10, usize::MAX)?;
    killed.task.kill()?;
    readers
        .into_iter()
        .try_for_each(Reader::finish)
        .with_context(|| mock.tail())
}
