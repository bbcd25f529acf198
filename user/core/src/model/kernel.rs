// SPDX-License-Identifier: MIT OR Apache-2.0

//! The kernel's side: who enqueues, who waits, and who carries on what was begun.

use super::fault::Fault;
use super::places::Inline;
use super::places::Model;
use super::places::Place;
use super::sim::Account;
use super::sim::Cause;
use super::sim::Cookie;
use super::sim::Sim;
use super::sim::Waiter;
use super::sim::CLOSE_SIZE;
use super::sim::OPEN_SIZE;
use super::sim::READ_SIZE;
use crate::errno::Errno;
use crate::ondemand::queue::Effects;
use crate::ondemand::queue::Entry;
use crate::ondemand::queue::Kind;
use crate::ondemand::queue::More;
use crate::ondemand::queue::Request;
use crate::ondemand::state::Awaited;
use crate::ondemand::table::Table;
use alloc::format;
use alloc::vec::Vec;

impl Sim {
    fn request(&mut self, kind: Kind, object: u32) -> (u64, Place, Inline<Request<Model>>) {
        let size = match kind {
            Kind::Open => OPEN_SIZE,
            Kind::Close { .. } => CLOSE_SIZE,
            Kind::Read { .. } => READ_SIZE,
        };
        let label = self.next_label;
        self.next_label += 1;
        let account = Account {
            kind,
            object,
            outcome: None,
        };
        self.ledger.insert(label, account);
        let table = &self.table;
        let place = Place::reserve(&mut self.next_msg, |id| table.view_is_queued(id));
        let mut request = Inline(Request::new(kind, size, label));
        if !matches!(kind, Kind::Close { .. }) {
            self.clock += 1;
            request.due = Some(self.clock);
        }
        (label, place, request)
    }

    /// The place of an object, by its label.
    pub fn place_of(&self, object: u32) -> u32 {
        self.cookies[&object].place
    }

    /// fscache looks a cookie up. Tells the object's label.
    pub fn admit(&mut self) -> u32 {
        let label = self.next_cookie;
        let table = &self.table;
        let place = Place::reserve(&mut self.next_place, |place| table.view_is_object(place));
        let object = Inline(Entry::new(label));
        let place = self.hold(Cause::Enqueue, |table, _| table.admit(place, object));
        self.next_cookie += 1;
        self.queue_work(label);
        let cookie = Cookie {
            place,
            dropped: false,
            forgotten: false,
        };
        self.cookies.insert(label, cookie);
        label
    }

    /// Runs the work at `index`: sends the OPEN, or with an error, finds no memory for it.
    ///
    /// # Errors
    ///
    /// The error of the table, or the one that was brought.
    pub fn work(&mut self, index: usize, memory: Result<(), Errno>) -> Result<u32, Errno> {
        let object = self.works.remove(index);
        let place = self.place_of(object);
        if let Err(errno) = memory {
            self.hold(Cause::Copen, |table, fx| table.abort_open(place, errno, fx));
            return Err(errno);
        }
        let (label, number, request) = self.request(Kind::Open, object);
        self.enqueued(label, |table, fx| {
            match table.enqueue_open(place, number, request, fx) {
                Ok(msg_id) => Ok(msg_id),
                Err(refused) => Err((refused.errno, refused.request)),
            }
        })
    }

    /// A reader asks for a range. Tells the READ's label and its msg_id.
    ///
    /// # Errors
    ///
    /// That of the table.
    pub fn read(&mut self, object: u32) -> Result<(u64, u32), Errno> {
        let place = self.place_of(object);
        let kind = Kind::Read { off: 0, len: 4096 };
        let (label, number, request) = self.request(kind, object);
        let msg_id = self.enqueued(label, |table, fx| {
            match table.enqueue_read(place, number, request, fx) {
                Ok(msg_id) => Ok(msg_id),
                Err(refused) => Err((refused.errno, refused.request)),
            }
        })?;
        Ok((label, msg_id))
    }

    fn enqueued(
        &mut self,
        label: u64,
        call: impl FnOnce(
            &mut Table<Model>,
            &mut Effects<Model>,
        ) -> Result<u32, (Errno, Inline<Request<Model>>)>,
    ) -> Result<u32, Errno> {
        match self.hold(Cause::Enqueue, call) {
            Ok(msg_id) => Ok(msg_id),
            Err((errno, request)) => {
                if request.ticket != label {
                    self.violated(format!("request {label} came back as another"));
                }
                self.end(Cause::Enqueue, label, Err(errno));
                Err(errno)
            }
        }
    }

    /// A signal kills the reader whose READ has this msg_id. `false`: it had ended already.
    pub fn cancel(&mut self, msg_id: u32) -> bool {
        match self.hold(Cause::Cancel, |table, _| table.cancel(msg_id)) {
            Some(request) => {
                self.end(Cause::Cancel, request.ticket, Err(Errno::EINTR));
                true
            }
            None => false,
        }
    }

    /// A reader waits for the object's first opening. Tells the waiter's index.
    pub fn wait(&mut self, object: u32) -> usize {
        self.waiters.push(Waiter {
            object,
            seen: None,
            told: Awaited::Pending,
            woken: false,
        });
        let index = self.waiters.len() - 1;
        self.ask(index);
        index
    }

    /// The waiter at `index` looks whether it still has to wait.
    pub fn ask(&mut self, index: usize) {
        let object = self.waiters[index].object;
        let mut seen = self.waiters[index].seen;
        // Of an object that is gone its readers know that much: `Failed`, as from the table.
        let place = self
            .cookies
            .get(&object)
            .map_or(u32::MAX, |cookie| cookie.place);
        self.waiters[index].woken = false;
        let told = self.hold(Cause::Await, |table, fx| {
            table.await_open(place, &mut seen, fx)
        });
        self.waiters[index].seen = seen;
        self.waiters[index].told = told;
        if self.readers_go_on && told != Awaited::Pending {
            self.waiters.remove(index);
            if told == Awaited::Ready {
                self.going.push(object);
            }
        }
    }

    /// A reader that was told that its object is ready asks for a range.
    pub fn go_on(&mut self, index: usize) {
        let object = self.going.remove(index);
        if self.cookies.contains_key(&object) {
            // A refusal is the reader's end.
            let _: Result<(u64, u32), Errno> = self.read(object);
        }
    }

    /// So much time passes that the oldest request is due, and no other. `false`: there is none.
    pub fn expire(&mut self) -> bool {
        let Some(now) = self.table.next_due() else {
            return false;
        };
        let next = self.hold(Cause::Expire, |table, fx| table.expire(now, fx));
        if next.is_some_and(|next| next <= now) {
            self.violated(format!("what was due at {now} is due at {next:?}"));
        }
        true
    }

    /// fscache withdraws the cookie. `true`: a CLOSE was queued.
    pub fn drop_object(&mut self, object: u32) -> bool {
        let (label, number, request) = self.request(Kind::Close { object_id: 0 }, object);
        let place = self.drop_cookie(object);
        let close = Some((number, request));
        let unused = self.hold(Cause::Drop, |table, fx| table.drop_object(place, close, fx));
        if let Some((_, request)) = unused {
            if request.ticket != label {
                self.violated(format!("CLOSE {label} came back as another"));
            }
            self.end(Cause::Drop, label, Err(Errno::ECANCELED));
            return false;
        }
        true
    }

    /// fscache withdraws the cookie, and there is no memory for a CLOSE.
    pub fn drop_without_close(&mut self, object: u32) {
        let place = self.drop_cookie(object);
        self.hold(Cause::Drop, |table, fx| table.drop_object(place, None, fx));
    }

    fn drop_cookie(&mut self, object: u32) -> u32 {
        if let Some(cookie) = self.cookies.get_mut(&object) {
            cookie.dropped = true;
        }
        self.place_of(object)
    }

    /// The cache dies.
    pub fn flush(&mut self) {
        self.hold(Cause::Flush, |table, fx| table.flush(fx));
    }

    /// Goes on with the unfinished walk at `index`.
    pub fn resume(&mut self, index: usize) {
        let more = self.pending.remove(index);
        let others = self.pending.len();
        self.hold(Cause::Resume, |table, fx| table.resume(more, fx));
        if let More::Restore(from) = more {
            self.mark_restored(self.restored_numbers(from, others));
        }
    }

    /// Finishes all walks.
    pub fn resume_all(&mut self) {
        while !self.pending.is_empty() {
            self.resume(0);
        }
    }

    /// Finishes the check of a file at `index`.
    pub fn finish(&mut self, index: usize, outcome: Result<(), Errno>) {
        let opened = self.checks.remove(index);
        let held_back = match outcome {
            Err(_) if self.fault == Fault::PutBackRefused => {
                self.table.view_held_back(opened.object)
            }
            _ => Vec::new(),
        };
        self.hold(Cause::Copen, |table, fx| {
            table.copen_finish(&opened, outcome, fx);
        });
        self.put_refused_back(opened.object, &held_back);
    }

    /// The fault of the C module that is called D7.
    pub(super) fn put_refused_back(&mut self, place: u32, held_back: &[u32]) {
        if held_back.is_empty() {
            return;
        }
        self.pending.retain(|more| *more != More::Reap(place));
        let label = self.table.spoil_reopen(place, held_back);
        self.works.extend(label);
    }
}
