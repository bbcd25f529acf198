// SPDX-License-Identifier: MIT OR Apache-2.0

//! A file gets its attribute and its name.

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;

use crate::faults::rig::After;
use crate::faults::rig::Rig;
use crate::faults::rig::SMALL;
use crate::harness::eventually;
use crate::harness::store::object_file;
use crate::harness::Stops;
use crate::harness::SOON;

/// Where the work of an early commit begins.
const WORK: &str = "commit-work";

/// What the module says of a commit that has failed.
const FAILED: &str = "committing the file";

pub(super) fn early(rig: &mut Rig<'_>) -> Result<After> {
    let stops = Stops::open()?;
    let mounted = rig.new_name(SMALL);
    let mut daemon = rig.daemon(false)?;
    rig.serves(&mut daemon, &mounted)?;
    stops.stop(WORK)?;
    let mut mount = rig.mount(&mounted)?;
    daemon.serve(&mut mount)?.ok("mount")?;
    stops.wait_parked(WORK)?;
    let file = object_file(&rig.dir, &mounted.volume(), &mounted.name)?;
    ensure!(!file.exists(), "the file was committed already");
    rig.begin()?;
    // The module's device of the stop points allocates, too; that is no part of the commit.
    if let Err(error) = stops.go(WORK) {
        rig.blame("the end of the stop", &format!("{error:#}"))?;
        stops.go(WORK)?;
    }
    let log = &mut rig.log;
    let ended = eventually("the commit ends", SOON, || {
        Ok(file.exists() || log.says(FAILED))
    });
    rig.end()?;
    ended?;
    if !file.exists() {
        rig.blame("the commit", &"no name")?;
    }
    if rig.is_broken()? {
        return Ok(After::Broken(mounted));
    }
    // What could not be committed while it was mounted is when it is no more.
    rig.leave(&mut daemon, &mounted)?;
    eventually("the commit is made again", SOON, || Ok(file.exists()))?;
    rig.visit(&mut daemon, &mounted)?;
    Ok(After::Fine)
}

pub(super) fn late(rig: &mut Rig<'_>) -> Result<After> {
    let stops = Stops::open()?;
    let mounted = rig.new_name(SMALL);
    let mut daemon = rig.daemon(false)?;
    rig.serves(&mut daemon, &mounted)?;
    stops.stop(WORK)?;
    let mut mount = rig.mount(&mounted)?;
    daemon.serve(&mut mount)?.ok("mount")?;
    // It holds no lock, and will find nothing to do.
    stops.wait_parked(WORK)?;
    let file = object_file(&rig.dir, &mounted.volume(), &mounted.name)?;
    ensure!(!file.exists(), "the file was committed already");
    rig.begin()?;
    let mut umount = rig.t.unmount(&rig.at)?;
    let outcome = daemon.serve(&mut umount)?;
    let log = &mut rig.log;
    let ended = eventually("the commit ends", SOON, || {
        Ok(file.exists() || log.says(FAILED))
    });
    rig.end()?;
    stops.go(WORK)?;
    outcome.ok("umount")?;
    ended?;
    if !file.exists() {
        rig.blame("the commit", &"no name")?;
    }
    if rig.is_broken()? {
        return Ok(After::Broken(mounted));
    }
    rig.visit(&mut daemon, &mounted).context("again")?;
    Ok(After::Fine)
}
