// SPDX-License-Identifier: MIT OR Apache-2.0

//! A process whose threads may stand in the kernel for ever cannot end.  So the
//! work is done in a copy of this program, which says through a pipe how it
//! went; this process then ends whether the copy can or not.

use std::env;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};

/// Set in the copy.
const COPY: &str = "STORM_COPY";

/// Runs `work` in a copy of this program and returns its verdict: success when
/// it returned true.
///
/// # Errors
/// When the copy cannot be started, or ended without a verdict.
pub(crate) fn run(work: impl FnOnce() -> Result<bool>) -> Result<ExitCode> {
    if env::var_os(COPY).is_some() {
        let passed = work().unwrap_or_else(|error| {
            eprintln!("storm: FAIL: {error:#}");
            false
        });
        // Standard input is the pipe's other end: see below.
        let mut verdict = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
        verdict.write_all(if passed { b"P" } else { b"F" })?;
        return Ok(code(passed));
    }
    let (mut verdict, theirs) = std::os::unix::net::UnixStream::pair()?;
    let program = env::current_exe().context("finding this program")?;
    let mut copy = Command::new(program)
        .args(env::args_os().skip(1))
        .env(COPY, "1")
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
        .spawn()
        .context("starting the copy")?;
    let mut byte = [0];
    let ended = verdict.read(&mut byte)?;
    // It has nothing more to do; what of it can still be ended, is.
    if ended == 0 {
        let status = copy.wait()?;
        anyhow::bail!("no verdict: {status}");
    }
    let _ = copy.kill();
    Ok(code(byte == *b"P"))
}

fn code(passed: bool) -> ExitCode {
    if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
