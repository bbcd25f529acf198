// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a request table has to do, written anew from `docs/protocol.md` with vectors that are searched
//! from end to end: no marks, no lists through the requests, no batches, no effects.
//!
//! Each method is one event. The only thing that it is told of the real table is which number a new
//! request got, and whom the real table has told the end of a request ([`Reference::tell`]): between
//! an end and that moment a request can still be met, as in the kernel by another processor.

use ondemand_core::errno::Errno;
use ondemand_core::ondemand::state::Awaited;

/// The outcome of a request.
pub type Outcome = Result<(), Errno>;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// To open a blob.
    Open,
    /// To close this anonymous fd.
    Close(u32),
    /// To fill a range.
    Read,
}

/// How far a message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// `read` may take it.
    Waiting,
    /// It is held back.
    Held,
    /// A `read` copies it out under this object_id.
    Copying(u32),
    /// The daemon has it, under this object_id.
    Asked(u32),
}

/// A request, from its beginning on for ever.
#[derive(Clone, Debug)]
pub struct Request {
    /// The number by which its reader is known.
    pub label: u64,
    /// Its number; `None` if it was refused.
    pub msg_id: Option<u32>,
    /// Whose it is.
    pub object: usize,
    /// What it asks.
    pub what: What,
    /// How far it has come.
    pub stage: Stage,
    /// `restore` was written when it could not be sent again at once.
    pub again: bool,
    /// The open fd under which the daemon has been sent this READ, once or more.
    pub sent: Option<u32>,
    /// When it ends if nobody answers.
    pub due: Option<u64>,
    /// How it has ended.
    pub ended: Option<Outcome>,
    /// Whoever waits for it knows.
    pub told: bool,
}

impl Request {
    pub(super) fn lives(&self) -> bool {
        self.ended.is_none()
    }

    /// It can be met by its number.
    pub(super) fn is_there(&self) -> bool {
        !self.told
    }
}

/// The state of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No daemon serves it.
    Close,
    /// Served under this object_id.
    Open(u32),
    /// Its OPEN is about to be sent.
    Queued,
    /// This request, by index, is its OPEN.
    Opening(usize),
    /// Its file is checked.
    Checking,
    /// Withdrawn.
    Dropping,
}

/// An object.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its state.
    pub state: State,
    pub(super) fd: Option<u32>,
    pub(super) ready: bool,
    /// Why its first opening failed, if nobody has been told.
    pub(super) untold: Option<Errno>,
}

/// Somebody who waits for an opening.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiter {
    object: usize,
    /// What it was told.
    pub told: Awaited,
}

/// A `read` of the device that has begun.
#[derive(Clone, Debug)]
pub struct Copy {
    /// The thread.
    pub thread: u8,
    pub(super) request: usize,
    pub(super) object_id: u32,
    pub(super) died: bool,
}

/// What a `read` of the device is to begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begins {
    /// Nothing.
    Nothing,
    /// Something larger than its buffer.
    TooSmall,
    /// This msg_id under this object_id.
    Message(u32, u32),
}

/// All that a table has to know.
#[derive(Clone, Debug, Default)]
pub struct Reference {
    /// Every object there ever was.
    pub objects: Vec<Object>,
    /// Every request there ever was.
    pub requests: Vec<Request>,
    /// Objects whose OPEN is to be sent, oldest first.
    pub works: Vec<usize>,
    /// Objects whose files are being checked, with the object_ids.
    pub checks: Vec<(usize, u32)>,
    /// Everybody who has ever waited for an opening.
    pub waiters: Vec<Waiter>,
    /// Open anonymous fds.
    pub fds: Vec<(u32, usize)>,
    /// Messages that are being copied out.
    pub copies: Vec<Copy>,
    /// The object_id of the latest OPEN.
    pub last_object_id: u32,
    /// No message below has its turn before those from here on.
    pub(super) turn: u32,
    /// The cache is dead.
    pub dead: bool,
}

impl Reference {
    pub(super) fn of(&self, object: usize) -> impl Iterator<Item = usize> + '_ {
        let requests = self.requests.iter().enumerate();
        requests
            .filter(move |(_, request)| request.object == object)
            .map(|(index, _)| index)
    }

    /// The request that can be met under a number.
    pub(super) fn find(&self, msg_id: u32) -> Option<usize> {
        self.requests
            .iter()
            .position(|request| request.is_there() && request.msg_id == Some(msg_id))
    }

    pub(super) fn end(&mut self, request: usize, outcome: Outcome) {
        self.requests[request].ended = Some(outcome);
    }

    /// Notes what the real table told a reader.
    ///
    /// # Errors
    ///
    /// It has told something else, or too early.
    pub fn tell(&mut self, index: usize, outcome: Outcome) -> Result<(), String> {
        let request = &mut self.requests[index];
        ensure!(
            request.ended == Some(outcome),
            "a reader was told {outcome:?} of {request:?}"
        );
        request.told = true;
        Ok(())
    }

    /// The numbers of the messages that `read` may take.
    pub fn deliverable(&self) -> Vec<u32> {
        let waiting = |request: &&Request| request.is_there() && request.stage == Stage::Waiting;
        let mut numbers: Vec<u32> = self
            .requests
            .iter()
            .filter(waiting)
            .filter_map(|request| request.msg_id)
            .collect();
        numbers.sort_unstable();
        numbers
    }

    /// Nothing is left of a withdrawn object.
    pub fn is_gone(&self, object: usize) -> bool {
        self.objects[object].state == State::Dropping
            && !self.fds.iter().any(|(_, of)| *of == object)
            && !self.of(object).any(|index| self.requests[index].is_there())
    }

    pub(super) fn new_request(
        &mut self,
        label: u64,
        msg_id: Option<u32>,
        object: usize,
        what: What,
    ) -> usize {
        self.requests.push(Request {
            label,
            msg_id,
            object,
            what,
            stage: Stage::Waiting,
            again: false,
            sent: None,
            due: None,
            ended: None,
            told: false,
        });
        self.requests.len() - 1
    }

    /// fscache looks a cookie up.
    pub fn admit(&mut self) {
        self.works.push(self.objects.len());
        self.objects.push(Object {
            state: State::Queued,
            fd: None,
            ready: false,
            untold: None,
        });
    }

    /// There is no memory for the oldest but `at` OPEN that is to be sent.
    pub fn no_memory(&mut self, at: usize) {
        let object = self.works.remove(at);
        if self.objects[object].state == State::Queued {
            self.fail(object, Errno::ENOMEM);
        }
    }

    /// The oldest but `at` OPEN is sent.
    ///
    /// # Errors
    ///
    /// It is refused so.
    pub fn send_open(&mut self, at: usize, label: u64, msg_id: Option<u32>) -> Outcome {
        let object = self.works.remove(at);
        let index = self.new_request(label, msg_id, object, What::Open);
        let refused = match self.objects[object].state {
            _ if self.dead => Errno::EIO,
            State::Queued => {
                self.objects[object].state = State::Opening(index);
                return Ok(());
            }
            _ => Errno::ECANCELED,
        };
        self.end(index, Err(refused));
        Err(refused)
    }

    /// A reader asks for a range.
    ///
    /// # Errors
    ///
    /// It is refused so.
    pub fn read(&mut self, object: usize, label: u64, msg_id: Option<u32>) -> Outcome {
        let index = self.new_request(label, msg_id, object, What::Read);
        match self.objects[object].state {
            State::Dropping => self.end(index, Err(Errno::EIO)),
            _ if self.dead => self.end(index, Err(Errno::EIO)),
            State::Open(_) => {}
            _ => {
                self.requests[index].stage = Stage::Held;
                self.want(object);
            }
        }
        self.requests[index].ended.unwrap_or(Ok(()))
    }

    pub(super) fn want(&mut self, object: usize) {
        if self.objects[object].state == State::Close {
            self.objects[object].state = State::Queued;
            self.works.push(object);
        }
    }

    /// An object loses its daemon; who waits for it has it opened again.
    pub(super) fn lose(&mut self, object: usize) {
        self.objects[object].state = State::Close;
        if self.of(object).any(|index| self.requests[index].is_there()) {
            self.want(object);
        }
    }

    pub(super) fn tell_waiters(&mut self, object: usize, told: Awaited) -> bool {
        let mut any = false;
        for waiter in &mut self.waiters {
            if waiter.object == object && waiter.told == Awaited::Pending {
                waiter.told = told;
                any = true;
            }
        }
        any
    }

    pub(super) fn fail(&mut self, object: usize, errno: Errno) {
        self.objects[object].state = State::Close;
        for index in self.of(object).collect::<Vec<_>>() {
            if self.requests[index].lives() && self.requests[index].stage == Stage::Held {
                self.end(index, Err(Errno::EIO));
            }
        }
        let told = self.tell_waiters(object, Awaited::Failed(errno));
        if !self.objects[object].ready {
            self.objects[object].untold = (!told).then_some(errno);
        }
    }

    /// Somebody waits for an opening.
    pub fn wait(&mut self, object: usize) {
        let ready = self.objects[object].ready;
        let told = match self.objects[object].state {
            State::Dropping => Awaited::Failed(Errno::EIO),
            _ if ready => Awaited::Ready,
            _ if self.dead => Awaited::Failed(Errno::EIO),
            _ => match self.objects[object].untold.take() {
                Some(errno) => Awaited::Failed(errno),
                None => {
                    self.want(object);
                    Awaited::Pending
                }
            },
        };
        self.waiters.push(Waiter { object, told });
    }
}
