// SPDX-License-Identifier: MIT OR Apache-2.0

//! The part of the [`Reference`] where things end that no daemon ends: killed readers, deadlines,
//! withdrawals, the death of the cache.

use super::reference::Reference;
use super::reference::Request;
use super::reference::State;
use super::reference::What;
use ondemand_core::errno::Errno;
use ondemand_core::ondemand::state::Awaited;

impl Reference {
    /// A reader is killed. `true`: its READ had not been told an end.
    pub fn cancel(&mut self, msg_id: u32) -> bool {
        match self.find(msg_id) {
            Some(index) if self.requests[index].what == What::Read => {
                self.end(index, Err(Errno::EINTR));
                true
            }
            _ => false,
        }
    }

    /// Time passes until the first request is due. `false`: none will ever be.
    pub fn expire(&mut self) -> bool {
        let there = self.requests.iter().filter(|request| request.is_there());
        let Some(first) = there.filter_map(|request| request.due).min() else {
            return false;
        };
        let is_it = |request: &Request| request.is_there() && request.due == Some(first);
        for index in 0..self.requests.len() {
            if !is_it(&self.requests[index]) {
                continue;
            }
            self.end(index, Err(Errno::ETIMEDOUT));
            let object = self.requests[index].object;
            if self.objects[object].state == State::Opening(index) {
                self.fail(object, Errno::ETIMEDOUT);
                self.objects[object].untold = None;
            }
        }
        true
    }

    /// fscache withdraws a cookie. `true`: the daemon is asked to close its fd.
    pub fn withdraw(&mut self, object: usize, label: u64, msg_id: Option<u32>) -> bool {
        self.objects[object].state = State::Dropping;
        self.tell_waiters(object, Awaited::Failed(Errno::EIO));
        for index in self.of(object).collect::<Vec<_>>() {
            if self.requests[index].lives() {
                self.end(index, Err(Errno::EIO));
            }
        }
        let fd = self.objects[object].fd.filter(|_| !self.dead);
        let index = self.new_request(label, msg_id, object, What::Close(fd.unwrap_or(0)));
        if fd.is_none() {
            self.end(index, Err(Errno::ECANCELED));
        }
        fd.is_some()
    }

    /// The cache dies.
    pub fn flush(&mut self) {
        self.dead = true;
        for index in 0..self.requests.len() {
            if self.requests[index].lives() {
                self.end(index, Err(Errno::EIO));
            }
        }
        for object in 0..self.objects.len() {
            self.tell_waiters(object, Awaited::Failed(Errno::EIO));
        }
    }
}
