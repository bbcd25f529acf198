// SPDX-License-Identifier: MIT OR Apache-2.0

//! Storm: several readers compare every byte of images that are mounted through
//! fscache with their source, while the daemon behind the cache is killed again
//! and again.
//!
//! `storm data` and `storm contents` prepare the source on the host, `storm run`,
//! `storm kills` and `storm versions` do the rest in a virtual machine, as root.  Every wait has a deadline; a
//! reader that stands still is a failure and is reported with its kernel stack.

mod contents;
mod daemon;
mod data;
mod deadline;
mod gaps;
mod killer;
mod kills;
#[cfg(feature = "plots")]
mod plot;
mod readers;
mod report;
mod run;
mod slots;
mod supervise;
mod versions;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use contents::Contents;

/// Reads images in parallel while the daemon is being killed.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write a large file, half of it noise, that follows from a seed.
    Data {
        /// Where to.
        path: PathBuf,
        /// MiB that do not compress.
        #[arg(long, default_value_t = 96)]
        random: u64,
        /// MiB that compress well.
        #[arg(long, default_value_t = 32)]
        text: u64,
        /// What the bytes follow from.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Write down what is in a directory: names, sizes, hashes.
    Contents {
        /// The directory.
        dir: PathBuf,
        /// Where to, as JSON.
        out: PathBuf,
    },
    /// Start the daemon, mount the images, read and kill; prints a table.
    Run(run::Options),
    /// Read images in rounds until so many workers were killed, and their keeper
    /// now and then; prints tables and draws a plot.
    Kills(kills::Options),
    /// Publish, mount, read and replace versions of images in random order, while the daemon is restarted
    /// and killed and the store is copied; each byte must be of the version that was mounted.
    Versions(versions::Options),
}

fn main() -> ExitCode {
    let result: Result<ExitCode> = match Cli::parse().command {
        Command::Data {
            path,
            random,
            text,
            seed,
        } => data::write(&path, seed, random, text).map(|()| ExitCode::SUCCESS),
        Command::Contents { dir, out } => Contents::of(&dir)
            .and_then(|contents| contents.save(&out))
            .map(|()| ExitCode::SUCCESS),
        Command::Run(options) => supervise::run(|| run::storm(&options)),
        Command::Kills(options) => supervise::run(|| kills::storm(&options)),
        Command::Versions(options) => supervise::run(|| versions::run(&options)),
    };
    result.unwrap_or_else(|error| {
        eprintln!("storm: {error:#}");
        ExitCode::FAILURE
    })
}
