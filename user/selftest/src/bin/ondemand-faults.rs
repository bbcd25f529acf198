// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ondemand-faults`: allocations and disk requests fail, one after another, while a cache works; to be
//! run as root in a virtual machine with the debug kernel.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Device;
use clap::Parser;

use ondemand_selftest::faults::helper;
use ondemand_selftest::faults::plan::Item;
use ondemand_selftest::faults::plan::Kind;
use ondemand_selftest::faults::sweep::Sweep;
use ondemand_selftest::harness::context::Settings;
use ondemand_selftest::harness::raw;
use ondemand_selftest::harness::Context;
use ondemand_selftest::harness::Images;
use ondemand_selftest::store::report::Report;
use ondemand_selftest::store::slice::Slice;

/// Has each allocation and each disk request of what a cache does fail, one a run; prints KTAP.
///
/// Exit status: 0 all passed, 1 something failed.
#[derive(Debug, Parser)]
#[command(name = "ondemand-faults", version)]
struct Options {
    /// What to sweep: OPERATION-KIND, as bind-slab; all by default
    items: Vec<Item>,
    /// Only print what can be swept
    #[arg(long)]
    list: bool,
    /// Of all items only those in which this fails: slab, page or disk; more than one, with commas between
    #[arg(
        long,
        value_name = "KIND",
        value_delimiter = ',',
        conflicts_with = "items"
    )]
    kind: Vec<Kind>,
    /// Of all items only each Nth, from the Ith
    #[arg(long, value_name = "I/N", default_value_t = Slice::WHOLE, conflicts_with = "items")]
    slice: Slice,
    /// Only the run in which the Nth allocation or request fails
    #[arg(long, value_name = "N")]
    only: Option<u64>,
    /// A directory on tmpfs for images, mount points, and the disk
    #[arg(long, default_value = "/tmp/ondemand-faults")]
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
            eprintln!("ondemand-faults: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<ExitCode> {
    let mut items = options.items;
    if items.is_empty() {
        items = Item::all();
        items.retain(|item| options.kind.is_empty() || options.kind.contains(&item.kind));
        options.slice.keep(&mut items);
    }
    if options.list {
        items.iter().for_each(|item| println!("{item}"));
        return Ok(ExitCode::SUCCESS);
    }
    raw::private_mounts().context("mounts of its own")?;
    // The stack of each fault goes to the log; on an emulated console it would be most of the time.
    std::fs::write("/proc/sys/kernel/printk", "4").context("the console's level")?;
    std::fs::create_dir_all(&options.work_dir)?;
    Images::make(&options.work_dir)?;
    let dir = options.work_dir.join("disks");
    let settings = Settings {
        cache_dir: dir.clone(),
        device: Device::DEFAULT_PATH.into(),
        work_dir: options.work_dir,
        other_module: None,
        setup: Vec::new(),
    };
    let context = Context::new(settings, dir)?;
    let mut report = Report::new(items.len());
    let mut sweep = Sweep::new(&context, options.only);
    for item in items {
        report.step(&format!("faults_{item}"), || sweep.item(item));
    }
    Ok(report.exit_code())
}
