// SPDX-License-Identifier: MIT OR Apache-2.0

//! S1 to S4: nothing is in the cache, each read is a READ.

use anyhow::Result;

use crate::image::BLOCK;
use crate::mounts::Mounted;
use crate::order::random_blocks;
use crate::pingpong::ping;
use crate::readers;
use crate::session::drop_caches;
use crate::session::Session;
use crate::session::Watch;
use crate::subject::Subject;
use crate::times::float;
use crate::times::Times;
use crate::work::figure;
use crate::work::Event;
use crate::work::Work;

use crate::scenario::Scenario;

/// How many blocks are read at random.
fn blocks_of(work: &Work) -> usize {
    work.size(1500, 600)
}

/// The whole file, from one reader.
///
/// # Errors
///
/// The device, a mount or a read fails.
pub(super) fn sequential(work: &Work, watch: &Watch) -> Result<()> {
    drop_caches()?;
    let session = Session::begin(work, watch)?;
    let _lines = session.serve([])?;
    let image = Mounted::over_fscache(&work.dir, &work.plain().fsid())?;
    let (bytes, time) = readers::sequential(&image.path())?;
    figure("mb_s", float(bytes) / 1e6 / time.as_secs_f64())?;
    image.unmount()
}

/// Single blocks, none of them twice.
///
/// # Errors
///
/// The device, a mount or a read fails.
pub(super) fn random(work: &Work, watch: &Watch, readers: usize, threads: usize) -> Result<()> {
    let blocks = random_blocks(work.plain().blocks, blocks_of(work), work.seed);
    drop_caches()?;
    let session = Session::begin(work, watch)?;
    let _lines = session.serve(["--threads", &threads.to_string()])?;
    let image = Mounted::over_fscache(&work.dir, &work.plain().fsid())?;
    let (time, times) = readers::random(&image.path(), &blocks, readers)?;
    figure(
        "op_s",
        float(u64::try_from(blocks.len())?) / time.as_secs_f64(),
    )?;
    say(&times)?;
    image.unmount()
}

/// As many round trips between two processes as there would be READs.
///
/// # Errors
///
/// The other process cannot be started.
pub(super) fn limit(work: &Work) -> Result<()> {
    debug_assert_eq!(work.subject, Subject::Limit);
    if work.scenario == Scenario::S1 {
        let bytes = work.plain().blocks * BLOCK;
        let trips = usize::try_from(bytes)?.div_ceil(readers::CHUNK);
        let (time, _) = ping(&work.program, trips)?;
        return figure("mb_s", float(bytes) / 1e6 / time.as_secs_f64());
    }
    let trips = blocks_of(work);
    let (time, times) = ping(&work.program, trips)?;
    figure("op_s", float(u64::try_from(trips)?) / time.as_secs_f64())?;
    match work.scenario {
        Scenario::S2 => say(&times),
        // With many readers a READ waits for others.
        _ => Ok(()),
    }
}

fn say(times: &Times) -> Result<()> {
    let distribution = times.distribution();
    figure("p50_us", float(distribution.p50_us))?;
    figure("p99_us", float(distribution.p99_us))?;
    Event::Times(distribution).say()
}
