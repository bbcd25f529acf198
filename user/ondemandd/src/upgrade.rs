// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ondemandd upgrade`: has the keeper upgrade the daemon; see [`takeover`](crate::takeover) for how it goes.

use std::io::Write;
use std::time::Duration;

use anyhow::bail;
use anyhow::Context;

use crate::cli;
use crate::control;
use crate::control::Answer;
use crate::control::Request;
use crate::takeover::END_WITHIN;
use crate::takeover::PREPARED_WITHIN;
use crate::takeover::READY_WITHIN;

/// The longest that each step may take, and some time for an answer.
const UPGRADED_WITHIN: Duration = PREPARED_WITHIN
    .saturating_add(END_WITHIN)
    .saturating_add(END_WITHIN)
    .saturating_add(READY_WITHIN)
    .saturating_add(Duration::from_secs(10));

/// Upgrades, and says what serves then.
///
/// # Errors
///
/// No keeper answers; or it says why a new worker could not take the old one's place.
pub fn run(args: &cli::Upgrade) -> anyhow::Result<()> {
    let program = args.program.as_ref().map(std::path::absolute).transpose();
    let request = Request::Upgrade {
        program: program.context("there is no working directory")?,
    };
    let answer = control::client::ask(&args.run_dir, &request, UPGRADED_WITHIN)?;
    let answer = answer.with_context(|| {
        let dir = args.run_dir.display();
        format!("no keeper answers in {dir}; if one did run there, its log says how it ended")
    })?;
    match answer {
        Answer::Upgraded {
            program,
            worker_pid,
            kept,
        } => {
            let mut out = std::io::stdout().lock();
            writeln!(out, "worker {worker_pid} of {} serves", program.display())?;
            if let Some(kept) = kept {
                eprintln!("ondemandd: the keeper is still the program that it was: {kept}");
            }
            Ok(())
        }
        Answer::Error { error } => bail!("no upgrade: {error}"),
        other @ Answer::Stats { .. } => bail!("the keeper gives another answer: {other:?}"),
    }
}
