// SPDX-License-Identifier: MIT OR Apache-2.0

//! A cache comes into service, and goes out of it.

use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Command;

use crate::faults::rig::After;
use crate::faults::rig::Rig;
use crate::faults::rig::PLAIN;
use crate::faults::rig::SMALL;
use crate::harness::Daemon;
use crate::harness::MOUNT_FAILS;
use crate::harness::SOON;

pub(super) fn bind(rig: &mut Rig<'_>) -> Result<After> {
    rig.cool()?;
    let mounted = rig.new_name(SMALL);
    let device = rig.device(false)?;
    rig.begin()?;
    let bound = device.send(&Command::BindOnDemand);
    rig.end()?;
    if let Err(error) = &bound {
        rig.blame("bind", error)?;
    }
    if rig.is_broken()? {
        return Ok(After::Broken(mounted));
    }
    if bound.is_err() {
        device.send(&Command::BindOnDemand).context("again")?;
    }
    let mut daemon = Daemon::from_device(device);
    rig.visit(&mut daemon, &mounted)?;
    Ok(After::Fine)
}

pub(super) fn unbind(rig: &mut Rig<'_>) -> Result<After> {
    let mounted = rig.new_name(PLAIN);
    let mut daemon = rig.daemon(false)?;
    rig.serves(&mut daemon, &mounted)?;
    let mut mount = rig.mount(&mounted)?;
    daemon.serve(&mut mount)?.ok("mount")?;
    let mut reader = rig.t.block_reader(&rig.at, 0, 4096)?;
    daemon.expect_read()?;
    rig.begin()?;
    drop(daemon);
    rig.end()?;
    // Whether there was a fault or not.
    let outcome = reader.wait(SOON)?;
    outcome.fails("a reader whom nobody has answered", MOUNT_FAILS)?;
    rig.unmount_all()?;
    if rig.is_broken()? {
        return Ok(After::Broken(mounted));
    }
    let mut daemon = rig.daemon(false).context("again")?;
    rig.visit(&mut daemon, &mounted)?;
    Ok(After::Fine)
}
