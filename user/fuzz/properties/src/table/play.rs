// SPDX-License-Identifier: MIT OR Apache-2.0

//! One event for the table and for the reference, with the same answer from both.

use super::reference::Begins;
use super::reference::Outcome;
use super::reference::Reference;
use super::reference::Stage;
use super::reference::State;
use super::reference::What;
use super::script::Event;
use super::script::Start;
use ondemand_core::errno::Errno;
use ondemand_core::model::daemon::Begun;
use ondemand_core::model::sim::CLOSE_SIZE;
use ondemand_core::model::sim::OPEN_SIZE;
use ondemand_core::model::sim::READ_SIZE;
use ondemand_core::model::sim::SMALL_ROOM;
use ondemand_core::model::Fault;
use ondemand_core::model::Sim;
use ondemand_core::ondemand::queue::More;

/// Objects that fscache has at a time.
const OBJECTS: usize = 4;
/// The thread that reads whole messages.
const WHOLE: u8 = 3;

/// A table in its surroundings, and the reference.
pub(super) struct Player {
    pub(super) sim: Sim,
    pub(super) reference: Reference,
    /// How often the clock was set.
    clocks: u64,
}

fn pick<T: Copy>(from: &[T], number: u8) -> Option<T> {
    let index = usize::from(number).checked_rem(from.len())?;
    Some(from[index])
}

fn at(number: u8, count: usize) -> Option<usize> {
    usize::from(number).checked_rem(count)
}

fn label(object: usize) -> u32 {
    u32::try_from(object).unwrap_or(u32::MAX)
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Result<(), String> {
    ensure!(found == expected, "{what}: {found:?}, not {expected:?}");
    Ok(())
}

impl Player {
    pub(super) fn new(fault: Fault, start: Start) -> Self {
        let mut sim = Sim::new(fault);
        sim.next_msg = start.msg_id;
        sim.table.set_last_object_id(start.object_id);
        let reference = Reference {
            last_object_id: start.object_id,
            ..Reference::default()
        };
        let mut player = Player {
            sim,
            reference,
            clocks: 0,
        };
        player.sim.admit();
        player.reference.admit();
        player
    }

    /// The objects that fscache has.
    fn objects(&self) -> Vec<usize> {
        let objects = self.reference.objects.iter().enumerate();
        objects
            .filter(|(_, object)| object.state != State::Dropping)
            .map(|(index, _)| index)
            .collect()
    }

    /// The numbers of unanswered requests that the daemon has, with their object_ids. A READ counts
    /// as long as its fd is open, also if it is to be sent again.
    fn asked(&self, what: What) -> Vec<(u32, u32)> {
        let is_open = |fd: &u32| self.reference.fds.iter().any(|(open, _)| open == fd);
        let requests = self.reference.requests.iter();
        requests
            .filter(|request| request.what == what && request.ended.is_none())
            .filter_map(|request| match (what, request.stage) {
                (What::Read, _) => Some((request.msg_id?, request.sent.filter(is_open)?)),
                (_, Stage::Asked(object_id)) => Some((request.msg_id?, object_id)),
                _ => None,
            })
            .collect()
    }

    /// Every number that there ever was, and one that there was not.
    fn numbers(&self) -> Vec<u32> {
        let requests = self.reference.requests.iter();
        let mut numbers: Vec<u32> = requests.filter_map(|request| request.msg_id).collect();
        numbers.push(numbers.last().map_or(7, |last| last.wrapping_add(1000)));
        numbers
    }

    fn newest_label(&self) -> u64 {
        self.sim.ledger.keys().next_back().copied().unwrap_or(0)
    }

    /// The number under which a new request is queued, and when it is due.
    fn number(&mut self, label: u64) -> (Option<u32>, Option<u64>) {
        let requests = self.sim.table.view_requests();
        let queued = requests.iter().find(|request| request.ticket == label);
        (
            queued.map(|request| request.msg_id),
            queued.and_then(|request| request.due),
        )
    }

    fn due(&mut self, due: Option<u64>) {
        if let Some(request) = self.reference.requests.last_mut() {
            request.due = due;
        }
    }

    /// Goes on with the unfinished walk at `index`.
    fn resume(&mut self, index: usize) {
        let walk = self.sim.pending[index];
        let others = self.sim.pending.len() - 1;
        self.sim.resume(index);
        if let More::Restore(from) = walk {
            self.reference
                .restore(self.sim.restored_numbers(from, others));
        }
    }

    fn read(&mut self, object: usize) -> Result<(), String> {
        let found = self.sim.read(label(object)).map(|_| ());
        let label = self.newest_label();
        let (msg_id, due) = self.number(label);
        let expected = self.reference.read(object, label, msg_id);
        self.due(due);
        same("a READ", found, expected)
    }

    fn work(&mut self, at: usize, memory: bool) -> Result<(), String> {
        if !memory {
            let found = self.sim.work(at, Err(Errno::ENOMEM)).map(|_| ());
            self.reference.no_memory(at);
            return same("an OPEN without memory", found, Err(Errno::ENOMEM));
        }
        let found = self.sim.work(at, Ok(())).map(|_| ());
        let label = self.newest_label();
        let (msg_id, due) = self.number(label);
        let expected = self.reference.send_open(at, label, msg_id);
        self.due(due);
        same("an OPEN", found, expected)
    }

    fn begin(&mut self, thread: u8, small: bool) -> Result<Begins, String> {
        let room = if small { SMALL_ROOM } else { usize::MAX };
        let found = match self.sim.begin(thread, room) {
            Begun::Nothing => Begins::Nothing,
            Begun::TooSmall => Begins::TooSmall,
            Begun::Message(held) => Begins::Message(held.msg_id, held.object_id),
        };
        let size = |what| match what {
            What::Open => OPEN_SIZE,
            What::Close(_) => CLOSE_SIZE,
            What::Read => READ_SIZE,
        };
        let expected = self.reference.begin(thread, |what| size(what) <= room);
        same("a read of the device", found, expected)?;
        Ok(found)
    }

    fn end(&mut self, thread: u8, ok: bool) -> Result<(), String> {
        let shown = if ok {
            self.sim.delivered(thread).is_some()
        } else {
            self.sim.undeliver(thread);
            false
        };
        same("shown", shown, self.reference.copied(thread, ok))
    }

    fn copen(&mut self, msg_id: u32, answer: Outcome) -> Result<(), String> {
        let found = self.sim.copen(msg_id, answer);
        same("copen", found, self.reference.copen(msg_id, answer))
    }

    fn complete(&mut self, object_id: u32, msg_id: u32) -> Result<(), String> {
        let found = self.sim.read_complete(object_id, msg_id);
        let expected = self.reference.complete(object_id, msg_id);
        same("READ_COMPLETE", found, expected)
    }

    fn withdraw(&mut self, object: usize) -> Result<(), String> {
        let found = self.sim.drop_object(label(object));
        let label = self.newest_label();
        let (msg_id, _) = self.number(label);
        same(
            "a CLOSE",
            found,
            self.reference.withdraw(object, label, msg_id),
        )
    }

    fn settle(&mut self) -> Result<(), String> {
        while !self.reference.works.is_empty() {
            self.work(0, true)?;
        }
        while let Begins::Message(..) = self.begin(WHOLE, false)? {
            self.end(WHOLE, true)?;
        }
        for (msg_id, _) in self.asked(What::Open) {
            self.copen(msg_id, Ok(()))?;
        }
        while !self.reference.checks.is_empty() {
            self.check(0, Ok(()));
        }
        Ok(())
    }

    fn check(&mut self, at: usize, outcome: Outcome) {
        self.sim.finish(at, outcome);
        self.reference.checked(at, outcome);
    }

    fn is_reading(&self, thread: u8) -> bool {
        self.reference
            .copies
            .iter()
            .any(|copy| copy.thread == thread)
    }

    fn fds(&self) -> Vec<u32> {
        self.reference
            .fds
            .iter()
            .map(|(object_id, _)| *object_id)
            .collect()
    }

    /// Lets it happen; `None` if it cannot happen now.
    pub(super) fn play(&mut self, event: Event) -> Result<Option<()>, String> {
        self.try_play(event).transpose()
    }

    fn try_play(&mut self, event: Event) -> Option<Result<(), String>> {
        let mut done = Ok(());
        match event {
            Event::Admit if self.objects().len() >= OBJECTS => return None,
            Event::Admit => {
                self.sim.admit();
                self.reference.admit();
            }
            Event::Read(n, count) => {
                let object = pick(&self.objects(), n)?;
                done = (0..count).try_for_each(|_| self.read(object));
            }
            Event::Work(n, memory) => {
                done = self.work(at(n, self.reference.works.len())?, memory);
            }
            Event::Begin(thread, _) if self.is_reading(thread) => return None,
            Event::Begin(thread, small) => done = self.begin(thread, small).map(|_| ()),
            Event::End(thread, _) if !self.is_reading(thread) => return None,
            Event::End(thread, ok) => done = self.end(thread, ok),
            Event::Deliver => match self.begin(WHOLE, false) {
                Ok(Begins::Message(..)) => done = self.end(WHOLE, true),
                begun => done = begun.map(|_| ()),
            },
            Event::Copen(n, ok) => {
                let (msg_id, _) = pick(&self.asked(What::Open), n)?;
                done = self.copen(msg_id, if ok { Ok(()) } else { Err(Errno::ENOENT) });
            }
            Event::ForgeCopen(n) => done = self.copen(pick(&self.numbers(), n)?, Ok(())),
            Event::Finish(n, ok) => {
                let at = at(n, self.reference.checks.len())?;
                let outcome = if ok { Ok(()) } else { Err(Errno::EINVAL) };
                self.check(at, outcome);
            }
            Event::Complete(n) => {
                let (msg_id, object_id) = pick(&self.asked(What::Read), n)?;
                done = self.complete(object_id, msg_id);
            }
            Event::ForgeComplete(n, m) => {
                done = self.complete(pick(&self.fds(), n)?, pick(&self.numbers(), m)?);
            }
            Event::Close(n) => {
                let object_id = pick(&self.fds(), n)?;
                self.sim.close(object_id);
                self.reference.close(object_id);
            }
            Event::Restore => {
                let walks = self.sim.pending.len();
                self.sim.restore();
                self.reference.restore(self.sim.restored_numbers(0, walks));
            }
            Event::Cancel(n) => {
                let msg_id = pick(&self.numbers(), n)?;
                done = same(
                    "cancel",
                    self.sim.cancel(msg_id),
                    self.reference.cancel(msg_id),
                );
            }
            Event::Drop(n) => done = self.withdraw(pick(&self.objects(), n)?),
            Event::Flush if self.reference.dead => return None,
            Event::Flush => {
                // Between its two halves a dead cache may still take answers; what comes of them is
                // for `Sim::check` to say, which other tests play.
                while !self.sim.pending.is_empty() {
                    self.resume(0);
                }
                self.sim.flush();
                self.sim.resume_all();
                self.reference.flush();
            }
            Event::Await(n) => {
                let object = pick(&self.objects(), n)?;
                self.sim.wait(label(object));
                self.reference.wait(object);
            }
            Event::Resume(n) => self.resume(at(n, self.sim.pending.len())?),
            Event::Crash => {
                self.sim.crash();
                self.reference.crash(false);
            }
            Event::CrashButKeep => {
                self.sim.crash_but_keep_fds();
                self.reference.crash(true);
            }
            Event::Expire => done = same("expire", self.sim.expire(), self.reference.expire()),
            Event::Settle => done = self.settle(),
            Event::Clock(n) => {
                // No two requests are ever due at the same time.
                self.clocks += 1;
                self.sim.clock = (u64::from(n) << 32) + (self.clocks << 16);
            }
        }
        Some(done)
    }
}
