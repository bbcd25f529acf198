// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ondemand-matrix`: a store on each file system, with each kind of fill; to be run as root in a virtual
//! machine with the kernel that has them.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Device;
use cachefiles_proto::Fill;
use clap::Parser;
use rustix::mount::UnmountFlags;

use ondemand_selftest::harness::context::Settings;
use ondemand_selftest::harness::helper;
use ondemand_selftest::harness::raw;
use ondemand_selftest::harness::Context;
use ondemand_selftest::harness::Images;
use ondemand_selftest::matrix::cell;
use ondemand_selftest::matrix::disk;
use ondemand_selftest::matrix::disk::Disk;
use ondemand_selftest::matrix::variants::Variant;
use ondemand_selftest::store::report::comment;
use ondemand_selftest::store::report::Report;

/// Makes each file system on a disk, and does with it what a cache must stand: bind, fill, kill the daemon, fail the
/// disk, mount again, compare; prints KTAP.
///
/// Exit status: 0 all passed, 1 something failed.
#[derive(Debug, Parser)]
#[command(name = "ondemand-matrix", version)]
struct Options {
    /// The file systems; all by default
    variants: Vec<String>,
    /// Only print what can be tried
    #[arg(long)]
    list: bool,
    /// Where the disk is mounted that is taken, and loses what it holds; $ONDEMAND_DISK by default
    #[arg(long)]
    disk: Option<PathBuf>,
    /// A directory on tmpfs for images and mount points
    #[arg(long, default_value = "/tmp/ondemand-matrix")]
    work_dir: PathBuf,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("--helper") {
        return helper::main(&arguments.collect::<Vec<_>>());
    }
    match run(Options::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ondemand-matrix: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn chosen(names: &[String]) -> Result<Vec<&'static Variant>> {
    if names.is_empty() {
        return Ok(Variant::ALL.iter().collect());
    }
    let known = |name: &String| {
        let mut all = Variant::ALL.iter();
        all.find(|variant| variant.name == name)
            .with_context(|| format!("no file system is called {name}; --list names them"))
    };
    names.iter().map(known).collect()
}

fn run(options: Options) -> Result<ExitCode> {
    let variants = chosen(&options.variants)?;
    if options.list {
        variants
            .iter()
            .for_each(|variant| println!("{}", variant.name));
        return Ok(ExitCode::SUCCESS);
    }
    let place = options
        .disk
        .or_else(|| std::env::var_os("ONDEMAND_DISK").map(PathBuf::from));
    let Some(place) = place else {
        bail!("neither --disk nor $ONDEMAND_DISK: see scripts/vm/run");
    };
    let below = disk::device_of(&place)?;
    rustix::mount::unmount(&place, UnmountFlags::empty())
        .with_context(|| format!("unmount {}", place.display()))?;
    // Only then: the mount that others see keeps the disk in use.
    raw::private_mounts().context("mounts of its own")?;
    std::fs::create_dir_all(&options.work_dir)?;
    Images::make(&options.work_dir)?;
    let settings = Settings {
        cache_dir: place.clone(),
        device: Device::DEFAULT_PATH.into(),
        work_dir: options.work_dir.clone(),
        other_module: None,
        setup: Vec::new(),
    };
    let disk = Disk::new(below, options.work_dir.join("store"))?;
    let mut report = Report::new(2 * variants.len());
    for variant in variants {
        for (fill, word) in [(Fill::Direct, "direct"), (Fill::Buffered, "buffered")] {
            let name = format!("matrix_{}_{word}", variant.name);
            report.step(&name, || {
                // What a bad one has left mounted goes with it.
                let context = Context::new(settings.clone(), options.work_dir.join("places"))?;
                let verdict = cell::run(&context, &disk, variant, fill)?;
                comment(format!("{} | {word} | {verdict}", variant.name));
                Ok(())
            });
        }
    }
    Ok(report.exit_code())
}
