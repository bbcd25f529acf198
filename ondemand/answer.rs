// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Answers: what the daemon does with what it was sent, and the end of its anonymous fds.
//!
//! A request that was answered badly still ends, once; the table in `docs/protocol.md`, "Wrong
//! answers", says what the writer, the reader and the object get in each case.

use crate::errno::Errno;
use crate::ondemand::queue::Effect;
use crate::ondemand::queue::Effects;
use crate::ondemand::queue::Env;
use crate::ondemand::queue::Kind;
use crate::ondemand::queue::Phase;
use crate::ondemand::queue::Slots;
use crate::ondemand::state::Opening;
use crate::ondemand::state::State;
use crate::ondemand::table::Table;

/// An OPEN that was answered with a size: check the file against it, then tell the outcome with
/// [`Table::copen_finish`].
pub struct Opened<E: Env> {
    /// The object's place in the table.
    pub object: u32,
    /// The object.
    pub handle: E::Handle,
    /// The object_id of the fd that the answer stands for.
    pub object_id: u32,
}

impl<E: Env> Table<E> {
    /// The object_id that a request was delivered under; 0 if there is no such request.
    pub fn delivered_as(&mut self, msg_id: u32) -> u32 {
        self.requests
            .get(msg_id)
            .map_or(0, |request| request.object_id())
    }

    /// `copen`: the answer to a delivered OPEN, a size (`Ok`) or the daemon's error.
    ///
    /// With `Ok(Some)` the object stays `Reopening` until [`Table::copen_finish`].
    ///
    /// # Errors
    ///
    /// `EINVAL` if `msg_id` is no OPEN that the daemon holds: unknown, stale, another opcode's,
    /// still being delivered, or its object is being dropped; nothing changes then. `EBADFD` if
    /// the fd of that OPEN was closed before a size was told; the OPEN ends with that error then.
    pub fn copen(
        &mut self,
        msg_id: u32,
        answer: Result<(), Errno>,
        fx: &mut Effects<E>,
    ) -> Result<Option<Opened<E>>, Errno> {
        let (object, object_id) = match self.requests.get(msg_id) {
            Some(request) if request.kind == Kind::Open => match request.phase {
                Phase::Delivered { object_id } => (request.object, object_id),
                _ => return Err(Errno::EINVAL),
            },
            _ => return Err(Errno::EINVAL),
        };
        let fd = match self.objects.get(object) {
            Some(entry) if entry.state == State::Reopening(Opening::Pending { msg_id }) => entry.fd,
            // The object is being dropped, and the drop is about to take this OPEN out.
            _ => return Err(Errno::EINVAL),
        };
        let outcome = match answer {
            Ok(()) if fd != Some(object_id) => Err(Errno::EBADFD),
            answer => answer,
        };
        let request = self.take(msg_id).ok_or(Errno::EINVAL)?;
        fx.push(Effect::Complete(request, outcome));
        if let Err(errno) = outcome {
            self.fail_opening(object, errno, fx);
            return if answer.is_ok() { Err(errno) } else { Ok(None) };
        }

        let entry = self.objects.get(object).ok_or(Errno::EINVAL)?;
        entry.set_state(State::Reopening(Opening::Validating));
        let handle = entry.handle.clone();
        Ok(Some(Opened {
            object,
            handle,
            object_id,
        }))
    }

    /// The outcome of checking the file behind an OPEN that was answered with a size.
    ///
    /// On success what was parked becomes deliverable; if the fd was closed while the file was
    /// being checked, the object is reopened for what waits, else it is closed.
    pub fn copen_finish(
        &mut self,
        opened: &Opened<E>,
        outcome: Result<(), Errno>,
        fx: &mut Effects<E>,
    ) {
        let object = opened.object;
        let Some(entry) = self.objects.get(object) else {
            return;
        };
        if entry.state != State::Reopening(Opening::Validating) {
            return;
        }
        if let Err(errno) = outcome {
            self.fail_opening(object, errno, fx);
            return;
        }
        entry.ready = true;
        entry.untold = false;
        fx.push(Effect::WakeObject(entry.handle.clone()));
        if entry.fd != Some(opened.object_id) {
            self.close_object(object, fx);
            return;
        }
        entry.set_state(State::Open {
            object_id: opened.object_id,
        });

        let mut at = entry.head;
        while let Some(msg_id) = at {
            let Some(request) = self.requests.get(msg_id) else {
                break;
            };
            at = request.next;
            if request.phase == Phase::Parked {
                self.renew(msg_id);
            }
        }
        if self.readable() {
            fx.push(Effect::WakeDaemon);
        }
    }

    /// READ_COMPLETE on the anonymous fd `object_id` of an object: the daemon has written what it
    /// could. The reader looks for itself what is there.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `msg_id` is no READ that was delivered for this very fd; nothing changes. One that
    /// `restore` has made deliverable again was delivered: the first answer counts.
    pub fn read_complete(
        &mut self,
        object: u32,
        object_id: u32,
        msg_id: u32,
        fx: &mut Effects<E>,
    ) -> Result<(), Errno> {
        match self.requests.get(msg_id) {
            Some(request)
                if matches!(request.kind, Kind::Read { .. })
                    && request.object == object
                    && request.is_answerable(object_id) => {}
            _ => return Err(Errno::EINVAL),
        }
        let request = self.take(msg_id).ok_or(Errno::EINVAL)?;
        fx.push(Effect::Complete(request, Ok(())));
        Ok(())
    }

    /// The anonymous fd `object_id` was closed for good: by the daemon or by its death.
    ///
    /// READs that were deliverable or delivered are parked and the object is reopened for them. A
    /// delivered OPEN stays with its msg_id, because daemons close the fd and then answer
    /// `copen id,-2`; it becomes deliverable again with the next `restore`, or now if `restore`
    /// was written while the fd was open.
    pub fn fd_closed(&mut self, object: u32, object_id: u32, fx: &mut Effects<E>) {
        let Some(entry) = self.objects.get(object) else {
            return;
        };
        entry.fds -= 1;
        let current = entry.fd == Some(object_id);
        if current {
            entry.fd = None;
        }
        match entry.state {
            State::Dropping => {
                self.withdraw_close(object, object_id, fx);
                self.forget_if_done(object, fx);
            }
            State::Open { .. } if current => {
                self.park_reads(object);
                self.close_object(object, fx);
            }
            State::Reopening(Opening::Pending { msg_id }) if current => {
                let reissue = match self.requests.get(msg_id) {
                    Some(request) => {
                        request.reissue && request.phase == Phase::Delivered { object_id }
                    }
                    None => false,
                };
                if reissue {
                    self.renew(msg_id);
                    fx.push(Effect::WakeDaemon);
                }
            }
            _ => {}
        }
    }

    /// Holds a READ back until its object is open again: nobody can answer it.
    pub(super) fn park(&mut self, msg_id: u32) {
        if let Some(request) = self.requests.get(msg_id) {
            request.phase = Phase::Parked;
            request.answerable = None;
            request.reissue = false;
            self.requests.mark(msg_id, false);
        }
    }

    /// Parks the READs that can no longer be answered; one in delivery is seen to when its
    /// delivery ends.
    fn park_reads(&mut self, object: u32) {
        let mut at = self.objects.get(object).and_then(|entry| entry.head);
        while let Some(msg_id) = at {
            let Some(request) = self.requests.get(msg_id) else {
                break;
            };
            at = request.next;
            if matches!(request.phase, Phase::New | Phase::Delivered { .. }) {
                self.park(msg_id);
            }
        }
    }

    /// The object has lost its fd: it is closed, and reopened at once if something waits for it.
    fn close_object(&mut self, object: u32, fx: &mut Effects<E>) {
        let Some(entry) = self.objects.get(object) else {
            return;
        };
        entry.set_state(State::Close);
        if entry.head.is_some() {
            self.want_open(object, fx);
        }
    }

    /// The fd that a CLOSE asks for is closed: the CLOSE has nothing left to ask.
    fn withdraw_close(&mut self, object: u32, object_id: u32, fx: &mut Effects<E>) {
        let mut at = self.objects.get(object).and_then(|entry| entry.head);
        while let Some(msg_id) = at {
            let Some(request) = self.requests.get(msg_id) else {
                return;
            };
            at = request.next;
            if request.kind == (Kind::Close { object_id }) {
                if let Some(request) = self.take(msg_id) {
                    fx.push(Effect::Complete(request, Ok(())));
                }
                return;
            }
        }
    }
}
