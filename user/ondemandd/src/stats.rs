// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ondemandd stats`: asks the keeper for its counters, and prints them.
//!
//! It is asked on its control socket; where there is none, with SIGUSR1, as a keeper of an earlier version is.
//! One that has ended has left its last counters in `stats.json`.

use std::fs;
use std::io::Write;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use anyhow::bail;
use anyhow::ensure;
use anyhow::Context;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::fs::inotify;
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::process::PidfdFlags;
use rustix::process::Signal;

use crate::cli;
use crate::control;
use crate::report::Report;
use crate::rundir;

/// How long the keeper may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Prints the counters of a keeper that runs or has run.
///
/// # Errors
///
/// No keeper has used the run directory, it does not answer within 5 s, or it ended without
/// writing its counters.
pub fn run(args: &cli::Stats) -> anyhow::Result<()> {
    let report = load(&args.run_dir)?;
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        out.write_all(table(&report).as_bytes())?;
    }
    Ok(())
}

/// Asks the keeper for its counters, or reads those that one has left behind.
///
/// # Errors
///
/// As [`run`].
pub fn load(run_dir: &Path) -> anyhow::Result<Report> {
    if let Some(report) = control::client::stats(run_dir, ANSWER_WITHIN)? {
        return Ok(report);
    }
    if rundir::is_in_use(run_dir)? {
        refresh(run_dir)?;
    }
    let path = run_dir.join(rundir::STATS);
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is malformed", path.display()))
}

fn table(report: &Report) -> String {
    let worker = report
        .worker_pid
        .map_or("-".to_owned(), |pid| pid.to_string());
    let mut rows = vec![
        ("keeper pid", report.keeper_pid.to_string()),
        ("worker pid", worker),
        ("uptime, s", report.uptime_seconds.to_string()),
    ];
    let numbers = report.counters.rows().into_iter();
    rows.extend(numbers.map(|(name, _, value)| (name, value.to_string())));
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter()
        .map(|(name, value)| format!("{:<width$} {value:>20}\n", name.replace('_', " ")))
        .collect()
}

/// Makes the keeper write its counters, and waits until it has.
fn refresh(run_dir: &Path) -> anyhow::Result<()> {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
        .context("inotify")?;
    inotify::add_watch(&watch, run_dir, inotify::WatchFlags::MOVED_TO)
        .context("cannot watch the run directory")?;

    let pid = fs::read_to_string(run_dir.join(rundir::KEEPER_PID))
        .context("the keeper is not ready yet: it has written no pid")?;
    let pid = pid.trim().parse().ok().and_then(Pid::from_raw);
    let pid = pid.context("the keeper's pid is malformed")?;
    let keeper = rustix::process::pidfd_open(pid, PidfdFlags::empty())
        .context("the keeper has just ended")?;
    // The lock was held after the pid had been read, so the pid is the keeper's.
    ensure!(rundir::is_in_use(run_dir)?, "the keeper has just ended");
    rustix::process::pidfd_send_signal(&keeper, Signal::USR1)
        .context("cannot signal the keeper")?;
    wait_for_stats(&watch, &keeper)
}

fn wait_for_stats(watch: &OwnedFd, keeper: &OwnedFd) -> anyhow::Result<()> {
    let deadline = Instant::now() + ANSWER_WITHIN;
    let mut space = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(watch, &mut space);
    loop {
        loop {
            match events.next() {
                Ok(event) if event.file_name().is_some_and(is_stats) => return Ok(()),
                Ok(_) => {}
                Err(Errno::AGAIN) => break,
                Err(errno) => return Err(errno).context("cannot watch the run directory"),
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "the keeper does not answer");
        let timeout = Timespec::try_from(left)?;
        let mut fds = [
            PollFd::new(watch, PollFlags::IN),
            PollFd::new(keeper, PollFlags::IN),
        ];
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).context("cannot wait for the keeper"),
        }
        let answered = fds[0].revents().contains(PollFlags::IN);
        if !answered && fds[1].revents().contains(PollFlags::IN) {
            bail!("the keeper has just ended");
        }
    }
}

fn is_stats(name: &std::ffi::CStr) -> bool {
    name.to_bytes() == rundir::STATS.as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_line_for_each_number() {
        let report = crate::report::tests::report();
        let table = table(&report);
        assert!(table.contains("worker starts"), "{table}");
        let width = "fills without space".len() + 1 + 20;
        assert!(table.lines().all(|line| line.len() == width), "{table}");
    }

    #[test]
    fn a_directory_without_keeper_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let args = |path: &Path| cli::Stats {
            run_dir: path.to_owned(),
            json: false,
        };
        assert!(run(&args(&root.path().join("none"))).is_err());
        assert!(run(&args(root.path())).is_err());
    }
}
