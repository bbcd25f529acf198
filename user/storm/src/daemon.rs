// SPDX-License-Identifier: MIT OR Apache-2.0

//! The daemon under test: its keeper is our child, its worker is what gets
//! killed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use rustix::process::{kill_process, pidfd_open, pidfd_send_signal, Pid, PidfdFlags, Signal};
use serde_json::Value;

/// How often something without a notification is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Looks every few milliseconds until `look` finds something.
///
/// # Errors
/// When `deadline` has passed without; `what` names it in the message.
pub(crate) fn wait_for<T>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if start.elapsed() > deadline {
            bail!("{what}: nothing within {} s", deadline.as_secs());
        }
        thread::sleep(LOOK_AGAIN);
    }
}

/// A running `ondemandd serve`.
pub(crate) struct Daemon {
    keeper: Child,
    run_dir: PathBuf,
}

impl Daemon {
    /// Starts the daemon and waits until its first worker runs.
    ///
    /// # Errors
    /// When it cannot be started, ends at once, or no worker shows up in time.
    pub(crate) fn start(
        program: &Path,
        cache: &Path,
        source: &Path,
        run_dir: &Path,
        log: &Path,
    ) -> Result<Self> {
        fs::create_dir_all(cache)?;
        fs::create_dir_all(run_dir)?;
        let log = File::create(log).with_context(|| format!("creating {}", log.display()))?;
        let keeper = Command::new(program)
            .arg("serve")
            .arg("--cache")
            .arg(cache)
            .arg("--source")
            .arg(source)
            .arg("--run-dir")
            .arg(run_dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let mut daemon = Self {
            keeper,
            run_dir: run_dir.to_owned(),
        };
        wait_for("the daemon's worker", Duration::from_secs(30), || {
            if let Some(status) = daemon.ended()? {
                bail!("the daemon ended at once: {status}");
            }
            Ok(daemon.worker())
        })?;
        Ok(daemon)
    }

    /// The keeper's exit status, if it has ended.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.keeper.try_wait()?)
    }

    /// The process id in `worker.pid`, if there is one.
    pub(crate) fn worker(&self) -> Option<Pid> {
        worker_in(&self.run_dir)
    }

    /// The keeper's process id.
    pub(crate) fn keeper(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.keeper.id()).ok()?)
    }

    /// Asks the keeper for its counters.
    ///
    /// # Errors
    /// When they are not written within ten seconds.
    pub(crate) fn stats(&self) -> Result<Value> {
        let path = self.run_dir.join("stats.json");
        let _ = fs::remove_file(&path);
        let keeper = self.keeper().context("the keeper's pid")?;
        kill_process(keeper, Signal::USR1).context("SIGUSR1 to the keeper")?;
        wait_for("stats.json", Duration::from_secs(10), || {
            // Half a file is no JSON; the next look finds the whole.
            Ok(fs::read(&path)
                .ok()
                .and_then(|text| serde_json::from_slice(&text).ok()))
        })
    }

    /// Ends the keeper with SIGTERM, and with SIGKILL if it does not go.
    ///
    /// # Errors
    /// When it did not end by itself within ten seconds.
    pub(crate) fn stop(&mut self) -> Result<ExitStatus> {
        let keeper = self.keeper().context("the keeper's pid")?;
        kill_process(keeper, Signal::TERM).context("SIGTERM to the keeper")?;
        let ended = wait_for("the keeper's end", Duration::from_secs(10), || {
            Ok(self.keeper.try_wait()?)
        });
        if ended.is_err() {
            let _ = self.keeper.kill();
        }
        ended
    }
}

fn worker_in(run_dir: &Path) -> Option<Pid> {
    let text = fs::read_to_string(run_dir.join("worker.pid")).ok()?;
    Pid::from_raw(text.trim().parse().ok()?)
}

/// Kills the worker that `run_dir` names, with SIGKILL, unless it is `last`.
/// Returns whom it killed.
///
/// The process is held by a pidfd before `worker.pid` is read a second time, so
/// that no process that got an old number can be hit.
pub(crate) fn kill_worker(run_dir: &Path, last: Option<Pid>) -> Option<Pid> {
    let worker = worker_in(run_dir).filter(|pid| Some(*pid) != last)?;
    let fd = pidfd_open(worker, PidfdFlags::empty()).ok()?;
    if worker_in(run_dir) != Some(worker) {
        return None;
    }
    pidfd_send_signal(fd, Signal::KILL).ok()?;
    Some(worker)
}
