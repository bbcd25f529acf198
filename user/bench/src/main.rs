// SPDX-License-Identifier: MIT OR Apache-2.0

//! Measures `cachefiles_ondemand` beside the kernel's own `cachefiles`: the same daemon, the same
//! readers and the same images, one module and then the other, again and again in one boot.
//!
//! `ondemand-bench images` prepares the images on the host, `ondemand-bench run` measures in a
//! virtual machine, as root, and `ondemand-bench report` makes table and plots of the results.
//! Absolute times of a virtual machine say little; what is compared is what ran beside each other.

mod daemon;
mod image;
mod machine;
mod mode;
mod module;
mod mounts;
mod order;
mod pingpong;
mod readers;
mod report;
mod results;
mod runner;
mod scenario;
mod scenarios;
mod session;
mod stats;
mod subject;
mod times;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use clap::Subcommand;

/// Measures two modules, side by side.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the images.
    Images {
        /// Where.
        dir: PathBuf,
    },
    /// Measure; as root, with neither module loaded.
    Run(Box<runner::Options>),
    /// Make the table and the plots.
    Report(report::Options),
    /// A daemon; its standard input is the device.
    #[command(hide = true)]
    Serve(daemon::Options),
    /// One run.
    #[command(hide = true)]
    One {
        /// What to do, as JSON.
        work: String,
    },
    /// Send back each byte.
    #[command(hide = true)]
    Pong,
}

fn main() -> ExitCode {
    let done: Result<()> = match Cli::parse().command {
        Command::Images { dir } => image::make(&dir),
        Command::Run(options) => runner::session(&options),
        Command::Report(options) => report::run(&options),
        Command::Serve(options) => daemon::serve(options),
        Command::One { work } => serde_json::from_str(&work)
            .map_err(Into::into)
            .and_then(|work| runner::one(&work)),
        Command::Pong => pingpong::pong(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ondemand-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
