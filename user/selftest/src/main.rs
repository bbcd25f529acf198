// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ondemand-selftest`: tests of `/dev/cachefiles`, to be run as root in a virtual machine.

use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Device;
use clap::Parser;

use ondemand_selftest::harness::context::Settings;
use ondemand_selftest::harness::helper;
use ondemand_selftest::harness::runner;
use ondemand_selftest::harness::runner::Runner;
use ondemand_selftest::harness::runner::EXIT_SKIP;
use ondemand_selftest::harness::Images;
use ondemand_selftest::harness::Test;
use ondemand_selftest::tests;

/// Tests of /dev/cachefiles in on-demand mode; prints KTAP.
///
/// Exit status: 0 all passed or were skipped, 1 something failed, 4 nothing could run here.
#[derive(Debug, Parser)]
#[command(name = "ondemand-selftest", version)]
struct Options {
    /// Tests to run: names, or patterns with `*`; all by default
    tests: Vec<String>,
    /// Only print the names of the tests and what each would catch
    #[arg(long)]
    list: bool,
    /// A directory on a real file system (ext4, XFS, Btrfs) for the caches; $ONDEMAND_DISK or
    /// /var/cache by default
    #[arg(long)]
    cache_dir: Option<PathBuf>,
    /// The device
    #[arg(long, default_value = Device::DEFAULT_PATH)]
    device: PathBuf,
    /// A directory on tmpfs for images and mount points
    #[arg(long, default_value = "/tmp/ondemand-selftest")]
    work_dir: PathBuf,
    /// The .ko of the backend that is not loaded: inserting it must be refused
    #[arg(long)]
    other_module: Option<PathBuf>,
    /// A command for each device that a test opens, as "fill buffered": tests in another mode. May be
    /// given more than once
    #[arg(long, value_name = "COMMAND")]
    setup: Vec<String>,
    /// The backend is the C module: mark failures that are its known defects, and leave out the tests that
    /// may crash or hang it. Required with that module
    #[arg(long)]
    expect_c: bool,
    /// Print the output of tests that pass, too
    #[arg(short, long)]
    verbose: bool,
    /// Run one test in this process
    #[arg(long, hide = true)]
    one: Option<String>,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("--helper") {
        return helper::main(&arguments.collect::<Vec<_>>());
    }
    match run(Options::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ondemand-selftest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<ExitCode> {
    let all = tests::all();
    let settings = Settings {
        cache_dir: options.cache_dir.unwrap_or_else(default_cache_dir),
        device: options.device,
        work_dir: options.work_dir,
        other_module: options.other_module,
        setup: options.setup,
    };
    if let Some(name) = options.one {
        let test = all.iter().find(|test| test.name == name);
        let test = test.with_context(|| format!("no test {name}"))?;
        return Ok(runner::run_one(test, settings, options.expect_c));
    }
    let selected = select(&all, &options.tests)?;
    if options.list {
        for test in selected {
            println!("{:<44} {}", test.name, test.about);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(missing) = missing(&settings.device) {
        println!("1..0 # SKIP {missing}");
        return Ok(ExitCode::from(EXIT_SKIP));
    }
    if !options.expect_c && is_c_module(Path::new("/sys/module"), &settings.device) {
        bail!(
            "{} is the kernel's own cachefiles: --expect-c leaves out what may crash or hang it",
            settings.device.display()
        );
    }
    std::fs::create_dir_all(&settings.work_dir)?;
    let cache_dir = settings.cache_dir.join("selftest");
    std::fs::create_dir_all(&cache_dir)?;
    Images::make(&settings.work_dir)?;
    let runner = Runner {
        settings: Settings {
            cache_dir,
            ..settings
        },
        expect_c: options.expect_c,
        verbose: options.verbose,
    };
    runner.run(&selected)
}

fn default_cache_dir() -> PathBuf {
    std::env::var_os("ONDEMAND_DISK").map_or_else(|| "/var/cache".into(), PathBuf::from)
}

/// The tests whose names match one of the patterns; all of them without patterns.
fn select<'a>(all: &'a [Test], patterns: &[String]) -> Result<Vec<&'a Test>> {
    for pattern in patterns {
        if !all.iter().any(|test| matches(pattern, test.name)) {
            bail!("no test is called {pattern}; see --list");
        }
    }
    Ok(all
        .iter()
        .filter(|test| patterns.is_empty() || patterns.iter().any(|p| matches(p, test.name)))
        .collect())
}

/// Whether a name matches a pattern, in which `*` stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => name.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len())
                .filter_map(|at| rest.get(at..))
                .any(|rest| matches(tail, rest))
        }),
    }
}

/// What this machine lacks to run any test.
fn missing(device: &Path) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("not root".to_owned());
    }
    if !device.exists() {
        return Some(format!("no {}: no backend is loaded", device.display()));
    }
    let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !filesystems.lines().any(|line| line.ends_with("\terofs")) {
        return Some("the kernel has no erofs".to_owned());
    }
    None
}

/// Whether `device` is that of the C module. That module may be built in, and has this one name for its device; ours
/// cannot be built in, and has another name if both are loaded. `modules` is `/sys/module`.
fn is_c_module(modules: &Path, device: &Path) -> bool {
    let loaded = |name: &str| modules.join(name).is_dir();
    !loaded("cachefiles_ondemand")
        || loaded("cachefiles") && device == Path::new(Device::DEFAULT_PATH)
}

#[cfg(test)]
mod selection {
    use ondemand_selftest::harness::known;

    use super::*;

    #[test]
    fn patterns_match_as_a_shell_would() {
        for (pattern, name, expected) in [
            ("d05_x", "d05_x", true),
            ("d05_x", "d05_xy", false),
            ("d05*", "d05_x", true),
            ("*copen*", "opening_copen_twice", true),
            ("*x", "d05_xyx", true),
            ("*y", "d05_xyx", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn the_c_module_is_recognised() -> Result<()> {
        let modules = std::env::temp_dir().join(format!("modules.{}", std::process::id()));
        let default = Path::new(Device::DEFAULT_PATH);
        let other = Path::new("/dev/cachefiles2");
        let make = |name: &str| std::fs::create_dir_all(modules.join(name));
        assert!(is_c_module(&modules, default), "it is built in");
        make("cachefiles")?;
        assert!(is_c_module(&modules, default));
        make("cachefiles_ondemand")?;
        assert!(is_c_module(&modules, default), "both are loaded");
        assert!(!is_c_module(&modules, other), "both are loaded");
        std::fs::remove_dir(modules.join("cachefiles"))?;
        assert!(!is_c_module(&modules, default));
        std::fs::remove_dir_all(&modules)?;
        Ok(())
    }

    #[test]
    fn names_are_unique_and_known_defects_exist() {
        let all = tests::all();
        let names: Vec<&str> = all.iter().map(|test| test.name).collect();
        let mut unique = names.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), names.len());
        assert_eq!(known::stale(&names).collect::<Vec<_>>(), [""; 0]);
    }
}
