// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What the request table stands on: places that are reserved before the lock and filled under
//! it, the requests and objects that lie in them, and the effects that a transition hands to its caller.
//!
//! The kernel backs [`Slots`] with an xarray (`ondemand/places.rs`), the tests with a `BTreeMap`.

use crate::errno::Errno;
use crate::ondemand::state::Opening;
use crate::ondemand::state::State;
use core::num::NonZeroU32;
use core::ops::DerefMut;

/// Numbered places for values of type `T`, with one mark a place.
///
/// A place is reserved first, which may allocate and sleep and happens outside the table's lock;
/// [`Slots::publish`] then cannot fail. Places are handed out in turn: one that was freed is not
/// used again soon, so that what comes late for its last owner does not meet the next one.
pub trait Slots<T> {
    /// A place that nobody else can take. Dropping it gives the place back.
    type Reservation;
    /// A value on the heap.
    type Owned: DerefMut<Target = T>;

    /// Puts `value` into the reserved place, unmarked, and tells the place's number.
    fn publish(&mut self, place: Self::Reservation, value: Self::Owned) -> u32;
    /// The value at `id`, unless the place is free or only reserved.
    fn get(&mut self, id: u32) -> Option<&mut T>;
    /// Takes the value out and frees the place.
    fn take(&mut self, id: u32) -> Option<Self::Owned>;
    /// Sets (`true`) or clears the mark of a published value.
    fn mark(&mut self, id: u32, on: bool);
    /// The lowest marked place in `from..=to`.
    fn first_marked(&self, from: u32, to: u32) -> Option<u32>;
    /// Whether any place is marked.
    fn any_marked(&self) -> bool;
    /// The lowest published place at or above `from`.
    fn first(&self, from: u32) -> Option<u32>;
}

/// What surrounds a table: who waits for requests, what an object is, where both are kept.
pub trait Env: Sized {
    /// Tells the one who waits for a request; handed back when the request ends.
    type Ticket;
    /// A counted reference to an object.
    type Handle: Clone;
    /// Where requests are kept; the place's number is the msg_id, a mark means deliverable.
    type Requests: Slots<Request<Self>>;
    /// Where objects are kept.
    type Objects: Slots<Entry<Self>>;

    /// Told of every change of state. Called under the table's lock: must not sleep.
    fn state_changed(_object: &Self::Handle, _from: State, _to: State) {}
}

/// A place for a request that is not filled yet.
pub type RequestPlace<E> = <<E as Env>::Requests as Slots<Request<E>>>::Reservation;
/// A request on the heap.
pub type OwnedRequest<E> = <<E as Env>::Requests as Slots<Request<E>>>::Owned;
/// A place for an object that is not filled yet.
pub type ObjectPlace<E> = <<E as Env>::Objects as Slots<Entry<E>>>::Reservation;
/// An object's entry on the heap.
pub type OwnedObject<E> = <<E as Env>::Objects as Slots<Entry<E>>>::Owned;

/// What a request asks of the daemon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Open the blob behind an object; answered with `copen`.
    Open,
    /// Close the anonymous fd that carries this object_id; not answered.
    Close {
        /// Which anonymous fd.
        object_id: u32,
    },
    /// Fill a range of bytes; answered with the READ_COMPLETE ioctl.
    Read {
        /// First byte.
        off: u64,
        /// Number of bytes.
        len: u64,
    },
}

/// Where a request is on its way to the daemon and back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Deliverable: the only phase in which its place is marked.
    New,
    /// A READ that waits for its object to be open again.
    Parked,
    /// A `read` of the device is copying it out under this object_id.
    InDelivery {
        /// The object_id that the message carries.
        object_id: u32,
    },
    /// The daemon has it, under this object_id.
    Delivered {
        /// The object_id that the message carried.
        object_id: u32,
    },
    /// It has ended with this error and waits to be handed out.
    Failed(Errno),
}

/// One entry of the request queue.
pub struct Request<E: Env> {
    /// What is asked.
    pub kind: Kind,
    /// Bytes that the message takes in the daemon's buffer.
    pub size: usize,
    /// Who waits.
    pub ticket: E::Ticket,
    /// When it ends unanswered, on the caller's clock; set before it is queued. `None`: never.
    pub due: Option<u64>,
    pub(super) msg_id: u32,
    pub(super) object: u32,
    pub(super) phase: Phase,
    /// `restore` was written and could not make this deliverable at once: an OPEN becomes so when
    /// the fd that it was delivered with closes, a READ when its delivery ends.
    pub(super) reissue: bool,
    /// The object_id under which this READ was delivered, while it can be answered under it:
    /// `restore` may have made it deliverable again since.
    pub(super) answerable: Option<NonZeroU32>,
    pub(super) prev: Option<u32>,
    pub(super) next: Option<u32>,
    /// Its neighbours among the requests with a deadline.
    pub(super) due_prev: Option<u32>,
    pub(super) due_next: Option<u32>,
}

impl<E: Env> Request<E> {
    /// A request that is in no table yet.
    pub fn new(kind: Kind, size: usize, ticket: E::Ticket) -> Self {
        Request {
            kind,
            size,
            ticket,
            due: None,
            msg_id: 0,
            object: 0,
            phase: Phase::Parked,
            reissue: false,
            answerable: None,
            prev: None,
            next: None,
            due_prev: None,
            due_next: None,
        }
    }

    /// Whether it is a READ that was delivered under this object_id, and can be answered under it.
    pub(super) fn is_answerable(&self, object_id: u32) -> bool {
        self.answerable.is_some_and(|id| id.get() == object_id)
    }

    /// Its number in the queue; 0 before it was in one.
    pub fn msg_id(&self) -> u32 {
        self.msg_id
    }

    /// The object_id that it was last delivered under; 0 if it was not delivered.
    pub fn object_id(&self) -> u32 {
        match self.phase {
            Phase::InDelivery { object_id } | Phase::Delivered { object_id } => object_id,
            _ => self.answerable.map_or(0, NonZeroU32::get),
        }
    }
}

/// What the table knows of an object. All fields are protected by the table's lock.
pub struct Entry<E: Env> {
    pub(super) handle: E::Handle,
    pub(super) state: State,
    /// The object_id of the newest anonymous fd, while that fd is open.
    pub(super) fd: Option<u32>,
    /// Open anonymous fds, the newest and older ones that an error answer left behind.
    pub(super) fds: u32,
    /// Its requests, oldest first.
    pub(super) head: Option<u32>,
    pub(super) tail: Option<u32>,
    /// It has been open once: its size is known and its file was checked.
    pub(super) ready: bool,
    /// Openings that failed, wrapping. Whoever waits for an opening compares it.
    pub(super) failures: u32,
    /// Why the latest opening failed.
    pub(super) error: Errno,
    /// The first opening failed and nobody has been told yet.
    pub(super) untold: bool,
}

impl<E: Env> Entry<E> {
    /// An object whose first OPEN is about to be sent.
    pub fn new(handle: E::Handle) -> Self {
        Entry {
            handle,
            state: State::Reopening(Opening::Queued),
            fd: None,
            fds: 0,
            head: None,
            tail: None,
            ready: false,
            failures: 0,
            error: Errno::EIO,
            untold: false,
        }
    }

    /// The reference that the table was given.
    pub fn handle(&self) -> &E::Handle {
        &self.handle
    }

    pub(super) fn set_state(&mut self, to: State) {
        let from = core::mem::replace(&mut self.state, to);
        if from.number() != to.number() {
            E::state_changed(&self.handle, from, to);
        }
    }

    pub(super) fn open_id(&self) -> Option<u32> {
        match self.state {
            State::Open { object_id } => Some(object_id),
            _ => None,
        }
    }
}

/// What the caller has to do once it has dropped the table's lock.
pub enum Effect<E: Env> {
    /// Tell the waiter that its request has ended, then drop it.
    Complete(OwnedRequest<E>, Result<(), Errno>),
    /// The same with `ETIMEDOUT`: nobody has answered this request for this object in time.
    Expire(OwnedRequest<E>, E::Handle),
    /// A message has become deliverable: wake one thread that reads or polls the device.
    WakeDaemon,
    /// The outcome of an opening is known: wake those who wait for this object to be open.
    WakeObject(E::Handle),
    /// Send this object's OPEN: queue its reopen work.
    Reopen(E::Handle),
    /// The object's last trace in the table; drop it.
    Forget(OwnedObject<E>),
}

/// Work that one hold of the lock did not finish; the state is final already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum More {
    /// Hand out what failed with this object's opening.
    Reap(u32),
    /// Hand out all requests of this dropped object.
    Drop(u32),
    /// Make the requests from this number on deliverable again.
    Restore(u32),
    /// Hand out every request of a dead cache.
    Flush,
    /// Wake those who wait for the objects from this place on.
    WakeAll(u32),
}

/// A fixed list of effects. A method of the table adds at most [`Effects::CAPACITY`]; what does
/// not fit is left as [`More`].
pub struct Effects<E: Env> {
    list: [Option<Effect<E>>; 16],
    len: usize,
    more: Option<More>,
}

impl<E: Env> Default for Effects<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E: Env> Effects<E> {
    /// How many effects fit.
    pub const CAPACITY: usize = 16;
    /// How many a loop may add and leave space for what follows it.
    pub(super) const BATCH: usize = Self::CAPACITY - 4;

    /// No effects.
    pub fn new() -> Self {
        Effects {
            list: [const { None }; 16],
            len: 0,
            more: None,
        }
    }

    pub(super) fn push(&mut self, effect: Effect<E>) {
        self.list[self.len] = Some(effect);
        self.len += 1;
    }

    pub(super) fn set_more(&mut self, more: More) {
        self.more = Some(more);
    }

    /// Takes the effects out, oldest first. Call it without the lock: dropping an effect may free
    /// memory.
    pub fn drain(&mut self) -> impl Iterator<Item = Effect<E>> + '_ {
        let len = core::mem::replace(&mut self.len, 0);
        self.list[..len].iter_mut().filter_map(Option::take)
    }

    /// Takes what is left to do, for [`Table::resume`](crate::ondemand::table::Table::resume).
    pub fn take_more(&mut self) -> Option<More> {
        self.more.take()
    }
}
