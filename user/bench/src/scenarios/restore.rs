// SPDX-License-Identifier: MIT OR Apache-2.0

//! S7: a daemon took many READs and was killed before it answered one; its successor writes
//! `restore` and answers them all.

use std::thread;
use std::time::Duration;

use anyhow::Result;
use rustix::process::Signal;

use crate::session::drop_caches;
use crate::session::Session;
use crate::session::Watch;
use crate::work::figure;
use crate::work::Work;

use super::domain::Domain;

/// How many READs are in flight.
const READS: [usize; 3] = [100, 1000, 10_000];

/// Runs it.
///
/// # Errors
///
/// The device, a mount or a read fails.
pub(super) fn run(work: &Work, watch: &Watch) -> Result<()> {
    let steps = work.size(&READS[..], &READS[..2]);
    drop_caches()?;
    let session = Session::begin(work, watch)?;
    let mut lines = session.serve(["--hold", &steps[0].to_string()])?;
    let mut domain = Domain::mount(work)?;
    let mut seconds = Vec::new();
    for (step, reads) in steps.iter().enumerate() {
        // The one that restores is the one that takes the READs of the next step.
        let next = steps.get(step + 1).unwrap_or(reads).to_string();
        session.signal(Signal::USR1)?;
        lines.wait("holding")?;
        let time = thread::scope(|scope| -> Result<Duration> {
            let readers = domain.read(scope, *reads)?;
            lines.wait("held")?;
            session.kill()?;
            lines = session.start(["--restore", "--hold", &next])?;
            let restored = Duration::from_nanos(lines.wait("restore")?.parse()?);
            Ok(readers.last()?.saturating_sub(restored))
        })?;
        lines.wait("ready")?;
        domain.count(*reads)?;
        figure(format!("reads_{reads}_s"), time.as_secs_f64())?;
        seconds.push(time.as_secs_f64());
    }
    if let [_, thousand, ten_thousand] = seconds[..] {
        figure("growth", ten_thousand / thousand)?;
    }
    domain.unmount()
}
