// SPDX-License-Identifier: MIT OR Apache-2.0

//! A window into the request table, for those who check it: what its fields hold, and copies of it.
//!
//! It lies below `ondemand` in the host crate only, since that is where the fields are visible. The
//! module is built without it.

use crate::ondemand::answer::Opened;
use crate::ondemand::delivery::Delivery;
use crate::ondemand::queue::Effects;
use crate::ondemand::queue::Env;
use crate::ondemand::queue::Kind;
use crate::ondemand::queue::Phase;
use crate::ondemand::queue::Request;
use crate::ondemand::queue::Slots;
use crate::ondemand::state::Object;
use crate::ondemand::state::State;
use crate::ondemand::table::Table;
use alloc::vec::Vec;

/// A request as it lies in the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestView<T> {
    /// Its number.
    pub msg_id: u32,
    /// What is asked.
    pub kind: Kind,
    /// Where it is on its way.
    pub phase: Phase,
    /// The object's place.
    pub object: u32,
    /// Whether it is to be re-issued when its fd closes.
    pub reissue: bool,
    /// Whether its place is marked.
    pub marked: bool,
    /// Its neighbours in the object's list.
    pub prev: Option<u32>,
    /// See `prev`.
    pub next: Option<u32>,
    /// When it is due.
    pub due: Option<u64>,
    /// Its neighbours among the requests with a deadline.
    pub due_prev: Option<u32>,
    /// See `due_prev`.
    pub due_next: Option<u32>,
    /// Who waits.
    pub ticket: T,
}

/// An object as the table knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ObjectView<H> {
    /// Its place.
    pub place: u32,
    /// The reference that the table was given.
    pub handle: H,
    /// Its state.
    pub state: State,
    /// The newest anonymous fd, while that is open.
    pub fd: Option<u32>,
    /// Open anonymous fds.
    pub fds: u32,
    /// The ends of its list of requests.
    pub head: Option<u32>,
    /// See `head`.
    pub tail: Option<u32>,
    /// Whether it has been open.
    pub ready: bool,
    /// Openings that failed.
    pub failures: u32,
    /// Whether a failure waits to be told.
    pub untold: bool,
}

impl<E: Env> Table<E>
where
    E::Ticket: Clone,
{
    /// The queue, by msg_id.
    pub fn view_requests(&mut self) -> Vec<RequestView<E::Ticket>> {
        let mut views = Vec::new();
        let mut at = self.requests.first(0);
        while let Some(msg_id) = at {
            let marked = self.requests.first_marked(msg_id, msg_id) == Some(msg_id);
            if let Some(request) = self.requests.get(msg_id) {
                views.push(RequestView {
                    msg_id,
                    kind: request.kind,
                    phase: request.phase,
                    object: request.object,
                    reissue: request.reissue,
                    marked,
                    prev: request.prev,
                    next: request.next,
                    due: request.due,
                    due_prev: request.due_prev,
                    due_next: request.due_next,
                    ticket: request.ticket.clone(),
                });
            }
            at = msg_id
                .checked_add(1)
                .and_then(|next| self.requests.first(next));
        }
        views
    }

    /// The objects, by place.
    pub fn view_objects(&mut self) -> Vec<ObjectView<E::Handle>> {
        let mut views = Vec::new();
        let mut at = self.objects.first(0);
        while let Some(place) = at {
            if let Some(object) = self.objects.get(place) {
                views.push(ObjectView {
                    place,
                    handle: object.handle.clone(),
                    state: object.state,
                    fd: object.fd,
                    fds: object.fds,
                    head: object.head,
                    tail: object.tail,
                    ready: object.ready,
                    failures: object.failures,
                    untold: object.untold,
                });
            }
            at = place
                .checked_add(1)
                .and_then(|next| self.objects.first(next));
        }
        views
    }

    /// The ends of the list of requests with a deadline.
    pub fn view_due(&self) -> (Option<u32>, Option<u32>) {
        (self.first_due, self.last_due)
    }

    /// Where the search for the next message begins.
    pub fn view_cursor(&self) -> u32 {
        self.cursor
    }

    /// Lets the object_id that the next OPEN gets follow `last`.
    pub fn set_last_object_id(&mut self, last: u32) {
        self.last_object_id = last;
    }
}

impl<E: Env> Clone for Table<E>
where
    E::Requests: Clone,
    E::Objects: Clone,
{
    fn clone(&self) -> Self {
        let mut copy = Table::new(self.requests.clone(), self.objects.clone());
        copy.cursor = self.cursor;
        copy.last_object_id = self.last_object_id;
        (copy.first_due, copy.last_due) = (self.first_due, self.last_due);
        if self.is_dead() {
            // Sets the flag; what it leaves to do is left to the original's caller.
            copy.flush(&mut Effects::new());
        }
        copy
    }
}

impl<E: Env> Clone for Request<E>
where
    E::Ticket: Clone,
{
    fn clone(&self) -> Self {
        Request {
            kind: self.kind,
            size: self.size,
            ticket: self.ticket.clone(),
            due: self.due,
            object: self.object,
            phase: self.phase,
            msg_id: self.msg_id,
            reissue: self.reissue,
            prev: self.prev,
            next: self.next,
            due_prev: self.due_prev,
            due_next: self.due_next,
        }
    }
}

impl<E: Env> Clone for Object<E> {
    fn clone(&self) -> Self {
        Object {
            handle: self.handle.clone(),
            state: self.state,
            fd: self.fd,
            fds: self.fds,
            head: self.head,
            tail: self.tail,
            ready: self.ready,
            failures: self.failures,
            error: self.error,
            untold: self.untold,
        }
    }
}

impl<E: Env> Clone for Delivery<E> {
    fn clone(&self) -> Self {
        Delivery {
            msg_id: self.msg_id,
            object_id: self.object_id,
            kind: self.kind,
            object: self.object,
            handle: self.handle.clone(),
        }
    }
}

impl<E: Env> Clone for Opened<E> {
    fn clone(&self) -> Self {
        Opened {
            object: self.object,
            handle: self.handle.clone(),
            object_id: self.object_id,
        }
    }
}
