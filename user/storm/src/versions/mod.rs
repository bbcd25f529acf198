// SPDX-License-Identifier: MIT OR Apache-2.0

//! Versions of images in random order: published, mounted, read, replaced, while the daemon is restarted and
//! killed, the store is copied, and the server of the images is another one.
//!
//! Whatever happens, each byte that a reader gets is of one version, that of its mount: the one that was published
//! when it was mounted. A read may fail, but only where the image was changed since the mount, or the daemon was
//! stopped.

mod blocks;
mod mounted;
mod published;
mod servers;
mod steps;

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::io::Errno;

use self::steps::State;
use crate::watch::KernelLog;

/// What `storm versions` is told.
#[derive(Args)]
pub(crate) struct Options {
    /// The daemon's program.
    #[arg(long)]
    pub(crate) daemon: PathBuf,
    /// A directory on a file system that can be a cache.
    #[arg(long)]
    pub(crate) disk: PathBuf,
    /// Where the daemon keeps its pid files and counters.
    #[arg(long)]
    pub(crate) run_dir: PathBuf,
    /// Where the daemon's log goes.
    #[arg(long)]
    pub(crate) results: PathBuf,
    /// How many sequences; each begins with an empty store.
    #[arg(long, default_value_t = 3)]
    pub(crate) sequences: u64,
    /// Steps of a sequence.
    #[arg(long, default_value_t = 80)]
    pub(crate) steps: u64,
    /// More arguments for `ondemandd serve`, as --serve=--fill=direct.
    #[arg(long)]
    pub(crate) serve: Vec<String>,
    /// The program nginx: each second sequence has its images from two servers, by turns.
    #[arg(long)]
    pub(crate) nginx: Option<PathBuf>,
    /// What all steps follow from.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
}

/// Runs all sequences and prints KTAP; true if each byte was right.
///
/// # Errors
/// When it cannot even begin.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let seed = options.seed.unwrap_or_else(|| rand::rng().random());
    println!("KTAP version 1\n1..{}\n# seed {seed}", options.sequences);
    fs::create_dir_all(&options.results)?;
    let images = options.disk.join("images");
    fs::create_dir_all(&images)?;
    let made = (0..steps::IMAGES)
        .map(|image| blocks::make(&images, image, steps::VERSIONS))
        .collect::<Result<Vec<_>>>()?;
    let mut log = KernelLog::open()?;
    let mut passed = true;
    for sequence in 0..options.sequences {
        let seed = seed.wrapping_add(sequence);
        let (mut state, mut told) = (State::new(options, &made, seed)?, Vec::new());
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let outcome = (0..options.steps)
            .try_for_each(|_| state.step(&mut rng, &mut told))
            .and_then(|()| state.end());
        let reports = log.complaints();
        println!("# events: sequences=1 points={}", state.blocks_read());
        let number = sequence + 1;
        if let (Ok(()), true) = (&outcome, reports.is_empty()) {
            println!("# {} %", number * 100 / options.sequences);
            println!("ok {number} - versions_sequence_{number}");
            continue;
        }
        passed = false;
        let failure = outcome.err().map(|error| format!("{error:#}"));
        let again = format!(
            "again: --seed {seed} --sequences 1 --steps {}",
            options.steps
        );
        for text in failure
            .into_iter()
            .chain(reports)
            .chain([again])
            .chain(told)
        {
            text.lines().for_each(|line| println!("# {line}"));
        }
        println!("not ok {number} - versions_sequence_{number}");
        // What it has left mounted is in the way of the next one.
        break;
    }
    Ok(passed)
}

/// The name of an image.
pub(crate) fn name_of(image: u8) -> String {
    format!("image{image}")
}

/// What a system call has failed with.
pub(crate) fn errno_of(error: &anyhow::Error) -> Option<Errno> {
    let io = error.downcast_ref::<std::io::Error>();
    let errno = error.downcast_ref::<Errno>().copied();
    errno.or_else(|| Errno::from_io_error(io?))
}
