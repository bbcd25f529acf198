// SPDX-License-Identifier: GPL-2.0

//! `read` of the device: one message a call, or with `batch COUNT` up to so many.

use crate::errno::Errno;
use crate::kcompat::fd::FileDescriptorReservation;
use crate::kcompat::fd::O_CLOEXEC;
use crate::kcompat::uaccess;
use crate::ondemand::anon_fd::NewFile;
use crate::ondemand::client::Client;
use crate::ondemand::client::FillTarget;
use crate::ondemand::delivery::Delivery;
use crate::ondemand::delivery::Selected;
use crate::ondemand::engine::Engine;
use crate::ondemand::engine::KernelEnv;
use crate::ondemand::message;
use crate::ondemand::message::Message;
use crate::ondemand::queue::Kind;
use crate::ondemand::trace;
use crate::stop_points::Place;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::uaccess::UserPtr;
use kernel::uaccess::UserSlice;

/// The daemon's buffer.
#[derive(Clone, Copy)]
pub(crate) struct Buffer {
    /// Where it begins, in the current task's memory.
    pub(crate) start: UserPtr,
    /// Its bytes.
    pub(crate) len: usize,
}

impl Buffer {
    /// What is left of it behind its first `used` bytes, at most all.
    fn behind(&self, used: usize) -> Self {
        Buffer {
            start: uaccess::behind(self.start, used),
            len: self.len.saturating_sub(used),
        }
    }

    fn put(&self, bytes: &[u8]) -> Result {
        UserSlice::new(self.start, self.len)
            .writer()
            .write_slice(bytes)
    }
}

impl<C: FillTarget> Engine<C> {
    /// Delivers the next message that fits into `buffer`, and as many after it as are there and the
    /// batch allows, as long as there is space for any; tells their bytes in all, 0 if there is none. `pin` makes what
    /// keeps the cache in service, for an anonymous fd to hold.
    ///
    /// # Errors
    ///
    /// `EMSGSIZE` if the next message does not fit; `EFAULT` if the buffer is not writable;
    /// `EMFILE`, `ENFILE` or `ENOMEM` if there is no fd to be had for an OPEN. The message stays
    /// queued, and the next call gets another one first if there is one. None of these after the first
    /// message: the call ends with what it has delivered.
    pub(crate) fn deliver<P: Send + Sync + 'static>(
        self: &Arc<Self>,
        buffer: Buffer,
        pin: impl Fn() -> P,
    ) -> Result<usize> {
        let mut used = self.deliver_one(buffer, &pin)?;
        for _ in 1..self.batch() {
            let rest = buffer.behind(used);
            if used == 0 || rest.len < message::MAX {
                break;
            }
            match self.deliver_one(rest, &pin) {
                Ok(0) | Err(_) => break,
                Ok(bytes) => used += bytes,
            }
        }
        Ok(used)
    }

    fn deliver_one<P: Send + Sync + 'static>(
        self: &Arc<Self>,
        buffer: Buffer,
        pin: &impl Fn() -> P,
    ) -> Result<usize> {
        // As every other `read` of a daemon that reads until there is nothing.
        while self.readable() {
            let delivery = match self.run(|table, fx| table.select(buffer.len, fx)) {
                Selected::Nothing => return Ok(0),
                Selected::TooSmall => return Err(Errno::EMSGSIZE.into()),
                Selected::Message(delivery) => delivery,
            };
            self.stops().stop_at(Place::DeliverSelected);
            let bytes = match delivery.kind {
                Kind::Open => self.deliver_open(&delivery, buffer, pin),
                Kind::Close { .. } => self.deliver_plain(&delivery, Message::Close, buffer),
                Kind::Read { off, len } => {
                    self.deliver_plain(&delivery, Message::Read { off, len }, buffer)
                }
            };
            match bytes {
                Ok(Some(bytes)) => return Ok(bytes),
                // It has become pointless on the way: try the next one.
                Ok(None) => {}
                Err(error) => {
                    self.run(|table, fx| table.undeliver(&delivery, fx));
                    return Err(error);
                }
            }
        }
        Ok(0)
    }

    fn deliver_plain(
        &self,
        delivery: &Delivery<KernelEnv<C>>,
        message: Message<'_>,
        buffer: Buffer,
    ) -> Result<Option<usize>> {
        let bytes = copy_out(delivery, message, buffer)?;
        Ok(self.end_delivery(delivery).then_some(bytes))
    }

    /// Traced under the lock, so that a message's lines come in the order of its events.
    fn end_delivery(&self, delivery: &Delivery<KernelEnv<C>>) -> bool {
        self.stops().stop_at(Place::DeliverCopied);
        self.run(|table, fx| {
            let shown = table.delivered(delivery, fx);
            if shown {
                let (msg_id, object_id) = (delivery.msg_id, delivery.object_id);
                trace::deliver(delivery.object, msg_id, object_id, delivery.kind);
            }
            shown
        })
    }

    /// Everything that can fail comes first; the fd is visible only when the table has agreed.
    fn deliver_open<P: Send + Sync + 'static>(
        self: &Arc<Self>,
        delivery: &Delivery<KernelEnv<C>>,
        buffer: Buffer,
        pin: &impl Fn() -> P,
    ) -> Result<Option<usize>> {
        let object = &delivery.handle;
        let reserved = FileDescriptorReservation::get_unused_fd_flags(O_CLOEXEC)?;
        let file = NewFile::new(self, object, delivery.object_id, pin())?;
        let fd = i32::try_from(reserved.reserved_fd()).map_err(|_| EMFILE)?;
        let bytes = copy_out(delivery, object.open_message(fd), buffer)?;
        if !self.end_delivery(delivery) {
            return Ok(None);
        }
        self.stops().stop_at(Place::DeliverTold);
        reserved.fd_install(file.into_delivered());
        Ok(Some(bytes))
    }
}

fn copy_out<C: Client>(
    delivery: &Delivery<KernelEnv<C>>,
    message: Message<'_>,
    buffer: Buffer,
) -> Result<usize> {
    let mut space = [0; message::MAX];
    let bytes = message
        .encode(delivery.msg_id, delivery.object_id, &mut space)
        .ok_or(Errno::EMSGSIZE)?;
    buffer.put(bytes)?;
    Ok(bytes.len())
}
