// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ondemand-store`: tests that go over more than one module or more than one boot, to be run as root
//! in a virtual machine.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Device;
use cachefiles_proto::Fill;
use clap::Parser;
use clap::Subcommand;

use ondemand_selftest::harness::context::Settings;
use ondemand_selftest::harness::Context;
use ondemand_selftest::harness::Images;
use ondemand_selftest::store::cut;
use ondemand_selftest::store::exchange;
use ondemand_selftest::store::listing::Listing;
use ondemand_selftest::store::reorder::record;
use ondemand_selftest::store::reorder::replay;
use ondemand_selftest::store::slice::Slice;
use ondemand_selftest::store::visit;

/// What is in a store after another module, or after a power cut; prints KTAP.
///
/// Exit status: 0 all passed, 1 something failed.
#[derive(Debug, Parser)]
#[command(name = "ondemand-store", version)]
struct Options {
    #[command(subcommand)]
    action: Action,
    /// A directory on a real file system for the caches; $ONDEMAND_DISK or /var/cache by default
    #[arg(long, global = true)]
    cache_dir: Option<PathBuf>,
    /// A directory on tmpfs for images and mount points
    #[arg(long, global = true, default_value = "/tmp/ondemand-store")]
    work_dir: PathBuf,
    /// A command for each device that is opened, as "fill buffered"
    #[arg(long, global = true, value_name = "COMMAND")]
    setup: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Fill a store under each module, and serve it under the other; neither may be loaded
    Exchange {
        /// The kernel's own cachefiles.ko
        #[arg(long)]
        c: PathBuf,
        /// cachefiles_ondemand.ko
        #[arg(long)]
        rust: PathBuf,
        /// Of the keys only each Nth, from the Ith
        #[arg(long, value_name = "I/N", default_value_t = Slice::WHOLE)]
        slice: Slice,
    },
    /// One boot of several: check the store, fill it, have the power cut
    PowerCut {
        /// Which boot this is, from 0
        #[arg(long)]
        boot: u32,
        /// How many there are
        #[arg(long)]
        boots: u32,
        /// For the times at which the power is cut
        #[arg(long)]
        seed: u64,
        /// The file that cuts the power when it is made; $ONDEMAND_POWER_SWITCH by default
        #[arg(long)]
        switch: Option<PathBuf>,
    },
    /// Use a cache on a disk whose writes are logged
    Record {
        /// The disk; $ONDEMAND_RECORDED by default
        #[arg(long)]
        device: Option<PathBuf>,
        /// ext4 or xfs
        #[arg(long, default_value = "ext4")]
        file_system: String,
        /// direct, buffered, or both by turns
        #[arg(long, default_value = "both")]
        fill: String,
        /// For all that is drawn
        #[arg(long)]
        seed: u64,
        /// How often the cache is bound
        #[arg(long, default_value_t = 16)]
        sessions: u32,
    },
    /// Make the disks that a loss of power may leave at points of such a log, and check them
    Replay {
        /// What the disk's writes were logged to
        #[arg(long)]
        log: PathBuf,
        /// For the points, and what survives there
        #[arg(long)]
        seed: u64,
        /// The number of the first point
        #[arg(long, default_value_t = 0)]
        first: u64,
        /// How many points
        #[arg(long, default_value_t = 50)]
        points: u64,
        /// This point alone
        #[arg(long, conflicts_with_all = ["first", "points"])]
        point: Option<u64>,
    },
    /// List what a directory of a cache holds
    List {
        /// The directory of `dir`
        dir: PathBuf,
    },
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("--helper") {
        return visit::helper_main(&arguments.collect::<Vec<_>>());
    }
    match run(Options::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ondemand-store: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<ExitCode> {
    if let Action::List { dir } = &options.action {
        for (path, entry) in Listing::of(dir)?.0 {
            use std::os::unix::ffi::OsStrExt;
            println!("{} {entry}", path.as_os_str().as_bytes().escape_ascii());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let disk = options
        .cache_dir
        .or_else(|| std::env::var_os("ONDEMAND_DISK").map(PathBuf::from))
        .unwrap_or_else(|| "/var/cache".into());
    std::fs::create_dir_all(&options.work_dir)?;
    Images::make(&options.work_dir)?;
    let settings = Settings {
        cache_dir: disk.clone(),
        device: Device::DEFAULT_PATH.into(),
        work_dir: options.work_dir,
        other_module: None,
        setup: options.setup,
    };
    let dir = disk.join(format!("store.{}", std::process::id()));
    let context = Context::new(settings, dir)?;
    match options.action {
        Action::Exchange { c, rust, slice } => {
            exchange::run(&context, &exchange::Modules { c, rust }, slice)
        }
        Action::PowerCut {
            boot,
            boots,
            seed,
            switch,
        } => {
            let switch =
                switch.or_else(|| std::env::var_os("ONDEMAND_POWER_SWITCH").map(PathBuf::from));
            if boot + 1 < boots && switch.is_none() {
                bail!("neither --switch nor $ONDEMAND_POWER_SWITCH: see scripts/vm/run");
            }
            cut::run(
                &context,
                &cut::Boot {
                    number: boot,
                    boots,
                    seed,
                    disk,
                    switch,
                },
            )
        }
        Action::Record {
            device,
            file_system,
            fill,
            seed,
            sessions,
        } => {
            let fill = match fill.as_str() {
                "direct" => Some(Fill::Direct),
                "buffered" => Some(Fill::Buffered),
                "both" => None,
                _ => bail!("--fill is direct, buffered or both, not {fill}"),
            };
            if !matches!(file_system.as_str(), "ext4" | "xfs") {
                bail!("--file-system is ext4 or xfs, not {file_system}");
            }
            let device =
                device.or_else(|| std::env::var_os("ONDEMAND_RECORDED").map(PathBuf::from));
            let recording = record::Recording {
                disk: device
                    .context("neither --device nor $ONDEMAND_RECORDED: see scripts/vm/run")?,
                file_system,
                fill,
                seed,
                sessions,
            };
            record::run(&context, &recording).map(|()| ExitCode::SUCCESS)
        }
        Action::Replay {
            log,
            seed,
            first,
            points,
            point,
        } => {
            let (first, points) = point.map_or((first, points), |point| (point, 1));
            let plan = replay::Plan {
                log,
                seed,
                first,
                points,
            };
            replay::run(&context, &plan)
        }
        Action::List { .. } => unreachable!("listed above"),
    }
}
