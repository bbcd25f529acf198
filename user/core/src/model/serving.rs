// SPDX-License-Identifier: MIT OR Apache-2.0

//! Whole daemons that serve until nothing is left, and the end of a cache.

use super::sim::Sim;
use crate::errno::Errno;
use crate::ondemand::queue::Kind;
use crate::ondemand::queue::Phase;
use crate::ondemand::state::Awaited;
use crate::ondemand::state::State;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Which daemon serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The one that has served so far. It writes `restore` only if one before it has died.
    Same,
    /// Another one, after the death of the one before: it writes `restore` and knows every blob.
    Successor,
    /// The same, with the anonymous fds of the one before, which a supervisor has kept.
    Heir,
    /// Another one, after the death of the one before, that knows no blob.
    Stranger,
}

/// Rounds that a daemon may take to end every READ; in one it deals with all that it can see.
const ROUNDS: usize = 8;

impl Sim {
    /// Everybody does what is left to do, and this daemon serves, until nothing moves any more.
    ///
    /// # Errors
    ///
    /// Says which request or waiter is left behind, or that there was no end.
    pub fn serve(mut self, policy: Policy) -> Result<Self, String> {
        let must_succeed = self.readers_to_satisfy();
        if policy == Policy::Same {
            if self.orphans {
                self.let_go();
                self.restore();
            }
        } else {
            if policy == Policy::Heir {
                self.crash_but_keep_fds();
            } else {
                self.crash();
            }
            self.let_go();
            self.restore();
        }
        let mut rounds = 0;
        while self.round(policy) {
            rounds += 1;
            if rounds > ROUNDS {
                return Err(format!("{policy:?}: no end after {ROUNDS} rounds"));
            }
            self.check()?;
        }
        self.check()?;
        for (label, account) in &self.ledger {
            if account.outcome.is_none() && matches!(account.kind, Kind::Read { .. }) {
                return Err(format!("{policy:?}: READ {label} never ends"));
            }
            if matches!(policy, Policy::Successor | Policy::Heir)
                && must_succeed.contains(label)
                && account.outcome != Some(Ok(()))
            {
                return Err(format!(
                    "{policy:?}: READ {label} ends {:?}",
                    account.outcome
                ));
            }
        }
        match self
            .waiters
            .iter()
            .find(|waiter| waiter.told == Awaited::Pending)
        {
            Some(waiter) => Err(format!("{policy:?}: {waiter:?} never ends")),
            None => Ok(self),
        }
    }

    /// READs for which a daemon that knows everything has no excuse.
    fn readers_to_satisfy(&mut self) -> Vec<u64> {
        if self.table.is_dead() {
            return Vec::new();
        }
        let objects = self.table.view_objects();
        self.table
            .view_requests()
            .iter()
            .filter(|request| {
                matches!(request.kind, Kind::Read { .. })
                    && !matches!(request.phase, Phase::Failed(_))
                    && objects.iter().any(|object| {
                        object.place == request.object && object.state != State::Dropping
                    })
            })
            .map(|request| request.ticket)
            .collect()
    }

    /// All threads come out of `read`.
    fn let_go(&mut self) {
        let threads: Vec<u8> = self.deliveries.keys().copied().collect();
        for thread in threads {
            self.delivered(thread);
        }
    }

    /// Deals with all that is to be seen; `false` if there was nothing.
    fn round(&mut self, policy: Policy) -> bool {
        let mut moved = !self.pending.is_empty() || !self.deliveries.is_empty();
        self.resume_all();
        self.let_go();
        while !self.works.is_empty() {
            moved = true;
            // A refusal is the ordinary end of a work that came too late.
            let _: Result<u32, Errno> = self.work(0, Ok(()));
        }
        while !self.checks.is_empty() {
            moved = true;
            self.finish(0, Ok(()));
        }
        while let Some(_held) = self.read_next() {
            moved = true;
        }
        for held in core::mem::take(&mut self.hand) {
            moved = true;
            let open = self.fds.contains_key(&held.object_id);
            // What was held may have ended meanwhile: EINVAL is no news to a daemon.
            let _: Result<(), Errno> = match held.kind {
                Kind::Open if open && policy != Policy::Stranger => self.copen(held.msg_id, Ok(())),
                Kind::Open => {
                    self.close(held.object_id);
                    self.copen(held.msg_id, Err(Errno::ENOENT))
                }
                Kind::Read { .. } => self.read_complete(held.object_id, held.msg_id),
                Kind::Close { object_id } => {
                    self.close(object_id);
                    Ok(())
                }
            };
        }
        moved
    }

    /// The cache goes away: every object is dropped, every fd closed, with or without `flush` first.
    ///
    /// # Errors
    ///
    /// Says what is left in the table.
    pub fn tear_down(mut self, flush: bool) -> Result<(), String> {
        if flush {
            self.flush();
        }
        let objects: Vec<u32> = self
            .cookies
            .iter()
            .filter(|(_, cookie)| !cookie.dropped)
            .map(|(label, _)| *label)
            .collect();
        for object in objects {
            self.drop_object(object);
        }
        self.let_go();
        self.resume_all();
        while !self.works.is_empty() {
            // Nothing wants to be opened any more.
            let _: Result<u32, Errno> = self.work(0, Ok(()));
        }
        while !self.checks.is_empty() {
            self.finish(0, Ok(()));
        }
        self.crash();
        self.resume_all();
        self.check()?;
        let requests = self.table.view_requests();
        let objects = self.table.view_objects();
        if !requests.is_empty() || !objects.is_empty() {
            return Err(format!("left after the end: {requests:?} {objects:?}"));
        }
        if let Some((label, account)) = self
            .ledger
            .iter()
            .find(|(_, account)| account.outcome.is_none())
        {
            return Err(format!("request {label} was lost: {account:?}"));
        }
        if let Some((label, _)) = self.cookies.iter().find(|(_, cookie)| !cookie.forgotten) {
            return Err(format!("object {label} was never given back"));
        }
        Ok(())
    }
}
