// SPDX-License-Identifier: MIT OR Apache-2.0

//! The part of the [`Reference`] that the daemon sees: reading the device, answers, fds, `restore`.

use super::reference::Begins;
use super::reference::Copy;
use super::reference::Outcome;
use super::reference::Reference;
use super::reference::Stage;
use super::reference::State;
use super::reference::What;
use core::ops::RangeInclusive;
use ondemand_core::errno::Errno;
use ondemand_core::ondemand::state::Awaited;

impl Reference {
    /// A thread reads the device with a buffer that holds what `fits` says.
    pub fn begin(&mut self, thread: u8, fits: impl Fn(What) -> bool) -> Begins {
        let waiting = self.deliverable();
        let later = waiting.iter().find(|msg_id| **msg_id >= self.turn);
        let Some(msg_id) = later.or(waiting.first()).copied() else {
            return Begins::Nothing;
        };
        self.turn = msg_id.wrapping_add(1);
        let Some(index) = self.find(msg_id) else {
            return Begins::Nothing;
        };
        let request = &self.requests[index];
        if !fits(request.what) {
            return Begins::TooSmall;
        }
        let object_id = match (request.what, self.objects[request.object].state) {
            (What::Open, _) => {
                self.last_object_id = self.last_object_id.checked_add(1).unwrap_or(1);
                self.last_object_id
            }
            (What::Close(object_id), _) | (What::Read, State::Open(object_id)) => object_id,
            (What::Read, _) => 0,
        };
        self.requests[index].stage = Stage::Copying(object_id);
        self.copies.push(Copy {
            thread,
            request: index,
            object_id,
            died: false,
        });
        Begins::Message(msg_id, object_id)
    }

    /// A thread's message is copied out (`ok`), or cannot be. `true`: it is shown to the daemon.
    pub fn copied(&mut self, thread: u8, ok: bool) -> bool {
        let Some(at) = self.copies.iter().position(|copy| copy.thread == thread) else {
            return false;
        };
        let Copy {
            request: index,
            object_id,
            died,
            ..
        } = self.copies.remove(at);
        let request = &self.requests[index];
        let (what, object) = (request.what, request.object);
        if !request.is_there() || request.stage != Stage::Copying(object_id) {
            return false;
        }
        let open = self.objects[object].state == State::Open(object_id);
        match what {
            What::Read if ok && open => {
                let request = &mut self.requests[index];
                request.sent = Some(object_id);
                request.stage = match core::mem::take(&mut request.again) {
                    true => Stage::Waiting,
                    false => Stage::Asked(object_id),
                };
            }
            What::Read => {
                let served = matches!(self.objects[object].state, State::Open(_));
                let request = &mut self.requests[index];
                request.again = false;
                request.stage = if served { Stage::Waiting } else { Stage::Held };
                if !open {
                    request.sent = None;
                }
                if !served {
                    self.want(object);
                }
                return false;
            }
            _ if !ok => {
                self.requests[index].stage = Stage::Waiting;
                self.requests[index].again = false;
                return false;
            }
            What::Open if self.objects[object].state == State::Dropping => return false,
            What::Open => {
                self.requests[index].stage = Stage::Asked(object_id);
                self.objects[object].fd = Some(object_id);
                self.fds.push((object_id, object));
                if died {
                    self.close(object_id);
                }
            }
            What::Close(_) => self.end(index, Ok(())),
        }
        true
    }

    /// `copen`.
    ///
    /// # Errors
    ///
    /// The daemon is told so.
    pub fn copen(&mut self, msg_id: u32, answer: Outcome) -> Outcome {
        let index = self.find(msg_id).ok_or(Errno::EINVAL)?;
        let request = &self.requests[index];
        let object = request.object;
        let Stage::Asked(object_id) = request.stage else {
            return Err(Errno::EINVAL);
        };
        if self.objects[object].state != State::Opening(index) {
            return Err(Errno::EINVAL);
        }
        let closed = self.objects[object].fd != Some(object_id);
        let outcome = match answer {
            Ok(()) if closed => Err(Errno::EBADFD),
            answer => answer,
        };
        self.end(index, outcome);
        match outcome {
            Ok(()) => {
                self.objects[object].state = State::Checking;
                self.checks.push((object, object_id));
            }
            Err(errno) => self.fail(object, errno),
        }
        answer
            .and(outcome)
            .or(if answer.is_err() { Ok(()) } else { outcome })
    }

    /// A file has been checked.
    pub fn checked(&mut self, at: usize, outcome: Outcome) {
        let (object, object_id) = self.checks.remove(at);
        if self.objects[object].state != State::Checking {
            return;
        }
        if let Err(errno) = outcome {
            return self.fail(object, errno);
        }
        self.objects[object].ready = true;
        self.objects[object].untold = None;
        self.tell_waiters(object, Awaited::Ready);
        if self.objects[object].fd != Some(object_id) {
            return self.lose(object);
        }
        self.objects[object].state = State::Open(object_id);
        for request in &mut self.requests {
            if request.object == object && request.lives() && request.stage == Stage::Held {
                request.stage = Stage::Waiting;
            }
        }
    }

    /// READ_COMPLETE on an open anonymous fd.
    ///
    /// # Errors
    ///
    /// The daemon is told so.
    pub fn complete(&mut self, object_id: u32, msg_id: u32) -> Outcome {
        let object = self.fds.iter().find(|(id, _)| *id == object_id);
        let index = self.find(msg_id).ok_or(Errno::EINVAL)?;
        let request = &self.requests[index];
        if request.what != What::Read
            || request.sent != Some(object_id)
            || object.map(|(_, object)| *object) != Some(request.object)
        {
            return Err(Errno::EINVAL);
        }
        self.end(index, Ok(()));
        Ok(())
    }

    /// An anonymous fd is closed for good.
    pub fn close(&mut self, object_id: u32) {
        let Some(at) = self.fds.iter().position(|(id, _)| *id == object_id) else {
            return;
        };
        let (_, object) = self.fds.remove(at);
        let newest = self.objects[object].fd == Some(object_id);
        if newest {
            self.objects[object].fd = None;
        }
        match self.objects[object].state {
            State::Dropping => {
                for index in self.of(object).collect::<Vec<_>>() {
                    if self.requests[index].lives()
                        && self.requests[index].what == What::Close(object_id)
                    {
                        self.end(index, Ok(()));
                    }
                }
            }
            State::Open(_) if newest => {
                for request in &mut self.requests {
                    let held = matches!(request.stage, Stage::Waiting | Stage::Asked(_));
                    if request.object == object && request.lives() && held {
                        request.stage = Stage::Held;
                        request.sent = None;
                        request.again = false;
                    }
                }
                self.lose(object);
            }
            State::Opening(index) if newest => {
                let request = &mut self.requests[index];
                if request.again && request.stage == Stage::Asked(object_id) {
                    request.stage = Stage::Waiting;
                    request.again = false;
                }
            }
            _ => {}
        }
    }

    /// One hold of the lock of `restore`: it looks at the requests with these numbers.
    pub fn restore(&mut self, msg_ids: RangeInclusive<u32>) {
        for index in 0..self.requests.len() {
            let request = &self.requests[index];
            if !request
                .msg_id
                .is_some_and(|msg_id| msg_ids.contains(&msg_id))
            {
                continue;
            }
            let object = &self.objects[request.object];
            if !request.lives() || object.state == State::Dropping {
                continue;
            }
            let now = match (request.what, request.stage) {
                (What::Read, Stage::Asked(_)) => true,
                (What::Open, Stage::Asked(object_id)) => object.fd != Some(object_id),
                (What::Read | What::Open, Stage::Copying(_)) => false,
                _ => continue,
            };
            let request = &mut self.requests[index];
            request.again = !now;
            if now {
                request.stage = Stage::Waiting;
            }
        }
    }

    /// The daemon dies: its fds are closed, and what it is reading is lost. With `keep`, those of
    /// answered OPENs stay open.
    pub fn crash(&mut self, keep: bool) {
        for copy in &mut self.copies {
            copy.died = true;
        }
        let mut open: Vec<u32> = self
            .fds
            .iter()
            .filter(|(object_id, object)| {
                !keep || self.objects[*object].state != State::Open(*object_id)
            })
            .map(|(object_id, _)| *object_id)
            .collect();
        open.sort_unstable();
        for object_id in open {
            self.close(object_id);
        }
    }
}
