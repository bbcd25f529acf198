// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The request table: all on-demand state of one cache, and every event that may change it.
//!
//! A [`Table`] lies under one spinlock. Each method is one critical section: it takes the state
//! from one legal configuration to the next and writes down, as [`Effects`], what the caller does
//! once it has dropped the lock. No method allocates, sleeps, or drops a value that could free
//! memory: values that end come back inside effects or results.
//!
//! # Invariants
//!
//! - A request is in the queue or it has been handed out by value, never both; so it is completed
//!   exactly once.
//! - A request's place is marked exactly if its phase is [`Phase::New`].
//! - An object has at most one OPEN in the queue, and then its state is `Reopening(Pending)` with
//!   that OPEN's msg_id.
//! - A READ is `New` or `Delivered` only while its object is `Open`; a delivered READ carries the
//!   object_id that its object has now.
//! - In state `Open { object_id }` the anonymous fd `object_id` is open.
//! - The requests with a deadline, and they alone, are linked in the order of their times.
//! - A dead table holds no requests once [`More::Flush`] has run, and takes none.
//!
//! This file admits; `delivery.rs` is what `read` and `poll` of the device see, `answer.rs` what the
//! daemon does with what it got, `ending.rs` how objects, openings and the whole cache end, `deadline.rs`
//! how a request ends that nobody answers.
//!
//! [`More::Flush`]: crate::ondemand::queue::More::Flush

use crate::errno::Errno;
use crate::ondemand::queue::Effect;
use crate::ondemand::queue::Effects;
use crate::ondemand::queue::Env;
use crate::ondemand::queue::Kind;
use crate::ondemand::queue::ObjectPlace;
use crate::ondemand::queue::OwnedObject;
use crate::ondemand::queue::OwnedRequest;
use crate::ondemand::queue::Phase;
use crate::ondemand::queue::RequestPlace;
use crate::ondemand::queue::Slots;
use crate::ondemand::state::Awaited;
use crate::ondemand::state::Opening;
use crate::ondemand::state::State;

/// A request that was not taken, with what it came with.
pub struct Refused<E: Env> {
    /// Why: the cache is dead or the object is being dropped (`EIO`), or there is nothing to do
    /// any more (`ECANCELED`).
    pub errno: Errno,
    /// The place, to be given back without the lock.
    pub place: RequestPlace<E>,
    /// The request itself.
    pub request: OwnedRequest<E>,
}

/// All on-demand state of one cache.
pub struct Table<E: Env> {
    pub(super) requests: E::Requests,
    pub(super) objects: E::Objects,
    /// Where the search for the next deliverable message begins: one past the last.
    pub(super) cursor: u32,
    /// The object_id that the latest OPEN was given; 0 before the first.
    pub(super) last_object_id: u32,
    pub(super) dead: bool,
    /// The ends of the list of requests with a deadline.
    pub(super) first_due: Option<u32>,
    pub(super) last_due: Option<u32>,
}

impl<E: Env> Table<E> {
    /// An empty table over empty queues.
    pub fn new(requests: E::Requests, objects: E::Objects) -> Self {
        Table {
            requests,
            objects,
            cursor: 0,
            last_object_id: 0,
            dead: false,
            first_due: None,
            last_due: None,
        }
    }

    /// Whether [`Table::flush`] was called: no request is taken any more.
    pub fn is_dead(&self) -> bool {
        self.dead
    }

    /// Takes an object in and tells its place; its first OPEN is to be sent with
    /// [`Table::enqueue_open`] or given up with [`Table::abort_open`]. A dead cache takes it too: it is
    /// never opened, and whoever waits for that is told.
    pub fn admit(&mut self, place: ObjectPlace<E>, object: OwnedObject<E>) -> u32 {
        self.objects.publish(place, object)
    }

    /// The object at or above `from`, for a walk over all of them.
    pub fn next_object(&mut self, from: u32) -> Option<(u32, E::Handle)> {
        let id = self.objects.first(from)?;
        let object = self.objects.get(id)?;
        Some((id, object.handle.clone()))
    }

    /// Queues the OPEN of an object that is to be opened.
    ///
    /// # Errors
    ///
    /// `EIO` if the cache is dead, `ECANCELED` if the object does not want to be opened (any
    /// more): it is being dropped, or a late reopen work found it open.
    pub fn enqueue_open(
        &mut self,
        object: u32,
        place: RequestPlace<E>,
        mut request: OwnedRequest<E>,
        fx: &mut Effects<E>,
    ) -> Result<u32, Refused<E>> {
        let wanted = match self.objects.get(object) {
            Some(entry) => entry.state == State::Reopening(Opening::Queued),
            None => false,
        };
        if self.dead || !wanted {
            let errno = if self.dead {
                Errno::EIO
            } else {
                Errno::ECANCELED
            };
            return Err(Refused {
                errno,
                place,
                request,
            });
        }
        request.phase = Phase::New;
        let msg_id = self.publish(object, place, request);
        if let Some(entry) = self.objects.get(object) {
            entry.set_state(State::Reopening(Opening::Pending { msg_id }));
        }
        self.deliverable(msg_id, fx);
        Ok(msg_id)
    }

    /// Gives up an opening whose OPEN could not be made (no memory): as a daemon's error answer.
    pub fn abort_open(&mut self, object: u32, errno: Errno, fx: &mut Effects<E>) {
        if let Some(entry) = self.objects.get(object) {
            if entry.state == State::Reopening(Opening::Queued) {
                self.fail_opening(object, errno, fx);
            }
        }
    }

    /// Queues a READ; a closed object is reopened for it.
    ///
    /// # Errors
    ///
    /// `EIO` if the cache is dead or the object is being dropped.
    pub fn enqueue_read(
        &mut self,
        object: u32,
        place: RequestPlace<E>,
        mut request: OwnedRequest<E>,
        fx: &mut Effects<E>,
    ) -> Result<u32, Refused<E>> {
        let open = match self.objects.get(object) {
            Some(entry) if !self.dead && entry.state != State::Dropping => {
                entry.open_id().is_some()
            }
            _ => {
                return Err(Refused {
                    errno: Errno::EIO,
                    place,
                    request,
                })
            }
        };
        request.phase = if open { Phase::New } else { Phase::Parked };
        let msg_id = self.publish(object, place, request);
        if open {
            self.deliverable(msg_id, fx);
        } else {
            self.want_open(object, fx);
        }
        Ok(msg_id)
    }

    /// Takes a killed reader's READ out of the queue; `None` if it has ended already.
    pub fn cancel(&mut self, msg_id: u32) -> Option<OwnedRequest<E>> {
        match self.requests.get(msg_id) {
            Some(request) if matches!(request.kind, Kind::Read { .. }) => self.take(msg_id),
            _ => None,
        }
    }

    /// Tells a reader whether the object has been open, and drives an opening if there is none.
    ///
    /// `seen` is the waiter's memory between calls; it starts as `None`. An opening that failed
    /// before anybody waited for it is told once, to the first who asks.
    pub fn await_open(
        &mut self,
        object: u32,
        seen: &mut Option<u32>,
        fx: &mut Effects<E>,
    ) -> Awaited {
        let dead = self.dead;
        let entry = match self.objects.get(object) {
            Some(entry) if entry.state != State::Dropping => entry,
            _ => return Awaited::Failed(Errno::EIO),
        };
        if entry.ready {
            // What is stored can be read as long as the cache is not withdrawn, without a daemon.
            return Awaited::Ready;
        }
        if dead {
            return Awaited::Failed(Errno::EIO);
        }
        let failures = entry.failures;
        let failed_since = *seen.get_or_insert(failures) != failures;
        if core::mem::take(&mut entry.untold) || failed_since {
            return Awaited::Failed(entry.error);
        }
        self.want_open(object, fx);
        Awaited::Pending
    }

    /// A closed object is wanted: have its OPEN sent.
    pub(super) fn want_open(&mut self, object: u32, fx: &mut Effects<E>) {
        if let Some(entry) = self.objects.get(object) {
            if entry.state == State::Close {
                entry.set_state(State::Reopening(Opening::Queued));
                fx.push(Effect::Reopen(entry.handle.clone()));
            }
        }
    }

    pub(super) fn deliverable(&mut self, msg_id: u32, fx: &mut Effects<E>) {
        self.requests.mark(msg_id, true);
        fx.push(Effect::WakeDaemon);
    }

    /// Makes a request deliverable again; the caller sees to the wake-up.
    pub(super) fn renew(&mut self, msg_id: u32) {
        if let Some(request) = self.requests.get(msg_id) {
            request.phase = Phase::New;
            request.reissue = false;
            self.requests.mark(msg_id, true);
        }
    }

    /// Fills a place and appends the request to its object's list.
    pub(super) fn publish(
        &mut self,
        object: u32,
        place: RequestPlace<E>,
        mut request: OwnedRequest<E>,
    ) -> u32 {
        let tail = self.objects.get(object).and_then(|entry| entry.tail);
        request.object = object;
        request.prev = tail;
        request.next = None;
        let msg_id = self.requests.publish(place, request);
        if let Some(request) = self.requests.get(msg_id) {
            request.msg_id = msg_id;
        }
        if let Some(before) = tail.and_then(|tail| self.requests.get(tail)) {
            before.next = Some(msg_id);
        }
        if let Some(entry) = self.objects.get(object) {
            entry.tail = Some(msg_id);
            if tail.is_none() {
                entry.head = Some(msg_id);
            }
        }
        self.link_due(msg_id);
        msg_id
    }

    /// Takes a request out of the queue and out of its object's list.
    pub(super) fn take(&mut self, msg_id: u32) -> Option<OwnedRequest<E>> {
        let request = self.requests.take(msg_id)?;
        let (prev, next) = (request.prev, request.next);
        if let Some(before) = prev.and_then(|prev| self.requests.get(prev)) {
            before.next = next;
        }
        if let Some(after) = next.and_then(|next| self.requests.get(next)) {
            after.prev = prev;
        }
        if let Some(entry) = self.objects.get(request.object) {
            if prev.is_none() {
                entry.head = next;
            }
            if next.is_none() {
                entry.tail = prev;
            }
        }
        if request.due.is_some() {
            self.unlink_due(request.due_prev, request.due_next);
        }
        Some(request)
    }
}
