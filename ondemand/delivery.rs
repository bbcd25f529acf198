// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Delivery: what a `read` and a `poll` of the device see of the table.
//!
//! A message is delivered in two steps, since copying it to user space may sleep and fail:
//! [`Table::select`] chooses it and keeps others from choosing it, then either
//! [`Table::delivered`] or [`Table::undeliver`] ends the delivery. For an OPEN the new anonymous
//! fd becomes visible only after `delivered` has agreed, so nobody can close it too early.

use crate::ondemand::queue::Effect;
use crate::ondemand::queue::Effects;
use crate::ondemand::queue::Env;
use crate::ondemand::queue::Kind;
use crate::ondemand::queue::Phase;
use crate::ondemand::queue::Slots;
use crate::ondemand::state::State;
use crate::ondemand::table::Table;
use core::num::NonZeroU32;

/// A message on its way out.
pub struct Delivery<E: Env> {
    /// Its number in the queue.
    pub msg_id: u32,
    /// The object_id that it carries; for an OPEN a new one.
    pub object_id: u32,
    /// What is asked.
    pub kind: Kind,
    /// The object's place in the table.
    pub object: u32,
    /// The object.
    pub handle: E::Handle,
}

/// What [`Table::select`] found.
pub enum Selected<E: Env> {
    /// Nothing is deliverable.
    Nothing,
    /// The next message does not fit; it stays queued and the others get their turn first.
    TooSmall,
    /// This one; end its delivery.
    Message(Delivery<E>),
}

impl<E: Env> Table<E> {
    /// Whether a message is deliverable: whether [`Table::select`] would find one.
    pub fn readable(&self) -> bool {
        self.requests.any_marked()
    }

    /// Chooses the next deliverable message that fits into `room` bytes, in turn.
    ///
    /// One that does not fit has used up a wake-up; another thread is woken for the rest.
    ///
    /// An object_id is handed out to each delivery of an OPEN: 1, 2, 3 and so on. It is u32 and
    /// wraps, past 0, after 2^32 - 1 openings.
    pub fn select(&mut self, room: usize, fx: &mut Effects<E>) -> Selected<E> {
        let found = match self.requests.first_marked(self.cursor, u32::MAX) {
            None if self.cursor > 0 => self.requests.first_marked(0, self.cursor - 1),
            found => found,
        };
        let Some(msg_id) = found else {
            return Selected::Nothing;
        };
        self.cursor = msg_id.wrapping_add(1);

        let Some(request) = self.requests.get(msg_id) else {
            return Selected::Nothing;
        };
        if request.size > room {
            fx.push(Effect::WakeDaemon);
            return Selected::TooSmall;
        }
        let (object, kind) = (request.object, request.kind);
        let Some(entry) = self.objects.get(object) else {
            return Selected::Nothing;
        };
        let handle = entry.handle.clone();
        let object_id = match kind {
            Kind::Open => {
                self.last_object_id = self.last_object_id.checked_add(1).unwrap_or(1);
                self.last_object_id
            }
            Kind::Close { object_id } => object_id,
            // INVARIANT: A deliverable READ has an open object.
            Kind::Read { .. } => entry.open_id().unwrap_or(0),
        };
        request.phase = Phase::InDelivery { object_id };
        self.requests.mark(msg_id, false);
        Selected::Message(Delivery {
            msg_id,
            object_id,
            kind,
            object,
            handle,
        })
    }

    fn is_in_delivery(&mut self, delivery: &Delivery<E>) -> bool {
        let object_id = delivery.object_id;
        match self.requests.get(delivery.msg_id) {
            Some(request) => request.phase == Phase::InDelivery { object_id },
            None => false,
        }
    }

    /// Ends a delivery whose message has been copied out.
    ///
    /// `false`: the message means nothing any more, because its request has ended, its object is being
    /// dropped or its fd was closed in the meantime; then it must not be shown to the daemon, and an
    /// OPEN's fd must not be installed.
    pub fn delivered(&mut self, delivery: &Delivery<E>, fx: &mut Effects<E>) -> bool {
        if !self.is_in_delivery(delivery) {
            return false;
        }
        let object_id = delivery.object_id;
        let shown = match delivery.kind {
            Kind::Close { .. } => {
                if let Some(request) = self.take(delivery.msg_id) {
                    fx.push(Effect::Complete(request, Ok(())));
                }
                self.forget_if_done(delivery.object, fx);
                true
            }
            Kind::Open => {
                let wanted = match self.objects.get(delivery.object) {
                    // The drop has decided about a CLOSE already, and takes this OPEN out next.
                    Some(entry) if entry.state != State::Dropping => {
                        entry.fd = Some(object_id);
                        entry.fds += 1;
                        true
                    }
                    _ => false,
                };
                if wanted {
                    self.set_delivered(delivery);
                }
                wanted
            }
            Kind::Read { .. } => {
                let open = match self.objects.get(delivery.object) {
                    Some(entry) => entry.open_id() == Some(object_id),
                    None => false,
                };
                if open {
                    self.set_delivered(delivery);
                    self.read_delivered(delivery.msg_id);
                } else {
                    self.put_back(delivery, fx);
                }
                open
            }
        };
        if self.readable() {
            fx.push(Effect::WakeDaemon);
        }
        shown
    }

    fn set_delivered(&mut self, delivery: &Delivery<E>) {
        if let Some(request) = self.requests.get(delivery.msg_id) {
            request.phase = Phase::Delivered {
                object_id: delivery.object_id,
            };
        }
    }

    /// A READ was delivered: it can be answered now, and is deliverable again at once if `restore`
    /// was written during its delivery.
    fn read_delivered(&mut self, msg_id: u32) {
        let Some(request) = self.requests.get(msg_id) else {
            return;
        };
        request.answerable = NonZeroU32::new(request.object_id());
        if request.reissue {
            self.renew(msg_id);
        }
    }

    /// Ends a delivery that failed (no fd to be had, a bad user buffer): the message stays queued.
    pub fn undeliver(&mut self, delivery: &Delivery<E>, fx: &mut Effects<E>) {
        if self.is_in_delivery(delivery) {
            self.put_back(delivery, fx);
        }
        if self.readable() {
            fx.push(Effect::WakeDaemon);
        }
    }

    /// Makes an undelivered request deliverable again, or parks a READ whose object has closed.
    fn put_back(&mut self, delivery: &Delivery<E>, fx: &mut Effects<E>) {
        let msg_id = delivery.msg_id;
        if !matches!(delivery.kind, Kind::Read { .. }) {
            self.renew(msg_id);
            return;
        }
        let open_id = match self.objects.get(delivery.object) {
            Some(entry) => entry.open_id(),
            None => None,
        };
        if open_id != Some(delivery.object_id) {
            // The fd under which it may have been delivered before is closed.
            self.park(msg_id);
        }
        if open_id.is_some() {
            self.renew(msg_id);
        } else {
            self.want_open(delivery.object, fx);
        }
    }
}
