// SPDX-License-Identifier: MIT OR Apache-2.0

//! `batch COUNT`: many messages with one `read` of the device.

use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;

use anyhow::bail;
use anyhow::ensure;
use anyhow::Result;
use cachefiles_proto::Command;
use cachefiles_proto::Message;
use cachefiles_proto::Packet;
use cachefiles_proto::Payload;
use cachefiles_proto::Read;
use rustix::io::Errno;

use crate::harness::errno_of;
use crate::harness::eventually;
use crate::harness::expect_errno;
use crate::harness::same;
use crate::harness::without_descriptors;
use crate::harness::Context;
use crate::harness::Daemon;
use crate::harness::Task;
use crate::harness::Test;
use crate::harness::SOON;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "batch_command",
        "a batch that cannot be, or that is set too late",
        command,
    ),
    Test::new(
        "batch_as_many_as_told",
        "messages that are lost, or delivered beyond what the batch allows",
        as_many_as_told,
    ),
    Test::new(
        "batch_as_many_as_fit",
        "a message that is lost since only the others before it fitted",
        as_many_as_fit,
    ),
    Test::new(
        "batch_survives_the_daemon",
        "the messages of a batch that the daemon died with",
        survives_the_daemon,
    ),
    Test::new(
        "batch_keeps_what_was_told",
        "a batch that is thrown away since its last message could not be delivered",
        keeps_what_was_told,
    ),
];

/// Bytes of a READ.
const READ: usize = 32;
/// Blocks apart from one another, so that the kernel reads them one by one.
const APART: usize = 64 << 10;

fn command(t: &Context) -> Result<()> {
    let device = t.device()?;
    // A module that does not have it says so.
    device.send(&Command::Batch(256))?;
    for text in ["batch", "batch 0", "batch 257", "batch x", "batch 016"] {
        let result = device.write_bytes(text.as_bytes());
        expect_errno(text, result, &[Errno::INVAL])?;
    }
    device.send(&Command::Batch(256))?;
    device.send(&Command::Batch(1))?;
    device.send(&Command::Dir(t.new_dir()?))?;
    device.send(&Command::BindOnDemand)?;
    let busy = errno_of(device.send(&Command::Batch(2)))?;
    ensure!(busy == Some(Errno::BUSY), "after bind: {busy:?}");
    Ok(())
}

/// A daemon that takes batches, and a mounted image.
fn mounted(t: &Context, count: u32) -> Result<(Daemon, PathBuf)> {
    let mut daemon = t.daemon_with(&t.new_dir()?, &[Command::Batch(count)], &["plain"])?;
    let at = t.mounted(&mut daemon, "fsid=plain")?;
    daemon.log.clear();
    Ok((daemon, at))
}

/// Readers that each wait for a READ of their own.
fn waiting(t: &Context, at: &Path, count: usize) -> Result<Vec<(usize, Task)>> {
    let mut readers = Vec::new();
    for number in 1..=count {
        let offset = number * APART;
        readers.push((offset, t.block_reader(at, offset, 4096)?));
    }
    eventually("all readers wait", SOON, || {
        let mut tasks = readers.iter();
        Ok(tasks.all(|(_, task)| task.blocked_in(libc::SYS_pread64)))
    })?;
    Ok(readers)
}

/// Serves all of them and compares what they got.
fn ends(t: &Context, daemon: &mut Daemon, readers: Vec<(usize, Task)>) -> Result<()> {
    let contents = t.images.contents("plain")?;
    for (offset, mut reader) in readers {
        let data = daemon.serve(&mut reader)?.ok("read")?;
        same("the block", &data, &contents[offset..offset + 4096])?;
    }
    Ok(())
}

/// The READs that one `read` with a buffer of `len` bytes gives.
fn one_read(daemon: &Daemon, len: usize) -> Result<Vec<Read>> {
    let mut bytes = vec![0; len];
    let len = daemon.device.read_bytes(&mut bytes)?;
    ensure!(len % READ == 0, "{len} bytes are no READs");
    let mut reads = Vec::new();
    for bytes in bytes[..len].chunks(READ) {
        let packet = Packet::try_from(bytes)?;
        let Payload::Read { off, len } = packet.payload else {
            bail!("should have been a READ: {packet:?}");
        };
        reads.push(Read {
            msg_id: packet.msg_id,
            object_id: packet.object_id,
            off,
            len,
        });
    }
    Ok(reads)
}

/// Has several calls give so many READs each, none of them twice, and answers them all.
fn several(daemon: &mut Daemon, calls: &[(usize, usize)]) -> Result<()> {
    let mut ids = BTreeSet::new();
    for &(len, expected) in calls {
        let reads = one_read(daemon, len)?;
        ensure!(
            reads.len() == expected,
            "{} READs in {len} bytes, not {expected}",
            reads.len()
        );
        for read in reads {
            ensure!(ids.insert(read.msg_id), "delivered twice: {read:?}");
            daemon.answer_read(&read)?;
        }
    }
    daemon.expect_nothing()
}

fn as_many_as_told(t: &Context) -> Result<()> {
    let (mut daemon, at) = mounted(t, 4)?;
    let readers = waiting(t, &at, 6)?;
    several(&mut daemon, &[(8192, 4), (8192, 2), (8192, 0)])?;
    ends(t, &mut daemon, readers)
}

fn as_many_as_fit(t: &Context) -> Result<()> {
    let (mut daemon, at) = mounted(t, 16)?;
    let readers = waiting(t, &at, 4)?;
    // Space for one, for three, and for any message behind one.
    let any = READ + 543;
    several(&mut daemon, &[(READ, 1), (3 * READ, 1), (any, 2)])?;
    ends(t, &mut daemon, readers)
}

fn survives_the_daemon(t: &Context) -> Result<()> {
    let (mut daemon, at) = mounted(t, 16)?;
    let readers = waiting(t, &at, 5)?;
    let answered = daemon.expect_read()?;
    daemon.answer_read(&answered)?;
    // As if it had been killed with the other four in its memory.
    let mut next = Daemon::from_device(daemon.device);
    next.images = daemon.images;
    drop(daemon.open);
    next.restore()?;
    ends(t, &mut next, readers)?;
    let reads = next.reads().len();
    ensure!(reads == 4, "{reads} READs after the first daemon's death");
    Ok(())
}

fn keeps_what_was_told(t: &Context) -> Result<()> {
    let (mut daemon, at) = mounted(t, 16)?;
    let readers = waiting(t, &at, 3)?;
    // An OPEN behind the READs, and no descriptor for it.
    daemon.images.push(t.images.get("twin")?);
    let mut mount = t.mount("fsid=twin", &t.mount_point()?)?;
    eventually("the mount waits", SOON, || {
        Ok(mount.blocked_in(libc::SYS_mount))
    })?;
    let mut reads = Vec::new();
    let mut next = without_descriptors(|| daemon.read())??;
    while let Some(Message::Read(read)) = next {
        reads.push(read);
        next = if reads.len() < 3 {
            daemon.read()?
        } else {
            None
        };
    }
    ensure!(reads.len() == 3, "not all READs: {reads:?}");
    for read in &reads {
        daemon.answer_read(read)?;
    }
    ends(t, &mut daemon, readers)?;
    daemon.serve(&mut mount)?.ok("mount")?;
    Ok(())
}
