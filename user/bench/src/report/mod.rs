// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a session came to, to be read.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::results::Results;

/// What a report is told.
#[derive(Args)]
pub(crate) struct Options {
    /// results.json
    results: PathBuf,
    /// Where table and plots go.
    #[arg(long)]
    out: PathBuf,
}

/// Makes the report, and prints its table.
///
/// # Errors
///
/// A file cannot be read or written.
pub(crate) fn run(options: &Options) -> Result<()> {
    let results = Results::load(&options.results)?;
    println!("{} runs, to {}", results.runs.len(), options.out.display());
    Ok(())
}
