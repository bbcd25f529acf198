// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is written to the anonymous file, and where it goes.

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::harness::drop_caches;
use crate::harness::expect_errno;
use crate::harness::same;
use crate::harness::Context;
use crate::harness::Test;

pub(crate) const TESTS: &[Test] = &[
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
