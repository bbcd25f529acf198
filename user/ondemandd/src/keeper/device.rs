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
use rustix::io::Errno;
use tracing::info;

use crate::cli::FillWay;
use crate::config::settings::Settings;
use crate::rundir;
use crate::rundir::RunDir;
use crate::systemd;

/// What comes of a command.
type Sent = cachefiles_proto::Result<()>;

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

/// Tells the module how data is to be stored and starts the cache; returns how it will be.
fn bind_store(fill: FillWay, send: impl Fn(&Command) -> Sent) -> anyhow::Result<Fill> {
    let cannot = |sent: &Sent| {
        let errno = sent.as_ref().err().and_then(cachefiles_proto::Error::errno);
        errno == Some(Errno::OPNOTSUPP)
    };
    if fill != FillWay::Direct {
        let told = send(&Command::Fill(Fill::Buffered));
        if fill == FillWay::Auto && cannot(&told) {
            info!("the loaded module cannot store in memory first: direct");
        } else {
            told.context(
                "--fill buffered: the loaded module cannot (the kernel's own cachefiles?)",
            )?;
            let bound = send(&Command::BindOnDemand);
            if fill == FillWay::Buffered || !cannot(&bound) {
                return bound.map(|()| Fill::Buffered).map_err(Into::into);
            }
            // If that was not about the way of filling, it is said again now.
            send(&Command::Fill(Fill::Direct))?;
            info!("this file system cannot be trusted with data in memory: direct");
        }
    }
    send(&Command::BindOnDemand)?;
    Ok(Fill::Direct)
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
    let fill = bind_store(settings.fill, |command| device.send(command))
        .with_context(|| format!("cannot start a cache in {}", dir.display()))?;
    info!(cache = %dir.display(), sources = %settings.sources, ?fill, "cache bound");
    run_dir.write(rundir::CACHE, &path_line(&dir))?;
    systemd::store(device.as_fd());
    Ok(Obtained {
        device,
        dir,
        had_worker: false,
    })
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Binds with a module that refuses the commands that `refused` names, with these errors; returns what
    /// came of it, and what was sent.
    fn bind_with(
        fill: FillWay,
        refused: impl Fn(&str, &[String]) -> Option<Errno>,
    ) -> (anyhow::Result<Fill>, Vec<String>) {
        let sent = RefCell::new(Vec::new());
        let bound = bind_store(fill, |command| {
            let command = command.to_string();
            let errno = refused(&command, &sent.borrow());
            sent.borrow_mut().push(command.clone());
            errno.map_or(Ok(()), |errno| {
                Err(cachefiles_proto::Error::Command { command, errno })
            })
        });
        (bound, sent.into_inner())
    }

    fn old_module(command: &str, _: &[String]) -> Option<Errno> {
        command.starts_with("fill").then_some(Errno::OPNOTSUPP)
    }

    /// The file system may map a range before its data is written: `fill buffered` is refused at bind.
    fn loose_file_system(command: &str, before: &[String]) -> Option<Errno> {
        let buffered = before.last().is_some_and(|last| last == "fill buffered");
        (command == "bind ondemand" && buffered).then_some(Errno::OPNOTSUPP)
    }

    #[test]
    fn in_memory_first_where_it_can_be() {
        let (bound, sent) = bind_with(FillWay::Auto, |_, _| None);
        assert_eq!(bound.unwrap(), Fill::Buffered);
        assert_eq!(sent, ["fill buffered", "bind ondemand"]);

        let (bound, sent) = bind_with(FillWay::Auto, old_module);
        assert_eq!(bound.unwrap(), Fill::Direct);
        assert_eq!(sent, ["fill buffered", "bind ondemand"]);

        let (bound, sent) = bind_with(FillWay::Auto, loose_file_system);
        assert_eq!(bound.unwrap(), Fill::Direct);
        let all = [
            "fill buffered",
            "bind ondemand",
            "fill direct",
            "bind ondemand",
        ];
        assert_eq!(sent, all);
    }

    #[test]
    fn what_was_asked_for_is_not_given_up_silently() {
        assert!(bind_with(FillWay::Buffered, old_module).0.is_err());
        let (bound, sent) = bind_with(FillWay::Buffered, loose_file_system);
        assert!(bound.is_err());
        assert_eq!(sent, ["fill buffered", "bind ondemand"]);
        let (bound, sent) = bind_with(FillWay::Direct, |_, _| None);
        assert_eq!(bound.unwrap(), Fill::Direct);
        assert_eq!(sent, ["bind ondemand"]);
    }

    #[test]
    fn other_errors_end_it() {
        for fill in [FillWay::Auto, FillWay::Buffered, FillWay::Direct] {
            let in_use =
                |command: &str, _: &[String]| (command == "bind ondemand").then_some(Errno::BUSY);
            let (bound, sent) = bind_with(fill, in_use);
            let error = format!("{:#}", bound.unwrap_err());
            assert!(error.contains("bind ondemand"), "{error}");
            assert_eq!(sent.iter().filter(|it| it.starts_with("bind")).count(), 1);
        }
        let never =
            |command: &str, _: &[String]| (command == "bind ondemand").then_some(Errno::OPNOTSUPP);
        assert!(bind_with(FillWay::Auto, never).0.is_err());
    }
}
