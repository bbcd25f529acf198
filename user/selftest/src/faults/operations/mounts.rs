// SPDX-License-Identifier: MIT OR Apache-2.0

//! An image is looked up, and opened.

use anyhow::Context as _;
use anyhow::Result;

use crate::faults::rig::After;
use crate::faults::rig::Mounted;
use crate::faults::rig::Rig;
use crate::faults::rig::SMALL;
use crate::harness::eventually;
use crate::harness::Daemon;
use crate::harness::Task;
use crate::harness::SOON;

pub(super) fn lookup(rig: &mut Rig<'_>) -> Result<After> {
    rig.cool()?;
    let mut daemon = rig.daemon(false)?;
    let mounted = rig.new_name(SMALL);
    look_up(rig, &mut daemon, mounted)
}

pub(super) fn lookup_stored(rig: &mut Rig<'_>) -> Result<After> {
    let mounted = rig.stored()?;
    rig.cool()?;
    let mut daemon = rig.daemon(false)?;
    look_up(rig, &mut daemon, mounted)
}

pub(super) fn open(rig: &mut Rig<'_>) -> Result<After> {
    rig.cool()?;
    let mut daemon = rig.daemon(false)?;
    let mounted = rig.new_name(SMALL);
    open_it(rig, &mut daemon, mounted)
}

pub(super) fn open_stored(rig: &mut Rig<'_>) -> Result<After> {
    let mounted = rig.stored()?;
    rig.cool()?;
    let mut daemon = rig.daemon(false)?;
    open_it(rig, &mut daemon, mounted)
}

/// From the mount to the first message, or to the mount's end.
fn look_up(rig: &Rig<'_>, daemon: &mut Daemon, mounted: Mounted) -> Result<After> {
    rig.serves(daemon, &mounted)?;
    rig.begin()?;
    let mut mount = rig.mount(&mounted)?;
    let looked_up = eventually("the lookup ends", SOON, || {
        Ok(daemon.has_message()? || !mount.running()?)
    });
    rig.end()?;
    looked_up.with_context(|| mount.stuck())?;
    finish(rig, daemon, &mut mount, mounted)
}

/// From the `read` of the OPEN to the end of `copen`.
fn open_it(rig: &Rig<'_>, daemon: &mut Daemon, mounted: Mounted) -> Result<After> {
    rig.serves(daemon, &mounted)?;
    let mut mount = rig.mount(&mounted)?;
    eventually("an OPEN comes", SOON, || daemon.has_message())?;
    rig.begin()?;
    let message = match daemon.read() {
        Ok(message) => message,
        Err(error) => {
            rig.blame("the read of the OPEN", &error)?;
            daemon.read().context("the OPEN again")?
        }
    };
    let message = message.context("the OPEN is lost")?;
    let answered = daemon.answer(message);
    rig.end()?;
    if let Err(error) = answered {
        rig.blame("copen", &format!("{error:#}"))?;
    }
    finish(rig, daemon, &mut mount, mounted)
}

/// The mount, which the fault may have ended, ends; then the image is read, mounted once more if it was
/// not.
fn finish(rig: &Rig<'_>, daemon: &mut Daemon, mount: &mut Task, mounted: Mounted) -> Result<After> {
    // Where the fault has ended the file system no answer is taken.
    let outcome = rig.serve_on(daemon, mount)?;
    let is_mounted = rig.judge("mount", outcome)?.is_some();
    if rig.is_broken()? {
        return Ok(After::Broken(mounted));
    }
    if is_mounted {
        rig.leave(daemon, &mounted)?;
    } else {
        rig.visit(daemon, &mounted).context("again")?;
    }
    Ok(After::Fine)
}
