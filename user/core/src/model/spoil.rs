// SPDX-License-Identifier: MIT OR Apache-2.0

//! Ways to spoil a request table, for those who show that the checks would notice.
//!
//! Like `inspect` it lies below `ondemand` in the host crate only: there it can do to the table what a
//! wrong line in the table's own files would.

use crate::model::places::Inline;
use crate::model::places::Model;
use crate::model::places::Place;
use crate::ondemand::queue::Entry;
use crate::ondemand::queue::Kind;
use crate::ondemand::queue::Phase;
use crate::ondemand::queue::Request;
use crate::ondemand::queue::Slots;
use crate::ondemand::state::Opening;
use crate::ondemand::state::State;
use crate::ondemand::table::Table;
use alloc::vec::Vec;
use core::num::NonZeroU32;

impl Table<Model> {
    /// Queues a request again that was handed out.
    pub fn spoil_put_request_back(&mut self, request: Inline<Request<Model>>) {
        let (msg_id, object) = (request.msg_id, request.object);
        let mut cursor = msg_id;
        let place = Place::reserve(&mut cursor, |_| false);
        self.publish(object, place, request);
    }

    /// Puts an object's entry back that was handed out.
    pub fn spoil_put_object_back(&mut self, place: u32, entry: Inline<Entry<Model>>) {
        let mut cursor = place;
        let place = Place::reserve(&mut cursor, |_| false);
        self.objects.publish(place, entry);
    }

    /// Counts a request as delivered under this object_id.
    pub fn spoil_deliver(&mut self, msg_id: u32, object_id: u32) {
        if let Some(request) = self.requests.get(msg_id) {
            request.phase = Phase::Delivered { object_id };
            request.answerable = NonZeroU32::new(object_id);
            self.requests.mark(msg_id, false);
        }
    }

    /// Holds these READs back again and has their object opened; tells its label.
    pub fn spoil_reopen(&mut self, place: u32, held_back: &[u32]) -> Option<u32> {
        for msg_id in held_back {
            if let Some(request) = self.requests.get(*msg_id) {
                request.phase = Phase::Parked;
            }
        }
        let object = self.objects.get(place)?;
        object.state = State::Reopening(Opening::Queued);
        Some(*object.handle())
    }

    /// Takes back what `restore` has done for READs.
    pub fn spoil_restored_reads(&mut self) {
        for request in self.view_requests() {
            let Some(object_id) = request.answerable else {
                continue;
            };
            if request.phase == Phase::New {
                self.spoil_deliver(request.msg_id, object_id);
            }
        }
        self.spoil_restored_deliveries();
    }

    /// Takes back what `restore` has noted about READs that are being delivered.
    pub fn spoil_restored_deliveries(&mut self) {
        for msg_id in self.view_numbers().collect::<Vec<u32>>() {
            if let Some(request) = self.requests.get(msg_id) {
                if matches!(request.kind, Kind::Read { .. }) {
                    request.reissue = false;
                }
            }
        }
    }

    /// Takes the right to answer from READs that are deliverable again.
    pub fn spoil_answers(&mut self) {
        for request in self.view_requests() {
            if request.phase == Phase::New {
                if let Some(request) = self.requests.get(request.msg_id) {
                    request.answerable = None;
                }
            }
        }
    }

    /// Makes a READ deliverable again.
    pub fn spoil_renew(&mut self, msg_id: u32) {
        self.renew(msg_id);
    }

    /// Makes every OPEN deliverable again that was delivered.
    pub fn spoil_reissue(&mut self) {
        let delivered: Vec<u32> = self
            .requests
            .iter()
            .filter(|(msg_id, _, _)| self.view_takes_copen(*msg_id))
            .map(|(msg_id, _, _)| msg_id)
            .collect();
        for msg_id in delivered {
            self.renew(msg_id);
        }
    }
}
