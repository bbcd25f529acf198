// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a run has while it lasts: a new cache, the device, the daemon, mounts. Also the watch that
//! takes them away at the deadline.

use std::fmt;
use std::fs;
use std::io::BufRead as _;
use std::io::BufReader;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::ChildStdout;
use std::process::Command as Process;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Command;
use cachefiles_proto::Device;
use rustix::process::kill_process;
use rustix::process::Pid;
use rustix::process::Signal;

use crate::work::Event;
use crate::work::Work;

/// How long what waited for the daemon may take to end when the device is closed.
const AFTERWARDS: Duration = Duration::from_secs(5);

/// What is taken away at the deadline.
#[derive(Default)]
struct Held {
    device: Option<Device>,
    daemon: Option<Child>,
    over: bool,
}

/// The deadline of a run. A reader in the kernel cannot be killed while it waits for the daemon, and
/// holds the descriptors of its process open; so they are closed beside it.
#[derive(Clone, Default)]
pub(crate) struct Watch {
    held: Arc<Mutex<Held>>,
}

impl Watch {
    /// Begins to watch.
    pub(crate) fn begin(deadline: Duration) -> Self {
        let watch = Watch::default();
        let held = watch.clone();
        thread::spawn(move || {
            thread::sleep(deadline);
            {
                let mut held = held.lock();
                held.over = true;
                if let Some(mut daemon) = held.daemon.take() {
                    let _ = daemon.kill().and_then(|()| daemon.wait());
                }
                held.device = None;
            }
            let _ = Event::Hangs.say();
            thread::sleep(AFTERWARDS);
            let _ = Event::Stuck.say();
        });
        watch
    }

    /// Whether the deadline has passed.
    pub(crate) fn over(&self) -> bool {
        self.lock().over
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The module refused what makes a mode.
#[derive(Debug)]
pub(crate) struct NotSupported(String);

impl fmt::Display for NotSupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotSupported {}

/// A bound cache in a directory of its own.
pub(crate) struct Session<'a> {
    work: &'a Work,
    watch: Watch,
    cache: PathBuf,
}

/// What a daemon says.
pub(crate) struct Lines {
    lines: BufReader<ChildStdout>,
}

impl<'a> Session<'a> {
    /// Binds a new cache in the mode of the run.
    ///
    /// # Errors
    ///
    /// [`NotSupported`]; the device refuses something else.
    pub(crate) fn begin(work: &'a Work, watch: &Watch) -> Result<Self> {
        let cache = work.disk.join(format!("cache-{}", std::process::id()));
        fs::create_dir_all(&cache)?;
        let device = Device::open(Device::DEFAULT_PATH)?;
        device.send(&Command::Dir(cache.clone()))?;
        for command in work.mode.commands() {
            device
                .write_bytes(command.as_bytes())
                .map_err(|errno| NotSupported(format!("{command}: {errno}")))?;
        }
        device.send(&Command::BindOnDemand)?;
        watch.lock().device = Some(device);
        Ok(Session {
            work,
            watch: watch.clone(),
            cache,
        })
    }

    /// Does something with the device; the deadline waits meanwhile.
    ///
    /// # Errors
    ///
    /// The deadline has passed.
    pub(crate) fn device<T>(&self, work: impl FnOnce(&Device) -> T) -> Result<T> {
        let held = self.watch.lock();
        let device = held.device.as_ref().context("the device is closed")?;
        Ok(work(device))
    }

    /// Starts a daemon with these options, and waits until it serves.
    ///
    /// # Errors
    ///
    /// It cannot be started, or ends at once.
    pub(crate) fn serve<const N: usize>(&self, options: [&str; N]) -> Result<Lines> {
        let mut lines = self.start(options)?;
        lines.wait("ready")?;
        Ok(lines)
    }

    /// Starts a daemon with these options.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub(crate) fn start<const N: usize>(&self, options: [&str; N]) -> Result<Lines> {
        let device = self.device(|device| device.as_fd().try_clone_to_owned())??;
        let mut child = Process::new(&self.work.program)
            .arg("serve")
            .arg("--images")
            .arg(&self.work.images)
            .args(["--fill", &self.work.fill.to_string()])
            .args(options)
            .stdin(Stdio::from(device))
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the daemon")?;
        let out = child.stdout.take().context("no pipe")?;
        let mut held = self.watch.lock();
        held.daemon = Some(child);
        // It may be too late for a daemon.
        if held.over {
            drop(held);
            self.kill()?;
        }
        Ok(Lines {
            lines: BufReader::new(out),
        })
    }

    /// Sends a signal to the daemon.
    ///
    /// # Errors
    ///
    /// There is none.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let held = self.watch.lock();
        let daemon = held.daemon.as_ref().context("no daemon")?;
        Ok(kill_process(Pid::from_child(daemon), signal)?)
    }

    /// Closes the device. Whoever still waits for an answer gets an error.
    pub(crate) fn close(&self) {
        self.watch.lock().device = None;
    }

    /// Kills the daemon with SIGKILL and waits for its end.
    ///
    /// # Errors
    ///
    /// What `kill` says.
    pub(crate) fn kill(&self) -> Result<()> {
        let daemon = self.watch.lock().daemon.take();
        if let Some(mut daemon) = daemon {
            daemon.kill()?;
            daemon.wait()?;
        }
        Ok(())
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        let _ = self.kill();
        self.close();
        let _ = fs::remove_dir_all(&self.cache);
    }
}

impl Lines {
    /// Waits for a line that begins with `word`, and returns the rest of it.
    ///
    /// # Errors
    ///
    /// The daemon has ended without.
    pub(crate) fn wait(&mut self, word: &str) -> Result<String> {
        loop {
            let mut line = String::new();
            ensure!(
                self.lines.read_line(&mut line)? > 0,
                "the daemon has ended, and did not say {word:?}"
            );
            if let Some(rest) = line.strip_prefix(word) {
                return Ok(rest.trim().to_owned());
            }
        }
    }
}

/// Writes back and drops what the kernel keeps of files.
///
/// # Errors
///
/// `/proc` is not mounted.
pub(crate) fn drop_caches() -> Result<()> {
    rustix::fs::sync();
    fs::write(Path::new("/proc/sys/vm/drop_caches"), "3").context("drop_caches")
}
