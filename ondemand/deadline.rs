// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Deadlines: a request that no daemon has answered in time ends.
//!
//! Time is a number that grows, in whatever unit the caller counts; the table has no clock. A request
//! is given its time when it is queued and keeps it: a delivery, a crash of the daemon, `restore` and
//! a reopening change nothing. So time without a daemon counts, too. Nobody could tell it apart: a
//! supervisor that holds the device looks the same from here as a daemon that is silent.
//!
//! Requests with a time are linked in its order, so that what is due is at the front.

use crate::errno::Errno;
use crate::ondemand::queue::Effect;
use crate::ondemand::queue::Effects;
use crate::ondemand::queue::Env;
use crate::ondemand::queue::Slots;
use crate::ondemand::state::Opening;
use crate::ondemand::state::State;
use crate::ondemand::table::Table;

impl<E: Env> Table<E> {
    /// When the next request is due; `None` if no request has a deadline.
    pub fn next_due(&mut self) -> Option<u64> {
        let first = self.first_due?;
        self.requests.get(first)?.due
    }

    /// Ends what is due at `now` with `ETIMEDOUT`: a READ alone, an OPEN with its opening, as if the
    /// daemon had refused it, but that nobody is told who comes later.
    ///
    /// One hold of the lock ends a bounded number. Returns when to call again: a time that is not
    /// after `now` means at once, `None` that no request has a deadline.
    pub fn expire(&mut self, now: u64, fx: &mut Effects<E>) -> Option<u64> {
        for _ in 0..Effects::<E>::BATCH {
            let msg_id = self.first_due?;
            let due = self.next_due()?;
            if due > now {
                return Some(due);
            }
            if self.expire_one(msg_id, fx) {
                break;
            }
        }
        self.next_due()
    }

    /// Ends one request; `true` if an opening ended with it, for which a [`More`] may be noted: there
    /// is room for one.
    ///
    /// [`More`]: crate::ondemand::queue::More
    fn expire_one(&mut self, msg_id: u32, fx: &mut Effects<E>) -> bool {
        let object = self.requests.get(msg_id).map(|request| request.object);
        let Some((object, entry)) = object.and_then(|at| Some((at, self.objects.get(at)?))) else {
            // INVARIANT: A request names an object that is in the table.
            return true;
        };
        let opening = entry.state == State::Reopening(Opening::Pending { msg_id });
        let handle = entry.handle.clone();
        if let Some(request) = self.take(msg_id) {
            fx.push(Effect::Expire(request, handle));
        }
        if opening {
            self.fail_opening(object, Errno::ETIMEDOUT, fx);
            if let Some(entry) = self.objects.get(object) {
                // A daemon's refusal is news for whoever asks first. That nobody answered in time
                // says nothing about now: the next to ask has an OPEN of its own sent.
                entry.untold = false;
            }
        }
        opening
    }

    /// Links a request that was just queued, by its time: it is almost always the last.
    pub(super) fn link_due(&mut self, msg_id: u32) {
        let Some(due) = self.requests.get(msg_id).and_then(|request| request.due) else {
            return;
        };
        let mut before = self.last_due;
        while let Some(at) = before {
            match self.requests.get(at) {
                Some(other) if other.due > Some(due) => before = other.due_prev,
                _ => break,
            }
        }
        let after = match before.and_then(|before| self.requests.get(before)) {
            Some(before) => before.due_next.replace(msg_id),
            None => self.first_due.replace(msg_id),
        };
        match after.and_then(|after| self.requests.get(after)) {
            Some(after) => after.due_prev = Some(msg_id),
            None => self.last_due = Some(msg_id),
        }
        if let Some(request) = self.requests.get(msg_id) {
            request.due_prev = before;
            request.due_next = after;
        }
    }

    /// Unlinks a request that was just taken out of the queue.
    pub(super) fn unlink_due(&mut self, due_prev: Option<u32>, due_next: Option<u32>) {
        match due_prev.and_then(|before| self.requests.get(before)) {
            Some(before) => before.due_next = due_next,
            None => self.first_due = due_next,
        }
        match due_next.and_then(|after| self.requests.get(after)) {
            Some(after) => after.due_prev = due_prev,
            None => self.last_due = due_prev,
        }
    }
}
