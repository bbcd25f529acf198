// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a session came to, to be read: a table, and plots.

mod keep;
mod plot;
mod rows;
mod table;

use std::fs;
use std::path::PathBuf;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use clap::Args;

use crate::results::Results;

/// What a report is told.
#[derive(Args)]
pub(crate) struct Options {
    /// results.json
    results: PathBuf,
    /// The directory that table and plots go to.
    #[arg(long)]
    out: PathBuf,
    /// Put the table into benchmarks.md of this directory, too, and the plots below it.
    #[arg(long, value_name = "DOCS")]
    keep: Option<PathBuf>,
}

/// Makes the report, and prints its table.
///
/// # Errors
///
/// A file cannot be read or written; this module did not do what it should.
pub(crate) fn run(options: &Options) -> Result<()> {
    let results = Results::load(&options.results)?;
    let rows = rows::rows(&results);
    let text = table::markdown(&results, &rows);
    let plots = [
        ("ratios.svg", plot::ratios(&rows)?),
        ("latency.svg", plot::latency(&rows)?),
    ];
    fs::write(options.out.join("table.md"), &text).context("table.md")?;
    for (name, plot) in &plots {
        fs::write(options.out.join(name), plot).context(*name)?;
    }
    if let Some(docs) = &options.keep {
        keep::keep(docs, &text, &plots)?;
    }
    println!("{text}");
    let faults = table::faults(&results);
    ensure!(faults.is_empty(), "FAIL: {}", faults.join("; "));
    Ok(())
}
