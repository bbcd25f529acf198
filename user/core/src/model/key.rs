// SPDX-License-Identifier: MIT OR Apache-2.0

//! A situation in bytes: all that makes a difference to what can follow, and nothing else.
//!
//! Two situations with the same key behave alike for ever, so an exploration may keep one of them, and
//! what goes on without end comes back to where it was. For that, names are replaced by order:
//!
//! - Requests are written in the order of their msg_ids, and named by it. What comes next goes behind
//!   them; the cursor is the number of msg_ids below it. Deadlines have the order of the msg_ids, so
//!   times need not be written. (Numbers do not wrap in an exploration; a story of its own does that.)
//! - An object_id matters only by who else has it: it is named by where it is met first. Fds that
//!   nothing names are counted.
//! - Objects are alike: both orders of two are written and the smaller one is taken. Threads of one
//!   daemon are alike: they are sorted. Waiters of one object are alike, too.
//! - `failures` is written as the difference to what a waiter has seen; errors are told and forgotten.
//! - A delivery or a check whose request or opening has ended can only end without effect.

use super::held::Held;
use super::sim::Sim;
use super::sim::THREADS;
use crate::ondemand::inspect::ObjectView;
use crate::ondemand::inspect::RequestView;
use crate::ondemand::queue::Kind;
use crate::ondemand::queue::More;
use crate::ondemand::queue::Phase;
use crate::ondemand::state::Opening;
use crate::ondemand::state::State;
use alloc::vec::Vec;

/// What stands for a name that is not there.
const NONE: u8 = 0xff;

/// Object_ids by where they are met first: 1, 2, 3 and so on.
#[derive(Default)]
struct Names {
    met: [u32; 16],
    len: usize,
}

impl Names {
    fn known(&self, object_id: u32) -> Option<u8> {
        let at = self.met[..self.len].iter().position(|id| *id == object_id);
        at.map(|at| byte(at + 1))
    }

    fn of(&mut self, object_id: u32) -> u8 {
        self.known(object_id).unwrap_or_else(|| {
            self.met[self.len] = object_id;
            self.len += 1;
            byte(self.len)
        })
    }
}

fn byte(number: usize) -> u8 {
    u8::try_from(number).unwrap_or(NONE)
}

struct Writer<'a> {
    sim: &'a Sim,
    objects: &'a [ObjectView<u32>],
    requests: &'a [RequestView<u64>],
    names: Names,
    out: &'a mut Vec<u8>,
}

impl Sim {
    /// Appends what makes a difference. Call [`Sim::forget_history`] first.
    pub fn key(&self, out: &mut Vec<u8>) {
        let requests = self.table.view_requests();
        let mut objects = self.table.view_objects();
        let begin = out.len();
        self.write(&objects, &requests, out);
        if objects.len() == 2 {
            objects.swap(0, 1);
            let middle = out.len();
            self.write(&objects, &requests, out);
            let (first, second) = out[begin..].split_at(middle - begin);
            if second < first {
                out.copy_within(middle.., begin);
                let len = out.len() - middle;
                out.truncate(begin + len);
            } else {
                out.truncate(middle);
            }
        }
    }

    fn write(&self, objects: &[ObjectView<u32>], requests: &[RequestView<u64>], out: &mut Vec<u8>) {
        let mut writer = Writer {
            sim: self,
            objects,
            requests,
            names: Names::default(),
            out,
        };
        writer.out.push(
            u8::from(self.table.is_dead())
                | u8::from(self.orphans) << 1
                | u8::from(self.violation().is_some()) << 2,
        );
        writer.objects();
        writer.requests();
        writer.daemon();
        writer.walks();
    }
}

impl Writer<'_> {
    fn object(&self, place: u32) -> u8 {
        let at = self.objects.iter().position(|object| object.place == place);
        at.map_or(NONE, byte)
    }

    fn label(&self, label: u32) -> u8 {
        let at = self
            .objects
            .iter()
            .position(|object| object.handle == label);
        at.map_or(NONE, byte)
    }

    fn request(&self, msg_id: u32) -> u8 {
        let at = self.requests.iter().position(|r| r.msg_id == msg_id);
        at.map_or(NONE, byte)
    }

    /// What comes after `from` has no order of its own.
    fn sort(&mut self, from: usize) {
        self.out[from..].sort_unstable();
        self.out.push(NONE);
    }

    fn objects(&mut self) {
        self.out.push(byte(self.objects.len()));
        for object in self.objects {
            let (state, name) = match object.state {
                State::Close => (0, 0),
                State::Open { object_id } => (1, self.names.of(object_id)),
                State::Reopening(Opening::Queued) => (2, 0),
                State::Reopening(Opening::Pending { msg_id }) => (3, self.request(msg_id)),
                State::Reopening(Opening::Validating) => (4, 0),
                State::Dropping => (5, 0),
            };
            let fd = object.fd.map_or(0, |object_id| self.names.of(object_id));
            let flags = u8::from(object.ready)
                | u8::from(object.untold) << 1
                | u8::from(self.sim.works.contains(&object.handle)) << 2;
            let fds = u8::try_from(object.fds).unwrap_or(NONE);
            self.out.extend([state, name, fd, flags, fds]);
        }
        // Readers: those who wait, those who go on.
        let from = self.out.len();
        for waiter in &self.sim.waiters {
            let at = self.label(waiter.object);
            let object = self.objects.iter().find(|o| o.handle == waiter.object);
            let since = match (object, waiter.seen) {
                (Some(object), Some(seen)) => object.failures.wrapping_sub(seen).min(3),
                _ => 0,
            };
            // At most 16 objects, 3 failures: one byte.
            self.out
                .push(at << 4 | u8::try_from(since).unwrap_or(3) << 1 | u8::from(waiter.woken));
        }
        self.sort(from);
        let from = self.out.len();
        for object in &self.sim.going {
            let at = self.label(*object);
            self.out.push(at);
        }
        self.sort(from);
    }

    fn requests(&mut self) {
        let cursor = self.sim.table.view_cursor();
        let below = self.requests.iter().filter(|r| r.msg_id < cursor).count();
        self.out.extend([byte(self.requests.len()), byte(below)]);
        for request in self.requests {
            let (kind, closes) = match request.kind {
                Kind::Open => (0, 0),
                Kind::Read { .. } => (1, 0),
                Kind::Close { object_id } => (2, self.names.of(object_id)),
            };
            let (phase, name) = match request.phase {
                Phase::New => (0, 0),
                Phase::Parked => (1, 0),
                Phase::InDelivery { object_id } => (2, self.names.of(object_id)),
                Phase::Delivered { object_id } => (3, self.names.of(object_id)),
                Phase::Failed(_) => (4, 0),
            };
            let mut flags = u8::from(request.reissue)
                | u8::from(request.marked) << 1
                | u8::from(request.answerable.is_some()) << 2;
            // Who has it: two daemons at most, and what they are to be sent again.
            for held in &self.sim.hand {
                if held.msg_id == request.msg_id {
                    flags |= (1 | u8::from(held.restored) << 1) << (3 + 2 * held.owner);
                }
            }
            let object = self.object(request.object);
            self.out
                .extend([object << 4 | kind, closes, phase << 4 | name, flags]);
        }
    }

    fn daemon(&mut self) {
        let sim = self.sim;
        let mut threads = [0; THREADS];
        for (thread, code) in (0..=u8::MAX).zip(&mut threads) {
            *code = match sim.deliveries.get(&thread) {
                Some((delivery, died)) => {
                    let object_id = delivery.object_id;
                    let valid = self.requests.iter().position(|request| {
                        request.msg_id == delivery.msg_id
                            && request.phase == Phase::InDelivery { object_id }
                    });
                    valid.map_or(0x40, byte) | u8::from(*died) << 5 | 0x80
                }
                None => match sim.awake {
                    Some(awake) => u8::from(awake[usize::from(thread)]),
                    None => 0,
                },
            };
        }
        if !sim.apart {
            threads.sort_unstable();
        }
        self.out.extend(threads);

        // CLOSEs in its hand; they name fds that their objects have.
        let from = self.out.len();
        for held in &sim.hand {
            if let Held {
                kind: Kind::Close { object_id },
                owner,
                ..
            } = *held
            {
                let name = self.names.of(object_id);
                self.out.push(name << 1 | owner);
            }
        }
        self.sort(from);
        let from = self.out.len();
        for (object_id, fd) in &sim.fds {
            let name = self.names.known(*object_id).unwrap_or(0);
            let at = self.object(fd.place);
            self.out.push(at << 5 | name << 1 | fd.owner);
        }
        self.sort(from);
    }

    fn walks(&mut self) {
        let from = self.out.len();
        for opened in &self.sim.checks {
            let object = self.objects.iter().find(|o| o.place == opened.object);
            let code = match object {
                Some(object) if object.state == State::Reopening(Opening::Validating) => {
                    let current = object.fd == Some(opened.object_id);
                    self.object(object.place) << 1 | u8::from(current)
                }
                _ => 0xf0,
            };
            self.out.push(code);
        }
        self.sort(from);
        let from = self.out.len();
        for more in &self.sim.pending {
            let code = match *more {
                More::Reap(place) => self.object(place) & 0x0f,
                More::Drop(place) => 0x10 | self.object(place) & 0x0f,
                More::Restore(at) => {
                    let below = self.requests.iter().filter(|r| r.msg_id < at).count();
                    0x20 | byte(below) & 0x0f
                }
                More::Flush => 0x30,
                More::WakeAll(at) => 0x40 | u8::try_from(at).unwrap_or(NONE) & 0x0f,
            };
            self.out.push(code);
        }
        self.sort(from);
    }
}
