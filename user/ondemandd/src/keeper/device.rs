// SPDX-License-Identifier: MIT OR Apache-2.0

//! How the keeper comes by the device: it binds a cache, or goes on with one that was bound before.

use std::fs;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;

use anyhow::ensure;
use anyhow::Context;
use cachefiles_proto::Command;
use cachefiles_proto::Device;
use cachefiles_proto::Fill;
use tracing::info;

use crate::cli::FillWay;
use crate::config::settings::Settings;
use crate::rundir;
use crate::rundir::RunDir;
use crate::systemd;

/// The device, bound.
pub(super) struct Obtained {
    pub(super) device: Device,
    /// Where the cache is.
    pub(super) dir: PathBuf,
    /// The cache had a worker under another keeper.
    pub(super) had_worker: bool,
}

/// Goes on with the device of standard input, if the settings say so, or else with the one that systemd
/// has kept; or else binds a cache.
pub(super) fn obtain(settings: &Settings, run_dir: &RunDir) -> anyhow::Result<Obtained> {
    if settings.take_over {
        let device = from_stdin()?;
        let obtained = go_on(settings, device, "standard input")?;
        systemd::store(obtained.device.as_fd());
        return Ok(obtained);
    }
    match systemd::stored()? {
        Some(device) => {
            let obtained = go_on(settings, device, "the descriptor that systemd has kept")?;
            check_dir(&obtained.dir, run_dir)?;
            Ok(obtained)
        }
        None => bind(settings, run_dir),
    }
}

/// Takes the device off standard input.
///
/// The number is always 0: to own a descriptor of any other number is something that no check can
/// make safe.
fn from_stdin() -> anyhow::Result<OwnedFd> {
    let stdin = std::io::stdin();
    let device = stdin.as_fd().try_clone_to_owned().context("no device")?;
    // To close the device later is to close all of this process's copies.
    let null = fs::File::open("/dev/null").context("/dev/null")?;
    rustix::stdio::dup2_stdin(&null).context("cannot replace standard input")?;
    Ok(device)
}

/// Goes on with a device that was bound by another keeper.
fn go_on(settings: &Settings, device: OwnedFd, what: &str) -> anyhow::Result<Obtained> {
    let dir = find(&settings.cache)?;
    let device =
        Device::from_owned_fd(device).with_context(|| format!("{what} is not the device"))?;
    info!(cache = %dir.display(), sources = %settings.sources, from = what, "device taken over");
    Ok(Obtained {
        device,
        dir,
        had_worker: true,
    })
}

/// Refuses to go on with another cache than the one that the settings name: objects would be culled in the
/// wrong place.
fn check_dir(dir: &Path, run_dir: &RunDir) -> anyhow::Result<()> {
    let Some(bound) = run_dir.read(rundir::CACHE)? else {
        return Ok(());
    };
    ensure!(
        bound == path_line(dir),
        "the cache that systemd has kept is in {}, but {} is configured: stop the service, which \
         ends that cache, and start it again",
        bound.trim_end(),
        dir.display()
    );
    Ok(())
}

fn path_line(path: &Path) -> String {
    format!("{}\n", path.display())
}

fn find(cache: &Path) -> anyhow::Result<PathBuf> {
    fs::canonicalize(cache).with_context(|| format!("cannot find {}", cache.display()))
}

/// Opens the device and starts the cache.
fn bind(settings: &Settings, run_dir: &RunDir) -> anyhow::Result<Obtained> {
    fs::create_dir_all(&settings.cache).with_context(|| {
        format!(
            "cannot make the cache directory {}",
            settings.cache.display()
        )
    })?;
    // The kernel looks the path up itself, in this process: make it independent of where that is.
    let dir = find(&settings.cache)?;
    let device = Device::open(&settings.device)?;
    device.send(&Command::Dir(dir.clone()))?;
    if let Some(tag) = &settings.tag {
        device.send(&Command::Tag(tag.into()))?;
    }
    for limit in settings.limits.commands() {
        device.send(&limit)?;
    }
    if settings.timeout != 0 {
        device.send(&Command::Timeout(settings.timeout)).context(
            "--timeout: the loaded module has no deadlines (the kernel's own cachefiles?)",
        )?;
    }
    if settings.fetch != 0 {
        device.send(&Command::Fetch(settings.fetch)).context(
            "--fetch: the loaded module knows no windows (the kernel's own cachefiles?)",
        )?;
    }
    if settings.batch.get() != 1 {
        device.send(&Command::Batch(settings.batch.get())).context(
            "--batch: the loaded module knows no batches (the kernel's own cachefiles?)",
        )?;
    }
    if settings.fill == FillWay::Buffered {
        device
            .send(&Command::Fill(Fill::Buffered))
            .context("--fill buffered: the loaded module cannot (the kernel's own cachefiles?)")?;
    }
    device
        .send(&Command::BindOnDemand)
        .with_context(|| format!("cannot start a cache in {}", dir.display()))?;
    info!(cache = %dir.display(), sources = %settings.sources, "cache bound");
    run_dir.write(rundir::CACHE, &path_line(&dir))?;
    systemd::store(device.as_fd());
    Ok(Obtained {
        device,
        dir,
        had_worker: false,
    })
}
