// SPDX-License-Identifier: MIT OR Apache-2.0

//! A daemon that tells a size which is smaller than the image.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Message;
use rustix::io::Errno;

use crate::harness::drop_caches;
use crate::harness::same;
use crate::harness::Context;
use crate::harness::Daemon;
use crate::harness::Image;
use crate::harness::Test;

pub(crate) const TESTS: &[Test] = &[
    Test::new(
        "d23_read_beyond_told_size",
        "a READ for what the daemon has said is not there",
        read_beyond,
    ),
    Test::new(
        "d24_half_a_page_beyond_told_size",
        "a read that is cut to nothing, and a warning of the kernel's",
        half_a_page_beyond,
    ),
];

/// Mounts `plain`, of which the daemon tells only what ends with the second block of the file.
fn mounted_short(t: &Context) -> Result<(Daemon, Arc<Image>, u64, PathBuf)> {
    let mut daemon = t.daemon(&["plain"])?;
    let image = Arc::clone(&daemon.images[0]);
    let start = image.find(&t.images.contents("plain")?[..4096])?;
    let size = start + 8192;
    let at = t.mount_point()?;
    let mut mount = t.mount("fsid=plain", &at)?;
    let outcome = daemon.serve_with(&mut mount, |daemon, message| match message {
        Message::Open(open) => {
            let msg_id = open.msg_id;
            daemon.keep(open, &image);
            daemon.copen(msg_id, size).context("copen")
        }
        other => daemon.answer(other),
    })?;
    outcome.ok("mount")?;
    drop_caches()?;
    Ok((daemon, image, size, at))
}

/// The file's first two blocks can be read, the third cannot, and nobody is asked for it.
fn ends_there(t: &Context, daemon: &mut Daemon, size: u64, at: &std::path::Path) -> Result<()> {
    let mut reader = t.block_reader(at, 0, 8192)?;
    let data = daemon.serve(&mut reader)?.ok("read")?;
    same("the start", &data, &t.images.contents("plain")?[..8192])?;
    let mut reader = t.block_reader(at, 8192, 4096)?;
    let outcome = daemon.serve(&mut reader)?;
    outcome.fails("a read beyond the size", &[Errno::IO])?;
    let beyond = daemon
        .reads()
        .into_iter()
        .find(|(off, len)| off + len > size);
    ensure!(beyond.is_none(), "a READ {beyond:?} of an object of {size}");
    Ok(())
}

fn read_beyond(t: &Context) -> Result<()> {
    let (mut daemon, _, size, at) = mounted_short(t)?;
    ends_there(t, &mut daemon, size, &at)
}

fn half_a_page_beyond(t: &Context) -> Result<()> {
    let (mut daemon, image, size, at) = mounted_short(t)?;
    let opened = daemon.open.values().next().context("no object")?;
    let written = rustix::io::pwrite(&opened.file, &image.bytes()[..512], size);
    ends_there(t, &mut daemon, size, &at).with_context(|| format!("pwrite said {written:?}"))
}
