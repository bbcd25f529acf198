// SPDX-License-Identifier: MIT OR Apache-2.0

//! How daemons die: with their fds, or with a supervisor that keeps some of them.

use super::sim::Sim;
use super::sim::THREADS;
use crate::ondemand::state::State;
use alloc::vec::Vec;

impl Sim {
    /// The daemon dies: its fds are closed, what it has read is lost. Threads that are in `read`
    /// come out of it later, and what they got is lost too. Threads of the next daemon read before
    /// they sleep.
    pub fn crash(&mut self) {
        self.dies(|_| true, &[]);
    }

    /// The daemon dies, and its supervisor keeps the fds of answered OPENs for the next one.
    pub fn crash_but_keep_fds(&mut self) {
        let table = &self.table;
        let kept: Vec<u32> = self
            .fds
            .iter()
            .filter(|(object_id, fd)| {
                let object_id = **object_id;
                table.view_state(fd.place) == Some(State::Open { object_id })
            })
            .map(|(object_id, _)| *object_id)
            .collect();
        self.dies(|_| true, &kept);
    }

    /// One of the daemons dies, see [`Sim::apart`].
    pub fn die(&mut self, owner: u8) {
        self.dies(|other| other == owner, &[]);
    }

    fn dies(&mut self, whose: impl Fn(u8) -> bool, kept: &[u32]) {
        self.hand.retain(|held| !whose(held.owner));
        self.orphans = true;
        for (thread, (_, died)) in &mut self.deliveries {
            *died |= !self.apart || whose(*thread);
        }
        for thread in (0..=u8::MAX).take(THREADS) {
            if (!self.apart || whose(thread)) && !self.deliveries.contains_key(&thread) {
                self.set_awake(thread, true);
            }
        }
        let open: Vec<u32> = self
            .fds
            .iter()
            .filter(|(object_id, fd)| whose(fd.owner) && !kept.contains(object_id))
            .map(|(object_id, _)| *object_id)
            .collect();
        for object_id in open {
            self.close(object_id);
        }
    }
}
