// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Endings and second starts: what concerns many requests at once.
//!
//! One hold of the lock hands out a bounded number of requests. Each method makes the state final
//! first and leaves the rest as [`More`], for [`Table::resume`].

use crate::errno::Errno;
use crate::ondemand::queue::Effect;
use crate::ondemand::queue::Effects;
use crate::ondemand::queue::Env;
use crate::ondemand::queue::Kind;
use crate::ondemand::queue::More;
use crate::ondemand::queue::OwnedRequest;
use crate::ondemand::queue::Phase;
use crate::ondemand::queue::RequestPlace;
use crate::ondemand::queue::Slots;
use crate::ondemand::state::State;
use crate::ondemand::table::Table;

/// Requests that one hold of the lock looks at when it walks over all of them.
const REQUESTS_A_BATCH: u32 = 64;

impl<E: Env> Table<E> {
    /// Puts an object into its final state, ends its requests with `EIO`, and asks the daemon to
    /// close the object's fd if there is one, with the CLOSE that the caller brings.
    ///
    /// Returns what was not needed.
    pub fn drop_object(
        &mut self,
        object: u32,
        close: Option<(RequestPlace<E>, OwnedRequest<E>)>,
        fx: &mut Effects<E>,
    ) -> Option<(RequestPlace<E>, OwnedRequest<E>)> {
        let entry = match self.objects.get(object) {
            Some(entry) => entry,
            None => return close,
        };
        entry.set_state(State::Dropping);
        let fd = entry.fd;
        fx.push(Effect::WakeObject(entry.handle.clone()));
        fx.set_more(More::Drop(object));

        match (close, fd) {
            (Some((place, mut request)), Some(object_id)) if !self.dead => {
                request.kind = Kind::Close { object_id };
                request.phase = Phase::New;
                let msg_id = self.publish(object, place, request);
                self.deliverable(msg_id, fx);
                None
            }
            (unused, _) => unused,
        }
    }

    /// Makes the table dead: no request is taken any more, all that are queued end with `EIO`.
    pub fn flush(&mut self, fx: &mut Effects<E>) {
        self.dead = true;
        fx.set_more(More::Flush);
    }

    /// Does the next part of what one hold of the lock did not finish.
    pub fn resume(&mut self, more: More, fx: &mut Effects<E>) {
        match more {
            More::Reap(object) => self.reap(object, fx),
            More::Drop(object) => self.drain_object(object, fx),
            More::Restore(from) => self.restore_from(from, fx),
            More::Flush => self.drain_queue(fx),
            More::WakeAll(from) => self.wake_from(from, fx),
        }
    }

    /// `restore`: makes every delivered, unanswered READ deliverable again, whoever holds its fd, and
    /// every such OPEN whose fd is closed; an OPEN whose fd is open, as soon as that fd closes. What is
    /// being delivered counts as delivered: whoever reads it may be dying.
    ///
    /// The daemon is woken at the end, even if there was nothing to do.
    pub fn restore(&mut self, fx: &mut Effects<E>) {
        self.restore_from(0, fx);
    }

    fn restore_from(&mut self, from: u32, fx: &mut Effects<E>) {
        let mut at = Some(from);
        for _ in 0..REQUESTS_A_BATCH {
            let Some(msg_id) = at.and_then(|at| self.requests.first(at)) else {
                fx.push(Effect::WakeDaemon);
                return;
            };
            self.restore_request(msg_id);
            at = msg_id.checked_add(1);
        }
        match at {
            Some(at) => fx.set_more(More::Restore(at)),
            None => fx.push(Effect::WakeDaemon),
        }
    }

    fn restore_request(&mut self, msg_id: u32) {
        let Some(request) = self.requests.get(msg_id) else {
            return;
        };
        let (kind, phase) = (request.kind, request.phase);
        let Some(entry) = self.objects.get(request.object) else {
            return;
        };
        // A request of a dropped object is about to be taken out.
        let now = match (kind, phase, entry.state) {
            (Kind::Read { .. }, Phase::Delivered { .. }, State::Open { .. }) => true,
            (Kind::Open, Phase::Delivered { object_id }, State::Reopening(_)) => {
                entry.fd != Some(object_id)
            }
            (Kind::Read { .. } | Kind::Open, Phase::InDelivery { .. }, _) => false,
            _ => return,
        };
        if now {
            self.renew(msg_id);
        } else if let Some(request) = self.requests.get(msg_id) {
            request.reissue = true;
        }
    }

    /// Ends an opening without success: the object is closed, what was held back for it fails.
    pub(super) fn fail_opening(&mut self, object: u32, errno: Errno, fx: &mut Effects<E>) {
        let Some(entry) = self.objects.get(object) else {
            return;
        };
        entry.set_state(State::Close);
        entry.error = errno;
        entry.failures = entry.failures.wrapping_add(1);
        entry.untold = !entry.ready;
        let handle = entry.handle.clone();
        let mut at = entry.head;
        let mut failed = false;
        while let Some(msg_id) = at {
            let Some(request) = self.requests.get(msg_id) else {
                break;
            };
            at = request.next;
            if request.phase == Phase::Parked {
                request.phase = Phase::Failed(Errno::EIO);
                failed = true;
            }
        }
        fx.push(Effect::WakeObject(handle));
        if failed {
            fx.set_more(More::Reap(object));
        }
    }

    fn reap(&mut self, object: u32, fx: &mut Effects<E>) {
        let mut at = self.objects.get(object).and_then(|entry| entry.head);
        let mut handed_out = 0;
        while let Some(msg_id) = at {
            let Some(request) = self.requests.get(msg_id) else {
                return;
            };
            at = request.next;
            let Phase::Failed(errno) = request.phase else {
                continue;
            };
            if handed_out == Effects::<E>::BATCH {
                fx.set_more(More::Reap(object));
                return;
            }
            if let Some(request) = self.take(msg_id) {
                fx.push(Effect::Complete(request, Err(errno)));
                handed_out += 1;
            }
        }
    }

    fn drain_object(&mut self, object: u32, fx: &mut Effects<E>) {
        let Some(entry) = self.objects.get(object) else {
            return;
        };
        let mut at = entry.head;
        let mut handed_out = 0;
        while let Some(msg_id) = at {
            let Some(request) = self.requests.get(msg_id) else {
                break;
            };
            at = request.next;
            if matches!(request.kind, Kind::Close { .. }) {
                continue;
            }
            if handed_out == Effects::<E>::BATCH {
                fx.set_more(More::Drop(object));
                return;
            }
            if let Some(request) = self.take(msg_id) {
                fx.push(Effect::Complete(request, Err(Errno::EIO)));
                handed_out += 1;
            }
        }
        self.forget_if_done(object, fx);
    }

    fn drain_queue(&mut self, fx: &mut Effects<E>) {
        for _ in 0..Effects::<E>::BATCH {
            let Some(msg_id) = self.requests.first(0) else {
                fx.set_more(More::WakeAll(0));
                return;
            };
            if let Some(request) = self.take(msg_id) {
                fx.push(Effect::Complete(request, Err(Errno::EIO)));
            }
        }
        fx.set_more(More::Flush);
    }

    fn wake_from(&mut self, from: u32, fx: &mut Effects<E>) {
        let mut at = from;
        for _ in 0..Effects::<E>::BATCH {
            let Some((id, handle)) = self.next_object(at) else {
                return;
            };
            fx.push(Effect::WakeObject(handle));
            match id.checked_add(1) {
                Some(next) => at = next,
                None => return,
            }
        }
        fx.set_more(More::WakeAll(at));
    }

    /// Takes a dropped object's entry out once its last anonymous fd is closed and no request
    /// names it.
    pub(super) fn forget_if_done(&mut self, object: u32, fx: &mut Effects<E>) {
        let done = match self.objects.get(object) {
            Some(entry) => entry.state == State::Dropping && entry.fds == 0 && entry.head.is_none(),
            None => false,
        };
        if done {
            if let Some(entry) = self.objects.take(object) {
                fx.push(Effect::Forget(entry));
            }
        }
    }
}
