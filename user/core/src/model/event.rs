// SPDX-License-Identifier: MIT OR Apache-2.0

//! Events by number, for those who choose them at random or try them all.

use super::daemon::Begun;
use super::sim::Sim;
use super::sim::SMALL_ROOM;
use crate::errno::Errno;
use crate::ondemand::queue::Kind;
use alloc::vec::Vec;

/// Something that happens. A number chooses, modulo their count, among what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// fscache looks a cookie up, if fewer than three objects are there.
    Admit,
    /// A reader asks this object for a range.
    Read(u8),
    /// A queued work runs; `false`: it finds no memory.
    Work(u8, bool),
    /// A thread of the daemon begins to read the device; `true`: with a small buffer.
    Begin(u8, bool),
    /// A thread's read ends; `false`: without success.
    End(u8, bool),
    /// An OPEN is answered with a size (`true`) or an error.
    Copen(u8, bool),
    /// An OPEN is answered that may not be there.
    ForgeCopen(u8),
    /// The check of a file ends; `false`: the file is not the one.
    Finish(u8, bool),
    /// A READ is answered.
    Complete(u8),
    /// A READ is answered that may not be there, on this fd.
    ForgeComplete(u8, u8),
    /// An anonymous fd is closed.
    Close(u8),
    /// `restore`.
    Restore,
    /// A reader is killed.
    Cancel(u8),
    /// The oldest request has waited for too long.
    Expire,
    /// fscache withdraws a cookie.
    Drop(u8),
    /// The cache dies.
    Flush,
    /// A reader waits for an opening.
    Await(u8),
    /// An unfinished walk goes on.
    Resume(u8),
    /// The daemon dies.
    Crash,
    /// The daemon dies, and its fds are kept.
    CrashButKeep,
}

/// Objects that are there at a time.
const OBJECTS: usize = 3;

fn pick<T: Copy>(from: &[T], number: u8) -> Option<T> {
    let index = usize::from(number).checked_rem(from.len())?;
    Some(from[index])
}

impl Sim {
    /// The labels of the objects that fscache has.
    pub fn live_objects(&self) -> Vec<u32> {
        self.cookies
            .iter()
            .filter(|(_, cookie)| !cookie.dropped)
            .map(|(label, _)| *label)
            .collect()
    }

    fn held(&self, wanted: impl Fn(Kind) -> bool) -> Vec<super::held::Held> {
        self.hand
            .iter()
            .filter(|held| wanted(held.kind))
            .copied()
            .collect()
    }

    /// Lets it happen; `None` if it cannot happen now.
    pub fn apply(&mut self, event: Event) -> Option<()> {
        // Errors that events return are part of the game; `check` and the expectations inside of
        // the methods judge them.
        match event {
            Event::Admit => {
                if self.live_objects().len() >= OBJECTS {
                    return None;
                }
                self.admit();
            }
            Event::Read(n) => {
                let object = pick(&self.live_objects(), n)?;
                self.read(object).ok()?;
            }
            Event::Work(n, memory) => {
                let index = usize::from(n).checked_rem(self.works.len())?;
                let memory = if memory { Ok(()) } else { Err(Errno::ENOMEM) };
                let _: Result<u32, Errno> = self.work(index, memory);
            }
            Event::Begin(thread, small) => {
                if self.deliveries.contains_key(&thread) {
                    return None;
                }
                let room = if small { SMALL_ROOM } else { usize::MAX };
                if self.begin(thread, room) == Begun::Nothing {
                    return None;
                }
            }
            Event::End(thread, ok) => {
                if !self.deliveries.contains_key(&thread) {
                    return None;
                }
                if ok {
                    self.delivered(thread);
                } else {
                    self.undeliver(thread);
                }
            }
            Event::Copen(n, ok) => {
                let held = pick(&self.held(|kind| kind == Kind::Open), n)?;
                let answer = if ok { Ok(()) } else { Err(Errno::ENOENT) };
                let _: Result<(), Errno> = self.copen(held.msg_id, answer);
            }
            Event::ForgeCopen(msg_id) => {
                let _: Result<(), Errno> = self.copen(u32::from(msg_id), Ok(()));
            }
            Event::Finish(n, ok) => {
                let index = usize::from(n).checked_rem(self.checks.len())?;
                self.finish(index, if ok { Ok(()) } else { Err(Errno::EINVAL) });
            }
            Event::Complete(n) => {
                let held = pick(&self.held(|kind| matches!(kind, Kind::Read { .. })), n)?;
                let _: Result<(), Errno> = self.read_complete(held.object_id, held.msg_id);
            }
            Event::ForgeComplete(n, msg_id) => {
                let fds: Vec<u32> = self.fds.keys().copied().collect();
                let object_id = pick(&fds, n)?;
                let _: Result<(), Errno> = self.read_complete(object_id, u32::from(msg_id));
            }
            Event::Close(n) => {
                let fds: Vec<u32> = self.fds.keys().copied().collect();
                self.close(pick(&fds, n)?);
            }
            Event::Restore => self.restore(),
            Event::Cancel(n) => {
                let reads: Vec<u32> = self
                    .table
                    .view_requests()
                    .iter()
                    .filter(|request| matches!(request.kind, Kind::Read { .. }))
                    .map(|request| request.msg_id)
                    .collect();
                self.cancel(pick(&reads, n)?);
            }
            Event::Expire => {
                self.expire().then_some(())?;
            }
            Event::Drop(n) => {
                let object = pick(&self.live_objects(), n)?;
                self.drop_object(object);
            }
            Event::Flush => {
                if self.table.is_dead() {
                    return None;
                }
                self.flush();
            }
            Event::Await(n) => {
                let object = pick(&self.live_objects(), n)?;
                self.wait(object);
            }
            Event::Resume(n) => {
                let index = usize::from(n).checked_rem(self.pending.len())?;
                self.resume(index);
            }
            Event::Crash => self.crash(),
            Event::CrashButKeep => self.crash_but_keep_fds(),
        }
        Some(())
    }
}
