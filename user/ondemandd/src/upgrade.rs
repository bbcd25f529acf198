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
use crate::rundir;
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
    let Some(answer) = answer else {
        let dir = args.run_dir.display();
        if rundir::is_in_use(&args.run_dir).unwrap_or(false) {
            bail!(
                "the keeper that uses {dir} does not answer: it is of a version that cannot be upgraded, or \
                 is just becoming another program; try again, or restart the service"
            );
        }
        bail!("no keeper answers in {dir}; if one did run there, its log says how it ended");
    };
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
        other => bail!("the keeper gives another answer: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rundir::RunDir;

    #[test]
    fn a_keeper_that_does_not_answer_is_not_taken_for_none() {
        let root = tempfile::tempdir().unwrap();
        let args = cli::Upgrade {
            run_dir: root.path().to_owned(),
            program: None,
        };
        let none = run(&args).unwrap_err().to_string();
        assert!(none.starts_with("no keeper answers"), "{none}");
        // One of an earlier version has a lock, and no socket.
        let _lock = RunDir::create(root.path()).unwrap();
        let mute = run(&args).unwrap_err().to_string();
        assert!(mute.contains("try again, or restart"), "{mute}");
    }
}
