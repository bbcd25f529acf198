// SPDX-License-Identifier: MIT OR Apache-2.0

//! How the keeper comes by the device: it binds a cache, or goes on with one that was bound before.

use std::fs;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;

use anyhow::bail;
use anyhow::ensure;
use anyhow::Context;
use cachefiles_proto::Command;
use cachefiles_proto::Device;
use cachefiles_proto::Fill;
use rustix::io::Errno;
use tracing::info;

use crate::child::Module;
use crate::cli::FillWay;
use crate::config::settings::Settings;
use crate::record::begin;
use crate::record::begin::Claim;
use crate::rundir;
use crate::rundir::RunDir;
use crate::systemd;

/// What the run directory has if the kernel keeps versions apart.
const TOKENS_ON: &str = "on\n";

/// What comes of a command.
type Sent = cachefiles_proto::Result<()>;

/// The device, bound.
pub(super) struct Obtained {
    pub(super) device: Device,
    /// Where the cache is.
    pub(super) dir: PathBuf,
    /// The cache had a worker under another keeper.
    pub(super) had_worker: bool,
    /// What the module does.
    pub(super) module: Module,
    /// That no other keeper uses it.
    pub(super) claim: Option<Claim>,
}

/// Goes on with the device of standard input, if the settings say so, or else with the one that systemd
/// has kept; or else binds a cache.
pub(super) fn obtain(settings: &Settings, run_dir: &RunDir) -> anyhow::Result<Obtained> {
    if settings.take_over {
        let device = from_stdin()?;
        // It may have been bound by anybody.
        let obtained = go_on(settings, device, "standard input", false)?;
        systemd::store(obtained.device.as_fd());
        return Ok(obtained);
    }
    match systemd::stored()? {
        Some(device) => {
            check_dir(&find(&settings.cache)?, run_dir)?;
            go_on(
                settings,
                device,
                "the descriptor that systemd has kept",
                had_tokens(run_dir)?,
            )
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
fn go_on(
    settings: &Settings,
    device: OwnedFd,
    what: &str,
    said_tokens: bool,
) -> anyhow::Result<Obtained> {
    let dir = find(&settings.cache)?;
    let device =
        Device::from_owned_fd(device).with_context(|| format!("{what} is not the device"))?;
    let tokens = has_tokens(|command| device.send(command), said_tokens);
    let insists = insists(|command| device.send(command));
    // Who has it may be about to end.
    let claim = Claim::new(&dir)?;
    begin::for_takeover(claim.as_ref(), &dir)?;
    info!(cache = %dir.display(), sources = %settings.sources, from = what, tokens, "device taken over");
    Ok(Obtained {
        device,
        dir,
        had_worker: true,
        module: Module { tokens, insists },
        claim,
    })
}

/// Asks the module to keep versions apart; whether it does.
fn ask_for_tokens(send: impl Fn(&Command) -> Sent) -> anyhow::Result<bool> {
    match send(&Command::Identity) {
        Ok(()) => Ok(true),
        Err(error) if error.errno() == Some(Errno::OPNOTSUPP) => {
            info!("the loaded module cannot keep versions apart: this daemon does, by its record");
            Ok(false)
        }
        Err(error) => Err(error).context("cannot ask the module to keep versions apart"),
    }
}

/// Whether the module is one that sends an OPEN that failed again and again: the C module, which knows no batches
/// either, bound or not. Batches of one are what there is without.
fn insists(send: impl Fn(&Command) -> Sent) -> bool {
    let errno = send(&Command::Batch(1))
        .err()
        .and_then(|error| error.errno());
    errno == Some(Errno::OPNOTSUPP)
}

/// Whether a cache that another keeper has bound keeps versions apart. Whoever answers with a token unasked has all
/// OPENs fail; whoever does not, has the record alone. A module may say so itself, to whom asks again. If not, `said`
/// is what another keeper has left.
fn has_tokens(send: impl Fn(&Command) -> Sent, said: bool) -> bool {
    let errno = match send(&Command::Identity) {
        Ok(()) => return true,
        Err(error) => error.errno(),
    };
    said && errno == Some(Errno::BUSY)
}

/// What was said of tokens when the cache was bound, if it was said of this cache: another keeper, of a version that
/// says nothing, may have bound one since.
fn had_tokens(run_dir: &RunDir) -> anyhow::Result<bool> {
    let written = |name| fs::metadata(run_dir.path(name)).and_then(|it| it.modified());
    let (Ok(said), Ok(bound)) = (written(rundir::TOKENS), written(rundir::CACHE)) else {
        return Ok(false);
    };
    Ok(said >= bound && run_dir.read(rundir::TOKENS)?.as_deref() == Some(TOKENS_ON))
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
    let insists = insists(|command| device.send(command));
    if settings.batch.get() != 1 {
        device.send(&Command::Batch(settings.batch.get())).context(
            "--batch: the loaded module knows no batches (the kernel's own cachefiles?)",
        )?;
    }
    let tokens = ask_for_tokens(|command| device.send(command))?;
    let Some(claim) = Claim::new(&dir)? else {
        bail!("another keeper uses the cache in {}", dir.display());
    };
    begin::for_bind(&claim, &dir)?;
    let fill = bind_store(settings.fill, |command| device.send(command))
        .with_context(|| format!("cannot start a cache in {}", dir.display()))?;
    info!(cache = %dir.display(), sources = %settings.sources, ?fill, tokens, "cache bound");
    run_dir.write(rundir::CACHE, &path_line(&dir))?;
    // After it: see `had_tokens`.
    run_dir.write(rundir::TOKENS, if tokens { TOKENS_ON } else { "off\n" })?;
    systemd::store(device.as_fd());
    Ok(Obtained {
        device,
        dir,
        had_worker: false,
        module: Module { tokens, insists },
        claim: Some(claim),
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

    #[test]
    fn a_module_without_tokens_is_no_error() {
        let answer = |errno: Option<Errno>| {
            ask_for_tokens(|command| match errno {
                None => Ok(()),
                Some(errno) => Err(cachefiles_proto::Error::Command {
                    command: command.to_string(),
                    errno,
                }),
            })
        };
        assert!(answer(None).unwrap());
        assert!(!answer(Some(Errno::OPNOTSUPP)).unwrap());
        assert!(answer(Some(Errno::BUSY)).is_err());
    }

    #[test]
    fn a_cache_that_is_bound_is_asked_and_believed() {
        let has = |errno: Option<Errno>, said| {
            let send = |command: &Command| match errno {
                None => Ok(()),
                Some(errno) => Err(cachefiles_proto::Error::Command {
                    command: command.to_string(),
                    errno,
                }),
            };
            has_tokens(send, said)
        };
        for said in [false, true] {
            assert!(has(None, said));
            assert_eq!(has(Some(Errno::BUSY), said), said);
            assert!(!has(Some(Errno::OPNOTSUPP), said));
        }
    }

    #[test]
    fn tokens_are_those_of_the_cache_that_was_bound_last() {
        let root = tempfile::tempdir().unwrap();
        let run_dir = RunDir::create(root.path()).unwrap();
        assert!(!had_tokens(&run_dir).unwrap());
        run_dir.write(rundir::CACHE, "/c\n").unwrap();
        run_dir.write(rundir::TOKENS, TOKENS_ON).unwrap();
        assert!(had_tokens(&run_dir).unwrap());
        run_dir.write(rundir::TOKENS, "off\n").unwrap();
        assert!(!had_tokens(&run_dir).unwrap());
        run_dir.write(rundir::TOKENS, TOKENS_ON).unwrap();
        // An older one binds, and says nothing of tokens.
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(1);
        let cache = fs::File::open(run_dir.path(rundir::CACHE)).unwrap();
        cache.set_modified(later).unwrap();
        assert!(!had_tokens(&run_dir).unwrap());
    }
}
