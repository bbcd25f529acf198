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

use std::time::Duration;
use std::time::Instant;

/// A worker that is not ready after this long is killed.
pub const READY_WITHIN: Duration = Duration::from_secs(10);
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
    /// Ask the worker to end.
    Terminate,
    /// Make the worker end.
    Kill,
    /// Close the device and end.
    Finish(Outcome),
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
    /// A bound cache without a worker, and the first thing to do.
    #[must_use]
    pub fn begin() -> (Self, Action) {
        let takeover = Takeover {
            state: State::Vacant,
            had_worker: false,
            barren: 0,
        };
        (takeover, Action::Start { restore: false })
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
            State::Stopping { by, .. } => Some(by),
            State::Vacant | State::Overdue | State::Serving | State::Done => None,
        }
    }

    /// Takes one event; `now` is when it happened. Events that do not fit the state do nothing.
    pub fn on(&mut self, event: Event, now: Instant) -> Action {
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
                State::Starting { .. } | State::Overdue | State::Serving,
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
            (State::Starting { .. } | State::Overdue | State::Serving, Event::Stop) => {
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
        self.barren = if served {
            0
        } else {
            self.barren.saturating_add(1)
        };
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIED: Event = Event::Died {
        served: true,
        cache_dead: false,
    };
    const DIED_BARREN: Event = Event::Died {
        served: false,
        cache_dead: false,
    };
    const DIED_DEAD: Event = Event::Died {
        served: true,
        cache_dead: true,
    };

    /// Plays events at one instant; returns the actions.
    fn play(takeover: &mut Takeover, now: Instant, events: &[Event]) -> Vec<Action> {
        events
            .iter()
            .map(|event| takeover.on(*event, now))
            .collect()
    }

    fn serving(now: Instant) -> Takeover {
        let (mut takeover, action) = Takeover::begin();
        assert_eq!(action, Action::Start { restore: false });
        let actions = play(&mut takeover, now, &[Event::Started, Event::Ready]);
        assert_eq!(actions, [Action::Wait, Action::Announce]);
        assert_eq!(takeover.state(), State::Serving);
        takeover
    }

    #[test]
    fn a_worker_that_served_is_replaced_at_once_for_ever() {
        let now = Instant::now();
        let mut takeover = serving(now);
        for _ in 0..100 {
            let actions = play(&mut takeover, now, &[DIED, Event::Started, Event::Ready]);
            let start = Action::Start { restore: true };
            assert_eq!(actions, [start, Action::Wait, Action::Announce]);
        }
    }

    #[test]
    fn barren_workers_are_slowed_down_and_one_that_serves_makes_up() {
        let mut now = Instant::now();
        let mut takeover = serving(now);
        for _ in 0..FREE_RESTARTS {
            let actions = play(&mut takeover, now, &[DIED_BARREN, Event::Started]);
            assert_eq!(actions, [Action::Start { restore: true }, Action::Wait]);
        }
        let mut expected = FIRST_PAUSE;
        for _ in 0..20 {
            assert_eq!(takeover.on(DIED_BARREN, now), Action::Wait);
            assert_eq!(takeover.deadline(), Some(now + expected));
            assert_eq!(takeover.on(Event::Deadline, now), Action::Wait, "too early");
            now += expected;
            let actions = play(&mut takeover, now, &[Event::Deadline, Event::Started]);
            assert_eq!(actions, [Action::Start { restore: true }, Action::Wait]);
            expected = (expected * 2).min(LONGEST_PAUSE);
        }
        assert_eq!(takeover.on(DIED, now), Action::Start { restore: true });
        assert_eq!(takeover.barren, 0);
    }

    #[test]
    fn restore_is_for_successors_only() {
        let now = Instant::now();
        let (mut takeover, _) = Takeover::begin();
        // Nothing ran, so nothing was read from the device.
        let again = takeover.on(Event::StartFailed, now);
        assert_eq!(again, Action::Start { restore: false });
        // This one had the device, ready or not.
        let actions = play(&mut takeover, now, &[Event::Started, DIED_BARREN]);
        assert_eq!(actions[1], Action::Start { restore: true });
    }

    #[test]
    fn a_worker_that_is_never_ready_is_killed() {
        let now = Instant::now();
        let (mut takeover, _) = Takeover::begin();
        takeover.on(Event::Started, now);
        let late = now + READY_WITHIN;
        assert_eq!(takeover.on(Event::Deadline, late), Action::Kill);
        // Its answer may still arrive before its death.
        assert_eq!(takeover.on(Event::Ready, late), Action::Wait);
        assert_eq!(takeover.state(), State::Overdue);
        let action = takeover.on(DIED_BARREN, late);
        assert_eq!(action, Action::Start { restore: true });
    }

    #[test]
    fn stopping_grows_more_urgent() {
        let now = Instant::now();
        let mut takeover = serving(now);
        assert_eq!(takeover.on(Event::Stop, now), Action::Terminate);
        let actions = play(&mut takeover, now + END_WITHIN, &[Event::Deadline]);
        assert_eq!(actions, [Action::Kill]);
        let end = takeover.on(Event::Deadline, now + 2 * END_WITHIN);
        assert_eq!(end, Action::Finish(Outcome::Stuck));

        let mut takeover = serving(now);
        let actions = play(&mut takeover, now, &[Event::Stop, Event::Stop, DIED]);
        let finish = Action::Finish(Outcome::Stopped);
        assert_eq!(actions, [Action::Terminate, Action::Kill, finish]);
    }

    #[test]
    fn a_dead_cache_ends_the_keeper() {
        let now = Instant::now();
        let mut takeover = serving(now);
        let finish = Action::Finish(Outcome::CacheDead);
        assert_eq!(takeover.on(DIED_DEAD, now), finish);
        assert_eq!(takeover.on(Event::Stop, now), Action::Wait);
    }

    fn events() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Started),
            Just(Event::StartFailed),
            Just(Event::Ready),
            Just(DIED),
            Just(DIED_BARREN),
            Just(Event::Stop),
            Just(Event::Deadline),
        ]
    }

    proptest! {
        /// Whatever happens: a worker is started only when none runs, and the machine waits
        /// without a deadline only for something that must come.
        #[test]
        fn at_most_one_worker(events in proptest::collection::vec(events(), 0..64)) {
            let mut now = Instant::now();
            let (mut takeover, mut action) = Takeover::begin();
            let mut running = false;
            for event in events {
                if matches!(action, Action::Start { .. }) {
                    prop_assert!(!running);
                }
                // Leave out what cannot happen: the keeper knows what runs.
                let possible = match event {
                    Event::Started | Event::StartFailed => {
                        matches!(action, Action::Start { .. })
                    }
                    Event::Ready | Event::Died { .. } => running,
                    Event::Stop | Event::Deadline => !matches!(action, Action::Start { .. }),
                };
                if !possible {
                    continue;
                }
                match event {
                    Event::Started => running = true,
                    Event::Died { .. } => running = false,
                    _ => {}
                }
                now += LONGEST_PAUSE.max(READY_WITHIN);
                action = takeover.on(event, now);
                if let Action::Finish(outcome) = action {
                    prop_assert!(!running || outcome == Outcome::Stuck);
                    break;
                }
                let starts = matches!(action, Action::Start { .. });
                prop_assert!(takeover.deadline().is_some() || running || starts);
            }
        }
    }
}
