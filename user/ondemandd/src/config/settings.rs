// SPDX-License-Identifier: MIT OR Apache-2.0

//! What `serve` goes by: flags before file before defaults.

use std::num::NonZeroU32;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::ensure;
use anyhow::Context;
use cachefiles_proto::Device;

use super::file::ConfigFile;
use super::source::SourceConfig;
use crate::cli::FillWay;
use crate::cli::Serve;
use crate::cli::DEFAULT_RUN_DIR;
use crate::limits::Limits;
use crate::logging::LogFormat;
use crate::metrics::address::MetricsAddress;
use crate::sandbox::SandboxMode;
use crate::source::names::SourceList;

/// Threads that answer the kernel, unless something else is said.
const DEFAULT_THREADS: NonZeroUsize = NonZeroUsize::new(4).unwrap();

/// The settings of a keeper.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Directory of the cache.
    pub cache: PathBuf,
    /// Where blobs are.
    pub sources: SourceList,
    /// Name of the cache, if it is not the kernel's own.
    pub tag: Option<String>,
    /// The device.
    pub device: PathBuf,
    /// Deadline of requests in seconds; 0: none.
    pub timeout: u32,
    /// Window of READs in bytes; 0: none.
    pub fetch: u32,
    /// Messages that a thread takes at once.
    pub batch: NonZeroU32,
    /// How data is stored.
    pub fill: FillWay,
    /// Whether standard input is the device.
    pub take_over: bool,
    /// Threads that answer the kernel.
    pub threads: NonZeroUsize,
    /// What a line of the log looks like.
    pub log_format: LogFormat,
    /// Where metrics are served, if they are.
    pub metrics: Option<MetricsAddress>,
    /// Who the worker becomes, if somebody else than by default.
    pub user: Option<String>,
    /// What the worker gives up.
    pub sandbox: SandboxMode,
    /// Where pid files and counters are.
    pub run_dir: PathBuf,
    /// How full the cache may become.
    pub limits: Limits,
}

impl Settings {
    /// What flags and, if they name one, a file say. `log_format` is the flag of that name, which belongs to
    /// all commands.
    ///
    /// # Errors
    ///
    /// The file cannot be used; something is missing, out of its range, or contradicts something else.
    pub fn new(args: &Serve, log_format: Option<LogFormat>) -> anyhow::Result<Self> {
        let file = match &args.config {
            Some(path) => ConfigFile::load(path)?,
            None => ConfigFile::default(),
        };
        Self::resolve(args, log_format, file)
    }

    fn resolve(
        args: &Serve,
        log_format: Option<LogFormat>,
        file: ConfigFile,
    ) -> anyhow::Result<Self> {
        let sources = sources_of(args, &file)?;
        sources.check()?;
        let cache = args.cache.clone().or(file.cache);
        let device = args.device.clone().or(file.device);
        let run_dir = args.run_dir.clone().or(file.run_dir);
        let settings = Settings {
            cache: cache.context("no cache: give --cache, or `cache` in the configuration")?,
            sources,
            tag: args.tag.clone().or(file.tag),
            device: device.unwrap_or_else(|| Device::DEFAULT_PATH.into()),
            timeout: args.timeout.or(file.timeout).unwrap_or(0),
            fetch: args.fetch.or(file.fetch).unwrap_or(0),
            batch: args.batch.or(file.batch).unwrap_or(NonZeroU32::MIN),
            fill: args.fill.or(file.fill).unwrap_or_default(),
            take_over: args.take_over,
            threads: args.threads.or(file.threads).unwrap_or(DEFAULT_THREADS),
            log_format: log_format.or(file.log_format).unwrap_or_default(),
            metrics: args.metrics.clone().or(file.metrics),
            user: args.user.clone().or(file.user),
            sandbox: args.sandbox.or(file.sandbox).unwrap_or_default(),
            run_dir: run_dir.unwrap_or_else(|| DEFAULT_RUN_DIR.into()),
            limits: args.limits.or(&file.limits),
        };
        let Settings { timeout, fetch, .. } = settings;
        ensure!(
            timeout <= cachefiles_proto::MAX_TIMEOUT,
            "timeout {timeout} is more than {} seconds",
            cachefiles_proto::MAX_TIMEOUT
        );
        ensure!(
            cachefiles_proto::is_window(fetch),
            "fetch {fetch} is neither 0 nor a power of two from 4096 to 67108864"
        );
        ensure!(
            settings.batch.get() <= cachefiles_proto::MAX_BATCH,
            "batch {} is more than {}",
            settings.batch,
            cachefiles_proto::MAX_BATCH
        );
        settings.limits.check()?;
        Ok(settings)
    }
}

fn sources_of(args: &Serve, file: &ConfigFile) -> anyhow::Result<SourceList> {
    let mut list = match (&args.source, &file.source, &file.default_source) {
        (Some(path), ..) | (None, Some(path), None) => SourceList::directory(path),
        (None, Some(_), Some(_)) => {
            anyhow::bail!("`source` and `default-source` exclude each other")
        }
        (None, None, name) => SourceList {
            default: name.as_ref().map(|name| find(file, name)).transpose()?,
            named: Vec::new(),
        },
    };
    let named = file.sources.iter();
    list.named = named.map(|(name, it)| (name.clone(), it.clone())).collect();
    Ok(list)
}

fn find(file: &ConfigFile, name: &str) -> anyhow::Result<SourceConfig> {
    let found = file.sources.get(name).cloned();
    found.with_context(|| format!("default-source: there is no [sources.{name}]"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;
    use crate::cli::Command;

    const EXAMPLE: &str = include_str!("../../ondemandd.toml");

    fn args(flags: &[&str]) -> (Serve, Option<LogFormat>) {
        let line = ["ondemandd", "serve", "--config=c"].iter().chain(flags);
        let cli = Cli::try_parse_from(line).unwrap();
        match cli.command {
            Command::Serve(args) => (args, cli.log_format),
            other => panic!("{other:?}"),
        }
    }

    fn settings(flags: &[&str], file: &str) -> anyhow::Result<Settings> {
        let file =
            ConfigFile::parse(file).map_err(|(line, error)| anyhow::anyhow!("{line}: {error}"))?;
        let (args, log_format) = args(flags);
        Settings::resolve(&args, log_format, file)
    }

    #[test]
    fn the_example_says_what_holds_anyway() {
        let example = settings(&[], EXAMPLE).unwrap();
        let nothing = settings(
            &["--cache=/var/cache/ondemandd", "--source=/srv/images"],
            "",
        );
        assert_eq!(example, nothing.unwrap());
        // Every field is there, so that it is explained.
        for field in [
            "cache",
            "source",
            "default-source",
            "tag",
            "device",
            "timeout",
            "fetch",
            "batch",
            "fill",
            "threads",
            "log-format",
            "metrics",
            "user",
            "sandbox",
            "run-dir",
            "brun",
            "bcull",
            "bstop",
            "frun",
            "fcull",
            "fstop",
            "kind",
            "path",
            "verify",
            "identity",
            "url",
            "username",
            "password",
            "token",
            "ca-file",
            "bucket",
            "prefix",
            "endpoint",
            "region",
            "virtual-host-style",
            "anonymous",
            "access-key-id",
            "secret-access-key",
            "session-token",
            "concurrency",
            "bandwidth",
            "read-ahead",
            "connect-ms",
            "try-ms",
            "total-ms",
            "retries",
            "first-pause-ms",
            "longest-pause-ms",
        ] {
            let line = |line: &str| {
                line.trim_start_matches(['#', ' '])
                    .starts_with(&format!("{field} = "))
            };
            assert!(EXAMPLE.lines().any(line), "{field}");
        }
    }

    #[test]
    fn what_the_example_only_shows_is_right_too() {
        let shown = |line: &str| match line.strip_prefix('#') {
            // What is explained has a space after the mark, what is shown has none.
            Some(rest) if !rest.starts_with(' ') => rest.to_owned() + "\n",
            _ => line.to_owned() + "\n",
        };
        let text: String = EXAMPLE.lines().map(shown).collect();
        // One of the two.
        let text = text.replace("default-source = ", "# ");
        let settings = settings(&[], &text).unwrap();
        assert_eq!(settings.sources.named.len(), 3);
        for (_, source) in &settings.sources.named {
            let requests = match source {
                SourceConfig::Directory(_) => continue,
                SourceConfig::Http(http) => &http.requests,
                SourceConfig::S3(s3) => &s3.requests,
            };
            assert_eq!(*requests, super::super::requests::RequestLimits::default());
        }
    }

    #[test]
    fn flags_come_before_the_file() {
        let file = "cache = '/a'\nsource = '/b'\nthreads = 7\nfetch = 4096\nlimits.brun = 50\n\
                    fill = 'buffered'\nlog-format = 'json'\n\
                    user = 'www-data'\nsandbox = 'required'\n";
        let from_file = settings(&[], file).unwrap();
        assert_eq!((from_file.threads.get(), from_file.fetch), (7, 4096));
        assert_eq!(from_file.fill, FillWay::Buffered);
        assert_eq!(from_file.log_format, LogFormat::Json);
        assert_eq!(from_file.user.as_deref(), Some("www-data"));
        assert_eq!(from_file.sandbox, SandboxMode::Required);
        assert_eq!((from_file.limits.brun, from_file.limits.bcull), (50, 5));
        let both = settings(&["--threads=9", "--source=/s", "--brun=60"], file).unwrap();
        assert_eq!((both.threads.get(), both.fetch), (9, 4096));
        assert_eq!(both.sources, SourceList::directory("/s".as_ref()));
        assert_eq!(both.limits.brun, 60);
        let human = settings(&["--log-format=human"], file).unwrap();
        assert_eq!(human.log_format, LogFormat::Human);
        let other = settings(&["--user=root", "--sandbox=off"], file).unwrap();
        assert_eq!(other.user.as_deref(), Some("root"));
        assert_eq!(other.sandbox, SandboxMode::Off);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let web = "[sources.web]\nkind = 'http'\nurl = 'http://h'\n";
        for (text, reason) in [
            ("source = '/s'", "no cache"),
            ("cache = '/c'", "no source"),
            ("cache = '/c'\nsource = '/s'\ntimeout = 86401", "timeout"),
            ("cache = '/c'\nsource = '/s'\nfetch = 5000", "fetch"),
            ("cache = '/c'\nsource = '/s'\nbatch = 257", "batch"),
            ("cache = '/c'\nsource = '/s'\nlimits.bcull = 7", "--bcull"),
            (
                &format!("cache = '/c'\ndefault-source = 'wep'\n{web}"),
                "sources.wep",
            ),
            (
                &format!("cache = '/c'\nsource = '/s'\ndefault-source = 'web'\n{web}"),
                "exclude",
            ),
            (
                "cache = '/c'\n[sources.'a/b']\nkind = 'directory'\npath = '/p'",
                "no name",
            ),
            (
                "cache = '/c'\n[sources.a]\nkind = 'http'\nurl = 'x'",
                "source a",
            ),
        ] {
            let error = format!("{:#}", settings(&[], text).unwrap_err());
            assert!(error.contains(reason), "{text}: {error}");
        }
        let good = settings(&[], &format!("cache = '/c'\ndefault-source = 'web'\n{web}")).unwrap();
        assert!(good.sources.has_remote());
        settings(&[], &format!("cache = '/c'\n{web}")).unwrap();
    }
}
