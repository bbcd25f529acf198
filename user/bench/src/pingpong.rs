// SPDX-License-Identifier: MIT OR Apache-2.0

//! What no daemon can be faster than: a byte to another process and back, through pipes.

use std::io::Read as _;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;

use crate::times::now;
use crate::times::Times;

/// So many round trips; returns how long they took, and each.
///
/// # Errors
///
/// The other process cannot be started.
pub(crate) fn ping(program: &Path, trips: usize) -> Result<(Duration, Times)> {
    let mut pong = Command::new(program)
        .arg("pong")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the other process")?;
    let mut to = pong.stdin.take().context("no pipe")?;
    let mut from = pong.stdout.take().context("no pipe")?;
    let mut times = Times::new()?;
    let mut trip = || -> Result<()> {
        let mut byte = [0];
        to.write_all(&byte)?;
        Ok(from.read_exact(&mut byte)?)
    };
    // The first one waits until the process has started.
    trip()?;
    let begun = now();
    for _ in 0..trips {
        let begun = now();
        trip()?;
        times.record(now() - begun);
    }
    let all = now() - begun;
    drop(to);
    pong.wait()?;
    Ok((all, times))
}

/// The other process: sends back what it gets.
///
/// # Errors
///
/// Nobody reads it.
pub(crate) fn pong() -> Result<()> {
    // Unbuffered, as the kernel's messages are.
    let (input, output) = (std::io::stdin(), std::io::stdout());
    let mut byte = [0];
    while rustix::io::read(&input, &mut byte)? == 1 {
        rustix::io::write(&output, &byte)?;
    }
    Ok(())
}
