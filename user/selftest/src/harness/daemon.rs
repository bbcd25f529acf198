// SPDX-License-Identifier: MIT OR Apache-2.0

//! The daemon that a test plays: scripted message by message, or serving until something is done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::AnonymousFile;
use cachefiles_proto::Buffer;
use cachefiles_proto::Close;
use cachefiles_proto::Command;
use cachefiles_proto::Device;
use cachefiles_proto::Message;
use cachefiles_proto::Open;
use cachefiles_proto::OpenAnswer;
use cachefiles_proto::Read;
use cachefiles_proto::Readiness;
use ondemand_deadline::Deadline;
use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::io::FdFlags;

use super::image::Image;
use super::task::Outcome;
use super::task::Task;
use super::wait::readable_within;
use super::wait::SOON;

/// What a daemon has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An OPEN: its message, object and cookie key.
    Open(u32, u32, Vec<u8>),
    /// A CLOSE: its message and object.
    Close(u32, u32),
    /// A READ: its message, object, offset and length.
    Read(u32, u32, u64, u64),
}

/// An object that is open.
#[derive(Debug)]
pub struct Opened {
    /// Where its data goes.
    pub file: AnonymousFile,
    /// Where its data comes from.
    pub image: Arc<Image>,
}

/// The daemon of one cache. Dropping it closes the anonymous files, then the device.
#[derive(Debug)]
pub struct Daemon {
    /// The open objects under their ids.
    pub open: BTreeMap<u32, Opened>,
    /// What it can serve; an OPEN of anything else is answered with ENOENT.
    pub images: Vec<Arc<Image>>,
    /// All messages in the order of their delivery.
    pub log: Vec<Event>,
    /// The device.
    pub device: Device,
    buffer: Buffer,
}

impl Daemon {
    /// The daemon of a device that is bound, or will be.
    #[must_use]
    pub fn from_device(device: Device) -> Self {
        Daemon {
            open: BTreeMap::new(),
            images: Vec::new(),
            log: Vec::new(),
            device,
            buffer: Buffer::new(),
        }
    }

    /// Reads a message, if there is one.
    ///
    /// # Errors
    ///
    /// What `read` says.
    pub fn read(&mut self) -> Result<Option<Message>> {
        let Some(message) = self.device.read_message(&mut self.buffer)? else {
            return Ok(None);
        };
        self.log.push(match &message {
            Message::Open(open) => {
                // What the C module leaves out must not spoil other tests than its own.
                rustix::io::fcntl_setfd(&open.file, FdFlags::CLOEXEC)?;
                Event::Open(open.msg_id, open.object_id, open.cookie_key.clone())
            }
            Message::Close(close) => Event::Close(close.msg_id, close.object_id),
            Message::Read(read) => Event::Read(read.msg_id, read.object_id, read.off, read.len),
        });
        Ok(Some(message))
    }

    /// The next message; waits for it, without a limit if `deadline` is `None`.
    ///
    /// # Errors
    ///
    /// There is none at the deadline.
    pub fn next_within(&mut self, deadline: Option<Duration>) -> Result<Message> {
        let mut deadline = deadline.map(Deadline::after);
        loop {
            if !self.buffer.is_empty() {
                return self.read()?.context("no message in the buffer");
            }
            let rest = deadline.as_mut().map(Deadline::remaining);
            let ready = self.device.wait(Readiness::MESSAGE, rest)?;
            ensure!(!ready.dead, "the cache died");
            if let (false, Some(deadline), Some(rest)) = (ready.message, &deadline, rest) {
                ensure!(!rest.is_zero(), "no message within {deadline}");
                continue;
            }
            // The C module may find none here: it begins a reopen inside of read. That poll and
            // read agree is a test of its own.
            if let Some(message) = self.read()? {
                return Ok(message);
            }
        }
    }

    /// The next message.
    ///
    /// # Errors
    ///
    /// As [`Daemon::next_within`].
    pub fn next_message(&mut self) -> Result<Message> {
        self.next_within(Some(SOON))
    }

    /// The next message, which must be an OPEN.
    ///
    /// # Errors
    ///
    /// It is none, or there is none.
    pub fn expect_open(&mut self) -> Result<Open> {
        match self.next_message().context("waiting for an OPEN")? {
            Message::Open(open) => Ok(open),
            other => bail!("should have been an OPEN: {other:?}"),
        }
    }

    /// The next message, which must be a READ.
    ///
    /// # Errors
    ///
    /// It is none, or there is none.
    pub fn expect_read(&mut self) -> Result<Read> {
        match self.next_message().context("waiting for a READ")? {
            Message::Read(read) => Ok(read),
            other => bail!("should have been a READ: {other:?}"),
        }
    }

    /// The next message, which must be a CLOSE.
    ///
    /// # Errors
    ///
    /// It is none, or there is none.
    pub fn expect_close(&mut self) -> Result<Close> {
        match self.next_message().context("waiting for a CLOSE")? {
            Message::Close(close) => Ok(close),
            other => bail!("should have been a CLOSE: {other:?}"),
        }
    }

    /// Whether `poll` says, now, that a message can be read, or one was read already.
    ///
    /// # Errors
    ///
    /// What `poll` says.
    pub fn has_message(&self) -> Result<bool> {
        let ready = self.device.wait(Readiness::MESSAGE, Some(Duration::ZERO))?;
        Ok(ready.message || !self.buffer.is_empty())
    }

    /// Fails if there is a message now, by what `poll` or `read` says.
    ///
    /// # Errors
    ///
    /// There is one; the message says which.
    pub fn expect_nothing(&mut self) -> Result<()> {
        let polled = self.has_message()?;
        match self.read()? {
            Some(message) => bail!("there should be no message: {message:?} (poll: {polled})"),
            None => ensure!(!polled, "poll reports a message, read finds none"),
        }
        Ok(())
    }

    /// Writes `copen`.
    ///
    /// # Errors
    ///
    /// What `write` says.
    pub fn copen(&self, msg_id: u32, size: u64) -> Result<(), Errno> {
        self.command(&format!("copen {msg_id},{size}"))
    }

    /// Writes `copen` with an error.
    ///
    /// # Errors
    ///
    /// What `write` says.
    pub fn copen_error(&self, msg_id: u32, errno: Errno) -> Result<(), Errno> {
        self.command(&format!("copen {msg_id},-{}", errno.raw_os_error()))
    }

    /// Writes a command as it is.
    ///
    /// # Errors
    ///
    /// What `write` says.
    pub fn command(&self, text: &str) -> Result<(), Errno> {
        self.device.write_bytes(text.as_bytes()).map(drop)
    }

    /// Writes `restore`.
    ///
    /// # Errors
    ///
    /// What `write` says.
    pub fn restore(&self) -> Result<()> {
        Ok(self.device.send(&Command::Restore)?)
    }

    /// Takes over the file of an OPEN and answers it with the size of the image.
    ///
    /// # Errors
    ///
    /// `write` failed.
    pub fn accept(&mut self, open: Open, image: &Arc<Image>) -> Result<u32> {
        let (msg_id, object_id) = (open.msg_id, open.object_id);
        self.keep(open, image);
        self.copen(msg_id, image.size)
            .with_context(|| format!("copen {msg_id},{}", image.size))?;
        Ok(object_id)
    }

    /// Takes over the file of an OPEN without an answer.
    pub fn keep(&mut self, open: Open, image: &Arc<Image>) {
        let opened = Opened {
            file: open.file,
            image: Arc::clone(image),
        };
        self.open.insert(open.object_id, opened);
    }

    /// An open object.
    ///
    /// # Errors
    ///
    /// There is none of that id.
    pub fn object(&self, object_id: u32) -> Result<&Opened> {
        self.open
            .get(&object_id)
            .with_context(|| format!("object {object_id} is not open here"))
    }

    /// Writes the range of a READ into the cache, and does not complete it.
    ///
    /// # Errors
    ///
    /// The object is not open; `pwrite` failed.
    pub fn fill(&self, read: &Read) -> Result<()> {
        let object = self.object(read.object_id)?;
        let data = object.image.range(read.off, read.len);
        Ok(object.file.write_all_at(data, read.off)?)
    }

    /// Answers a READ as it should be.
    ///
    /// # Errors
    ///
    /// As [`Daemon::fill`]; the ioctl failed for another reason than that the reader is gone.
    pub fn answer_read(&self, read: &Read) -> Result<()> {
        self.fill(read)?;
        match self.object(read.object_id)?.file.read_complete(read.msg_id) {
            Err(error) if error.errno() == Some(Errno::INVAL) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Answers a message as a daemon should.
    ///
    /// # Errors
    ///
    /// The kernel refused the answer.
    pub fn answer(&mut self, message: Message) -> Result<()> {
        match message {
            Message::Open(open) => {
                let image = self
                    .images
                    .iter()
                    .find(|image| image.name.as_bytes() == open.cookie_key)
                    .map(Arc::clone);
                match image {
                    Some(image) => self.accept(open, &image).map(drop),
                    None => {
                        let msg_id = open.msg_id;
                        drop(open);
                        let answer = OpenAnswer::Error(Errno::NOENT);
                        self.device.send(&Command::Copen { msg_id, answer })?;
                        Ok(())
                    }
                }
            }
            Message::Read(read) => self.answer_read(&read),
            Message::Close(close) => {
                self.open.remove(&close.object_id);
                Ok(())
            }
        }
    }

    /// Answers a message as a daemon does that outlives a refusal: the file of an OPEN whose size the
    /// kernel does not take is closed. Tells why it was refused.
    ///
    /// # Errors
    ///
    /// As [`Daemon::answer`], for all but a size.
    pub fn answer_or_close(&mut self, message: Message) -> Result<Option<Errno>> {
        let served = |open: &Open| {
            let mut images = self.images.iter();
            let image = images.find(|image| image.name.as_bytes() == open.cookie_key);
            image.map(Arc::clone)
        };
        let (open, image) = match message {
            Message::Open(open) => match served(&open) {
                Some(image) => (open, image),
                None => return self.answer(Message::Open(open)).map(|()| None),
            },
            other => return self.answer(other).map(|()| None),
        };
        let (msg_id, object_id) = (open.msg_id, open.object_id);
        self.keep(open, &image);
        let refused = self.copen(msg_id, image.size).err();
        if refused.is_some() {
            self.open.remove(&object_id);
        }
        Ok(refused)
    }

    /// Serves until the task has ended.
    ///
    /// # Errors
    ///
    /// The task did not end in time; an answer was refused.
    pub fn serve(&mut self, task: &mut Task) -> Result<Outcome> {
        self.serve_with(task, Daemon::answer)
    }

    /// Gives each message to `answer` until the task has ended.
    ///
    /// # Errors
    ///
    /// The task did not end within [`SOON`] of the last message; whatever `answer` fails with.
    pub fn serve_with(
        &mut self,
        task: &mut Task,
        mut answer: impl FnMut(&mut Daemon, Message) -> Result<()>,
    ) -> Result<Outcome> {
        let mut end = Deadline::after(SOON);
        loop {
            let rest = end.remaining();
            let left = !self.buffer.is_empty();
            let wait = if left { Duration::ZERO } else { rest };
            let [ended, message] = readable_within([task.pidfd(), &self.device], wait)?;
            if message || left {
                // None: see next_within.
                if let Some(message) = self.read()? {
                    answer(self, message)?;
                    end = Deadline::after(SOON);
                } else {
                    ensure!(!rest.is_zero(), "poll reports a message, read finds none");
                }
            } else if ended {
                return task.wait(Duration::ZERO);
            } else if rest.is_zero() {
                bail!("no message and no end within {end}: {}", task.stuck());
            }
        }
    }

    /// The READs of the log.
    #[must_use]
    pub fn reads(&self) -> Vec<(u64, u64)> {
        self.log
            .iter()
            .filter_map(|event| match event {
                Event::Read(_, _, off, len) => Some((*off, *len)),
                _ => None,
            })
            .collect()
    }

    /// How many OPENs are in the log.
    #[must_use]
    pub fn opens(&self) -> usize {
        let is_open = |event: &&Event| matches!(event, Event::Open(..));
        self.log.iter().filter(is_open).count()
    }

    /// Whether the anonymous file of an OPEN is close-on-exec, as the kernel made it.
    ///
    /// # Errors
    ///
    /// What `fcntl` says.
    pub fn close_on_exec(fd: impl AsFd) -> Result<bool> {
        Ok(rustix::io::fcntl_getfd(fd)?.contains(FdFlags::CLOEXEC))
    }
}
