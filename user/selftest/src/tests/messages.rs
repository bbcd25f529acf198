// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reading messages: ids, small buffers, bad buffers, and what `poll` says meanwhile.

use std::fs;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Packet;
use cachefiles_proto::Payload;
use rustix::io::Errno;

use crate::harness::drop_caches;
use crate::harness::eventually;
use crate::harness::expect_errno;
use crate::harness::raw;
use crate::harness::same;
use crate::harness::Context;
use crate::harness::Daemon;
use crate::harness::Event;
use crate::harness::Test;
use crate::harness::SOON;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "message_ids",
        "ids that do not start where daemons expect, or come twice",
        ids,
    ),
    Test::new(
        "message_contents",
        "an OPEN with wrong keys, sizes or flags",
        contents,
    ),
    Test::new(
        "message_small_buffer",
        "a message that is lost because the buffer was too small",
        small_buffer,
    ),
    Test::new(
        "d31_small_buffer_starves_nobody",
        "a message that no small buffer takes and that holds up all others",
        small_buffer_starves_nobody,
    ),
    Test::new(
        "message_bad_buffer",
        "an OPEN or a descriptor that is lost because the buffer was bad",
        bad_buffer,
    ),
    Test::new(
        "message_poll_agrees_with_read",
        "poll that reports what read does not deliver, or nothing when it would",
        poll_agrees_with_read,
    ),
];

fn msg_id(event: &Event) -> u32 {
    match event {
        Event::Open(id, ..) | Event::Close(id, _) | Event::Read(id, ..) => *id,
    }
}

fn ids(t: &Context) -> Result<()> {
    let (mut daemon, _, at) = t.mounted_image("small")?;
    ensure!(
        matches!(daemon.log[0], Event::Open(0, 1, _)),
        "the first message: {:?}",
        daemon.log[0]
    );
    // A reopen: the object gets another id.
    daemon.open.clear();
    drop_caches()?;
    let mut reader = t.block_reader(&at, 0, 16384)?;
    daemon.serve(&mut reader)?.ok("read")?;
    let mut objects: Vec<u32> = Vec::new();
    for event in &daemon.log {
        match event {
            Event::Open(_, object_id, _) => objects.push(*object_id),
            Event::Read(_, object_id, ..) | Event::Close(_, object_id) => ensure!(
                objects.last() == Some(object_id),
                "{event:?} after OPENs of {objects:?}"
            ),
        }
    }
    ensure!(objects == [1, 2], "object ids: {objects:?}");
    // A READ that waits for a reopen is older than the OPEN, and delivered later.
    let mut ids: Vec<u32> = daemon.log.iter().map(msg_id).collect();
    ids.sort_unstable();
    ensure!(ids.is_sorted_by(|a, b| a < b), "message ids: {ids:?}");
    Ok(())
}

fn contents(t: &Context) -> Result<()> {
    let mut daemon = t.daemon(&["small"])?;
    let at = t.mount_point()?;
    let mut mount = t.mount("fsid=small", &at)?;
    let open = daemon.expect_open()?;
    ensure!(open.volume_key == b"erofs,small", "{:?}", open.volume_key);
    ensure!(open.cookie_key == b"small", "{:?}", open.cookie_key);
    ensure!(open.flags == 0, "flags {}", open.flags);
    let image = daemon.images[0].clone();
    daemon.accept(open, &image)?;
    let read = daemon.expect_read()?;
    ensure!(
        read.off % 4096 == 0 && read.len > 0 && read.len % 4096 == 0,
        "{read:?}"
    );
    daemon.answer_read(&read)?;
    daemon.serve(&mut mount)?.ok("mount")?;
    Ok(())
}

fn small_buffer(t: &Context) -> Result<()> {
    let mut daemon = t.daemon(&["small"])?;
    let at = t.mount_point()?;
    let mut mount = t.mount("fsid=small", &at)?;
    eventually("an OPEN", SOON, || daemon.has_message())?;
    // 16 + 16 bytes, "erofs,small" with a NUL, "small".
    let len = 16 + 16 + 12 + 5;
    let mut buffer = [0; 1024];
    for short in [0, 1, 15, 16, 32, len - 1] {
        let read = daemon.device.read_bytes(&mut buffer[..short]);
        expect_errno(format!("read({short})"), read, &[Errno::MSGSIZE])?;
        ensure!(daemon.has_message()?, "no message after read({short})");
    }
    daemon.serve(&mut mount)?.ok("mount")?;
    ensure!(
        matches!(daemon.log[0], Event::Open(0, 1, _)),
        "the first message: {:?}",
        daemon.log[0]
    );
    Ok(())
}

fn small_buffer_starves_nobody(t: &Context) -> Result<()> {
    let (mut daemon, image, at) = t.mounted_image("plain")?;
    let long = "x".repeat(60);
    // Before the mount begins: dropping caches waits for mounts in progress.
    drop_caches()?;
    daemon.images.push(image.named(long.clone()));
    let mut mount = t.mount(&format!("domain_id=d,fsid={long}"), &t.mount_point()?)?;
    eventually("the long OPEN", SOON, || daemon.has_message())?;
    let mut reader = t.block_reader(&at, 0, 4096)?;
    let mut found = None;
    // A READ has 32 bytes, the OPEN more than 90.
    eventually("the READ behind the long OPEN", SOON, || {
        let mut buffer = [0; 64];
        match daemon.device.read_bytes(&mut buffer) {
            Ok(len) if len > 0 => {
                let packet = Packet::try_from(&buffer[..len])?;
                let Payload::Read { off, len } = packet.payload else {
                    anyhow::bail!("{packet:?}");
                };
                found = Some(cachefiles_proto::Read {
                    msg_id: packet.msg_id,
                    object_id: packet.object_id,
                    off,
                    len,
                });
                Ok(true)
            }
            Ok(_) | Err(Errno::MSGSIZE) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    })?;
    daemon.answer_read(&found.context("no READ")?)?;
    daemon.serve(&mut reader)?.ok("read")?;
    daemon.serve(&mut mount)?.ok("the long mount")?;
    Ok(())
}

fn descriptors() -> Result<usize> {
    Ok(fs::read_dir("/proc/self/fd")?.count())
}

fn bad_buffer(t: &Context) -> Result<()> {
    let mut daemon = t.daemon(&["plain"])?;
    let at = t.mount_point()?;
    let mut mount = t.mount("fsid=plain", &at)?;
    eventually("an OPEN", SOON, || daemon.has_message())?;
    let page = raw::ForbiddenPage::new()?;
    let before = descriptors()?;
    for _ in 0..3 {
        let read = raw::read_into(&daemon.device, &page);
        expect_errno("read of an OPEN", read, &[Errno::FAULT])?;
        ensure!(daemon.has_message()?, "the OPEN is gone");
    }
    let after = descriptors()?;
    ensure!(before == after, "{before} descriptors became {after}");
    daemon.serve(&mut mount)?.ok("mount")?;

    drop_caches()?;
    let mut reader = t.block_reader(&at, 0, 4096)?;
    eventually("a READ", SOON, || daemon.has_message())?;
    let read = raw::read_into(&daemon.device, &page);
    expect_errno("read of a READ", read, &[Errno::FAULT])?;
    ensure!(daemon.has_message()?, "the READ is gone");
    daemon.serve(&mut reader)?.ok("read")?;
    Ok(())
}

/// Fails unless `poll` says, now, what `expected` says.
fn polled(daemon: &Daemon, expected: bool, when: &str) -> Result<()> {
    let polled = daemon.has_message()?;
    ensure!(polled == expected, "{when}: poll says {polled}");
    Ok(())
}

fn poll_agrees_with_read(t: &Context) -> Result<()> {
    let mut daemon = t.daemon(&["plain"])?;
    let image = daemon.images[0].clone();
    polled(&daemon, false, "after bind")?;
    daemon.expect_nothing()?;
    let at = t.mount_point()?;
    let mut mount = t.mount("fsid=plain", &at)?;
    let open = daemon.expect_open()?;
    polled(&daemon, false, "after the OPEN was read")?;
    daemon.expect_nothing()?;
    daemon.accept(open, &image)?;
    daemon.serve(&mut mount)?.ok("mount")?;
    polled(&daemon, false, "after the mount")?;
    daemon.expect_nothing()?;

    drop_caches()?;
    let mut reader = t.block_reader(&at, 0, 4096)?;
    let read = daemon.expect_read()?;
    polled(&daemon, false, "after the READ was read")?;
    daemon.expect_nothing()?;

    // From here on the READ waits for its object, which is deliverable only as an OPEN.
    daemon.open.remove(&read.object_id);
    eventually("poll reports the OPEN", SOON, || daemon.has_message())?;
    let open = daemon.expect_open().context("after the file was closed")?;
    polled(&daemon, false, "with a READ held back")?;
    daemon.expect_nothing()?;
    daemon.accept(open, &image)?;
    polled(&daemon, true, "after the copen of the reopen")?;
    let data = daemon.serve(&mut reader)?.ok("read")?;
    polled(&daemon, false, "at the end")?;
    same("block 0", &data, &t.images.contents("plain")?[..4096])
}
