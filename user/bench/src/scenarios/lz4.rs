// SPDX-License-Identifier: MIT OR Apache-2.0

//! S10: a compressed image, every second chunk of which the daemon has written before it was asked.

use anyhow::Result;

use crate::image::LZ4;
use crate::mounts::Mounted;
use crate::readers;
use crate::session::drop_caches;
use crate::session::Session;
use crate::session::Watch;
use crate::work::figure;
use crate::work::Work;

/// Runs it.
///
/// # Errors
///
/// The device, a mount or a read fails.
pub(super) fn run(work: &Work, watch: &Watch) -> Result<()> {
    drop_caches()?;
    let session = Session::begin(work, watch)?;
    let _lines = session.serve(["--prefetch", "16384/2"])?;
    let image = Mounted::over_fscache(&work.dir, &LZ4.fsid())?;
    let (_, time) = readers::sequential(&image.path())?;
    figure("s", time.as_secs_f64())?;
    image.unmount()
}
