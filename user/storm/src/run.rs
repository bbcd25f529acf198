// SPDX-License-Identifier: MIT OR Apache-2.0

//! The storm itself: daemon, mounts, readers, killer, verdict.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Result};
use clap::Args;
use ondemand_deadline::overdue;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::mount::{mount, unmount, MountFlags, UnmountFlags};
use serde_json::{json, Value};

use crate::contents::Contents;
use crate::daemon::{kill_worker, worker_in, Daemon, Setup, LOOK_AGAIN};
use crate::deadline::within;
use crate::readers::{Image, Pass};
use crate::report;
use crate::watch::{self, KernelLog};

/// What `storm run` is told.
#[derive(Args)]
pub(crate) struct Options {
    /// The daemon's program.
    #[arg(long)]
    daemon: PathBuf,
    /// A directory on a file system that can be a cache (ext4).
    #[arg(long)]
    cache: PathBuf,
    /// The directory with the images; beside IMAGE stands IMAGE.contents.
    #[arg(long)]
    source: PathBuf,
    /// The names of the images, each also the file system id of its mount.
    #[arg(long = "image", required = true)]
    images: Vec<String>,
    /// Where the daemon keeps its pid files and counters.
    #[arg(long)]
    run_dir: PathBuf,
    /// Where the daemon's log and the results go.
    #[arg(long)]
    results: PathBuf,
    /// How many threads read.
    #[arg(long, default_value_t = 4)]
    readers: usize,
    /// How often everything is read; the page cache is dropped in between.
    #[arg(long, default_value_t = 1)]
    passes: u64,
    /// Shortest time for which a worker serves before it is killed, in milliseconds; as long as it took to start is
    /// added.
    #[arg(long, default_value_t = 50)]
    kill_min: u64,
    /// Longest such time, in milliseconds; 0: nobody is killed.
    #[arg(long, default_value_t = 500)]
    kill_max: u64,
    /// Fewer kills than this are a failure too: the storm proved nothing.
    #[arg(long, default_value_t = 20)]
    least_kills: u64,
    /// Seconds that a reader may be without a byte, on the reference machine.
    #[arg(long, default_value_t = 45)]
    stall: u64,
    /// Seconds for a mount or an unmount, on the reference machine.
    #[arg(long, default_value_t = 30)]
    mount_deadline: u64,
    /// Seconds for everything, on the reference machine.
    #[arg(long, default_value_t = 600)]
    deadline: u64,
    /// What the order of the reads and the times of the kills follow from.
    #[arg(long)]
    seed: Option<u64>,
}

/// Mounts an image by its file system id, in a domain if one is named.
///
/// # Errors
/// What `mount` says.
pub(crate) fn mount_image(fsid: &str, domain: Option<&str>, at: &Path) -> Result<()> {
    fs::create_dir_all(at)?;
    let domain = domain.map_or_else(String::new, |domain| format!(",domain_id={domain}"));
    let options = std::ffi::CString::new(format!("fsid={fsid}{domain}"))?;
    mount("none", at, "erofs", MountFlags::RDONLY, options.as_c_str())?;
    Ok(())
}

/// Kills each worker some time after it has begun to serve, until told to stop.
///
/// To `pause_ms` is added how long the worker took to start. So it serves at least half of the time, on a slow
/// machine too, and the kills become more the longer the readers take.
fn killer(run_dir: &Path, seed: u64, pause_ms: (u64, u64), stop: &AtomicBool, kills: &AtomicU64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut last, mut died) = (None, Instant::now());
    while !stop.load(Ordering::Relaxed) {
        if worker_in(run_dir).is_none_or(|worker| Some(worker) == last) {
            thread::sleep(LOOK_AGAIN);
            continue;
        }
        let start = last.map_or(Duration::ZERO, |_| died.elapsed());
        let pause = rng.random_range(pause_ms.0..=pause_ms.1.max(pause_ms.0));
        // The time between two kills is the point here, not a way to wait.
        thread::sleep(Duration::from_millis(pause).saturating_add(start));
        if let Some(pid) = kill_worker(run_dir, last) {
            kills.fetch_add(1, Ordering::Relaxed);
            (last, died) = (Some(pid), Instant::now());
        }
    }
}

/// What one storm came to, besides the daemon's own counters.
#[derive(Default)]
struct Outcome {
    files: u64,
    bytes: u64,
    errors: Vec<String>,
    reading: Duration,
}

impl Options {
    /// One pass over everything; returns early when a reader stands still.
    fn pass(
        &self,
        images: &[Image],
        seed: u64,
        begun: Instant,
        kills: &AtomicU64,
        sum: &mut Outcome,
    ) -> Result<()> {
        let start = Instant::now();
        let pass = Pass::new(images, self.readers, seed)?;
        let threads = pass.start(seed);
        let total: u64 = images.iter().map(|i| i.contents.totals().1).sum();
        let (mut stuck, mut said) = (None, start);
        while !threads.iter().all(thread::JoinHandle::is_finished) {
            thread::park_timeout(Duration::from_millis(50));
            if said.elapsed() >= Duration::from_secs(5) {
                said = Instant::now();
                println!(
                    "  {:4} s  {:4} of {} MiB, {} files, {} kills",
                    begun.elapsed().as_secs(),
                    pass.bytes.load(Ordering::Relaxed) >> 20,
                    total >> 20,
                    pass.files.load(Ordering::Relaxed),
                    kills.load(Ordering::Relaxed),
                );
            }
            if let Some((reader, idle)) = watch::stalled(&pass, self.stall) {
                stuck = Some(format!("reader {reader} got no byte for {idle} s"));
            } else if let Some(limit) = overdue(begun.elapsed(), Duration::from_secs(self.deadline))
            {
                stuck = Some(format!("not done within {} s", limit.as_secs()));
            } else if pass.errors.lock().unwrap().len() >= 100 {
                stuck = Some("100 errors".to_owned());
            }
            if stuck.is_some() {
                pass.stop.store(true, Ordering::Relaxed);
                break;
            }
        }
        if let Some(what) = stuck {
            println!("{what}\n{}", watch::readers(&pass));
            println!("{}", watch::kernel_workers());
            sum.errors.push(what);
        }
        sum.files += pass.files.load(Ordering::Relaxed);
        sum.bytes += pass.bytes.load(Ordering::Relaxed);
        sum.reading += start.elapsed();
        sum.errors.append(&mut pass.errors.lock().unwrap());
        Ok(())
    }
}

/// Runs the storm and prints its table; true when nothing went wrong.
///
/// # Errors
/// When it cannot even begin; what goes wrong later is in the table.
pub(crate) fn storm(options: &Options) -> Result<bool> {
    ensure!(
        options.kill_max == 0 || options.kill_min <= options.kill_max,
        "--kill-min is above --kill-max"
    );
    let begun = Instant::now();
    let seed = options.seed.unwrap_or_else(|| rand::rng().random());
    println!("seed {seed}");
    fs::create_dir_all(&options.results)?;

    let mut images = Vec::new();
    for name in &options.images {
        images.push(Image {
            name: name.clone(),
            mount: options.run_dir.join("mnt").join(name),
            contents: Contents::load(&options.source.join(format!("{name}.contents")))?,
        });
    }
    let mut log = KernelLog::open()?;
    let mut daemon = Daemon::start(
        &Setup {
            program: options.daemon.clone(),
            cache: options.cache.clone(),
            source: options.source.clone(),
            run_dir: options.run_dir.clone(),
            log: options.results.join("ondemandd.log"),
            more: Vec::new(),
        },
        None,
    )?;

    let stop = Arc::new(AtomicBool::new(options.kill_max == 0));
    let kills = Arc::new(AtomicU64::new(0));
    let killing = {
        let (stop, kills, dir) = (stop.clone(), kills.clone(), options.run_dir.clone());
        let pause = (options.kill_min, options.kill_max);
        thread::spawn(move || killer(&dir, seed, pause, &stop, &kills))
    };

    let mut sum = Outcome::default();
    for image in &images {
        let (name, at) = (image.name.clone(), image.mount.clone());
        let what = format!("mount {name}");
        if let Err(e) = within(&what, options.mount_deadline, move || {
            mount_image(&name, None, &at)
        }) {
            sum.errors.push(format!("{e:#}"));
        }
    }
    for pass in 0..options.passes {
        if !sum.errors.is_empty() {
            break;
        }
        options.pass(&images, seed.wrapping_add(pass), begun, &kills, &mut sum)?;
        if pass + 1 < options.passes {
            within("drop_caches", options.mount_deadline, watch::drop_caches)?;
        }
    }
    if sum.errors.is_empty() {
        for image in &images {
            let listing = image.contents.check_listing(&image.mount);
            sum.errors
                .extend(listing.err().map(|e| format!("{}: {e:#}", image.name)));
        }
    }
    stop.store(true, Ordering::Relaxed);
    let _ = killing.join();
    let kills = kills.load(Ordering::Relaxed);
    if options.kill_max > 0 && kills < options.least_kills && sum.errors.is_empty() {
        sum.errors.push(format!(
            "only {kills} kills, expected {}",
            options.least_kills
        ));
    }

    for image in &images {
        let at = image.mount.clone();
        let what = format!("unmount {}", image.name);
        let done = within(&what, options.mount_deadline, move || {
            Ok(unmount(&at, UnmountFlags::empty())?)
        });
        sum.errors.extend(done.err().map(|e| format!("{e:#}")));
    }
    let stats = daemon.stats().unwrap_or_else(|e| {
        sum.errors.push(format!("the daemon's counters: {e:#}"));
        Value::Null
    });
    match daemon.stop() {
        Ok(status) if status.success() => {}
        Ok(status) => sum.errors.push(format!("the daemon ended with {status}")),
        Err(e) => sum.errors.push(format!("{e:#}")),
    }
    let complaints = log.complaints();
    sum.errors
        .extend(complaints.iter().map(|line| format!("kernel: {line}")));

    let result = json!({
        "seed": seed,
        "images": options.images,
        "readers": options.readers,
        "passes": options.passes,
        "files": sum.files,
        "bytes": sum.bytes,
        "kills": kills,
        "errors": sum.errors,
        "reading_seconds": sum.reading.as_secs_f64(),
        "seconds": begun.elapsed().as_secs_f64(),
        "daemon": stats,
    });
    fs::write(
        options.results.join("storm.json"),
        serde_json::to_vec_pretty(&result)?,
    )?;
    Ok(report::print(&result, &sum.errors))
}
