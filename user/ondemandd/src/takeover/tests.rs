// SPDX-License-Identifier: MIT OR Apache-2.0

//! Stories and random orders of events.

use proptest::prelude::*;

use super::*;

pub(super) const DIED: Event = Event::Died {
    served: true,
    cache_dead: false,
};
pub(super) const DIED_BARREN: Event = Event::Died {
    served: false,
    cache_dead: false,
};
pub(super) const DIED_DEAD: Event = Event::Died {
    served: true,
    cache_dead: true,
};

/// Plays events at one instant; returns the actions.
pub(super) fn play(takeover: &mut Takeover, now: Instant, events: &[Event]) -> Vec<Action> {
    events
        .iter()
        .map(|event| takeover.on(*event, now))
        .collect()
}

pub(super) fn serving(now: Instant) -> Takeover {
    let (mut takeover, action) = Takeover::begin(false);
    assert_eq!(action, Action::Start { restore: false });
    let actions = play(&mut takeover, now, &[Event::Started, Event::Ready]);
    assert_eq!(actions, [Action::Wait, Action::Announce]);
    assert_eq!(takeover.state(), State::Serving);
    takeover
}

#[test]
fn the_first_worker_of_a_later_keeper_restores() {
    let (mut takeover, action) = Takeover::begin(true);
    assert_eq!(action, Action::Start { restore: true });
    // Also when it could not be started.
    let actions = play(&mut takeover, Instant::now(), &[Event::StartFailed]);
    assert_eq!(actions, [Action::Start { restore: true }]);
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
    let (mut takeover, _) = Takeover::begin(false);
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
    let (mut takeover, _) = Takeover::begin(false);
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
        Just(Event::Upgrade),
        Just(Event::Prepared),
        Just(Event::SuccessorFailed),
        Just(Event::Abandoned),
        Just(Event::Stop),
        Just(Event::Deadline),
    ]
}

/// What runs, as the keeper knows it.
#[derive(Default)]
struct Running {
    /// It was told to begin.
    worker: bool,
    /// It was not.
    successor: bool,
}

impl Running {
    /// Whether an event can come after an action: some are its very result.
    fn can_be(&self, event: Event, after: Action) -> bool {
        match (after, event) {
            (Action::Start { .. }, _) => matches!(event, Event::Started | Event::StartFailed),
            (Action::Abandon(_), _) => event == Event::Abandoned,
            (_, Event::Started | Event::StartFailed | Event::Abandoned) => false,
            (_, Event::Ready | Event::Died { .. }) => self.worker,
            (_, Event::Prepared | Event::SuccessorFailed) => self.successor,
            (_, Event::Upgrade | Event::Stop | Event::Deadline) => true,
        }
    }
}

proptest! {
    /// Whatever happens: nobody is told to begin while another one may answer, there is one successor at most,
    /// and the machine waits without a deadline only for something that must come.
    #[test]
    fn at_most_one_worker(events in proptest::collection::vec(events(), 0..96)) {
        let mut now = Instant::now();
        let (mut takeover, mut action) = Takeover::begin(false);
        let mut running = Running::default();
        for event in events {
            if !running.can_be(event, action) {
                continue;
            }
            match event {
                Event::Started => running.worker = true,
                Event::Died { .. } => running.worker = false,
                Event::SuccessorFailed => running.successor = false,
                _ => {}
            }
            now += LONGEST_PAUSE.max(READY_WITHIN);
            action = takeover.on(event, now);
            match action {
                Action::Start { .. } => prop_assert!(!running.worker && !running.successor),
                Action::StartSuccessor => {
                    prop_assert!(running.worker && !running.successor);
                    running.successor = true;
                }
                Action::Go => {
                    prop_assert!(!running.worker && running.successor);
                    running = Running { worker: true, successor: false };
                }
                // With it the keeper makes an end of the successor.
                Action::Abandon(_) | Action::Terminate => running.successor = false,
                Action::Finish(outcome) => {
                    prop_assert!(!running.worker || outcome == Outcome::Stuck);
                    break;
                }
                _ => {}
            }
            let goes_on = matches!(action, Action::Start { .. } | Action::Abandon(_));
            prop_assert!(takeover.deadline().is_some() || running.worker || goes_on);
            if running.successor {
                prop_assert!(takeover.deadline().is_some(), "a successor is not waited for for ever");
            }
        }
    }
}
