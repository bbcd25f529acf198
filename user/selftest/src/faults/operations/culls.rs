// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the daemon removes from the store.

use std::fs;
use std::fs::File;
use std::path::Path;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use rustix::io::Errno;

use crate::faults::rig::After;
use crate::faults::rig::Mounted;
use crate::faults::rig::Rig;
use crate::faults::rig::SMALL;
use crate::harness::Daemon;

pub(super) fn file(rig: &mut Rig<'_>) -> Result<After> {
    let dir = rig.dir.join("cache/Iculled/@00");
    fs::create_dir_all(&dir)?;
    let file = dir.join("Dfile");
    fs::write(&file, [1; 4096])?;
    cull(rig, &file)
}

pub(super) fn directory(rig: &mut Rig<'_>) -> Result<After> {
    let dir = rig.dir.join("cache/Iburied");
    fs::create_dir_all(dir.join("@00"))?;
    File::create(dir.join("@00/Dfile"))?;
    let after = cull(rig, &dir)?;
    for grave in fs::read_dir(rig.dir.join("graveyard"))? {
        // On a disk that does not go on they stay.
        if fs::remove_dir_all(grave?.path()).is_err() {
            break;
        }
    }
    Ok(after)
}

/// Culls what is at `path`, which nothing uses.
fn cull(rig: &mut Rig<'_>, path: &Path) -> Result<After> {
    rig.cool()?;
    let mut daemon = rig.daemon(false)?;
    let name = path.file_name().and_then(|name| name.to_str());
    let command = format!("cull {}", name.context("no name")?);
    std::env::set_current_dir(path.parent().context("no directory")?)?;
    rig.begin()?;
    let culled = daemon.command(&command);
    rig.end()?;
    let after = look(rig, &mut daemon, path, &command, culled);
    std::env::set_current_dir("/")?;
    after
}

fn look(
    rig: &mut Rig<'_>,
    daemon: &mut Daemon,
    path: &Path,
    command: &str,
    culled: Result<(), Errno>,
) -> Result<After> {
    if let Err(errno) = culled {
        rig.blame("cull", &errno)?;
    }
    let mounted = Mounted {
        name: "beside".to_owned(),
        image: SMALL,
    };
    if rig.is_broken()? {
        return Ok(After::Broken(mounted));
    }
    if culled.is_err() {
        ensure!(path.exists(), "what was not culled is gone");
        daemon.command(command).context("again")?;
    }
    ensure!(!path.exists(), "what was culled is there");
    // Now and then, for the cache was hardly touched.
    if rig.nth % 8 == 1 {
        rig.visit(daemon, &mounted)?;
    }
    Ok(After::Fine)
}
