// SPDX-License-Identifier: MIT OR Apache-2.0

//! S6: many images of one domain are mounted, and unmounted.

use anyhow::Result;

use crate::image::SMALL;
use crate::machine::meminfo;
use crate::mounts::Mounted;
use crate::session::drop_caches;
use crate::session::Session;
use crate::session::Watch;
use crate::times::float;
use crate::times::now;
use crate::work::figure;
use crate::work::Work;

/// Runs it.
///
/// # Errors
///
/// The device or a mount fails.
pub(super) fn run(work: &Work, watch: &Watch) -> Result<()> {
    let session = Session::begin(work, watch)?;
    let _lines = session.serve([])?;
    let count: u32 = work.size(200, 80);
    let begun = now();
    let first = mount(work, count)?;
    let of_first = now() - begun;
    // The volume, and what the first mount makes besides, is not of one image.
    drop_caches()?;
    let (slab, vmalloc) = memory()?;
    let begun = now();
    let images = (0..count)
        .map(|number| mount(work, number))
        .collect::<Result<Vec<_>>>()?;
    let of_others = now() - begun;
    figure("mount_s", (of_first + of_others).as_secs_f64())?;
    figure("mount_others_s", of_others.as_secs_f64())?;
    drop_caches()?;
    let (slab_after, vmalloc_after) = memory()?;
    figure("slab_kib", (slab_after - slab) / f64::from(count))?;
    figure("vmalloc_kib", (vmalloc_after - vmalloc) / f64::from(count))?;
    let begun = now();
    for image in images {
        image.unmount()?;
    }
    first.unmount()?;
    figure("unmount_s", (now() - begun).as_secs_f64())
}

fn mount(work: &Work, number: u32) -> Result<Mounted> {
    Mounted::over_fscache(&work.dir, &SMALL.fsid_of_many(usize::try_from(number)?))
}

/// Slab and vmalloc memory, in KiB.
fn memory() -> Result<(f64, f64)> {
    Ok((float(meminfo("Slab")?), float(meminfo("VmallocUsed")?)))
}
