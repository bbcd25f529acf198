// SPDX-License-Identifier: MIT OR Apache-2.0

//! The kernel's side: who enqueues, who waits, and who carries out effects.

use super::daemon::Held;
use super::fault::Fault;
use super::places::Model;
use super::places::Place;
use super::places::Places;
use crate::errno::Errno;
use crate::ondemand::answer::Opened;
use crate::ondemand::delivery::Delivery;
use crate::ondemand::queue::Effect;
use crate::ondemand::queue::Effects;
use crate::ondemand::queue::Kind;
use crate::ondemand::queue::More;
use crate::ondemand::queue::Request;
use crate::ondemand::state::Awaited;
use crate::ondemand::state::Object;
use crate::ondemand::table::Table;
use alloc::boxed::Box;
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
    /// Every request there ever was, by label.
    pub ledger: BTreeMap<u64, Account>,
    /// Every object there ever was, by label.
    pub cookies: BTreeMap<u32, Cookie>,
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
    /// Open anonymous fds by object_id, with the places of their objects.
    pub fds: BTreeMap<u32, u32>,
    /// Who waits, or waited, for an opening.
    pub waiters: Vec<Waiter>,
    /// A thread of the daemon sleeps in `poll`. It does so whenever it can.
    pub asleep: bool,
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
        let forget_every = match fault {
            Fault::ForgetMark(every) => Some(every),
            _ => None,
        };
        Sim {
            table: Table::new(Places::new(forget_every), Places::new(None)),
            fault,
            next_msg: 0,
            clock: 0,
            next_place: 0,
            ledger: BTreeMap::new(),
            cookies: BTreeMap::new(),
            works: Vec::new(),
            pending: Vec::new(),
            deliveries: BTreeMap::new(),
            checks: Vec::new(),
            hand: Vec::new(),
            fds: BTreeMap::new(),
            waiters: Vec::new(),
            asleep: true,
            wakes: 0,
            opens_shown: 0,
            orphans: false,
            violation: None,
        }
    }

    /// Notes that a rule was broken; the first is kept.
    pub(super) fn violated(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    /// One hold of the lock, and what the caller does after it.
    pub(super) fn hold<R>(
        &mut self,
        call: impl FnOnce(&mut Table<Model>, &mut Effects<Model>) -> R,
    ) -> R {
        let mut fx = Effects::new();
        let result = call(&mut self.table, &mut fx);
        let mut woken = Vec::new();
        for effect in fx.drain() {
            match effect {
                Effect::Complete(request, outcome) => self.end(request.ticket, outcome),
                Effect::Expire(request, object) => self.expired(&request, object),
                Effect::WakeDaemon if self.fault == Fault::DropWake => {}
                Effect::WakeDaemon => {
                    self.asleep = false;
                    self.wakes += 1;
                }
                Effect::WakeObject(_) if self.fault == Fault::DropObjectWake => {}
                Effect::WakeObject(object) => woken.push(object),
                Effect::Reopen(_) if self.fault == Fault::DropReopen => {}
                Effect::Reopen(object) => self.works.push(object),
                Effect::Forget(entry) => self.forget(*entry.handle()),
            }
        }
        if let Some(more) = fx.take_more() {
            if self.fault != Fault::SkipResume {
                self.pending.push(more);
            }
        }
        self.poll();
        for object in woken {
            self.wake_waiters(object);
        }
        result
    }

    /// The daemon's poller: it must not sleep while a message is deliverable, unless the walk that
    /// found the message goes on and wakes it at its end. Then it goes back to sleep if it can.
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

    pub(super) fn end(&mut self, label: u64, outcome: Result<(), Errno>) {
        let again = match self.ledger.get_mut(&label) {
            Some(account) => account.outcome.replace(outcome).is_some(),
            None => true,
        };
        if again {
            self.violated(format!("request {label} ended twice"));
        }
    }

    fn expired(&mut self, request: &Request<Model>, object: u32) {
        let label = request.ticket;
        if self.ledger[&label].object != object {
            self.violated(format!("request {label} expired for object {object}"));
        }
        self.end(label, Err(Errno::ETIMEDOUT));
    }

    fn forget(&mut self, label: u32) {
        let Some(cookie) = self.cookies.get_mut(&label) else {
            self.violated(format!("unknown object {label} was forgotten"));
            return;
        };
        let again = core::mem::replace(&mut cookie.forgotten, true);
        let place = cookie.place;
        if again || !cookie.dropped {
            self.violated(format!("object {label} was forgotten twice or too early"));
        }
        if self.fds.values().any(|at| *at == place) {
            self.violated(format!("object {label} was forgotten with an fd open"));
        }
        if self.fault == Fault::ReusePlace {
            self.next_place = place;
        }
    }

    fn request(&mut self, kind: Kind, object: u32) -> (u64, Place, Box<Request<Model>>) {
        let size = match kind {
            Kind::Open => OPEN_SIZE,
            Kind::Close { .. } => CLOSE_SIZE,
            Kind::Read { .. } => READ_SIZE,
        };
        let label = self.ledger.len() as u64;
        let account = Account {
            kind,
            object,
            outcome: None,
        };
        self.ledger.insert(label, account);
        let taken = self.table.view_requests();
        let place = Place::reserve(&mut self.next_msg, |id| {
            taken.iter().any(|request| request.msg_id == id)
        });
        let mut request = Box::new(Request::new(kind, size, label));
        if !matches!(kind, Kind::Close { .. }) {
            self.clock += 1;
            request.due = Some(self.clock);
        }
        (label, place, request)
    }

    fn place_of(&self, object: u32) -> u32 {
        self.cookies[&object].place
    }

    /// fscache looks a cookie up. Tells the object's label, `None` if the cache is dead.
    pub fn admit(&mut self) -> Option<u32> {
        let label = u32::try_from(self.cookies.len()).ok()?;
        let taken = self.table.view_objects();
        let place = Place::reserve(&mut self.next_place, |id| {
            taken.iter().any(|object| object.place == id)
        });
        let object = Box::new(Object::new(label));
        let place = self
            .hold(|table, _| table.admit(place, object))
            .map_err(|(_, object)| assert_eq!(*object.handle(), label))
            .ok()?;
        self.works.push(label);
        let cookie = Cookie {
            place,
            dropped: false,
            forgotten: false,
        };
        self.cookies.insert(label, cookie);
        Some(label)
    }

    /// Runs the work at `index`: sends the OPEN, or with an error, finds no memory for it.
    pub fn work(&mut self, index: usize, memory: Result<(), Errno>) -> Result<u32, Errno> {
        let object = self.works.remove(index);
        let place = self.place_of(object);
        if let Err(errno) = memory {
            self.hold(|table, fx| table.abort_open(place, errno, fx));
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
        ) -> Result<u32, (Errno, Box<Request<Model>>)>,
    ) -> Result<u32, Errno> {
        match self.hold(call) {
            Ok(msg_id) => Ok(msg_id),
            Err((errno, request)) => {
                if request.ticket != label {
                    self.violated(format!("request {label} came back as another"));
                }
                self.end(label, Err(errno));
                Err(errno)
            }
        }
    }

    /// A signal kills the reader whose READ has this msg_id. `false`: it had ended already.
    pub fn cancel(&mut self, msg_id: u32) -> bool {
        match self.hold(|table, _| table.cancel(msg_id)) {
            Some(request) => {
                self.end(request.ticket, Err(Errno::EINTR));
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
        });
        let index = self.waiters.len() - 1;
        self.ask(index);
        index
    }

    fn ask(&mut self, index: usize) {
        let place = self.place_of(self.waiters[index].object);
        let mut seen = self.waiters[index].seen;
        let told = self.hold(|table, fx| table.await_open(place, &mut seen, fx));
        self.waiters[index].seen = seen;
        self.waiters[index].told = told;
    }

    fn wake_waiters(&mut self, object: u32) {
        for index in 0..self.waiters.len() {
            let waiter = &self.waiters[index];
            if waiter.object == object && waiter.told == Awaited::Pending {
                self.ask(index);
            }
        }
    }

    /// So much time passes that the oldest request is due, and no other. `false`: there is none.
    pub fn expire(&mut self) -> bool {
        let Some(now) = self.table.next_due() else {
            return false;
        };
        let next = self.hold(|table, fx| table.expire(now, fx));
        if next.is_some_and(|next| next <= now) {
            self.violated(format!("what was due at {now} is due at {next:?}"));
        }
        true
    }

    /// fscache withdraws the cookie. `true`: a CLOSE was queued.
    pub fn drop_object(&mut self, object: u32) -> bool {
        let place = self.place_of(object);
        if let Some(cookie) = self.cookies.get_mut(&object) {
            cookie.dropped = true;
        }
        let (label, number, request) = self.request(Kind::Close { object_id: 0 }, object);
        let close = Some((number, request));
        let unused = self.hold(|table, fx| table.drop_object(place, close, fx));
        if let Some((_, request)) = unused {
            if request.ticket != label {
                self.violated(format!("CLOSE {label} came back as another"));
            }
            self.end(label, Err(Errno::ECANCELED));
            return false;
        }
        true
    }

    /// The cache dies.
    pub fn flush(&mut self) {
        self.hold(|table, fx| table.flush(fx));
    }

    /// Goes on with the unfinished walk at `index`.
    pub fn resume(&mut self, index: usize) {
        let more = self.pending.remove(index);
        self.hold(|table, fx| table.resume(more, fx));
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
        self.hold(|table, fx| table.copen_finish(&opened, outcome, fx));
    }
}
