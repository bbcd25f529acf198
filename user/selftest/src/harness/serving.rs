// SPDX-License-Identifier: MIT OR Apache-2.0

//! The daemon that a test plays, as far as it answers as a daemon should.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use anyhow::ensure;
use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Command;
use cachefiles_proto::Message;
use cachefiles_proto::Open;
use cachefiles_proto::OpenAnswer;
use cachefiles_proto::Read;
use ondemand_deadline::Deadline;
use rustix::io::Errno;

use super::daemon::Daemon;
use super::daemon::Opened;
use super::image::Image;
use super::task::Outcome;
use super::task::Task;
use super::wait::readable_within;
use super::wait::SOON;

impl Daemon {
    /// Answers an OPEN with the size of an image, and its version if it tells that.
    fn copen_image(&self, msg_id: u32, image: &Image) -> Result<(), Errno> {
        let size = image.size;
        match &self.token {
            Some(token) => self.command(&format!("copen {msg_id},{size},{token}")),
            None => self.copen(msg_id, size),
        }
    }

    /// Takes over the file of an OPEN and answers it with the size of the image.
    ///
    /// # Errors
    ///
    /// `write` failed.
    pub fn accept(&mut self, open: Open, image: &Arc<Image>) -> Result<u32> {
        let (msg_id, object_id) = (open.msg_id, open.object_id);
        self.keep(open, image);
        self.copen_image(msg_id, image)
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

    /// Completes a READ, filled or not. That its reader is gone is no error.
    ///
    /// # Errors
    ///
    /// The object is not open; the ioctl failed for another reason.
    pub fn complete(&self, read: &Read) -> Result<()> {
        match self.object(read.object_id)?.file.read_complete(read.msg_id) {
            Err(error) if error.errno() == Some(Errno::INVAL) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Answers a READ as it should be.
    ///
    /// # Errors
    ///
    /// As [`Daemon::fill`] and [`Daemon::complete`].
    pub fn answer_read(&self, read: &Read) -> Result<()> {
        self.fill(read)?;
        self.complete(read)
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
        let refused = self.copen_image(msg_id, &image).err();
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
            let left = self.has_read_ahead();
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
}
