// SPDX-License-Identifier: MIT OR Apache-2.0

//! When to start a worker, when to wait, when to give up: the keeper without its system calls.
//!
//! ```text
//!              Start            Started             Ready
//!   (begin) ---------> Vacant ----------> Starting --------> Serving
//!                        ^  |                |  | too late      |
//!                        |  | StartFailed    |  v               |
//!                 due    |  v                | Overdue (Kill)   |
//!              BackingOff <------------------+--+---------------+  Died
//!
//!   from anywhere:  Stop --> Stopping (Terminate) --> too late or Stop again: Kill --> Done
//! ```
//!
//! A worker that dies after it has answered at least one message is replaced at once. One that
//! did not is *barren*; the first few barren deaths in a row are replaced at once too, then a
//! growing pause keeps a worker that cannot run from using all of the processor.
//!
//! What an upgrade adds is in `upgrade`.

mod upgrade;

use std::time::Duration;
use std::time::Instant;

/// A worker that is not ready after this long is killed.
pub const READY_WITHIN: Duration = Duration::from_secs(10);
/// A successor that is not prepared after this long is killed, and the upgrade abandoned.
pub const PREPARED_WITHIN: Duration = READY_WITHIN;
/// A worker that was asked to end is killed after this long, and given up after as long again.
pub const END_WITHIN: Duration = Duration::from_secs(5);
/// So many barren deaths in a row are replaced without a pause.
pub const FREE_RESTARTS: u32 = 3;
/// The first pause; each further one is twice as long.
pub const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Where the keeper is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No worker runs; one is about to be started.
    Vacant,
    /// A worker was started and is not ready yet.
    Starting {
        /// It is killed then.
        ready_by: Instant,
    },
    /// A worker that was not ready in time was killed and has not ended yet.
    Overdue,
    /// A worker answers the kernel.
    Serving,
    /// A worker answers the kernel, and its successor prepares.
    Preparing {
        /// The upgrade is abandoned then.
        by: Instant,
    },
    /// The worker has died while its successor prepared, which is waited for.
    Orphaned {
        /// Another worker is started then.
        by: Instant,
    },
    /// The worker was asked to end.
    Relieving {
        /// The next step is taken then.
        by: Instant,
        /// Whether that step, killing, was taken already.
        killed: bool,
        /// The successor is prepared; otherwise it has failed since, and another worker is to follow.
        has_successor: bool,
    },
    /// No worker runs; one is started later.
    BackingOff {
        /// It is started then.
        until: Instant,
    },
    /// The worker is to end, and then the keeper.
    Stopping {
        /// The next step is taken then.
        by: Instant,
        /// Whether that step, killing, was taken already.
        killed: bool,
    },
    /// The keeper is to end.
    Done,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The worker that [`Action::Start`] asked for runs.
    Started,
    /// It could not be started.
    StartFailed,
    /// The worker has the device and answers the kernel.
    Ready,
    /// The worker ended.
    Died {
        /// It had answered at least one message.
        served: bool,
        /// It said that the kernel has declared the cache dead.
        cache_dead: bool,
    },
    /// Somebody has asked for an upgrade.
    Upgrade,
    /// The successor could begin.
    Prepared,
    /// The successor could not be started, or has ended.
    SuccessorFailed,
    /// [`Action::Abandon`] was carried out.
    Abandoned,
    /// A signal asked the keeper to end.
    Stop,
    /// The time that [`Takeover::deadline`] named has come.
    Deadline,
}

/// What is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing but wait.
    Wait,
    /// Start a worker.
    Start {
        /// It follows another one, and has to write `restore`.
        restore: bool,
    },
    /// Say in the run directory which worker serves.
    Announce,
    /// Start a successor.
    StartSuccessor,
    /// Ask the worker to end: its successor is prepared.
    Relieve,
    /// Tell the successor to begin: it is the worker now.
    Go,
    /// Make the successor end, if there is one, and say that the upgrade has failed.
    Abandon(Failure),
    /// Ask the worker to end, and the keeper after it; an upgrade that is under way ends.
    Terminate,
    /// Make the worker end.
    Kill,
    /// Close the device and end.
    Finish(Outcome),
}

/// Why an upgrade has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The successor could not be started, or has ended.
    SuccessorFailed,
    /// The successor was not prepared in time.
    Late,
    /// The worker would not end even when it was killed.
    Stuck,
}

/// How the keeper ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was asked to.
    Stopped,
    /// It was asked to, but the worker would not end even when it was killed.
    Stuck,
    /// The kernel declared the cache dead: no worker can serve it any more.
    CacheDead,
}

/// The state machine.
#[derive(Debug)]
pub struct Takeover {
    state: State,
    /// A worker got the device before, so the next one has to write `restore`.
    had_worker: bool,
    /// Deaths in a row of workers that had answered nothing.
    barren: u32,
}

impl Takeover {
    /// A bound cache without a worker, and the first thing to do. `had_worker`: the cache had one
    /// under another keeper.
    #[must_use]
    pub fn begin(had_worker: bool) -> (Self, Action) {
        let mut takeover = Takeover {
            state: State::Vacant,
            had_worker,
            barren: 0,
        };
        let first = takeover.start();
        (takeover, first)
    }

    /// A worker of an earlier program of this very process serves.
    #[must_use]
    pub fn resume() -> (Self, Action) {
        let takeover = Takeover {
            state: State::Serving,
            had_worker: true,
            barren: 0,
        };
        (takeover, Action::Wait)
    }

    /// Where the machine is.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// When [`Event::Deadline`] is due, if ever.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Starting { ready_by } => Some(ready_by),
            State::BackingOff { until } => Some(until),
            State::Preparing { by }
            | State::Orphaned { by }
            | State::Relieving { by, .. }
            | State::Stopping { by, .. } => Some(by),
            State::Vacant | State::Overdue | State::Serving | State::Done => None,
        }
    }

    /// Takes one event; `now` is when it happened. Events that do not fit the state do nothing.
    pub fn on(&mut self, event: Event, now: Instant) -> Action {
        match self.on_upgrade(event, now) {
            Some(action) => action,
            None => self.on_other(event, now),
        }
    }

    fn on_other(&mut self, event: Event, now: Instant) -> Action {
        match (self.state, event) {
            (State::Vacant, Event::Started) => {
                self.had_worker = true;
                self.state = State::Starting {
                    ready_by: now + READY_WITHIN,
                };
                Action::Wait
            }
            (State::Vacant, Event::StartFailed) => self.next_worker(false, now),
            (State::Starting { .. }, Event::Ready) => {
                self.state = State::Serving;
                Action::Announce
            }
            (State::Starting { ready_by }, Event::Deadline) if now >= ready_by => {
                self.state = State::Overdue;
                Action::Kill
            }
            (
                State::Starting { .. }
                | State::Overdue
                | State::Serving
                | State::Preparing { .. }
                | State::Relieving { .. },
                Event::Died { served, cache_dead },
            ) => {
                if cache_dead {
                    return self.finish(Outcome::CacheDead);
                }
                self.next_worker(served, now)
            }
            (State::BackingOff { until }, Event::Deadline) if now >= until => self.start(),

            (State::Vacant | State::BackingOff { .. }, Event::Stop) => {
                self.finish(Outcome::Stopped)
            }
            (
                State::Starting { .. }
                | State::Overdue
                | State::Serving
                | State::Preparing { .. }
                | State::Relieving { .. },
                Event::Stop,
            ) => {
                self.stopping(false, now);
                Action::Terminate
            }
            (State::Stopping { .. }, Event::Stop) => {
                self.stopping(true, now);
                Action::Kill
            }
            (State::Stopping { .. }, Event::Died { .. }) => self.finish(Outcome::Stopped),
            (State::Stopping { by, killed: false }, Event::Deadline) if now >= by => {
                self.stopping(true, now);
                Action::Kill
            }
            (State::Stopping { by, killed: true }, Event::Deadline) if now >= by => {
                self.finish(Outcome::Stuck)
            }
            _ => Action::Wait,
        }
    }

    fn start(&mut self) -> Action {
        self.state = State::Vacant;
        Action::Start {
            restore: self.had_worker,
        }
    }

    fn next_worker(&mut self, served: bool, now: Instant) -> Action {
        self.note_death(served);
        self.start_or_pause(now)
    }

    fn note_death(&mut self, served: bool) {
        self.barren = if served {
            0
        } else {
            self.barren.saturating_add(1)
        };
    }

    fn start_or_pause(&mut self, now: Instant) -> Action {
        match pause_after(self.barren) {
            None => self.start(),
            Some(pause) => {
                self.state = State::BackingOff { until: now + pause };
                Action::Wait
            }
        }
    }

    fn stopping(&mut self, killed: bool, now: Instant) {
        self.state = State::Stopping {
            by: now + END_WITHIN,
            killed,
        };
    }

    fn finish(&mut self, outcome: Outcome) -> Action {
        self.state = State::Done;
        Action::Finish(outcome)
    }
}

/// The pause after so many barren deaths in a row.
fn pause_after(barren: u32) -> Option<Duration> {
    let doublings = barren.checked_sub(FREE_RESTARTS + 1)?;
    let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
    Some(FIRST_PAUSE.saturating_mul(factor).min(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests;
