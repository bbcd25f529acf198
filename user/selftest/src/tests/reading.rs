// SPDX-License-Identifier: MIT OR Apache-2.0

//! READs, what is written to the anonymous file, and how a READ ends.

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Message;
use cachefiles_proto::Read;
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::harness::drop_caches;
use crate::harness::errno_of;
use crate::harness::expect_errno;
use crate::harness::raw;
use crate::harness::same;
use crate::harness::skip;
use crate::harness::Context;
use crate::harness::Daemon;
use crate::harness::Outcome;
use crate::harness::Test;
use crate::harness::SOON;

pub(crate) const TESTS: &[Test] = &[
    Test::new("read_whole_file", "wrong data", whole_file),
    Test::new(
        "read_wrong_completion",
        "a completion that ends another READ than its own",
        wrong_completion,
    ),
    Test::new(
        "read_unknown_ioctl",
        "an ioctl of another kind that does something",
        unknown_ioctl,
    ),
    Test::new(
        "d43_unaligned_write",
        "a refused write that takes the READ with it",
        unaligned_write,
    ),
    Test::new(
        "read_short_answer",
        "a part of a READ's range that is taken for all of it",
        short_answer,
    ),
    Test::new(
        "read_answer_without_data",
        "zeros, or an endless loop, for a READ that failed",
        answer_without_data,
    ),
    Test::new(
        "read_partial_cache",
        "READs for what is there, or none for what is missing",
        partial_cache,
    ),
    Test::new(
        "read_cached_remount",
        "data that is fetched twice, or lost at umount",
        cached_remount,
    ),
    Test::new(
        "read_kill_reader",
        "a reader that cannot be killed, or takes others with it",
        kill_reader,
    ),
    Test::new(
        "d21_seek_does_not_move",
        "lseek that moves another position than write uses",
        seek_does_not_move,
    ),
    Test::new(
        "d23_write_beyond_size",
        "a daemon that fills the disk beyond the object",
        write_beyond_size,
    ),
    Test::new(
        "d36_completion_by_32_bits",
        "a 32-bit daemon that cannot complete a READ",
        completion_by_32_bits,
    ),
    Test::new(
        "d24_write_beyond_end",
        "a write of 512 bytes beyond the end that upsets the next reader",
        write_beyond_end,
    ),
    Test::new(
        "read_half_a_block_is_no_data",
        "a write of half a block that makes zeros of the other half",
        half_a_block,
    ),
];

fn whole_file(t: &Context) -> Result<()> {
    let (mut daemon, _, at) = t.mounted_image("plain")?;
    let expected = t.images.contents("plain")?;
    let mut reader = t.reader(&at, 0, expected.len())?;
    let data = daemon.serve(&mut reader)?.ok("read")?;
    same("the file", &data, &expected)
}

/// Mounts `plain` and reads one block of its file, up to the READ.
fn pending_read(t: &Context) -> Result<(Daemon, crate::harness::Task, Read, std::path::PathBuf)> {
    let (mut daemon, _, at) = t.mounted_image("plain")?;
    drop_caches()?;
    let reader = t.block_reader(&at, 8192, 4096)?;
    let read = daemon.expect_read()?;
    Ok((daemon, reader, read, at))
}

fn wrong_completion(t: &Context) -> Result<()> {
    let (mut daemon, mut reader, read, _) = pending_read(t)?;
    let complete = |daemon: &Daemon, object: u32, id: u32| -> Result<Option<Errno>> {
        errno_of(daemon.object(object)?.file.read_complete(id))
    };
    for id in [0, read.msg_id + 1, read.msg_id + 100, u32::MAX] {
        let errno = complete(&daemon, read.object_id, id)?;
        ensure!(errno == Some(Errno::INVAL), "READ {id}: {errno:?}");
    }
    // An OPEN's id, and the READ's id through another object's file.
    let image = t.images.get("small")?;
    let mut mount = t.mount("fsid=small", &t.mount_point()?)?;
    let open = daemon.expect_open()?;
    let errno = complete(&daemon, read.object_id, open.msg_id)?;
    ensure!(errno == Some(Errno::INVAL), "an OPEN's id: {errno:?}");
    let other = daemon.accept(open, &image)?;
    let errno = complete(&daemon, other, read.msg_id)?;
    ensure!(errno == Some(Errno::INVAL), "another object: {errno:?}");
    ensure!(reader.running()?, "the reader has ended");
    daemon.serve(&mut mount)?.ok("mount")?;

    daemon.answer_read(&read)?;
    let errno = complete(&daemon, read.object_id, read.msg_id)?;
    ensure!(errno == Some(Errno::INVAL), "a second time: {errno:?}");
    let data = daemon.serve(&mut reader)?.ok("read")?;
    same("block 2", &data, &t.images.contents("plain")?[8192..12288])
}

fn unknown_ioctl(t: &Context) -> Result<()> {
    let (mut daemon, mut reader, read, _) = pending_read(t)?;
    let errors = [Errno::INVAL, Errno::NOTTY];
    let file = &daemon.object(read.object_id)?.file;
    expect_errno("ioctl", raw::unknown_ioctl(file), &errors)?;
    expect_errno("ioctl", raw::unknown_ioctl(&daemon.device), &errors)?;
    daemon.answer_read(&read)?;
    daemon.serve(&mut reader)?.ok("read")?;
    Ok(())
}

fn unaligned_write(t: &Context) -> Result<()> {
    let (mut daemon, mut reader, read, _) = pending_read(t)?;
    let object = daemon.object(read.object_id)?;
    let data = object.image.range(read.off, 8192);
    let errors = [Errno::INVAL, Errno::NOBUFS];
    let write = |data: &[u8], off| rustix::io::pwrite(&object.file, data, off);
    expect_errno("offset + 1", write(&data[..4096], read.off + 1), &errors)?;
    expect_errno(
        "offset + 512",
        write(&data[..4096], read.off + 512),
        &errors,
    )?;
    expect_errno("odd length", write(&data[..4095], read.off), &errors)?;
    let odd = write(&data[1..4097], read.off);
    if t.fills_in_memory() {
        ensure!(odd == Ok(4096), "odd address: {odd:?}");
    } else {
        expect_errno("odd address", odd, &errors)?;
    }
    let page = raw::ForbiddenPage::new()?;
    let sought = rustix::fs::seek(&object.file, SeekFrom::Start(0));
    if sought.is_ok() {
        expect_errno(
            "bad address",
            raw::write_from(&object.file, &page, 4096),
            &[Errno::FAULT],
        )?;
    }
    daemon.answer_read(&read)?;
    let data = daemon.serve(&mut reader)?.ok("read")?;
    same("block 2", &data, &t.images.contents("plain")?[8192..12288])
}

fn short_answer(t: &Context) -> Result<()> {
    let (mut daemon, _, at) = t.mounted_image("plain")?;
    let expected = t.images.contents("plain")?;
    drop_caches()?;
    let mut reader = t.reader(&at, 0, 256 << 10)?;
    let mut shortened = 0;
    let outcome = daemon.serve_with(&mut reader, |daemon, message| match message {
        Message::Read(read) if read.len > 4096 => {
            shortened += 1;
            daemon.answer_read(&Read { len: 4096, ..read })
        }
        other => daemon.answer(other),
    })?;
    ensure!(shortened > 0, "no READ longer than a block");
    same("the file", &outcome.ok("read")?, &expected[..256 << 10])
}

fn answer_without_data(t: &Context) -> Result<()> {
    let (mut daemon, _, at) = t.mounted_image("plain")?;
    drop_caches()?;
    let mut reader = t.reader(&at, 0, 64 << 10)?;
    let mut reads = 0;
    let outcome = daemon.serve_with(&mut reader, |daemon, message| match message {
        Message::Read(read) => {
            reads += 1;
            ensure!(reads < 64, "asked again and again: {read:?}");
            Ok(daemon
                .object(read.object_id)?
                .file
                .read_complete(read.msg_id)?)
        }
        other => daemon.answer(other),
    })?;
    outcome.fails("read", &[Errno::IO])?;
    // The object is as good as before.
    let mut reader = t.reader(&at, 0, 64 << 10)?;
    let data = daemon.serve(&mut reader)?.ok("read")?;
    same("the file", &data, &t.images.contents("plain")?[..64 << 10])
}

fn partial_cache(t: &Context) -> Result<()> {
    let (mut daemon, image, at) = t.mounted_image("plain")?;
    let expected = t.images.contents("plain")?;
    let start = image.find(&expected[..4096])?;
    let opened = daemon.open.first_entry().context("no object")?;
    // Of every four blocks the first and the second.
    for block in (0..64_u64).filter(|block| block % 4 < 2) {
        let off = start + block * 4096;
        opened
            .get()
            .file
            .write_all_at(image.range(off, 4096), off)?;
    }
    drop_caches()?;
    let before = daemon.log.len();
    let mut reader = t.reader(&at, 0, 256 << 10)?;
    let data = daemon.serve(&mut reader)?.ok("read")?;
    same("the file", &data, &expected[..256 << 10])?;
    let reads = daemon.log.split_off(before);
    daemon.log = reads;
    for (off, len) in daemon.reads() {
        for at in (off..off + len).step_by(4096) {
            let block = at.checked_sub(start).map(|at| at / 4096);
            ensure!(
                !block.is_some_and(|block| block < 64 && block % 4 < 2),
                "READ {off}+{len} asks for block {block:?}, which was there"
            );
        }
    }
    Ok(())
}

fn cached_remount(t: &Context) -> Result<()> {
    let (mut daemon, _, at) = t.mounted_image("plain")?;
    let expected = t.images.contents("plain")?;
    let mut reader = t.reader(&at, 0, expected.len())?;
    daemon.serve(&mut reader)?.ok("read")?;
    let mut umount = t.unmount(&at)?;
    daemon.serve(&mut umount)?.ok("umount")?;
    let reads = daemon.reads().len();

    let at = t.mounted(&mut daemon, "fsid=plain")?;
    drop_caches()?;
    let mut reader = t.reader(&at, 0, expected.len())?;
    let data = daemon.serve(&mut reader)?.ok("read")?;
    same("the file", &data, &expected)?;
    let again = daemon.reads().split_off(reads);
    ensure!(again.is_empty(), "READs of what was cached: {again:?}");
    Ok(())
}

fn kill_reader(t: &Context) -> Result<()> {
    let (mut daemon, mut reader, read, at) = pending_read(t)?;
    let mut other = t.block_reader(&at, 65536, 4096)?;
    let second = daemon.expect_read()?;
    reader.kill()?;
    let outcome = reader.wait(SOON)?;
    ensure!(outcome == Outcome::Killed(9), "{outcome:?}");
    daemon.fill(&read)?;
    let late = errno_of(
        daemon
            .object(read.object_id)?
            .file
            .read_complete(read.msg_id),
    )?;
    ensure!(
        late == Some(Errno::INVAL),
        "completion after the kill: {late:?}"
    );
    daemon.answer_read(&second)?;
    let expected = t.images.contents("plain")?;
    let data = daemon.serve(&mut other)?.ok("read")?;
    same("block 16", &data, &expected[65536..69632])?;
    // What was written for the dead reader is good for the next one.
    let reads = daemon.reads().len();
    let mut again = t.block_reader(&at, 8192, 4096)?;
    let data = daemon.serve(&mut again)?.ok("read")?;
    same("block 2", &data, &expected[8192..12288])?;
    ensure!(daemon.reads().len() == reads, "READ of what was written");
    Ok(())
}

fn seek_does_not_move(t: &Context) -> Result<()> {
    let (daemon, image, _) = t.mounted_image("plain")?;
    let opened = daemon.open.values().next().context("no object")?;
    let off = 512 << 10;
    match rustix::fs::seek(&opened.file, SeekFrom::Start(off)) {
        // Refused is fine: then pwrite is all there is.
        Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::SPIPE) => return Ok(()),
        other => ensure!(other? == off, "lseek"),
    }
    let len = rustix::io::write(&opened.file, image.range(off, 4096))?;
    ensure!(len == 4096, "write returned {len}");
    let data = opened.file.seek_data(off)?;
    ensure!(data == Some(off), "written at {off}, found at {data:?}");
    Ok(())
}

fn write_beyond_size(t: &Context) -> Result<()> {
    let (daemon, image, _) = t.mounted_image("plain")?;
    let opened = daemon.open.values().next().context("no object")?;
    let block = image.range(0, 4096);
    for off in [image.size, image.size + (1 << 20), 1 << 62] {
        let written = rustix::io::pwrite(&opened.file, block, off);
        let errors = [Errno::FBIG, Errno::NOSPC, Errno::INVAL, Errno::NOBUFS];
        expect_errno(format!("pwrite at {off}"), written, &errors)?;
    }
    Ok(())
}

fn completion_by_32_bits(t: &Context) -> Result<()> {
    let (mut daemon, mut reader, read, _) = pending_read(t)?;
    daemon.fill(&read)?;
    let file = &daemon.object(read.object_id)?.file;
    let wrong = raw::read_complete_32(file, read.msg_id + 1);
    if wrong == Err(Errno::NOSYS) {
        return skip("no 32-bit system calls here");
    }
    expect_errno("of another READ", wrong, &[Errno::INVAL])?;
    raw::read_complete_32(file, read.msg_id).context("READ_COMPLETE")?;
    let data = daemon.serve(&mut reader)?.ok("read")?;
    same("block 2", &data, &t.images.contents("plain")?[8192..12288])
}

/// Writes 512 bytes at an offset of the image, which may be refused; then all data must be right.
fn write_half(t: &Context, at_data: u64) -> Result<()> {
    let (mut daemon, image, at) = t.mounted_image("plain")?;
    let expected = t.images.contents("plain")?;
    let start = image.find(&expected[..4096])?;
    let off = (start + at_data).min(image.size);
    let opened = daemon.open.values().next().context("no object")?;
    let written = rustix::io::pwrite(&opened.file, &image.bytes()[..512], off);
    drop_caches()?;
    let mut reader = t.reader(&at, 0, expected.len())?;
    let data = daemon.serve(&mut reader)?.ok("read")?;
    same("the file", &data, &expected).with_context(|| format!("pwrite said {written:?}"))
}

fn write_beyond_end(t: &Context) -> Result<()> {
    write_half(t, u64::MAX >> 1)
}

fn half_a_block(t: &Context) -> Result<()> {
    // The data is that of another place, so that it must not be taken for the block's.
    write_half(t, 8192)
}
