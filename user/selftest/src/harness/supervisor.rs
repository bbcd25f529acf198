// SPDX-License-Identifier: MIT OR Apache-2.0

//! A supervisor that keeps the device *and* the anonymous files of its daemons, as that of
//! `userzj/demand-read-cachefilesd` does: the daemon passes it each file after it has answered the OPEN;
//! when the daemon has died, the supervisor writes `restore` and starts the next one with all of them.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::passing;
use cachefiles_proto::Command;
use cachefiles_proto::Device;
use cachefiles_proto::Message;
use rustix::io::Errno;

use super::context::Context;
use super::daemon::Daemon;
use super::daemon::Opened;
use super::image::Images;
use super::task::Outcome;
use super::task::Task;
use super::wait::readable;
use super::wait::SOON;
use ondemand_deadline::Deadline;

/// The longest text beside a descriptor: an object id and the name of an image, in bytes.
const LONGEST: usize = 300;

/// When a daemon kills itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// When it has read so many messages, and not answered the last one.
    Unanswered(u32),
    /// The same, but the data of a READ is written then, and READ_COMPLETE is not sent.
    Filled(u32),
    /// Never.
    Never,
}

impl Death {
    fn to_text(self) -> String {
        match self {
            Death::Unanswered(count) => format!("unanswered {count}"),
            Death::Filled(count) => format!("filled {count}"),
            Death::Never => "never 0".to_owned(),
        }
    }

    fn from_text(text: &str) -> Result<Self> {
        let (kind, count) = text.split_once(' ').context("no count")?;
        let count = count.parse()?;
        Ok(match kind {
            "unanswered" => Death::Unanswered(count),
            "filled" => Death::Filled(count),
            "never" => Death::Never,
            _ => anyhow::bail!("{text}"),
        })
    }
}

/// What outlives the daemons.
#[derive(Debug)]
pub struct Supervisor {
    device: Device,
    images: PathBuf,
    /// Anonymous files by object id, with the names of their images.
    kept: BTreeMap<u32, (String, OwnedFd)>,
    /// The living daemon, and the socket to it.
    child: Option<(Task, OwnedFd)>,
    /// Daemons that have died.
    pub kills: u32,
    /// Anonymous files that were passed.
    pub passed: u32,
}

impl Supervisor {
    /// The supervisor takes over from a daemon, with its files. The daemon's fds go with it.
    ///
    /// # Errors
    ///
    /// No descriptor is left.
    pub fn of(t: &Context, daemon: Daemon) -> Result<Self> {
        let mut kept = BTreeMap::new();
        for (object_id, Opened { file, image }) in daemon.open {
            kept.insert(object_id, (image.name.clone(), file.into()));
        }
        Ok(Supervisor {
            device: daemon.device,
            images: t.settings.work_dir.clone(),
            kept,
            child: None,
            kills: 0,
            passed: 0,
        })
    }

    /// Starts a daemon.
    ///
    /// # Errors
    ///
    /// No process, no descriptor; the daemon died at once.
    pub fn start(&mut self, death: Death) -> Result<()> {
        let (ours, theirs) = passing::pair()?;
        let images = self.images.to_string_lossy();
        let arguments = ["serve-and-pass", &images, &death.to_text()];
        let child = Task::start(&arguments, Stdio::from(theirs))?;
        passing::send(&ours, b"device", &[self.device.as_fd()])?;
        for (object_id, (name, file)) in &self.kept {
            let text = format!("{object_id} {name}");
            passing::send(&ours, text.as_bytes(), &[file.as_fd()])?;
        }
        // A daemon that is killed at once has read none of it.
        match passing::send(&ours, b"serve", &[]) {
            Ok(()) | Err(Errno::PIPE) => {}
            Err(errno) => return Err(errno.into()),
        }
        rustix::io::ioctl_fionbio(&ours, true)?;
        self.child = Some((child, ours));
        Ok(())
    }

    /// Waits until the daemon has died, and writes `restore`.
    ///
    /// # Errors
    ///
    /// It does not die in time, or ends in another way.
    pub fn wait_for_death(&mut self) -> Result<()> {
        let (mut child, socket) = self.child.take().context("no daemon")?;
        let outcome = child.wait(SOON)?;
        ensure!(outcome == Outcome::Killed(9), "the daemon: {outcome:?}");
        self.collect(&socket)?;
        self.kills += 1;
        Ok(self.device.send(&Command::Restore)?)
    }

    /// Whether the daemon lives while this task does; waits until one of them ends.
    ///
    /// # Errors
    ///
    /// Neither ends in time.
    pub fn outlives(&mut self, task: &Task) -> Result<bool> {
        let (child, _) = self.child.as_ref().context("no daemon")?;
        let mut deadline = Deadline::after(SOON);
        let ended = readable([child.pidfd(), task.pidfd()], &mut deadline)?;
        ensure!(
            ended.contains(&true),
            "nothing moves within {deadline}, after {} kills:\n{}\n{}",
            self.kills,
            child.stuck(),
            task.stuck()
        );
        Ok(!ended[0])
    }

    /// Takes what the daemon has passed.
    fn collect(&mut self, socket: &OwnedFd) -> Result<()> {
        loop {
            let packet = match passing::receive(socket, LONGEST) {
                Ok(packet) if packet.bytes.is_empty() => return Ok(()),
                Ok(packet) => packet,
                // What was sent to it and not read.
                Err(Errno::AGAIN | Errno::CONNRESET) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            };
            let (object_id, name, file) = object(packet)?;
            self.kept.insert(object_id, (name, file));
            self.passed += 1;
        }
    }
}

fn object(packet: passing::Packet) -> Result<(u32, String, OwnedFd)> {
    let text = String::from_utf8(packet.bytes)?;
    let file = packet.fds.into_iter().next().context("no descriptor")?;
    let (object_id, name) = text.split_once(' ').context("no name")?;
    Ok((object_id.parse()?, name.to_owned(), file))
}

/// The daemon of a [`Supervisor`], its standard input a socket to it.
///
/// # Errors
///
/// The supervisor is gone; the kernel refused an answer.
pub fn serve_and_pass(images: &str, death: &str) -> Result<()> {
    let death = Death::from_text(death)?;
    let images = Images::in_directory(std::path::Path::new(images));
    let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
    let mut packet = passing::receive(&socket, LONGEST)?;
    ensure!(packet.bytes == b"device", "no device");
    let device = packet.fds.pop().context("no descriptor")?;
    let mut daemon = Daemon::from_device(Device::from_owned_fd(device)?);
    for name in ["plain", "lz4", "small"] {
        daemon.images.push(images.get(name)?);
    }
    loop {
        let packet = passing::receive(&socket, LONGEST)?;
        if packet.bytes == b"serve" {
            break;
        }
        let (object_id, name, file) = object(packet)?;
        let image = daemon.images.iter().find(|image| image.name == name);
        let image = Arc::clone(image.context("an unknown image")?);
        let file = file.into();
        daemon.open.insert(object_id, Opened { file, image });
    }
    for seen in 1_u32.. {
        let message = daemon.next_within(None)?;
        match death {
            Death::Unanswered(count) if seen == count => kill_self()?,
            Death::Filled(count) if seen == count => {
                if let Message::Read(read) = &message {
                    daemon.fill(read)?;
                }
                kill_self()?;
            }
            _ => {}
        }
        let opened = match &message {
            Message::Open(open) => Some(open.object_id),
            _ => None,
        };
        daemon.answer(message)?;
        if let Some((object_id, opened)) = opened.and_then(|id| Some((id, daemon.open.get(&id)?))) {
            let text = format!("{object_id} {}", opened.image.name);
            passing::send(&socket, text.as_bytes(), &[opened.file.as_fd()])?;
        }
    }
    Ok(())
}

fn kill_self() -> Result<(), Errno> {
    use rustix::process::getpid;
    use rustix::process::kill_process;
    use rustix::process::Signal;
    kill_process(getpid(), Signal::KILL)
}
