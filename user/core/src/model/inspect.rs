// SPDX-License-Identifier: MIT OR Apache-2.0

//! A window into the request table, for those who check it: what its fields hold, and copies of it.
//!
//! It lies below `ondemand` in the host crate only, since that is where the fields are visible. The
//! module is built without it.

use crate::model::places::Model;
use crate::ondemand::answer::Opened;
use crate::ondemand::delivery::Delivery;
use crate::ondemand::queue::Entry;
use crate::ondemand::queue::Env;
use crate::ondemand::queue::Kind;
use crate::ondemand::queue::Phase;
use crate::ondemand::queue::Request;
use crate::ondemand::state::Opening;
use crate::ondemand::state::State;
use crate::ondemand::table::Table;
use alloc::vec::Vec;
use core::num::NonZeroU32;

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
    /// Whether it is to be re-issued, when its fd closes or its delivery ends.
    pub reissue: bool,
    /// The object_id under which this READ can be answered.
    pub answerable: Option<u32>,
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

impl Table<Model> {
    /// The queue, by msg_id.
    pub fn view_requests(&self) -> Vec<RequestView<u64>> {
        self.requests
            .iter()
            .map(|(msg_id, marked, request)| RequestView {
                msg_id,
                kind: request.kind,
                phase: request.phase,
                object: request.object,
                reissue: request.reissue,
                answerable: request.answerable.map(NonZeroU32::get),
                marked,
                prev: request.prev,
                next: request.next,
                due: request.due,
                due_prev: request.due_prev,
                due_next: request.due_next,
                ticket: request.ticket,
            })
            .collect()
    }

    /// The objects, by place.
    pub fn view_objects(&self) -> Vec<ObjectView<u32>> {
        self.objects
            .iter()
            .map(|(place, _, object)| ObjectView {
                place,
                handle: object.handle,
                state: object.state,
                fd: object.fd,
                fds: object.fds,
                head: object.head,
                tail: object.tail,
                ready: object.ready,
                failures: object.failures,
                untold: object.untold,
            })
            .collect()
    }

    /// Whether two tables hold the same.
    pub fn view_equals(&self, other: &Self) -> bool {
        self.view_requests() == other.view_requests()
            && self.view_objects() == other.view_objects()
            && self.cursor == other.cursor
            && self.dead == other.dead
            && self.last_object_id == other.last_object_id
            && self.view_due() == other.view_due()
    }

    fn find(&self, msg_id: u32) -> Option<&Request<Model>> {
        let mut all = self.requests.iter();
        all.find(|(id, _, _)| *id == msg_id)
            .map(|(_, _, request)| request)
    }

    /// The numbers of the queue.
    pub fn view_numbers(&self) -> impl Iterator<Item = u32> + '_ {
        self.requests.iter().map(|(msg_id, _, _)| msg_id)
    }

    /// Whether there is a request with this number.
    pub fn view_is_queued(&self, msg_id: u32) -> bool {
        self.find(msg_id).is_some()
    }

    /// Whether the daemon has it under this object_id.
    pub fn view_waits(&self, msg_id: u32, object_id: u32) -> bool {
        self.find(msg_id)
            .is_some_and(|request| request.phase == Phase::Delivered { object_id })
    }

    /// Whether it is to be re-issued.
    pub fn view_is_reissued(&self, msg_id: u32) -> bool {
        self.find(msg_id).is_some_and(|request| request.reissue)
    }

    /// The place of a request's object.
    pub fn view_object_of(&self, msg_id: u32) -> Option<u32> {
        self.find(msg_id).map(|request| request.object)
    }

    /// Whether an object lies at this place.
    pub fn view_is_object(&self, place: u32) -> bool {
        self.view_state(place).is_some()
    }

    /// The state of the object at this place.
    pub fn view_state(&self, place: u32) -> Option<State> {
        let mut all = self.objects.iter();
        all.find(|(at, _, _)| *at == place)
            .map(|(_, _, object)| object.state)
    }

    /// Whether `copen` with this number answers an OPEN, as the protocol has it.
    pub fn view_takes_copen(&self, msg_id: u32) -> bool {
        self.find(msg_id).is_some_and(|request| {
            request.kind == Kind::Open
                && matches!(request.phase, Phase::Delivered { .. })
                && self.view_state(request.object)
                    == Some(State::Reopening(Opening::Pending { msg_id }))
        })
    }

    /// Whether READ_COMPLETE with this number on this fd answers a READ, as the protocol has it.
    pub fn view_takes_cread(&self, place: u32, object_id: u32, msg_id: u32) -> bool {
        self.find(msg_id).is_some_and(|request| {
            matches!(request.kind, Kind::Read { .. })
                && request.object == place
                && request.is_answerable(object_id)
        })
    }

    fn numbers_of(&self, wanted: impl Fn(&Request<Model>) -> bool) -> Vec<u32> {
        self.requests
            .iter()
            .filter(|(_, _, request)| wanted(request))
            .map(|(msg_id, _, _)| msg_id)
            .collect()
    }

    /// The READs that are held back for an object, or fail with its opening.
    pub fn view_held_back(&self, place: u32) -> Vec<u32> {
        self.numbers_of(|request| {
            request.object == place && matches!(request.phase, Phase::Parked | Phase::Failed(_))
        })
    }

    /// The READs that were delivered under this object_id.
    pub fn view_delivered_reads(&self, object_id: u32) -> Vec<u32> {
        self.numbers_of(|request| {
            matches!(request.kind, Kind::Read { .. })
                && request.phase == Phase::Delivered { object_id }
        })
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
        copy.dead = self.dead;
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
            answerable: self.answerable,
            prev: self.prev,
            next: self.next,
            due_prev: self.due_prev,
            due_next: self.due_next,
        }
    }
}

impl<E: Env> Clone for Entry<E> {
    fn clone(&self) -> Self {
        Entry {
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
