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
use cachefiles_proto::Read;
use cachefiles_proto::Readiness;
use cachefiles_proto::Token;
use ondemand_deadline::Deadline;
use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::io::FdFlags;

use super::image::Image;
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
    /// Which version they are, if it tells that.
    pub token: Option<Token>,
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
            token: None,
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

    /// Whether a message was read from the device that [`Daemon::read`] has not given yet.
    #[must_use]
    pub fn has_read_ahead(&self) -> bool {
        !self.buffer.is_empty()
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
