// SPDX-License-Identifier: MIT OR Apache-2.0

//! Daemons that are told what to do wrong, in processes of their own, and readers meanwhile.

use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Device;
use rustix::process::Pid;
use rustix::process::Signal;

use super::check::same;
use super::context::drop_caches;
use super::image::FILE;
use super::wait::eventually;
use super::wait::readable_within;
use super::wait::SOON;
use super::Context;
use super::Outcome;
use super::Task;

/// How long a reader tries again, in seconds: longer than any test needs.
const PATIENCE: &str = "120";

/// A running `mockd`. It is killed when dropped.
#[derive(Debug)]
pub struct Mock {
    task: Task,
}

impl Mock {
    /// Starts one with a copy of the device and a script; the empty one is a daemon without faults.
    ///
    /// # Errors
    ///
    /// No process could be started.
    pub fn start(t: &Context, device: &Device, script: &str) -> Result<Self> {
        Mock::with(
            t,
            Stdio::from(rustix::io::dup(device)?),
            &["--device-fd", "0", "--text", script],
        )
    }

    /// The same with a random script.
    ///
    /// # Errors
    ///
    /// No process could be started.
    pub fn chaos(t: &Context, device: &Device, seed: u64) -> Result<Self> {
        let seed = seed.to_string();
        Mock::with(
            t,
            Stdio::from(rustix::io::dup(device)?),
            &["--device-fd", "0", "--chaos", &seed],
        )
    }

    /// One that opens the device and binds `cache`, and alone holds both.
    ///
    /// # Errors
    ///
    /// It did not get so far.
    pub fn alone(t: &Context, cache: &Path, script: &str) -> Result<Self> {
        let cache = cache.to_string_lossy();
        let mock = Mock::with(t, Stdio::null(), &["--cache", &cache, "--text", script])?;
        mock.until_said("ready")?;
        Ok(mock)
    }

    fn with(t: &Context, stdin: Stdio, arguments: &[&str]) -> Result<Self> {
        let images = t.settings.work_dir.to_string_lossy();
        let arguments = [&["mockd", "--images", &images], arguments].concat();
        let task = Task::start(&arguments, stdin)?;
        Ok(Mock { task })
    }

    /// What it has printed.
    ///
    /// # Errors
    ///
    /// The memory file cannot be read.
    pub fn log(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.task.output()?).into_owned())
    }

    /// The last lines that it has printed, for messages.
    #[must_use]
    pub fn tail(&self) -> String {
        const LINES: usize = 30;
        let log = self.log().unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }

    /// Whether it has printed this.
    ///
    /// # Errors
    ///
    /// As [`Mock::log`].
    pub fn said(&self, part: &str) -> Result<bool> {
        Ok(self.log()?.contains(part))
    }

    /// Waits until it has printed this.
    ///
    /// # Errors
    ///
    /// It did not within [`SOON`].
    pub fn until_said(&self, part: &str) -> Result<()> {
        eventually(&format!("mockd says {part:?}"), SOON, || self.said(part))
            .with_context(|| self.tail())
    }

    /// Waits until it has killed itself.
    ///
    /// # Errors
    ///
    /// It did not within [`SOON`], or ended otherwise.
    pub fn died(&mut self) -> Result<()> {
        let outcome = self.task.wait(SOON);
        let outcome = outcome.with_context(|| self.tail())?;
        ensure!(outcome == Outcome::Killed(9), "mockd: {outcome:?}");
        Ok(())
    }

    /// Lets it live for a while; says whether it has ended by itself.
    ///
    /// # Errors
    ///
    /// What `poll` says.
    pub fn ends_within(&self, time: Duration) -> Result<bool> {
        Ok(readable_within([self.task.pidfd()], time)?[0])
    }

    /// Kills it, if it still lives.
    ///
    /// # Errors
    ///
    /// It failed before, or does not die.
    pub fn end(&mut self) -> Result<()> {
        self.task.kill()?;
        self.died()
    }

    /// The processes that it has forked to keep something.
    ///
    /// # Errors
    ///
    /// As [`Mock::log`].
    pub fn kept(&self) -> Result<Vec<Pid>> {
        let log = self.log()?;
        let pids = log.lines().filter_map(|line| {
            let (_, rest) = line.split_once(": process ")?;
            Pid::from_raw(rest.split_once(" keeps ")?.0.parse().ok()?)
        });
        Ok(pids.collect())
    }

    /// Kills those that it has forked.
    ///
    /// # Errors
    ///
    /// As [`Mock::log`].
    pub fn end_kept(&self) -> Result<()> {
        for pid in self.kept()? {
            // It may have ended by itself.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        Ok(())
    }
}

/// A bound device, and mounted images that no daemon serves at first. The test is the supervisor:
/// it holds the device and no anonymous file.
#[derive(Debug)]
pub struct Stage<'t> {
    t: &'t Context,
    /// The device.
    pub device: Device,
    /// Where the cache lies.
    pub cache: PathBuf,
    mounts: Vec<Mounted>,
}

#[derive(Debug)]
struct Mounted {
    name: String,
    at: PathBuf,
    contents: Vec<u8>,
}

/// A process that reads an image, and what it should find.
#[derive(Debug)]
pub struct Reader {
    /// The process.
    pub task: Task,
    expected: Vec<u8>,
}

impl<'t> Stage<'t> {
    /// Binds a cache and mounts these images.
    ///
    /// # Errors
    ///
    /// A mount fails.
    pub fn new(t: &'t Context, images: &[&str]) -> Result<Self> {
        let cache = t.new_dir()?;
        let device = t.daemon_in(&cache)?.device;
        let mut stage = Stage {
            t,
            device,
            cache,
            mounts: Vec::new(),
        };
        let mut good = stage.mock("")?;
        for name in images {
            stage.mount(name)?;
        }
        good.end()?;
        // Before anything waits for a daemon.
        drop_caches()?;
        Ok(stage)
    }

    /// Mounts one more; somebody must be serving.
    ///
    /// # Errors
    ///
    /// The mount fails.
    pub fn mount(&mut self, name: &str) -> Result<()> {
        let at = self.t.mount_point()?;
        let mut mount = self.t.mount(&format!("fsid={name}"), &at)?;
        mount.wait(SOON)?.ok(&format!("mount of {name}"))?;
        self.mounts.push(Mounted {
            name: name.to_owned(),
            at,
            contents: self.t.images.contents(name)?,
        });
        Ok(())
    }

    /// Unmounts one.
    ///
    /// # Errors
    ///
    /// It is not mounted; `umount` fails.
    pub fn unmount(&mut self, name: &str) -> Result<()> {
        let index = self.mounts.iter().position(|mounted| mounted.name == name);
        let mounted = self.mounts.remove(index.context("not mounted")?);
        self.t.unmount(&mounted.at)?.wait(SOON)?.ok("umount")?;
        Ok(())
    }

    /// Starts a daemon with a script.
    ///
    /// # Errors
    ///
    /// No process could be started.
    pub fn mock(&self, script: &str) -> Result<Mock> {
        Mock::start(self.t, &self.device, script)
    }

    /// Begins to read a part of an image, block by block; an error ends it.
    ///
    /// # Errors
    ///
    /// It is not mounted; no process could be started.
    pub fn reader(&self, name: &str, offset: usize, len: usize) -> Result<Reader> {
        self.start(name, offset, len, &["read"], &["random"])
    }

    /// The same with readahead.
    ///
    /// # Errors
    ///
    /// As [`Stage::reader`].
    pub fn fast_reader(&self, name: &str, offset: usize, len: usize) -> Result<Reader> {
        self.start(name, offset, len, &["read"], &[])
    }

    /// Begins to read a part of an image from its beginning, block by block, and each block until it
    /// can be read.
    ///
    /// # Errors
    ///
    /// As [`Stage::reader`].
    pub fn insisting_reader(&self, name: &str, len: usize) -> Result<Reader> {
        self.start(name, 0, len, &["insist"], &[PATIENCE])
    }

    fn start(
        &self,
        name: &str,
        offset: usize,
        len: usize,
        first: &[&str],
        last: &[&str],
    ) -> Result<Reader> {
        let mut mounts = self.mounts.iter();
        let mounted = mounts.find(|mounted| mounted.name == name);
        let mounted = mounted.context("not mounted")?;
        let expected = &mounted.contents[offset..];
        let expected = expected[..len.min(expected.len())].to_vec();
        let path = mounted.at.join(FILE);
        let (offset, len) = (offset.to_string(), expected.len().to_string());
        let middle: &[&str] = &[&path.to_string_lossy(), &offset, &len];
        let task = Task::start(&[first, middle, last].concat(), Stdio::null())?;
        Ok(Reader { task, expected })
    }

    /// Lets a daemon without faults finish what the readers wait for.
    ///
    /// # Errors
    ///
    /// A reader does not end, fails, or has read something else.
    pub fn finish(&self, readers: impl IntoIterator<Item = Reader>) -> Result<()> {
        let good = self.mock("")?;
        readers
            .into_iter()
            .try_for_each(Reader::finish)
            .with_context(|| format!("the last daemon: {}", good.tail()))
    }
}

impl Reader {
    /// Waits for the right bytes.
    ///
    /// # Errors
    ///
    /// It does not end within [`SOON`], fails, or has read something else.
    pub fn finish(mut self) -> Result<()> {
        let data = self.task.wait(SOON)?.ok(self.task.what())?;
        same(self.task.what(), &data, &self.expected)
    }

    /// Waits for an error that is told at once, after right bytes or none.
    ///
    /// # Errors
    ///
    /// It does not end within [`SOON`], does not fail with EIO or ENOBUFS, or has read something
    /// else before.
    pub fn fails(mut self) -> Result<()> {
        use rustix::io::Errno;
        match self.task.wait(SOON)? {
            Outcome::Failed(Errno::IO | Errno::NOBUFS, data) => {
                let expected = &self.expected[..data.len().min(self.expected.len())];
                same(self.task.what(), &data, expected)
            }
            Outcome::Failed(errno, _) => anyhow::bail!("{}: {errno}", self.task.what()),
            Outcome::Done(_) => anyhow::bail!("{}: succeeded", self.task.what()),
            Outcome::Killed(signal) => anyhow::bail!("{}: signal {signal}", self.task.what()),
        }
    }

    /// Whether it has not ended yet.
    ///
    /// # Errors
    ///
    /// What `poll` says.
    pub fn waits(&self) -> Result<bool> {
        self.task.running()
    }
}
