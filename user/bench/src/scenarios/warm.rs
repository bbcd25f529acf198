// SPDX-License-Identifier: MIT OR Apache-2.0

//! S5: everything is in the cache, nothing in the page cache. Beside it the same image as a file.

use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::mounts::Mounted;
use crate::order::random_blocks;
use crate::readers;
use crate::session::drop_caches;
use crate::session::Session;
use crate::session::Watch;
use crate::times::float;
use crate::work::figure;
use crate::work::Work;

/// How many blocks are read at random.
fn blocks_of(work: &Work) -> usize {
    work.size(6000, 2000)
}

/// Over fscache.
///
/// # Errors
///
/// The device, a mount or a read fails.
pub(super) fn run(work: &Work, watch: &Watch) -> Result<()> {
    let session = Session::begin(work, watch)?;
    let _lines = session.serve(["--prefetch", "1048576/1"])?;
    let image = Mounted::over_fscache(&work.dir, &work.plain().fsid())?;
    // The mount ends before what is prefetched is there; whoever reads it all waits for that.
    readers::sequential(&image.path())?;
    measure(work, &image.path())?;
    image.unmount()
}

/// Without: EROFS on a file of the same disk.
///
/// # Errors
///
/// A mount or a read fails.
pub(super) fn limit(work: &Work) -> Result<()> {
    let file = work.disk.join(work.plain().name);
    fs::copy(work.images.join(work.plain().name), &file)?;
    let image = Mounted::file(&work.dir, &file)?;
    measure(work, &image.path())?;
    image.unmount()?;
    Ok(fs::remove_file(file)?)
}

fn measure(work: &Work, path: &Path) -> Result<()> {
    drop_caches()?;
    let (bytes, time) = readers::sequential(path)?;
    figure("seq_mb_s", float(bytes) / 1e6 / time.as_secs_f64())?;
    drop_caches()?;
    let blocks = random_blocks(work.plain().blocks, blocks_of(work), work.seed);
    let (time, _) = readers::random(path, &blocks, 1)?;
    let count = float(u64::try_from(blocks.len())?);
    figure("rand_op_s", count / time.as_secs_f64())
}
