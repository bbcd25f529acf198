// SPDX-License-Identifier: GPL-2.0

//! READs: a reader asks the daemon for a range and waits, alone or, with `fetch BYTES`, together with others.

use crate::errno::Errno;
use crate::ondemand::client::Client;
use crate::ondemand::engine::trace_enqueued;
use crate::ondemand::engine::Engine;
use crate::ondemand::engine::Prepared;
use crate::ondemand::engine::Ticket;
use crate::ondemand::fetch::Fetch;
use crate::ondemand::message::Message;
use crate::ondemand::queue::Kind;
use crate::ondemand::waiter::Waiter;
use crate::stop_points::Place;
use core::ops::Range;
use kernel::prelude::*;
use kernel::sync::Arc;

impl<C: Client> Engine<C> {
    /// Asks the daemon for a range and waits until it says that it has written it.
    ///
    /// # Errors
    ///
    /// `EINTR` if the task was killed; `EIO` if the cache is dead, the object is dropped or it
    /// could not be reopened; `ETIMEDOUT` if there was no answer in time; `ENOMEM`.
    pub(crate) fn read(self: &Arc<Self>, object: &C, range: Range<u64>) -> Result {
        let waiter = Arc::pin_init(Waiter::new(), GFP_KERNEL)?;
        let ticket = Ticket::Reader(waiter.clone());
        let prepared = self.prepare_read(&range, ticket)?;
        let msg_id = self.queue_read(object, prepared)?;
        self.stops().stop_at(Place::ReadQueued);

        if waiter.wait().is_err() {
            self.cancel(msg_id);
            return Err(EINTR);
        }
        self.stops().stop_at(Place::ReadEnded);
        waiter.result()
    }

    /// A READ of a range without a place in the queue yet. May sleep.
    ///
    /// # Errors
    ///
    /// As [`Engine::prepare`].
    fn prepare_read(&self, range: &Range<u64>, ticket: Ticket) -> Result<Prepared<C>> {
        let (off, len) = (range.start, range.end - range.start);
        let size = Message::Read { off, len }.size();
        self.prepare(Kind::Read { off, len }, size, ticket)
    }

    /// Queues a READ, and tells its msg_id. Does not sleep.
    ///
    /// # Errors
    ///
    /// `EIO` if the cache is dead or the object is dropped; nobody is told.
    fn queue_read(self: &Arc<Self>, object: &C, prepared: Prepared<C>) -> Result<u32, Errno> {
        let number = object.number();
        let (place, mut request) = prepared;
        let kind = request.kind;
        let queued = self.run(|table, fx| {
            request.due = self.due();
            let queued = table.enqueue_read(number, place, request, fx);
            trace_enqueued(number, kind, &queued);
            self.look_after_deadlines(table);
            queued
        });
        queued.map_err(|refused| refused.errno)
    }

    /// Asks the daemon for `range`, which is not empty, unless a part of it is asked for already, and waits
    /// for the answer. Tells what was asked for.
    ///
    /// # Errors
    ///
    /// As [`Engine::read`].
    pub(crate) fn fetch(self: &Arc<Self>, object: &C, range: Range<u64>) -> Result<Range<u64>> {
        let joined = self.fetches.join(object.number(), &range);
        let fetch = match joined {
            Some(fetch) => fetch,
            None => self.begin_fetch(object, range)?,
        };
        if fetch.waiter.wait().is_err() {
            if self.fetches.leave(&fetch) {
                self.cancel(fetch.msg_id());
            }
            return Err(EINTR);
        }
        self.stops().stop_at(Place::ReadEnded);
        fetch.waiter.result()?;
        Ok(fetch.range().clone())
    }

    /// Queues a READ for `range`, unless somebody was faster. All that may wait comes before others can
    /// wait for it.
    fn begin_fetch(self: &Arc<Self>, object: &C, range: Range<u64>) -> Result<Arc<Fetch>> {
        let (fetch, entry) = Fetch::new(object.number(), range)?;
        let prepared = self.prepare_read(fetch.range(), Ticket::Readers(fetch.clone()))?;
        if let Some(other) = self.fetches.begin(&fetch, entry) {
            return Ok(other);
        }
        match self.queue_read(object, prepared) {
            Ok(msg_id) => {
                fetch.set_msg_id(msg_id);
                self.stops().stop_at(Place::ReadQueued);
                Ok(fetch)
            }
            Err(errno) => {
                self.fetches.end(&fetch, errno.to_raw());
                Err(errno.into())
            }
        }
    }
}
