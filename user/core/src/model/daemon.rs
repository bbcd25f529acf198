// SPDX-License-Identifier: MIT OR Apache-2.0

//! The daemon's side: what it may do with the device and its anonymous fds.

use super::fault::Fault;
use super::held::Fd;
use super::held::Held;
use super::places::Model;
use super::sim::Cause;
use super::sim::Sim;
use crate::errno::Errno;
use crate::ondemand::answer::Opened;
use crate::ondemand::delivery::Delivery;
use crate::ondemand::delivery::Selected;
use crate::ondemand::queue::Kind;
use crate::ondemand::queue::More;
use crate::ondemand::state::State;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

/// What a `read` of the device began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// Nothing was deliverable.
    Nothing,
    /// The buffer was too small for the next message.
    TooSmall,
    /// This message is being copied out.
    Message(Held),
}

impl Sim {
    fn message(&self, thread: u8, delivery: &Delivery<Model>) -> Held {
        Held {
            msg_id: delivery.msg_id,
            object_id: delivery.object_id,
            kind: delivery.kind,
            place: delivery.object,
            owner: if self.apart { thread } else { 0 },
            restored: false,
        }
    }

    pub(super) fn set_awake(&mut self, thread: u8, on: bool) {
        if let Some(awake) = &mut self.awake {
            if let Some(awake) = awake.get_mut(usize::from(thread)) {
                *awake = on;
            }
        }
    }

    /// A thread of the daemon begins to `read` the device with a buffer of `room` bytes.
    pub fn begin(&mut self, thread: u8, room: usize) -> Begun {
        // The worst that a thread can do: after this read it sleeps, whatever it got, and it
        // does so before anybody is woken for what is left.
        self.set_awake(thread, false);
        let selected = self.hold(Cause::Select, |table, fx| table.select(room, fx));
        let delivery = match selected {
            Selected::Nothing => return Begun::Nothing,
            Selected::TooSmall => return Begun::TooSmall,
            Selected::Message(delivery) => delivery,
        };
        let held = self.message(thread, &delivery);
        if self.deliveries.insert(thread, (delivery, false)).is_some() {
            self.violated(format!("thread {thread} reads twice at once"));
        }
        Begun::Message(held)
    }

    /// The thread's message has been copied out. `None`: the table wants it not to be shown, and
    /// the thread looks for the next one.
    pub fn delivered(&mut self, thread: u8) -> Option<Held> {
        let (delivery, died) = self.deliveries.remove(&thread)?;
        let mut held = self.message(thread, &delivery);
        held.restored = self.table.view_is_reissued(held.msg_id);
        let queued = self.table.view_is_queued(held.msg_id);
        let known = self.fds.contains_key(&held.object_id);
        let mut state = None;
        let mut shown = self.hold(Cause::Delivery, |table, fx| {
            let shown = table.delivered(&delivery, fx);
            state = table.view_state(held.place);
            shown
        });
        if !shown {
            shown = match self.fault {
                Fault::ShowRefused => true,
                Fault::ShowEnded => !queued,
                Fault::StaleRead if queued && matches!(held.kind, Kind::Read { .. }) => {
                    self.table.spoil_deliver(held.msg_id, held.object_id);
                    true
                }
                _ => false,
            };
        }
        if died || !shown {
            // The next daemon, which reads before it sleeps; or the same read goes on.
            self.set_awake(thread, true);
        }
        if !shown {
            return None;
        }
        if !queued {
            self.violated(format!("{held:?} was shown after its end"));
        }
        self.expect_showable(&held, known, state);
        if held.kind == Kind::Open {
            let (place, owner) = (held.place, held.owner);
            self.fds.insert(held.object_id, Fd { place, owner });
            self.opens_shown += 1;
        }
        if !died {
            let same = |other: &Held| {
                (other.msg_id, other.object_id, other.owner)
                    == (held.msg_id, held.object_id, held.owner)
            };
            self.hand.retain(|other| !same(other));
            self.hand.push(held);
            if self.fault == Fault::DeliverTwice && matches!(held.kind, Kind::Read { .. }) {
                self.table.spoil_renew(held.msg_id);
                self.asleep = false;
            }
        } else if held.kind == Kind::Open {
            self.close(held.object_id);
        }
        Some(held)
    }

    fn expect_showable(&mut self, held: &Held, known: bool, state: Option<State>) {
        let object_id = held.object_id;
        match held.kind {
            Kind::Open => {
                if known || matches!(state, None | Some(State::Dropping)) {
                    self.violated(format!("fd {object_id} for a {state:?}"));
                }
                let twice = self.hand.iter().any(|other| {
                    other.msg_id == held.msg_id && self.fds.contains_key(&other.object_id)
                });
                if twice {
                    self.violated(format!("{held:?} is held already, and its fd is open"));
                }
            }
            Kind::Read { .. } => {
                if !known || state != Some(State::Open { object_id }) {
                    self.violated(format!("READ under {object_id} of a {state:?}"));
                }
                let twice = self.hand.iter().any(|other| {
                    (other.msg_id, other.object_id) == (held.msg_id, object_id) && !other.restored
                });
                if twice {
                    self.violated(format!("{held:?} is held already, without a restore"));
                }
            }
            Kind::Close { .. } if !known => {
                self.violated(format!("CLOSE of closed fd {object_id}"));
            }
            Kind::Close { .. } => {}
        }
    }

    /// The thread's message could not be copied out, or no fd was to be had.
    pub fn undeliver(&mut self, thread: u8) {
        if let Some((delivery, died)) = self.deliveries.remove(&thread) {
            self.hold(Cause::Delivery, |table, fx| table.undeliver(&delivery, fx));
            if died {
                self.set_awake(thread, true);
            }
        }
    }

    /// Reads one whole message, as a daemon of one thread.
    pub fn read_next(&mut self) -> Option<Held> {
        loop {
            match self.begin(u8::MAX, usize::MAX) {
                Begun::Message(_) => {}
                _ => return None,
            }
            if let Some(held) = self.delivered(u8::MAX) {
                return Some(held);
            }
        }
    }

    /// `copen`, its first half: with a size (`Ok`) the file is then checked, see [`Sim::finish`].
    ///
    /// # Errors
    ///
    /// That of the table.
    pub fn copen(&mut self, msg_id: u32, answer: Result<(), Errno>) -> Result<(), Errno> {
        let legal = self.table.view_takes_copen(msg_id);
        let before = (!legal).then(|| self.table.clone());
        let place = self.table.view_object_of(msg_id);
        let held_back = match place {
            Some(place) if self.fault == Fault::PutBackRefused => self.table.view_held_back(place),
            _ => Vec::new(),
        };
        let result = self.tell_copen(msg_id, answer);
        self.expect_legal("copen", legal, result.as_ref().err().copied());
        if before.is_some_and(|before| !before.view_equals(&self.table)) {
            self.violated("copen was refused and changed something".into());
        }
        self.lay_down(msg_id, None);
        let refused = answer.is_err() || result.is_err();
        if let (true, true, Some(place)) = (refused, legal, place) {
            self.put_refused_back(place, &held_back);
        }
        if let Some(opened) = result? {
            self.checks.push(opened);
        }
        Ok(())
    }

    fn tell_copen(
        &mut self,
        msg_id: u32,
        answer: Result<(), Errno>,
    ) -> Result<Option<Opened<Model>>, Errno> {
        if self.fault == Fault::LateAnswer && self.has_ended(msg_id) {
            return Ok(None);
        }
        self.hold(Cause::Copen, |table, fx| table.copen(msg_id, answer, fx))
    }

    fn has_ended(&self, msg_id: u32) -> bool {
        msg_id < self.next_msg && !self.table.view_is_queued(msg_id)
    }

    /// `copen` with a size, whose check succeeds at once.
    ///
    /// # Errors
    ///
    /// That of [`Sim::copen`].
    pub fn copen_ok(&mut self, msg_id: u32) -> Result<(), Errno> {
        self.copen(msg_id, Ok(()))?;
        self.finish(self.checks.len() - 1, Ok(()));
        Ok(())
    }

    /// READ_COMPLETE on an anonymous fd.
    ///
    /// # Errors
    ///
    /// That of the table, `EBADFD` if the fd is closed.
    pub fn read_complete(&mut self, object_id: u32, msg_id: u32) -> Result<(), Errno> {
        let Some(Fd { place, .. }) = self.fds.get(&object_id).copied() else {
            self.lay_down(msg_id, Some(object_id));
            return Err(Errno::EBADFD);
        };
        let legal = self.table.view_takes_cread(place, object_id, msg_id);
        let before = (!legal).then(|| self.table.clone());
        let result = self.tell_complete(place, object_id, msg_id);
        self.expect_legal("cread", legal, result.err());
        if before.is_some_and(|before| !before.view_equals(&self.table)) {
            self.violated("cread was refused and changed something".into());
        }
        self.lay_down(msg_id, Some(object_id));
        result
    }

    fn tell_complete(&mut self, place: u32, object_id: u32, msg_id: u32) -> Result<(), Errno> {
        if self.fault == Fault::LateAnswer && self.has_ended(msg_id) {
            return Ok(());
        }
        self.hold(Cause::Complete, |table, fx| {
            table.read_complete(place, object_id, msg_id, fx)
        })
    }

    /// The daemon has answered, and forgets what it held: an answer that is refused is the last word,
    /// too.
    fn lay_down(&mut self, msg_id: u32, object_id: Option<u32>) {
        self.hand.retain(|held| {
            let answered = match held.kind {
                Kind::Open => object_id.is_none(),
                Kind::Read { .. } => object_id == Some(held.object_id),
                Kind::Close { .. } => false,
            };
            held.msg_id != msg_id || !answered
        });
    }

    fn expect_legal(&mut self, what: &str, legal: bool, error: Option<Errno>) {
        let refused = error == Some(Errno::EINVAL);
        if refused == legal {
            self.violated(format!("{what}: legal {legal}, answered {error:?}"));
        }
    }

    /// Every answer that is wrong now is refused, and changes nothing: `copen` of each number in the
    /// queue and of two that are not, READ_COMPLETE of each on every open fd.
    ///
    /// # Errors
    ///
    /// Says what was accepted.
    pub fn refuses_wrong_answers(&self) -> Result<(), String> {
        let mut copy = self.clone();
        let numbers = self
            .table
            .view_numbers()
            .chain([self.next_msg, self.next_msg.wrapping_sub(1)]);
        for msg_id in numbers {
            if !self.table.view_takes_copen(msg_id) {
                for answer in [Ok(()), Err(Errno::ENOENT)] {
                    let told = copy.tell_copen(msg_id, answer).err();
                    copy.expect_legal("copen", false, told);
                }
            }
            for (object_id, fd) in &self.fds {
                if !self.table.view_takes_cread(fd.place, *object_id, msg_id) {
                    let told = copy.tell_complete(fd.place, *object_id, msg_id);
                    copy.expect_legal("cread", false, told.err());
                }
            }
        }
        if let Some(violation) = copy.violation {
            return Err(violation);
        }
        if !copy.table.view_equals(&self.table) {
            return Err("an answer was refused and changed something".into());
        }
        Ok(())
    }

    /// An anonymous fd is closed for good.
    pub fn close(&mut self, object_id: u32) {
        let Some(Fd { place, .. }) = self.fds.remove(&object_id) else {
            return;
        };
        let delivered = match self.fault {
            Fault::LoseDelivered => self.table.view_delivered_reads(object_id),
            _ => Vec::new(),
        };
        self.hold(Cause::Close, |table, fx| {
            table.fd_closed(place, object_id, fx);
        });
        for msg_id in delivered {
            self.table.spoil_deliver(msg_id, object_id);
        }
    }

    /// The numbers, from `from` on, that a hold of the lock of a `restore` has looked at; a walk behind `others` is its rest.
    pub fn restored_numbers(&self, from: u32, others: usize) -> RangeInclusive<u32> {
        let Some(More::Restore(next)) = self.pending.get(others) else {
            return from..=u32::MAX;
        };
        from..=next.saturating_sub(1)
    }

    /// What the daemon has of these may be delivered again.
    pub(super) fn mark_restored(&mut self, msg_ids: RangeInclusive<u32>) {
        for held in &mut self.hand {
            held.restored |= msg_ids.contains(&held.msg_id);
        }
    }

    /// `restore`: the first hold of the lock, or all of it.
    pub fn restore(&mut self) {
        self.orphans = false;
        let fault = self.fault;
        let walks = self.pending.len();
        self.hold(Cause::Restore, |table, fx| {
            if fault != Fault::RestoreNothing {
                table.restore(fx);
            }
            match fault {
                Fault::ReissueLiving => table.spoil_reissue(),
                Fault::RestoreNoRead => table.spoil_restored_reads(),
                Fault::RestoreForgetsDelivery => table.spoil_restored_deliveries(),
                Fault::RestoreForbidsAnswer => table.spoil_answers(),
                _ => {}
            }
        });
        self.mark_restored(self.restored_numbers(0, walks));
    }
}
