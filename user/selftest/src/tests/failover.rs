// SPDX-License-Identifier: MIT OR Apache-2.0

//! Anonymous files that are closed, and `restore`.

use anyhow::ensure;
use anyhow::Result;

use crate::harness::context::drop_caches;
use crate::harness::Context;
use crate::harness::Test;

pub(crate) const TESTS: &[Test] = &[Test::new(
    "d05_close_with_delivered_read",
    "a reader that hangs when its READ's object is closed",
    close_with_delivered_read,
)];

fn close_with_delivered_read(t: &Context) -> Result<()> {
    let (mut daemon, _, at) = t.mounted_image("plain")?;
    let data = t.images.contents("plain")?;
    drop_caches()?;
    let mut reader = t.block_reader(&at, 0, 4096)?;
    let read = daemon.expect_read()?;
    let old = daemon.open.remove(&read.object_id);
    drop(old);
    let read_data = daemon.serve(&mut reader)?.ok("read")?;
    ensure!(read_data == data[..4096], "wrong data");
    Ok(())
}
