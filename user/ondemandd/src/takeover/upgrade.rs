// SPDX-License-Identifier: MIT OR Apache-2.0

//! An upgrade has another worker, the *successor*, prepared before the one that serves is ended:
//!
//! ```text
//!            Upgrade               Prepared                    Died
//!   Serving ---------> Preparing ------------> Relieving ------------------> Starting
//!      ^   (StartSuccessor) |  |    (Relieve)   |  |   too late: Kill     (Go)  ^
//!      |                    |  | Died           |  |                            |
//!      |       fails, late  |  v                |  +--> fails: Died, and Start  |
//!      +--------------------+ Orphaned ---------|-------------------------------+
//!           (Abandon)          |        Prepared|
//!                              +--> fails, late: Start
//! ```
//!
//! The successor has the device all the time, and reads nothing from it before Go. Go comes after the end
//! of every other worker and in no other place, so that no two of them answer at once.

use std::time::Instant;

use super::Action;
use super::Event;
use super::Failure;
use super::Outcome;
use super::State;
use super::Takeover;
use super::END_WITHIN;
use super::PREPARED_WITHIN;
use super::READY_WITHIN;

impl Takeover {
    /// What belongs to an upgrade; `None` for the rest.
    pub(super) fn on_upgrade(&mut self, event: Event, now: Instant) -> Option<Action> {
        let action = match (self.state, event) {
            (State::Serving, Event::Upgrade) => {
                self.state = State::Preparing {
                    by: now + PREPARED_WITHIN,
                };
                Action::StartSuccessor
            }
            (State::Preparing { .. }, Event::Prepared) => {
                self.relieving(false, true, now);
                Action::Relieve
            }
            (State::Preparing { .. }, Event::SuccessorFailed) => {
                self.state = State::Serving;
                Action::Abandon(Failure::SuccessorFailed)
            }
            (State::Preparing { by }, Event::Deadline) if now >= by => {
                self.state = State::Serving;
                Action::Abandon(Failure::Late)
            }
            (
                State::Preparing { by },
                Event::Died {
                    served,
                    cache_dead: false,
                },
            ) => {
                self.note_death(served);
                self.state = State::Orphaned { by };
                Action::Wait
            }

            (State::Orphaned { .. }, Event::Prepared) => self.go(now),
            (State::Orphaned { .. }, Event::SuccessorFailed) => {
                self.state = State::Vacant;
                Action::Abandon(Failure::SuccessorFailed)
            }
            (State::Orphaned { by }, Event::Deadline) if now >= by => {
                self.state = State::Vacant;
                Action::Abandon(Failure::Late)
            }
            (State::Vacant, Event::Abandoned) => self.start_or_pause(now),

            // It ends since it was asked to: that is no barren death, however idle it was.
            (
                State::Relieving { has_successor, .. },
                Event::Died {
                    cache_dead: false, ..
                },
            ) => {
                if has_successor {
                    self.go(now)
                } else {
                    self.start()
                }
            }
            (
                State::Relieving {
                    killed,
                    has_successor: true,
                    ..
                },
                Event::SuccessorFailed,
            ) => {
                self.relieving(killed, false, now);
                Action::Abandon(Failure::SuccessorFailed)
            }
            (
                State::Relieving {
                    by,
                    killed: false,
                    has_successor,
                },
                Event::Deadline,
            ) if now >= by => {
                self.relieving(true, has_successor, now);
                Action::Kill
            }
            (
                State::Relieving {
                    by,
                    killed: true,
                    has_successor,
                },
                Event::Deadline,
            ) if now >= by => {
                self.state = State::Overdue;
                if has_successor {
                    Action::Abandon(Failure::Stuck)
                } else {
                    Action::Wait
                }
            }
            // There is nobody who could be asked to end.
            (State::Orphaned { .. }, Event::Stop) => self.finish(Outcome::Stopped),
            _ => return None,
        };
        Some(action)
    }

    fn go(&mut self, now: Instant) -> Action {
        self.state = State::Starting {
            ready_by: now + READY_WITHIN,
        };
        Action::Go
    }

    fn relieving(&mut self, killed: bool, has_successor: bool, now: Instant) {
        self.state = State::Relieving {
            by: now + END_WITHIN,
            killed,
            has_successor,
        };
    }
}

#[cfg(test)]
mod tests;
