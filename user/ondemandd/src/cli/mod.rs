// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command line.

mod tools;

use std::num::NonZeroU32;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use clap::Parser;
use clap::Subcommand;
use serde::Deserialize;

pub use self::tools::Doctor;
pub use self::tools::Evict;
pub use self::tools::Generate;
pub use self::tools::Manifest;
pub use self::tools::Mount;
pub use self::tools::Prefetch;
pub use self::tools::Scrub;
pub use self::tools::Status;
pub use self::tools::Top;
pub use self::tools::Umount;
pub use self::tools::Upgrade;
use crate::limits::LimitArgs;
use crate::logging::LogFormat;
use crate::metrics::address::MetricsAddress;
use crate::sandbox::user::Identity;
use crate::sandbox::SandboxMode;
use crate::source::names::SourceList;

/// Where pid files and statistics are by default.
pub const DEFAULT_RUN_DIR: &str = "/run/ondemandd";

/// Serves the blobs of a directory to /dev/cachefiles, for EROFS over fscache.
///
/// A small parent process, the keeper, holds the device; the worker that it starts answers the
/// kernel. When the worker dies, the keeper starts another one, and readers of mounted images
/// notice nothing but a pause.
#[derive(Debug, Parser)]
#[command(name = "ondemandd", version)]
pub struct Cli {
    /// What to log to standard error: error, warn, info, debug or trace, also by module
    /// ("info,ondemandd::server=debug").
    #[arg(long, global = true, default_value = "info", value_name = "FILTER")]
    pub log: String,

    /// What a line of the log looks like: text for people, or a JSON object [default: human].
    #[arg(long, global = true, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Bind a cache and serve it until SIGTERM or SIGINT.
    ///
    /// Signals to the keeper: SIGTERM and SIGINT end the worker, then close the device (readers of
    /// mounted images get errors from then on); a second one does so without waiting. SIGUSR1
    /// writes the counters to stats.json in the run directory.
    ///
    /// Exit status: 0 after a signal, 1 on an error, 3 when the kernel declared the cache dead.
    Serve(Serve),

    /// Print the counters of a running keeper, or the last ones of one that has ended.
    Stats(Stats),

    /// Say what is mounted, how much of it the cache holds, and what the daemon does.
    Status(Status),

    /// Show what the daemon does, again and again, until q, Esc or Ctrl-C.
    ///
    /// Rates are of the time since the last look; the first ones, of all the time that the keeper has run. A
    /// daemon that goes away is said, and shown again when it is back.
    Top(Top),

    /// Upgrade the daemon that runs: another worker and another keeper of a program that may be a new one.
    ///
    /// The new worker is prepared before the old one is ended, so that readers notice nothing but a short
    /// pause; then the keeper becomes the new program, in the same process. If the new worker cannot be
    /// prepared within 10 s, the old one serves on. The configuration stays what it was when the keeper
    /// started: a change of it takes a restart.
    ///
    /// Exit status: 0 if a worker of the program serves, 1 otherwise. That the keeper could not follow is
    /// said, and is no failure.
    Upgrade(Upgrade),

    /// Mount an image that the daemon serves.
    Mount(Mount),

    /// Unmount an image.
    Umount(Umount),

    /// Read a mounted image, or a list of its files, so that the cache has them.
    ///
    /// It gives way: while others have requests in flight it pauses before each MiB, for a second at most.
    Prefetch(Prefetch),

    /// Drop what the cache holds of an image that is not in use, and forget that it had a manifest.
    ///
    /// Of an image without a domain all of its blobs go, too; of one in a domain those that are named, since others
    /// may share them. What is mounted is never dropped.
    ///
    /// Exit status: 0 if something was dropped and nothing is left, 1 otherwise.
    Evict(Evict),

    /// Read what the cache holds of an image from the disk, hold it against the manifest, and drop what does not fit.
    ///
    /// Chunks that are wrong are dropped, together with those that are there in part; the rest stays, but not with the
    /// kernel's own module, where all that is cached of the image goes. What is mounted
    /// is read and told of, but nothing of it is dropped.
    ///
    /// Exit status: 0 if all that is cached is right, 3 if something was wrong and is gone, 4 if something is wrong
    /// and in use, 1 if it could not be done: there is no manifest, no keeper answers.
    Scrub(Scrub),

    /// Look whether this machine can serve images, a line for each thing that it takes.
    ///
    /// Exit status: 0 if nothing is missing, 1 otherwise.
    Doctor(Doctor),

    /// Write a manifest of an image: a digest of each chunk, which the daemon holds what it fetches
    /// against.
    Manifest(Manifest),

    /// Write man pages or shell completions, for packages.
    #[command(hide = true, subcommand)]
    Generate(Generate),

    /// What the keeper executes in its own place. Not for use by hand.
    #[command(hide = true)]
    Resume,

    /// The process that the keeper starts. Not for use by hand.
    #[command(hide = true)]
    Worker(Worker),
}

/// Arguments of `serve`.
#[derive(Args, Debug)]
pub struct Serve {
    /// A TOML file with what the flags below would say, and with more sources. A flag that is given comes
    /// before the file.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Directory of the cache; made if it is missing. Its file system must know O_DIRECT,
    /// SEEK_HOLE, O_TMPFILE and extended attributes, as ext4, XFS and Btrfs do.
    #[arg(long, value_name = "DIR", required_unless_present = "config")]
    pub cache: Option<PathBuf>,

    /// Directory of the blobs. An image or blob is the file named like its id (fsid=, device=).
    #[arg(long, value_name = "DIR", required_unless_present = "config")]
    pub source: Option<PathBuf>,

    /// Name of the cache; the kernel's own is CacheFiles.
    #[arg(long, value_name = "NAME")]
    pub tag: Option<String>,

    /// The device [default: /dev/cachefiles].
    #[arg(long, value_name = "PATH")]
    pub device: Option<PathBuf>,

    /// Seconds after which a request of the kernel that nobody has answered ends, and its reader gets
    /// EIO; 0: never [default: 0]. Time without a worker counts, so leave room for a restart.
    ///
    /// Needs the module cachefiles_ondemand: the kernel's own cachefiles knows no deadlines.
    #[arg(long, value_name = "SECONDS", value_parser = seconds())]
    pub timeout: Option<u32>,

    /// Bytes that each READ of the kernel is rounded out to, a power of two from 4096 to 67108864, so
    /// that one round trip brings what neighbours will need; 0: a READ asks for what is missing alone
    /// [default: 0].
    ///
    /// Needs the module cachefiles_ondemand.
    #[arg(long, value_name = "BYTES", value_parser = window)]
    pub fetch: Option<u32>,

    /// A thread takes up to N messages from the kernel at once, 1 to 256 [default: 1].
    ///
    /// Fewer system calls when many readers wait; but what one thread has taken another one does not
    /// answer, however idle. Needs the module cachefiles_ondemand.
    #[arg(long, value_name = "N", value_parser = batch)]
    pub batch: Option<NonZeroU32>,

    /// How data is stored that the kernel has asked for: on the disk before its reader goes on, or, if it is
    /// little, in memory, and on the disk a second later [default: auto].
    ///
    /// `buffered` needs the module cachefiles_ondemand, and XFS, Btrfs, or ext4 as it is by default; without
    /// them the daemon does not start. `auto` is `buffered` with them and `direct` without.
    #[arg(long, value_name = "WAY")]
    pub fill: Option<FillWay>,

    /// Standard input is the device, bound already: go on with it, for a keeper that is gone.
    ///
    /// Whoever holds a copy of the descriptor keeps the cache, and every reader that waits, alive
    /// without a keeper. The first worker then begins with `restore`. --cache must name the
    /// directory that was bound, and the limits should be those given then: the kernel takes no
    /// others, but culling goes by them. --timeout, --fetch, --batch and --fill hold as they were
    /// given then, whatever is said now.
    ///
    /// Under systemd this is not needed: a device that it has kept is gone on with by itself.
    #[arg(long, conflicts_with_all = ["device", "tag"])]
    pub take_over: bool,

    /// Threads that answer the kernel: as many reads of directories can be under way at once [default: 4].
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,

    /// Serve metrics for Prometheus there, at the path /metrics: an address of the loopback interface and a
    /// port (127.0.0.1:9464), or the absolute path of a Unix socket. Off unless it is said.
    #[arg(long, value_name = "ADDR")]
    pub metrics: Option<MetricsAddress>,

    /// Who the worker becomes: a name in /etc/passwd, or UID:GID [default: ondemandd if there is such a user,
    /// otherwise nobody].
    ///
    /// Sources must be readable for this user. `root` stays root, but without any capability.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,

    /// What the worker gives up: its user, its capabilities, files (Landlock) and system calls (seccomp) that it
    /// does not need [default: best-effort].
    #[arg(long, value_name = "MODE")]
    pub sandbox: Option<SandboxMode>,

    /// Directory of keeper.pid, worker.pid, control.sock and stats.json; made if it is missing
    /// [default: /run/ondemandd]. At most 95 bytes, for the path of a socket is short.
    ///
    /// worker.pid is written when that worker serves; keeper.pid when the first one does.
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,

    /// How full the file system of the cache may become.
    #[command(flatten)]
    pub limits: LimitArgs,
}

fn seconds() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(0..=i64::from(cachefiles_proto::MAX_TIMEOUT))
}

/// How data is stored.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum FillWay {
    /// In memory first, where module and file system can; otherwise on the disk, at once.
    #[default]
    Auto,
    /// On the disk, at once.
    Direct,
    /// In memory first.
    Buffered,
}

fn window(text: &str) -> Result<u32, String> {
    let bytes = text.parse::<u32>().ok();
    bytes
        .filter(|bytes| cachefiles_proto::is_window(*bytes))
        .ok_or_else(|| "0, or a power of two from 4096 to 67108864".to_owned())
}

fn batch(text: &str) -> Result<NonZeroU32, String> {
    let count = text.parse::<NonZeroU32>().ok();
    count
        .filter(|count| count.get() <= cachefiles_proto::MAX_BATCH)
        .ok_or_else(|| "a number from 1 to 256".to_owned())
}

/// Arguments of `stats`.
#[derive(Args, Debug)]
pub struct Stats {
    /// Run directory of the keeper.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN_DIR)]
    pub run_dir: PathBuf,

    /// Print JSON rather than a table.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of the hidden `worker`, whose standard input is the socket to the keeper.
#[derive(Args, Debug)]
pub struct Worker {
    /// A directory, the only source.
    #[arg(long, required_unless_present = "sources", conflicts_with = "sources")]
    pub source: Option<PathBuf>,

    /// All sources, as JSON.
    #[arg(long)]
    pub sources: Option<String>,

    /// As in `serve`.
    #[arg(long)]
    pub threads: NonZeroUsize,

    /// Who to become, by numbers. A keeper of a version without it has not looked whether sources can be read
    /// by anybody but root: then the worker gives up nothing.
    #[arg(long = "as")]
    pub identity: Option<Identity>,

    /// As in `serve`.
    #[arg(long, default_value = "best-effort")]
    pub sandbox: SandboxMode,

    /// Where the record of versions is. A keeper of a version without it keeps none.
    #[arg(long)]
    pub record: Option<PathBuf>,

    /// The kernel keeps versions apart by tokens.
    #[arg(long)]
    pub tokens: bool,

    /// The kernel sends an OPEN that failed again and again.
    #[arg(long)]
    pub insists: bool,
}

impl Worker {
    /// The sources, whichever way they are told.
    ///
    /// # Errors
    ///
    /// The keeper is of a version that says it otherwise.
    pub fn sources(&self) -> anyhow::Result<SourceList> {
        match (&self.sources, &self.source) {
            (Some(json), _) => serde_json::from_str(json).context("--sources is malformed"),
            (None, Some(path)) => Ok(SourceList::directory(path)),
            (None, None) => anyhow::bail!("neither --source nor --sources"),
        }
    }
}

/// The domain of an image, as `mount` has it: the one that is named, or what stands before the first slash.
#[must_use]
pub fn domain_of<'a>(image: &'a str, domain: Option<&'a str>) -> Option<&'a str> {
    domain.or_else(|| image.split_once('/').map(|(name, _)| name))
}

/// The key of its volume.
#[must_use]
pub fn volume_of(image: &str, domain: Option<&str>) -> String {
    format!("erofs,{}", domain_of(image, domain).unwrap_or(image))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_configuration_stands_for_flags() {
        let parse = |args: &[&'static str]| {
            let line = ["ondemandd", "serve"].iter().chain(args);
            Cli::try_parse_from(line).is_ok()
        };
        assert!(parse(&["--config=c"]));
        assert!(parse(&["--config=c", "--source=s"]));
        assert!(!parse(&["--source=s"]));
        assert!(!parse(&["--cache=c"]));
    }

    #[test]
    fn a_time_of_more_than_a_day_is_an_error() {
        let args = ["ondemandd", "serve", "--cache=c", "--source=s", "--timeout"];
        let with = |n: &'static str| Cli::try_parse_from(args.into_iter().chain([n]));
        assert!(with("86401").is_err());
        assert!(with("86400").is_ok());
    }

    #[test]
    fn a_window_is_a_power_of_two() {
        let args = ["ondemandd", "serve", "--cache=c", "--source=s", "--fetch"];
        let with = |n: &'static str| Cli::try_parse_from(args.into_iter().chain([n]));
        for good in ["0", "4096", "1048576", "67108864"] {
            assert!(with(good).is_ok(), "{good}");
        }
        for bad in ["1", "2048", "12288", "134217728", "-4096", "64k"] {
            assert!(with(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_device_is_opened_or_taken_over() {
        let args = [
            "ondemandd",
            "serve",
            "--cache=c",
            "--source=s",
            "--take-over",
        ];
        assert!(Cli::try_parse_from(args).is_ok());
        for other in ["--device=d", "--tag=t"] {
            assert!(Cli::try_parse_from(args.into_iter().chain([other])).is_err());
        }
        // So that one command line serves for both.
        let same = [
            "--timeout=1",
            "--fetch=4096",
            "--batch=8",
            "--fill=buffered",
        ];
        assert!(Cli::try_parse_from(args.into_iter().chain(same)).is_ok());
    }

    #[test]
    fn a_batch_has_some_messages() {
        let args = ["ondemandd", "serve", "--cache=c", "--source=s", "--batch"];
        let with = |n: &'static str| Cli::try_parse_from(args.into_iter().chain([n]));
        for good in ["1", "16", "256"] {
            assert!(with(good).is_ok(), "{good}");
        }
        for bad in ["0", "257", "-1", "x"] {
            assert!(with(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_threads_is_an_error() {
        let args = ["ondemandd", "serve", "--cache=c", "--source=s", "--threads"];
        let with = |n: &'static str| Cli::try_parse_from(args.into_iter().chain([n]));
        assert!(with("0").is_err());
        assert!(with("1").is_ok());
    }
}
