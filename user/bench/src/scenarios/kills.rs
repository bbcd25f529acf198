// SPDX-License-Identifier: MIT OR Apache-2.0

//! S9: the daemon is killed while somebody reads; whoever holds the device starts another one at
//! once.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::anyhow;
use anyhow::Context as _;
use anyhow::Result;

use crate::mounts::Mounted;
use crate::order::random_blocks;
use crate::readers::open_random;
use crate::readers::read_block;
use crate::session::drop_caches;
use crate::session::Session;
use crate::session::Watch;
use crate::times::float;
use crate::times::now;
use crate::times::Times;
use crate::work::figure;
use crate::work::Event;
use crate::work::Work;

/// READs that each daemon answers before it is killed, at least.
const BETWEEN: usize = 5;

/// Runs it.
///
/// # Errors
///
/// The device, a mount or a read fails.
pub(super) fn run(work: &Work, watch: &Watch) -> Result<()> {
    let kills = work.size(30, 10);
    let blocks = random_blocks(work.plain().blocks, usize::MAX, work.seed);
    drop_caches()?;
    let session = Session::begin(work, watch)?;
    let first = session.serve(["--lazy"])?;
    let image = Mounted::over_fscache(&work.dir, &work.plain().fsid())?;
    let file = open_random(&image.path())?;
    let stop = AtomicBool::new(false);
    let (served, serving) = mpsc::channel::<Duration>();
    let times = thread::scope(|scope| -> Result<Times> {
        let reader = scope.spawn(|| {
            let served = served;
            for block in &blocks {
                read_block(&file, *block)?;
                if stop.load(Ordering::Relaxed) || served.send(now()).is_err() {
                    return Ok(());
                }
            }
            Err(anyhow!("all blocks are read"))
        });
        let measured = kill(&session, kills, &serving, first);
        stop.store(true, Ordering::Relaxed);
        reader
            .join()
            .map_err(|_| anyhow!("the reader panicked"))??;
        measured
    })?;
    let distribution = times.distribution();
    figure("p50_us", float(distribution.p50_us))?;
    figure("p99_us", float(distribution.p99_us))?;
    Event::Times(distribution).say()?;
    drop(file);
    image.unmount()
}

/// Kills so many daemons; `serving` gets the time of each read.
fn kill(
    session: &Session<'_>,
    kills: usize,
    serving: &mpsc::Receiver<Duration>,
    mut lines: crate::session::Lines,
) -> Result<Times> {
    let gone = "the reader has ended";
    let mut times = Times::new()?;
    for _ in 0..kills {
        for _ in 0..BETWEEN {
            serving.recv().context(gone)?;
        }
        let begun = now();
        session.kill()?;
        drop(lines);
        lines = session.start(["--lazy", "--restore"])?;
        let restored = Duration::from_nanos(lines.wait("restore")?.parse()?);
        // What comes from before is the work of the one that was killed.
        let first = serving.iter().find(|at| *at >= restored).context(gone)?;
        times.record(first - begun);
        lines.wait("ready")?;
    }
    Ok(times)
}
