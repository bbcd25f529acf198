// SPDX-License-Identifier: MIT OR Apache-2.0

//! The daemon's side: what it may do with the device and its anonymous fds, and whole daemons that
//! serve until nothing is left.

use super::fault::Fault;
use super::sim::Sim;
use crate::errno::Errno;
use crate::ondemand::delivery::Selected;
use crate::ondemand::queue::Kind;
use crate::ondemand::queue::Phase;
use crate::ondemand::state::Awaited;
use crate::ondemand::state::Opening;
use crate::ondemand::state::State;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// A message that the daemon has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its msg_id.
    pub msg_id: u32,
    /// Its object_id.
    pub object_id: u32,
    /// What is asked.
    pub kind: Kind,
    /// The place of the object, which an anonymous fd knows.
    pub place: u32,
}

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

/// Which daemon serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The one that has served so far. It writes `restore` only if one before it has died.
    Same,
    /// Another one, after the death of the one before: it writes `restore` and knows every blob.
    Successor,
    /// Another one, after the death of the one before, that knows no blob.
    Stranger,
}

/// Rounds that a daemon may take to end every READ; in one it deals with all that it can see.
const ROUNDS: usize = 8;

impl Sim {
    /// A thread of the daemon begins to `read` the device with a buffer of `room` bytes.
    pub fn begin(&mut self, thread: u8, room: usize) -> Begun {
        let selected = self.hold(|table, fx| table.select(room, fx));
        let delivery = match selected {
            Selected::Nothing => return Begun::Nothing,
            Selected::TooSmall => return Begun::TooSmall,
            Selected::Message(delivery) => delivery,
        };
        let held = Held {
            msg_id: delivery.msg_id,
            object_id: delivery.object_id,
            kind: delivery.kind,
            place: delivery.object,
        };
        if self.deliveries.insert(thread, (delivery, false)).is_some() {
            self.violated(format!("thread {thread} reads twice at once"));
        }
        Begun::Message(held)
    }

    /// The thread's message has been copied out. `None`: the table wants it not to be shown.
    pub fn delivered(&mut self, thread: u8) -> Option<Held> {
        let (delivery, died) = self.deliveries.remove(&thread)?;
        let held = Held {
            msg_id: delivery.msg_id,
            object_id: delivery.object_id,
            kind: delivery.kind,
            place: delivery.object,
        };
        let known = self.fds.contains_key(&held.object_id);
        let mut state = None;
        let shown = self.hold(|table, fx| {
            let shown = table.delivered(&delivery, fx);
            state = table
                .view_objects()
                .iter()
                .find(|object| object.place == held.place)
                .map(|object| object.state);
            shown
        });
        if !shown && self.fault != Fault::ShowRefused {
            return None;
        }
        match held.kind {
            Kind::Open => {
                if known || matches!(state, None | Some(State::Dropping)) {
                    self.violated(format!("fd {} for a {state:?}", held.object_id));
                }
                self.fds.insert(held.object_id, held.place);
                self.opens_shown += 1;
            }
            Kind::Read { .. } => {
                let object_id = held.object_id;
                if !known || state != Some(State::Open { object_id }) {
                    self.violated(format!("READ under {object_id} of a {state:?}"));
                }
            }
            Kind::Close { .. } if !known => {
                self.violated(format!("CLOSE of closed fd {}", held.object_id));
            }
            Kind::Close { .. } => {}
        }
        if !died {
            self.hand.push(held);
        } else if held.kind == Kind::Open {
            self.orphans = true;
            self.close(held.object_id);
        }
        Some(held)
    }

    /// The thread's message could not be copied out, or no fd was to be had.
    pub fn undeliver(&mut self, thread: u8) {
        if let Some((delivery, _)) = self.deliveries.remove(&thread) {
            self.hold(|table, fx| table.undeliver(&delivery, fx));
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
    pub fn copen(&mut self, msg_id: u32, answer: Result<(), Errno>) -> Result<(), Errno> {
        let before = self.fingerprint();
        let legal = self.table.view_requests().iter().any(|request| {
            request.msg_id == msg_id
                && request.kind == Kind::Open
                && matches!(request.phase, Phase::Delivered { .. })
        }) && self.table.view_objects().iter().any(|object| {
            matches!(object.state, State::Reopening(Opening::Pending { msg_id: id }) if id == msg_id)
        });
        let result = self.hold(|table, fx| table.copen(msg_id, answer, fx));
        self.expect_legal("copen", legal, result.as_ref().err().copied(), &before);
        self.lay_down(msg_id);
        if let Some(opened) = result? {
            self.checks.push(opened);
        }
        Ok(())
    }

    /// `copen` with a size, whose check succeeds at once.
    pub fn copen_ok(&mut self, msg_id: u32) -> Result<(), Errno> {
        self.copen(msg_id, Ok(()))?;
        self.finish(self.checks.len() - 1, Ok(()));
        Ok(())
    }

    /// READ_COMPLETE on an anonymous fd.
    pub fn read_complete(&mut self, object_id: u32, msg_id: u32) -> Result<(), Errno> {
        let place = *self.fds.get(&object_id).ok_or(Errno::EBADFD)?;
        let before = self.fingerprint();
        let legal = self.table.view_requests().iter().any(|request| {
            request.msg_id == msg_id
                && matches!(request.kind, Kind::Read { .. })
                && request.object == place
                && request.phase == Phase::Delivered { object_id }
        });
        let result = self.hold(|table, fx| table.read_complete(place, object_id, msg_id, fx));
        self.expect_legal("cread", legal, result.err(), &before);
        self.lay_down(msg_id);
        result
    }

    /// The daemon forgets the message with this msg_id, unless the table still waits for the answer.
    fn lay_down(&mut self, msg_id: u32) {
        let waits = self.table.view_requests().iter().any(|request| {
            request.msg_id == msg_id && matches!(request.phase, Phase::Delivered { .. })
        });
        if !waits {
            self.hand.retain(|held| held.msg_id != msg_id);
        }
    }

    fn expect_legal(&mut self, what: &str, legal: bool, error: Option<Errno>, before: &str) {
        let refused = error == Some(Errno::EINVAL);
        if refused == legal {
            self.violated(format!("{what}: legal {legal}, answered {error:?}"));
        }
        if refused && self.fingerprint() != before {
            self.violated(format!("{what} was refused and changed something"));
        }
    }

    /// An anonymous fd is closed for good.
    pub fn close(&mut self, object_id: u32) {
        if let Some(place) = self.fds.remove(&object_id) {
            self.hold(|table, fx| table.fd_closed(place, object_id, fx));
        }
    }

    /// `restore`.
    pub fn restore(&mut self) {
        self.orphans = false;
        self.hold(|table, fx| table.restore(fx));
    }

    /// The daemon dies: its fds are closed, what it has read is lost. Threads that are in `read`
    /// come out of it later, and what they got is lost too.
    pub fn crash(&mut self) {
        self.hand.clear();
        self.orphans = true;
        for (_, died) in self.deliveries.values_mut() {
            *died = true;
        }
        let open: Vec<u32> = self.fds.keys().copied().collect();
        for object_id in open {
            self.close(object_id);
        }
    }

    /// Everybody does what is left to do, and this daemon serves, until nothing moves any more.
    ///
    /// # Errors
    ///
    /// Says which request or waiter is left behind, or that there was no end.
    pub fn serve(mut self, policy: Policy) -> Result<Self, String> {
        let must_succeed = self.readers_to_satisfy();
        if policy == Policy::Same {
            if self.orphans {
                self.let_go();
                self.restore();
            }
        } else {
            self.crash();
            self.let_go();
            self.restore();
        }
        let mut rounds = 0;
        while self.round(policy) {
            rounds += 1;
            if rounds > ROUNDS {
                return Err(format!("{policy:?}: no end after {ROUNDS} rounds"));
            }
            self.check()?;
        }
        self.check()?;
        for (label, account) in &self.ledger {
            if account.outcome.is_none() && matches!(account.kind, Kind::Read { .. }) {
                return Err(format!("{policy:?}: READ {label} never ends"));
            }
            if policy == Policy::Successor
                && must_succeed.contains(label)
                && account.outcome != Some(Ok(()))
            {
                return Err(format!(
                    "{policy:?}: READ {label} ends {:?}",
                    account.outcome
                ));
            }
        }
        match self
            .waiters
            .iter()
            .find(|waiter| waiter.told == Awaited::Pending)
        {
            Some(waiter) => Err(format!("{policy:?}: {waiter:?} never ends")),
            None => Ok(self),
        }
    }

    /// READs for which a daemon that knows everything has no excuse.
    fn readers_to_satisfy(&mut self) -> Vec<u64> {
        if self.table.is_dead() {
            return Vec::new();
        }
        let objects = self.table.view_objects();
        self.table
            .view_requests()
            .iter()
            .filter(|request| {
                matches!(request.kind, Kind::Read { .. })
                    && !matches!(request.phase, Phase::Failed(_))
                    && objects.iter().any(|object| {
                        object.place == request.object && object.state != State::Dropping
                    })
            })
            .map(|request| request.ticket)
            .collect()
    }

    /// All threads come out of `read`.
    fn let_go(&mut self) {
        let threads: Vec<u8> = self.deliveries.keys().copied().collect();
        for thread in threads {
            self.delivered(thread);
        }
    }

    /// Deals with all that is to be seen; `false` if there was nothing.
    fn round(&mut self, policy: Policy) -> bool {
        let mut moved = !self.pending.is_empty() || !self.deliveries.is_empty();
        self.resume_all();
        self.let_go();
        while !self.works.is_empty() {
            moved = true;
            // A refusal is the ordinary end of a work that came too late.
            let _: Result<u32, Errno> = self.work(0, Ok(()));
        }
        while !self.checks.is_empty() {
            moved = true;
            self.finish(0, Ok(()));
        }
        while let Some(_held) = self.read_next() {
            moved = true;
        }
        for held in core::mem::take(&mut self.hand) {
            moved = true;
            let open = self.fds.contains_key(&held.object_id);
            // What was held may have ended meanwhile: EINVAL is no news to a daemon.
            let _: Result<(), Errno> = match held.kind {
                Kind::Open if open && policy != Policy::Stranger => self.copen(held.msg_id, Ok(())),
                Kind::Open => {
                    self.close(held.object_id);
                    self.copen(held.msg_id, Err(Errno::ENOENT))
                }
                Kind::Read { .. } => self.read_complete(held.object_id, held.msg_id),
                Kind::Close { object_id } => {
                    self.close(object_id);
                    Ok(())
                }
            };
        }
        moved
    }

    /// The cache goes away: every object is dropped, every fd closed, with or without `flush` first.
    ///
    /// # Errors
    ///
    /// Says what is left in the table.
    pub fn tear_down(mut self, flush: bool) -> Result<(), String> {
        if flush {
            self.flush();
        }
        let objects: Vec<u32> = self
            .cookies
            .iter()
            .filter(|(_, cookie)| !cookie.dropped)
            .map(|(label, _)| *label)
            .collect();
        for object in objects {
            self.drop_object(object);
        }
        self.let_go();
        self.resume_all();
        while !self.works.is_empty() {
            // Nothing wants to be opened any more.
            let _: Result<u32, Errno> = self.work(0, Ok(()));
        }
        while !self.checks.is_empty() {
            self.finish(0, Ok(()));
        }
        self.crash();
        self.resume_all();
        self.check()?;
        let requests = self.table.view_requests();
        let objects = self.table.view_objects();
        if !requests.is_empty() || !objects.is_empty() {
            return Err(format!("left after the end: {requests:?} {objects:?}"));
        }
        if let Some((label, account)) = self
            .ledger
            .iter()
            .find(|(_, account)| account.outcome.is_none())
        {
            return Err(format!("request {label} was lost: {account:?}"));
        }
        if let Some((label, _)) = self.cookies.iter().find(|(_, cookie)| !cookie.forgotten) {
            return Err(format!("object {label} was never given back"));
        }
        Ok(())
    }
}
