// SPDX-License-Identifier: MIT OR Apache-2.0

//! The storm that is measured in kills: each image is read in rounds of its own
//! until so many workers were killed, and now and then their keeper.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use clap::Args;
use ondemand_deadline::overdue;
use rand::Rng;
use serde_json::{json, Value};

use crate::contents::Contents;
use crate::daemon::Setup;
use crate::gaps::{Curve, Gaps};
use crate::killer::{Killed, Killer, Plan};
#[cfg(feature = "plots")]
use crate::plot;
use crate::readers::Image;
use crate::report;
use crate::slots::{Shared, Slot, Tally};
use crate::watch::KernelLog;

/// What `storm kills` is told.
#[derive(Args)]
pub(crate) struct Options {
    /// The daemon's program.
    #[arg(long)]
    daemon: PathBuf,
    /// A directory on a file system that can be a cache (ext4). Images are copied
    /// there, too.
    #[arg(long)]
    disk: PathBuf,
    /// The directory with the images; beside IMAGE stands IMAGE.contents.
    #[arg(long)]
    source: PathBuf,
    /// The names of the images. Every second one is mounted in a domain.
    #[arg(long = "image", required = true)]
    images: Vec<String>,
    /// Where the daemon keeps its pid files and counters.
    #[arg(long)]
    run_dir: PathBuf,
    /// Where the daemon's log and the results go.
    #[arg(long)]
    results: PathBuf,
    /// How many workers that serve are to be killed.
    #[arg(long, default_value_t = 500)]
    kills: u64,
    /// With each so-manieth of them the keeper is killed; 0: never.
    #[arg(long, default_value_t = 50)]
    keeper_every: u64,
    /// Shortest time that a worker serves, in milliseconds.
    #[arg(long, default_value_t = 10)]
    kill_min: u64,
    /// Longest time that a worker serves, in milliseconds, or as long as it took to appear.
    #[arg(long, default_value_t = 200)]
    kill_max: u64,
    /// How many threads read each image.
    #[arg(long, default_value_t = 1)]
    readers: usize,
    /// Seconds that a reader may be without a byte, on the reference machine.
    #[arg(long, default_value_t = 60)]
    stall: u64,
    /// Seconds for a mount, a listing or an unmount, on the reference machine.
    #[arg(long, default_value_t = 120)]
    mount_deadline: u64,
    /// Seconds for everything, on the reference machine.
    #[arg(long, default_value_t = 600)]
    deadline: u64,
    /// What the order of the reads and the times of the kills follow from.
    #[arg(long)]
    seed: Option<u64>,
    /// More arguments for `ondemandd serve`.
    #[arg(last = true)]
    serve: Vec<String>,
}

impl Options {
    /// Copies the images to where they can have more names than one, and makes
    /// the slots.
    fn slots(&self, seed: u64) -> Result<Vec<Slot>> {
        let source = self.disk.join("source");
        fs::create_dir_all(&source)?;
        let mut slots = Vec::new();
        for (i, name) in self.images.iter().enumerate() {
            let from = self.source.join(name);
            fs::copy(&from, source.join(name))
                .with_context(|| format!("copying {}", from.display()))?;
            let contents = Contents::load(&self.source.join(format!("{name}.contents")))?;
            slots.push(Slot {
                image: Arc::new(Image {
                    name: name.clone(),
                    mount: self.run_dir.join("mnt").join(name),
                    contents,
                }),
                source: source.clone(),
                in_domain: i % 2 == 1,
                readers: self.readers,
                stall: self.stall,
                deadline: self.mount_deadline,
                seed: seed.wrapping_add(u64::try_from(i)? << 32),
            });
        }
        Ok(slots)
    }

    /// The program is copied to the disk: the guest may have it from the host, where
    /// each start of a worker would fetch it anew.
    fn setup(&self) -> Result<Setup> {
        let program = self.disk.join("ondemandd");
        fs::copy(&self.daemon, &program)
            .with_context(|| format!("copying {}", self.daemon.display()))?;
        Ok(Setup {
            program,
            cache: self.disk.join("cache"),
            source: self.disk.join("source"),
            run_dir: self.run_dir.clone(),
            log: self.results.join("ondemandd.log"),
            more: self.serve.clone(),
        })
    }

    /// Looks after killer and slots until they have come to an end.
    fn supervise(
        &self,
        begun: Instant,
        shared: &Shared,
        killed: &Killed,
        log: &mut KernelLog,
        ended: impl Fn() -> bool,
    ) {
        let mut said = Instant::now();
        while !ended() {
            thread::park_timeout(Duration::from_millis(100));
            for line in log.complaints() {
                shared.fail(format!("kernel: {line}"));
            }
            if !shared.stop.load(Ordering::Relaxed) {
                let limit = overdue(begun.elapsed(), Duration::from_secs(self.deadline));
                if let Some(limit) = limit {
                    shared.fail(format!("not done within {} s", limit.as_secs()));
                }
            }
            if said.elapsed() >= Duration::from_secs(5) {
                said = Instant::now();
                println!(
                    "  {:4} s  {} of {} kills, {} of keepers, {} rounds, {} MiB",
                    begun.elapsed().as_secs(),
                    killed.workers.load(Ordering::Relaxed),
                    self.kills,
                    killed.keepers.load(Ordering::Relaxed),
                    shared.rounds.load(Ordering::Relaxed),
                    shared.bytes.load(Ordering::Relaxed) >> 20,
                );
            }
        }
    }
}

/// Runs the storm, prints its tables and draws its plot; true when nothing went
/// wrong.
///
/// # Errors
/// When it cannot even begin; what goes wrong later is in the table.
pub(crate) fn storm(options: &Options) -> Result<bool> {
    ensure!(
        options.kill_min <= options.kill_max,
        "--kill-min is above --kill-max"
    );
    ensure!(options.readers > 0, "nobody reads");
    let begun = Instant::now();
    let seed = options.seed.unwrap_or_else(|| rand::rng().random());
    println!("seed {seed}");
    fs::create_dir_all(&options.results)?;
    let mut log = KernelLog::open()?;
    let slots = options.slots(seed)?;
    let mut killer = Killer::start(options.setup()?, seed)?;
    let (shared, killed) = (Arc::new(Shared::default()), Arc::new(Killed::default()));

    let killing = {
        let (shared, killed) = (Arc::clone(&shared), Arc::clone(&killed));
        let plan = Plan {
            kills: options.kills,
            keeper_every: options.keeper_every,
            life_ms: (options.kill_min, options.kill_max),
        };
        thread::spawn(move || {
            if let Err(error) = killer.run(&plan, &shared.stop, &killed) {
                shared.fail(format!("killing: {error:#}"));
            }
            shared.stop.store(true, Ordering::Relaxed);
            killer
        })
    };
    let readers: Vec<JoinHandle<Result<Tally>>> = slots
        .into_iter()
        .map(|slot| slot.start(Arc::clone(&shared)))
        .collect();
    options.supervise(begun, &shared, &killed, &mut log, || {
        killing.is_finished() && readers.iter().all(JoinHandle::is_finished)
    });

    let killer = killing.join().ok().context("the killer panicked")?;
    let mut tallies = Vec::new();
    for reader in readers {
        tallies.push(reader.join().ok().context("a slot panicked")??);
    }
    let counters = killer.finish().unwrap_or_else(|error| {
        shared.fail(format!("{error:#}"));
        Value::Null
    });
    let mut errors = std::mem::take(&mut *shared.errors.lock().unwrap());
    errors.extend(
        log.complaints()
            .iter()
            .map(|line| format!("kernel: {line}")),
    );
    let kills = killed.workers.load(Ordering::Relaxed);
    if kills < options.kills && errors.is_empty() {
        errors.push(format!("only {kills} kills of {}", options.kills));
    }

    let (curves, mounts) = curves(&options.images, tallies)?;
    let row = |curve: &Curve| {
        let gaps = curve.gaps.summary();
        json!({
            "reader": curve.name, "compressed": curve.compressed, "bytes": curve.bytes,
            "gaps": gaps.count, "p50_ms": gaps.p50, "p99_ms": gaps.p99, "max_ms": gaps.max,
        })
    };
    let mount = mounts.summary();
    let result = json!({
        "seed": seed,
        "images": options.images,
        "kills": kills,
        "early_kills": killed.early.load(Ordering::Relaxed),
        "keeper_kills": killed.keepers.load(Ordering::Relaxed),
        "rounds": shared.rounds.load(Ordering::Relaxed),
        "files": shared.files.load(Ordering::Relaxed),
        "bytes": shared.bytes.load(Ordering::Relaxed),
        "errors": errors,
        "seconds": begun.elapsed().as_secs_f64(),
        "daemon": counters,
        "mounts": {
            "count": mount.count, "p50_ms": mount.p50, "p99_ms": mount.p99, "max_ms": mount.max,
        },
        "readers": curves.iter().map(row).collect::<Vec<_>>(),
    });
    fs::write(
        options.results.join("storm.json"),
        serde_json::to_vec_pretty(&result)?,
    )?;
    #[cfg(feature = "plots")]
    plot::draw(&options.results.join("gaps.svg"), &curves, kills)?;
    report::print_gaps(&result);
    Ok(report::print(&result, &errors))
}

/// One curve a reader, and the mounts of all.
fn curves(images: &[String], tallies: Vec<Tally>) -> Result<(Vec<Curve>, Gaps)> {
    let mut mounts = Gaps::new()?;
    let mut curves = Vec::new();
    for (image, tally) in images.iter().zip(tallies) {
        mounts.add(&tally.mounts)?;
        let many = tally.readers.len() > 1;
        for (i, seen) in tally.readers.into_iter().enumerate() {
            let image = image.trim_end_matches(".img");
            curves.push(Curve {
                name: if many {
                    format!("{image}/{i}")
                } else {
                    image.to_owned()
                },
                compressed: image.starts_with("lz4"),
                bytes: seen.bytes,
                gaps: seen.gaps,
            });
        }
    }
    Ok((curves, mounts))
}
