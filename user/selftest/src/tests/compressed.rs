// SPDX-License-Identifier: MIT OR Apache-2.0

//! Compressed images: EROFS has one pseudo-bio a cluster there, and ends it as often as it is told.

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Message;
use rustix::io::Errno;

use crate::harness::drop_caches;
use crate::harness::same;
use crate::harness::Context;
use crate::harness::Outcome;
use crate::harness::Test;
use crate::harness::SOON;

pub(crate) const TESTS: &[Test] = &[
    Test::new("read_lz4", "wrong data from a compressed image", whole_file),
    Test::new(
        "d01_lz4_across_cached_edges",
        "a reader that hangs when a cluster is cached in part",
        across_cached_edges,
    ),
    Test::new(
        "d47_lz4_kill_reader",
        "a killed reader of a compressed image that corrupts memory",
        kill_reader,
    ),
    Test::new(
        "d47_lz4_answer_without_data",
        "zeros, or corrupted memory, for a READ of a compressed image that failed",
        answer_without_data,
    ),
    Test::new(
        "d47_lz4_dead_cache",
        "readers of a compressed image that outlive their cache",
        dead_cache,
    ),
];

fn whole_file(t: &Context) -> Result<()> {
    let (mut daemon, _, at) = t.mounted_image("lz4")?;
    let expected = t.images.contents("lz4")?;
    let mut reader = t.reader(&at, 0, expected.len())?;
    let data = daemon.serve(&mut reader)?.ok("read")?;
    same("the file", &data, &expected)
}

fn across_cached_edges(t: &Context) -> Result<()> {
    let expected = t.images.contents("lz4")?;
    // The edges fall on every place of a cluster: every fourth block, from each of the four.
    for phase in 0..4_u64 {
        let mut daemon = t.daemon(&["lz4"])?;
        let image = daemon.images[0].clone();
        let at = t.mounted(&mut daemon, "fsid=lz4")?;
        let opened = daemon.open.values().next().context("no object")?;
        for off in (phase * 4096..image.size).step_by(4 * 4096) {
            opened.file.write_all_at(image.range(off, 4096), off)?;
        }
        drop_caches()?;
        let mut reader = t.reader(&at, 0, expected.len())?;
        let data = daemon.serve(&mut reader)?.ok("read")?;
        same(&format!("the file, phase {phase}"), &data, &expected)?;
        let mut umount = t.unmount(&at)?;
        daemon.serve(&mut umount)?.ok("umount")?;
    }
    Ok(())
}

fn kill_reader(t: &Context) -> Result<()> {
    let (mut daemon, _, at) = t.mounted_image("lz4")?;
    let expected = t.images.contents("lz4")?;
    for _ in 0..3 {
        drop_caches()?;
        let mut reader = t.reader(&at, 0, expected.len())?;
        let read = daemon.expect_read()?;
        reader.kill()?;
        // It may have to see other READs of the same range fail; none of them is answered.
        let outcome = daemon.serve_with(&mut reader, |_, _| Ok(()))?;
        ensure!(outcome == Outcome::Killed(9), "{outcome:?}");
        ensure!(
            daemon
                .object(read.object_id)?
                .file
                .read_complete(read.msg_id)
                .is_err(),
            "the READ of a dead reader could be completed"
        );
    }
    drop_caches()?;
    let mut reader = t.reader(&at, 0, expected.len())?;
    let data = daemon.serve(&mut reader)?.ok("read")?;
    same("the file", &data, &expected)?;
    let mut umount = t.unmount(&at)?;
    daemon.serve(&mut umount)?.ok("umount")?;
    Ok(())
}

fn answer_without_data(t: &Context) -> Result<()> {
    let (mut daemon, _, at) = t.mounted_image("lz4")?;
    let expected = t.images.contents("lz4")?;
    drop_caches()?;
    let mut reader = t.reader(&at, 0, 256 << 10)?;
    let mut reads = 0;
    let outcome = daemon.serve_with(&mut reader, |daemon, message| match message {
        Message::Read(read) => {
            reads += 1;
            ensure!(reads < 256, "asked again and again: {read:?}");
            Ok(daemon
                .object(read.object_id)?
                .file
                .read_complete(read.msg_id)?)
        }
        other => daemon.answer(other),
    })?;
    outcome.fails("read", &[Errno::IO])?;
    let mut reader = t.reader(&at, 0, expected.len())?;
    let data = daemon.serve(&mut reader)?.ok("read")?;
    same("the file", &data, &expected)?;
    let mut umount = t.unmount(&at)?;
    daemon.serve(&mut umount)?.ok("umount")?;
    Ok(())
}

fn dead_cache(t: &Context) -> Result<()> {
    let (mut daemon, _, at) = t.mounted_image("lz4")?;
    drop_caches()?;
    let mut readers = Vec::new();
    for number in 0..4 {
        readers.push(t.reader(&at, number << 20, 1 << 20)?);
        daemon.expect_read()?;
    }
    // An anonymous file keeps the cache from being withdrawn: a compressed read that begins after
    // that is used by EROFS after it was freed, which no cache can prevent (see findings/).
    let kept = std::mem::take(&mut daemon.open);
    drop(daemon);
    for reader in &mut readers {
        let outcome = reader.wait(SOON)?;
        let errors = [Errno::IO, Errno::NOBUFS];
        outcome.fails("read from a dead cache", &errors)?;
    }
    t.unmount(&at)?.wait(SOON)?.ok("umount")?;
    drop(kept);
    Ok(())
}
