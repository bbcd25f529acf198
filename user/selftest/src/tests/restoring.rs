// SPDX-License-Identifier: MIT OR Apache-2.0

//! READs that `restore` makes deliverable again: after the death of a daemon whose anonymous files were
//! kept, and in a daemon that lives.

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Read;
use ondemand_deadline::scaled;
use rustix::event::epoll;
use rustix::event::Timespec;
use rustix::io::Errno;

use crate::harness::drop_caches;
use crate::harness::errno_of;
use crate::harness::same;
use crate::harness::Context;
use crate::harness::Death;
use crate::harness::Supervisor;
use crate::harness::Test;
use crate::harness::SOON;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "restore_read_of_living_file",
        "a READ whose thread was lost and that nobody is sent again, or an answer that is refused",
        read_of_living_file,
    ),
    Test::new(
        "restore_second_answer",
        "a READ that was delivered twice and cannot be answered the second time",
        second_answer,
    ),
    Test::new(
        "restore_five_reads",
        "a READ that is never sent again because others come first",
        five_reads,
    ),
    Test::new(
        "restore_wakes_edge_triggered",
        "a poller that sleeps on a READ that is deliverable again",
        wakes_edge_triggered,
    ),
    Test::new(
        "restore_files_kept",
        "a reader that hangs after the death of a daemon whose files its supervisor keeps",
        files_kept,
    ),
    Test::new(
        "restore_files_kept_200_kills",
        "anything that goes wrong only now and then when daemons die and their files are kept",
        files_kept_200_kills,
    )
    .within(300),
];

fn is_same(again: &Read, first: &Read) -> Result<()> {
    let numbers = |read: &Read| (read.msg_id, read.object_id, read.off, read.len);
    ensure!(
        numbers(again) == numbers(first),
        "{again:?} is not {first:?}"
    );
    Ok(())
}

fn read_of_living_file(t: &Context) -> Result<()> {
    let (mut daemon, _, at) = t.mounted_image("plain")?;
    drop_caches()?;
    let mut reader = t.block_reader(&at, 0, 4096)?;
    let read = daemon.expect_read()?;
    daemon.expect_nothing().context("before restore")?;
    daemon.restore()?;
    let again = daemon.expect_read().context("after restore")?;
    is_same(&again, &read)?;
    daemon.expect_nothing().context("it comes once")?;
    // Without an answer it comes again and again.
    daemon.restore()?;
    is_same(&daemon.expect_read().context("after another")?, &read)?;
    daemon.answer_read(&read)?;
    let data = daemon.serve(&mut reader)?.ok("read")?;
    same("block 0", &data, &t.images.contents("plain")?[..4096])?;
    daemon.restore()?;
    daemon.expect_nothing().context("after its end")
}

fn second_answer(t: &Context) -> Result<()> {
    let (mut daemon, _, at) = t.mounted_image("plain")?;
    drop_caches()?;
    let expected = t.images.contents("plain")?;
    // Answered before its second delivery; after it.
    for (number, delivered) in [false, true].into_iter().enumerate() {
        let block = number * 4096;
        let mut reader = t.block_reader(&at, block, 4096)?;
        let read = daemon.expect_read()?;
        daemon.restore()?;
        if delivered {
            is_same(&daemon.expect_read()?, &read)?;
        }
        daemon.fill(&read)?;
        let file = &daemon.object(read.object_id)?.file;
        file.read_complete(read.msg_id)
            .context("the first answer")?;
        let second = errno_of(file.read_complete(read.msg_id))?;
        ensure!(
            second == Some(Errno::INVAL),
            "the second answer: {second:?}"
        );
        daemon.expect_nothing().context("it was answered")?;
        let data = reader.wait(SOON)?.ok("read")?;
        same("a block", &data, &expected[block..][..4096])?;
    }
    Ok(())
}

fn five_reads(t: &Context) -> Result<()> {
    let (mut daemon, _, at) = t.mounted_image("plain")?;
    drop_caches()?;
    let mut readers = Vec::new();
    let mut reads = Vec::new();
    for number in 0..5 {
        readers.push(t.block_reader(&at, number * 4096, 4096)?);
        reads.push(daemon.expect_read()?);
    }
    let mut again = Vec::new();
    for _ in &reads {
        daemon.restore()?;
        again.push(daemon.expect_read()?.msg_id);
    }
    again.sort_unstable();
    let mut sent: Vec<u32> = reads.iter().map(|read| read.msg_id).collect();
    sent.sort_unstable();
    ensure!(again == sent, "sent again: {again:?}, not {sent:?}");
    for read in &reads {
        daemon.answer_read(read)?;
    }
    for reader in &mut readers {
        daemon.serve(reader)?.ok("read")?;
    }
    Ok(())
}

fn wakes_edge_triggered(t: &Context) -> Result<()> {
    let (mut daemon, _, at) = t.mounted_image("plain")?;
    drop_caches()?;
    let mut reader = t.block_reader(&at, 0, 4096)?;
    let read = daemon.expect_read()?;
    let poller = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let edges = epoll::EventFlags::IN | epoll::EventFlags::ET;
    epoll::add(&poller, &daemon.device, epoll::EventData::new_u64(1), edges)?;
    let events = |patience: &Timespec| -> Result<usize> {
        let mut events = Vec::with_capacity(4);
        let space = rustix::buffer::spare_capacity(&mut events);
        Ok(epoll::wait(&poller, space, Some(patience))?)
    };
    ensure!(events(&Timespec::default())? == 0, "an edge for nothing");
    daemon.restore()?;
    let soon = Timespec::try_from(scaled(SOON))?;
    ensure!(events(&soon)? == 1, "no edge for the READ");
    is_same(&daemon.expect_read()?, &read)?;
    daemon.answer_read(&read)?;
    daemon.serve(&mut reader)?.ok("read")?;
    Ok(())
}

fn files_kept(t: &Context) -> Result<()> {
    let (daemon, _, at) = t.mounted_image("plain")?;
    let expected = t.images.contents("plain")?;
    let mut supervisor = Supervisor::of(t, daemon)?;
    drop_caches()?;
    // One READ is in flight when it dies.
    supervisor.start(Death::Unanswered(1))?;
    let mut reader = t.block_reader(&at, 0, 256 << 10)?;
    supervisor.wait_for_death()?;
    ensure!(reader.running()?, "the reader did not wait");
    supervisor.start(Death::Never)?;
    let data = reader.wait(SOON)?.ok("read")?;
    same("the file", &data, &expected[..256 << 10])?;
    ensure!(supervisor.passed == 0, "the object was opened again");
    Ok(())
}

fn files_kept_200_kills(t: &Context) -> Result<()> {
    const KILLS: u32 = 200;
    let (daemon, _, plain) = t.mounted_image("plain")?;
    let mut supervisor = Supervisor::of(t, daemon)?;
    let expected = t.images.contents("plain")?;
    drop_caches()?;
    let half = expected.len() / 2 / 4096 * 4096;
    let mut readers = [
        (t.block_reader(&plain, 0, expected.len())?, &expected[..]),
        (t.block_reader(&plain, 0, half)?, &expected[..half]),
        (
            t.block_reader(&plain, half, expected.len() - half)?,
            &expected[half..],
        ),
    ];
    // Three of four answer nothing, so that the image lasts.
    let mut deaths = [
        Death::Unanswered(1),
        Death::Filled(1),
        Death::Unanswered(1),
        Death::Unanswered(3),
    ]
    .into_iter()
    .cycle();
    while supervisor.kills < KILLS {
        supervisor.start(deaths.next().unwrap_or(Death::Never))?;
        if supervisor.outlives(&readers[0].0)? {
            break;
        }
        supervisor.wait_for_death()?;
    }
    ensure!(
        supervisor.kills == KILLS,
        "the readers were ready after {} kills",
        supervisor.kills
    );
    supervisor.start(Death::Never)?;
    for (reader, expected) in &mut readers {
        let data = reader.wait(SOON)?.ok("read")?;
        same(reader.what(), &data, expected)?;
    }
    Ok(())
}
