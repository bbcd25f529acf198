// SPDX-License-Identifier: MIT OR Apache-2.0

//! A table and everybody around it: what there is, and how one hold of the lock is carried out.

use super::fault::Fault;
use super::held::Fd;
use super::held::Held;
use super::places::Inline;
use super::places::Model;
use super::places::Places;
use crate::errno::Errno;
use crate::ondemand::answer::Opened;
use crate::ondemand::delivery::Delivery;
use crate::ondemand::queue::Effect;
use crate::ondemand::queue::Effects;
use crate::ondemand::queue::Entry;
use crate::ondemand::queue::Kind;
use crate::ondemand::queue::More;
use crate::ondemand::queue::Request;
use crate::ondemand::state::Awaited;
use crate::ondemand::table::Table;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Bytes of the modelled messages: an OPEN is larger than [`SMALL_ROOM`], the others are not.
pub const OPEN_SIZE: usize = 64;
/// Bytes of a READ.
pub const READ_SIZE: usize = 32;
/// Bytes of a CLOSE.
pub const CLOSE_SIZE: usize = 16;
/// Bytes of the buffer of a reader that brings too little for an OPEN.
pub const SMALL_ROOM: usize = 32;
/// Threads of the daemon that sleep and are woken one at a time.
pub const THREADS: usize = 2;

/// An object as fscache knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// Its place in the table.
    pub place: u32,
    /// Withdrawn.
    pub dropped: bool,
    /// The table has given back its entry.
    pub forgotten: bool,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// What it asked.
    pub kind: Kind,
    /// The label of its object.
    pub object: u32,
    /// How it ended; `None` while it has not.
    pub outcome: Option<Result<(), Errno>>,
}

/// Somebody who waits for an object to be open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiter {
    /// The label of the object.
    pub object: u32,
    /// The table's memory for this waiter.
    pub seen: Option<u32>,
    /// What it was told.
    pub told: Awaited,
    /// Woken, and about to ask again.
    pub woken: bool,
}

/// Which event holds the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Enqueue,
    Await,
    Select,
    Delivery,
    Copen,
    Complete,
    Close,
    Restore,
    Cancel,
    Expire,
    Drop,
    Flush,
    Resume,
}

/// A table and everybody around it.
#[derive(Clone)]
pub struct Sim {
    /// The table.
    pub table: Table<Model>,
    pub(super) fault: Fault,
    /// Where the search for a free msg_id begins.
    pub next_msg: u32,
    /// The model's time: each request is due one after the one before it.
    pub clock: u64,
    /// Where the search for a free object's place begins.
    pub next_place: u32,
    /// Every request there ever was, by label; see [`Sim::forget_history`].
    pub ledger: BTreeMap<u64, Account>,
    /// The next request's label.
    pub(super) next_label: u64,
    /// Every object there ever was, by label; see [`Sim::forget_history`].
    pub cookies: BTreeMap<u32, Cookie>,
    /// The next object's label.
    pub(super) next_cookie: u32,
    /// Queued works: the objects whose OPEN is to be sent.
    pub works: Vec<u32>,
    /// Walks that one hold of the lock did not finish.
    pub pending: Vec<More>,
    /// Messages that threads of the daemon are reading, by thread; with whether it died meanwhile.
    pub deliveries: BTreeMap<u8, (Delivery<Model>, bool)>,
    /// Files that are being checked against the answer to an OPEN.
    pub checks: Vec<Opened<Model>>,
    /// What the daemon holds and has not answered.
    pub hand: Vec<Held>,
    /// Open anonymous fds by object_id.
    pub fds: BTreeMap<u32, Fd>,
    /// Who waits, or waited, for an opening.
    pub waiters: Vec<Waiter>,
    /// Waiters look again in a step of their own, go on to read, and leave `waiters` when told.
    pub readers_go_on: bool,
    /// Objects whose readers were told that they are ready, and that are about to ask for a range.
    pub going: Vec<u32>,
    /// A thread of the daemon sleeps in `poll`. It does so whenever it can.
    pub asleep: bool,
    /// Threads of the daemon sleep after each read, and are woken one at a time: which are awake.
    pub awake: Option<[bool; THREADS]>,
    /// Each thread is a daemon of its own.
    pub apart: bool,
    /// Effects that woke the daemon.
    pub wakes: u32,
    /// OPENs that were shown to the daemon.
    pub opens_shown: u32,
    /// A daemon has died since the last `restore`.
    pub orphans: bool,
    pub(super) violation: Option<String>,
}

impl Sim {
    /// An empty table, and a rule to break.
    pub fn new(fault: Fault) -> Self {
        Sim {
            table: Table::new(Places::with_fault(fault), Places::new()),
            fault,
            next_msg: 0,
            clock: 0,
            next_place: 0,
            ledger: BTreeMap::new(),
            next_label: 0,
            cookies: BTreeMap::new(),
            next_cookie: 0,
            works: Vec::new(),
            pending: Vec::new(),
            deliveries: BTreeMap::new(),
            checks: Vec::new(),
            hand: Vec::new(),
            fds: BTreeMap::new(),
            waiters: Vec::new(),
            readers_go_on: false,
            going: Vec::new(),
            asleep: true,
            awake: None,
            apart: false,
            wakes: 0,
            opens_shown: 0,
            orphans: false,
            violation: None,
        }
    }

    /// The first rule that was broken.
    pub fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    /// Notes that a rule was broken; the first is kept.
    pub(super) fn violated(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    /// One hold of the lock, and what the caller does after it.
    pub(super) fn hold<R>(
        &mut self,
        cause: Cause,
        call: impl FnOnce(&mut Table<Model>, &mut Effects<Model>) -> R,
    ) -> R {
        let mut fx = Effects::new();
        let result = call(&mut self.table, &mut fx);
        let mut woken = Vec::new();
        for effect in fx.drain() {
            match effect {
                Effect::Complete(request, outcome) => self.complete(cause, request, outcome),
                Effect::Expire(request, object) => self.expired(cause, &request, object),
                Effect::WakeDaemon => self.wake_daemon(cause),
                Effect::WakeObject(_) if self.fault == Fault::DropObjectWake => {}
                Effect::WakeObject(object) => woken.push(object),
                Effect::Reopen(_) if self.fault == Fault::DropReopen => {}
                Effect::Reopen(object) => self.queue_work(object),
                Effect::Forget(entry) => self.forget(entry),
            }
        }
        if let Some(more) = fx.take_more() {
            let lost = match self.fault {
                Fault::SkipResume => true,
                Fault::FlushLeaves => more == More::Flush,
                _ => false,
            };
            if !lost {
                self.pending.push(more);
            }
        }
        self.poll();
        for object in woken {
            self.wake_waiters(object);
        }
        result
    }

    /// A work that is queued already is not queued twice.
    pub(super) fn queue_work(&mut self, object: u32) {
        if !self.works.contains(&object) {
            self.works.push(object);
        }
    }

    /// Wakes one sleeping thread, if there is one.
    fn wake_daemon(&mut self, cause: Cause) {
        if self.fault == Fault::DropWake {
            return;
        }
        self.asleep = false;
        self.wakes += 1;
        if self.fault == Fault::WakeNoNext && matches!(cause, Cause::Select | Cause::Delivery) {
            return;
        }
        if let Some(awake) = &mut self.awake {
            let sleeper = (0..=u8::MAX)
                .zip(awake)
                .find(|(thread, awake)| !**awake && !self.deliveries.contains_key(thread));
            if let Some((_, awake)) = sleeper {
                *awake = true;
            }
        }
    }

    /// The daemon's poller: it must not sleep while a message is deliverable, unless the walk that
    /// found the message goes on and wakes it at its end. Then it goes back to sleep if it can.
    ///
    /// Of threads that are woken one at a time, one must be awake, or be reading: what it leaves
    /// behind is then its to pass on.
    pub(super) fn poll(&mut self) {
        let readable = self.table.readable();
        let walk_goes_on = self
            .pending
            .iter()
            .any(|more| matches!(more, More::Restore(_)));
        if self.asleep && readable && !walk_goes_on {
            self.violated("lost wake-up: a message is deliverable and the daemon sleeps".into());
        }
        self.asleep = !readable;
    }

    fn complete(
        &mut self,
        cause: Cause,
        request: Inline<Request<Model>>,
        outcome: Result<(), Errno>,
    ) {
        let answered = cause == Cause::Complete;
        if answered && self.fault == Fault::LoseAnswer {
            return;
        }
        if answered && self.fault == Fault::AnswerTwice {
            self.table.spoil_put_request_back(request.clone());
        }
        self.end(cause, request.ticket, outcome);
    }

    /// A request ends: once, and as the event allows.
    pub(super) fn end(&mut self, cause: Cause, label: u64, outcome: Result<(), Errno>) {
        let Some(account) = self.ledger.get_mut(&label) else {
            self.violated(format!("request {label} ended again"));
            return;
        };
        let again = account.outcome.replace(outcome).is_some();
        let fits = match (account.kind, outcome, cause) {
            (_, _, Cause::Enqueue) => outcome.is_err(),
            (Kind::Read { .. }, Ok(()), Cause::Complete) => true,
            (Kind::Read { .. }, Err(Errno::EINTR), Cause::Cancel) => true,
            (Kind::Open, _, Cause::Copen) => true,
            (Kind::Close { .. }, Ok(()), Cause::Delivery | Cause::Close) => true,
            (Kind::Close { .. }, Err(Errno::ECANCELED), Cause::Drop) => true,
            (Kind::Read { .. } | Kind::Open, Err(Errno::ETIMEDOUT), Cause::Expire) => true,
            (_, Err(Errno::EIO), Cause::Resume) => true,
            _ => false,
        };
        if again {
            self.violated(format!("request {label} ended twice"));
        }
        if !fits {
            self.violated(format!("request {label} ended {outcome:?} by {cause:?}"));
        }
    }

    fn expired(&mut self, cause: Cause, request: &Request<Model>, object: u32) {
        let label = request.ticket;
        let owner = self.ledger.get(&label).map(|account| account.object);
        if owner != Some(object) {
            self.violated(format!("request {label} expired for object {object}"));
        }
        self.end(cause, label, Err(Errno::ETIMEDOUT));
    }

    fn forget(&mut self, entry: Inline<Entry<Model>>) {
        let label = *entry.handle();
        let Some(cookie) = self.cookies.get_mut(&label) else {
            self.violated(format!("object {label} was forgotten again"));
            return;
        };
        let again = core::mem::replace(&mut cookie.forgotten, true);
        let place = cookie.place;
        if again || !cookie.dropped {
            self.violated(format!("object {label} was forgotten twice or too early"));
        }
        if self.fds.values().any(|fd| fd.place == place) {
            self.violated(format!("object {label} was forgotten with an fd open"));
        }
        match self.fault {
            Fault::ReusePlace => self.next_place = place,
            Fault::KeepEntry => self.table.spoil_put_object_back(place, entry),
            _ => {}
        }
    }

    fn wake_waiters(&mut self, object: u32) {
        for index in 0..self.waiters.len() {
            let waiter = &mut self.waiters[index];
            if waiter.object != object || waiter.told != Awaited::Pending {
                continue;
            }
            if self.readers_go_on {
                waiter.woken = true;
            } else {
                self.ask(index);
            }
        }
    }

    /// Forgets what can make no difference any more: requests that have ended, objects that are
    /// gone, works of such objects, messages in the daemon's hand that nobody waits for.
    pub fn forget_history(&mut self) {
        self.ledger.retain(|_, account| account.outcome.is_none());
        let gone = |cookie: &Cookie| cookie.dropped && cookie.forgotten;
        if self.cookies.values().any(gone) {
            self.cookies.retain(|_, cookie| !gone(cookie));
            let cookies = &self.cookies;
            self.works.retain(|object| cookies.contains_key(object));
        }
        let (table, fds) = (&self.table, &self.fds);
        self.hand.retain(|held| match held.kind {
            Kind::Close { object_id } => fds.contains_key(&object_id),
            // As long as its fd is open nobody else is to be sent this OPEN, and this READ can be
            // answered.
            _ if fds.contains_key(&held.object_id) => table.view_is_queued(held.msg_id),
            _ => table.view_waits(held.msg_id, held.object_id),
        });
    }
}
