// SPDX-License-Identifier: MIT OR Apache-2.0

//! The daemon under test: its keeper is our child, its worker is what gets
//! killed.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{bail, Context, Result};
use ondemand_deadline::Deadline;
use rustix::process::{
    getpid, kill_process, pidfd_getfd, pidfd_open, pidfd_send_signal, set_child_subreaper, waitpid,
    Pid, PidfdFlags, PidfdGetfdFlags, Signal, WaitOptions,
};
use serde_json::Value;

/// How often something without a notification is looked at again.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What the daemon opens.
const DEVICE: &str = "/dev/cachefiles";

/// Looks every few milliseconds until `look` finds something.
///
/// # Errors
/// When `deadline`, as long as that is on this machine, has passed without; `what` names it in the message.
pub(crate) fn wait_for<T>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let mut deadline = Deadline::after(deadline);
    loop {
        // In this order: what came in time is found, however late this thread runs again.
        let passed = deadline.passed();
        if let Some(found) = look()? {
            return Ok(found);
        }
        if passed {
            bail!("{what}: nothing within {deadline}");
        }
        thread::sleep(LOOK_AGAIN);
    }
}

/// How the daemon is started.
pub(crate) struct Setup {
    /// Its program.
    pub(crate) program: PathBuf,
    /// Directory of the cache.
    pub(crate) cache: PathBuf,
    /// Directory of the images.
    pub(crate) source: PathBuf,
    /// Where its pid files and counters are.
    pub(crate) run_dir: PathBuf,
    /// Where its log goes, after what is there.
    pub(crate) log: PathBuf,
    /// More arguments for `serve`.
    pub(crate) more: Vec<String>,
}

/// A running `ondemandd serve`.
pub(crate) struct Daemon {
    keeper: Child,
    run_dir: PathBuf,
}

impl Daemon {
    /// Starts the daemon and waits until its first worker runs. With a `device` that is bound
    /// already, it goes on with that one.
    ///
    /// # Errors
    /// When it cannot be started, ends at once, or no worker shows up in time.
    pub(crate) fn start(setup: &Setup, device: Option<OwnedFd>) -> Result<Self> {
        fs::create_dir_all(&setup.cache)?;
        fs::create_dir_all(&setup.run_dir)?;
        // What a keeper that was killed has left is not to be taken for its successor's.
        let _ = fs::remove_file(setup.run_dir.join("worker.pid"));
        let log = File::options()
            .append(true)
            .create(true)
            .open(&setup.log)
            .with_context(|| format!("opening {}", setup.log.display()))?;
        let mut command = Command::new(&setup.program);
        command
            .arg("serve")
            .arg("--cache")
            .arg(&setup.cache)
            .arg("--source")
            .arg(&setup.source)
            .arg("--run-dir")
            .arg(&setup.run_dir)
            .args(&setup.more)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        if let Some(device) = device {
            command.arg("--take-over").stdin(Stdio::from(device));
        }
        let keeper = command
            .spawn()
            .with_context(|| format!("starting {}", setup.program.display()))?;
        let mut daemon = Self {
            keeper,
            run_dir: setup.run_dir.clone(),
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
    /// When they are not written within ten seconds, on the reference machine.
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

    /// A copy of the keeper's open device.
    ///
    /// # Errors
    /// When the keeper has none, or does not give it.
    pub(crate) fn device(&self) -> Result<OwnedFd> {
        let keeper = self.keeper().context("the keeper's pid")?;
        for entry in fs::read_dir(format!("/proc/{}/fd", self.keeper.id()))? {
            let entry = entry?;
            if fs::read_link(entry.path()).is_ok_and(|to| to == Path::new(DEVICE)) {
                let number = entry.file_name().to_str().context("fd")?.parse()?;
                let pidfd = pidfd_open(keeper, PidfdFlags::empty()).context("pidfd_open")?;
                return pidfd_getfd(pidfd, number, PidfdGetfdFlags::empty()).context("pidfd_getfd");
            }
        }
        bail!("the keeper has not opened {DEVICE}")
    }

    /// The worker that was started after `dead` and may not have said yet that it serves.
    pub(crate) fn successor(&self, dead: Pid) -> Option<Pid> {
        let keeper = self.keeper()?;
        // To look at all processes takes longer than some workers need to get ready. Where the
        // numbers begin anew the successor is not seen, once.
        let mut younger = processes().filter(|pid| pid.as_raw_nonzero() > dead.as_raw_nonzero());
        younger.find(|pid| parent(*pid) == Some(keeper))
    }

    /// Kills a worker that has not said yet that it serves, if that is what `pid` still is.
    pub(crate) fn kill_early(&self, pid: Pid) -> bool {
        let Ok(fd) = pidfd_open(pid, PidfdFlags::empty()) else {
            return false;
        };
        // Only now can the number not become another process's.
        parent(pid) == self.keeper()
            && self.worker() != Some(pid)
            && pidfd_send_signal(fd, Signal::KILL).is_ok()
    }

    /// Kills the keeper with SIGKILL and waits for its end. Its worker stays.
    ///
    /// # Errors
    /// When it does not end within ten seconds.
    pub(crate) fn kill_keeper(&mut self) -> Result<()> {
        self.keeper.kill().context("SIGKILL to the keeper")?;
        wait_for("the keeper's death", Duration::from_secs(10), || {
            Ok(self.keeper.try_wait()?)
        })?;
        Ok(())
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

/// From now on, what a dead keeper leaves behind are children of this process.
///
/// # Errors
/// When the kernel knows no such thing.
pub(crate) fn adopt_orphans() -> Result<()> {
    set_child_subreaper(Some(getpid())).context("PR_SET_CHILD_SUBREAPER")
}

/// Kills all children of this process, which has no other ones after the death of a keeper: a
/// worker serves on without it, or may just have been started.
///
/// # Errors
/// When one cannot be waited for.
pub(crate) fn end_orphans() -> Result<()> {
    for pid in children(getpid()) {
        // A child cannot become another process before it is waited for.
        kill_process(pid, Signal::KILL).context("SIGKILL to a worker")?;
        wait_for("the death of a worker", Duration::from_secs(10), || {
            Ok(waitpid(Some(pid), WaitOptions::NOHANG)?)
        })?;
    }
    Ok(())
}

fn processes() -> impl Iterator<Item = Pid> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|dir| Pid::from_raw(dir.file_name().to_str()?.parse().ok()?))
}

fn children(of: Pid) -> impl Iterator<Item = Pid> {
    processes().filter(move |pid| parent(*pid) == Some(of))
}

fn parent(pid: Pid) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The name may hold blanks and parentheses; after it come the state and the parent.
    let ppid = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?;
    Pid::from_raw(ppid.parse().ok()?)
}

/// The process id in `worker.pid`, if there is one: of a worker that serves.
pub(crate) fn worker_in(run_dir: &Path) -> Option<Pid> {
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
