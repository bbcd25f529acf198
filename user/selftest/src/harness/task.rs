// SPDX-License-Identifier: MIT OR Apache-2.0

//! Something that a process of its own does and a test waits for: a mount, a read.
//!
//! It must be a process: a thread would share the table of descriptors, and an anonymous file that
//! the test closes would stay open in a process that was only forked.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use anyhow::bail;
use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use ondemand_deadline::Deadline;
use rustix::fd::OwnedFd;
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::process::PidfdFlags;

use super::check::list;
use super::procfs;
use super::wait::readable;
use super::wait::readable_within;

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did what it should; what it printed or read.
    Done(Vec<u8>),
    /// A system call failed; what it had read by then.
    Failed(Errno, Vec<u8>),
    /// A signal ended it.
    Killed(i32),
}

impl Outcome {
    /// The output of a task that should have succeeded.
    ///
    /// # Errors
    ///
    /// It did not.
    pub fn ok(self, what: &str) -> Result<Vec<u8>> {
        match self {
            Outcome::Done(output) => Ok(output),
            Outcome::Failed(errno, _) => bail!("{what} failed: {errno}"),
            Outcome::Killed(signal) => bail!("{what} was killed by signal {signal}"),
        }
    }

    /// Fails unless the task failed with one of `wanted`.
    ///
    /// # Errors
    ///
    /// It succeeded, or failed otherwise.
    pub fn fails(self, what: &str, wanted: &[Errno]) -> Result<()> {
        match self {
            Outcome::Failed(errno, _) if wanted.contains(&errno) => Ok(()),
            Outcome::Failed(errno, _) => {
                bail!("{what}: {errno}, should have been: {}", list(wanted))
            }
            Outcome::Done(_) => bail!("{what} succeeded, should have failed: {}", list(wanted)),
            Outcome::Killed(signal) => bail!("{what} was killed by signal {signal}"),
        }
    }
}

/// A running helper process.
#[derive(Debug)]
pub struct Task {
    what: String,
    child: Child,
    pidfd: OwnedFd,
    output: File,
    status: File,
    outcome: Option<Outcome>,
}

fn memory_file(name: &str) -> Result<File> {
    let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?;
    Ok(File::from(fd))
}

fn read_all(file: &File) -> Result<Vec<u8>> {
    let len = usize::try_from(file.metadata()?.len())?;
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

impl Task {
    /// Starts this program again as a helper; see [`helper`](super::helper) for the arguments.
    ///
    /// # Errors
    ///
    /// No process or file could be made.
    pub fn start(arguments: &[&str], stdin: Stdio) -> Result<Self> {
        let output = memory_file("output")?;
        let status = memory_file("status")?;
        let child = Command::new("/proc/self/exe")
            .arg("--helper")
            .args(arguments)
            .stdin(stdin)
            .stdout(output.try_clone()?)
            .stderr(status.try_clone()?)
            .spawn()
            .context("cannot start a helper")?;
        let pid = Pid::from_child(&child);
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Task {
            what: arguments.join(" "),
            child,
            pidfd,
            output,
            status,
            outcome: None,
        })
    }

    /// What it does, for messages.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }

    /// Readable when the task has ended.
    #[must_use]
    pub fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }

    /// Its process id.
    ///
    /// # Panics
    ///
    /// The kernel gave out an id that is none.
    #[must_use]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("process ids fit into an i32")
    }

    /// What it has printed so far.
    ///
    /// # Errors
    ///
    /// The memory file cannot be read.
    pub fn output(&self) -> Result<Vec<u8>> {
        read_all(&self.output)
    }

    /// Whether it has not ended yet.
    ///
    /// # Errors
    ///
    /// What `poll` says.
    pub fn running(&self) -> Result<bool> {
        Ok(self.outcome.is_none() && !readable_within([&self.pidfd], Duration::ZERO)?[0])
    }

    /// Whether it waits in the kernel, or has ended.
    #[must_use]
    pub fn blocked(&self) -> bool {
        procfs::process(self.pid()).is_none_or(|process| matches!(process.state, 'S' | 'D' | 'Z'))
    }

    /// Whether it waits in this system call, such as `libc::SYS_mount`.
    #[must_use]
    pub fn blocked_in(&self, call: libc::c_long) -> bool {
        let path = format!("/proc/{}/syscall", self.pid());
        let now = std::fs::read_to_string(path).unwrap_or_default();
        self.blocked() && now.split(' ').next() == Some(&call.to_string())
    }

    /// What it does and where it waits, for messages.
    #[must_use]
    pub fn stuck(&self) -> String {
        let stack = procfs::process(self.pid())
            .map(|process| procfs::stacks(&process).join("\n"))
            .unwrap_or_default();
        format!("{}\n{stack}", self.what)
    }

    /// Sends it SIGKILL.
    ///
    /// # Errors
    ///
    /// It had been waited for already.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().context("kill")
    }

    /// Waits until it ends.
    ///
    /// # Errors
    ///
    /// It has not ended at the deadline; its stack is in the message. Or it failed in a way that
    /// has nothing to do with the kernel's answers.
    pub fn wait(&mut self, deadline: Duration) -> Result<Outcome> {
        if let Some(outcome) = &self.outcome {
            return Ok(outcome.clone());
        }
        let mut deadline = Deadline::after(deadline);
        if !readable([&self.pidfd], &mut deadline)?[0] {
            bail!("not within {deadline}: {}", self.stuck());
        }
        let exit = self.child.wait()?;
        let output = read_all(&self.output)?;
        let outcome = if let Some(signal) = exit.signal() {
            Outcome::Killed(signal)
        } else if exit.success() {
            Outcome::Done(output)
        } else {
            let status = String::from_utf8_lossy(&read_all(&self.status)?).into_owned();
            let errno = status
                .trim()
                .strip_prefix("errno ")
                .and_then(|number| number.parse().ok())
                .map(Errno::from_raw_os_error);
            ensure!(errno.is_some(), "{}: {}", self.what, status.trim());
            Outcome::Failed(errno.unwrap_or(Errno::IO), output)
        };
        self.outcome = Some(outcome.clone());
        Ok(outcome)
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if self.outcome.is_none() {
            // Whoever cannot be killed is the runner's affair.
            let _ = self.child.kill();
            let _ = self.child.try_wait();
        }
    }
}
