// SPDX-License-Identifier: MIT OR Apache-2.0

//! Stories of upgrades; random orders of events are in the machine's own tests.

use super::super::tests::play;
use super::super::tests::serving;
use super::super::tests::DIED;
use super::super::tests::DIED_BARREN;
use super::super::tests::DIED_DEAD;
use super::super::FREE_RESTARTS;
use super::*;

const START: Action = Action::Start { restore: true };
const FAILED: Action = Action::Abandon(Failure::SuccessorFailed);

/// A worker serves, and its successor prepares.
fn preparing(now: Instant) -> Takeover {
    let mut takeover = serving(now);
    assert_eq!(takeover.on(Event::Upgrade, now), Action::StartSuccessor);
    takeover
}

/// The successor is prepared, and the worker was asked to end.
fn relieving(now: Instant) -> Takeover {
    let mut takeover = preparing(now);
    assert_eq!(takeover.on(Event::Prepared, now), Action::Relieve);
    takeover
}

#[test]
fn the_successor_begins_when_the_worker_has_ended() {
    let now = Instant::now();
    let mut takeover = relieving(now);
    let actions = play(&mut takeover, now, &[DIED, Event::Ready]);
    assert_eq!(actions, [Action::Go, Action::Announce]);
    assert_eq!(takeover.state(), State::Serving);
    // It is a worker as any other.
    assert_eq!(takeover.on(DIED, now), START);
}

#[test]
fn idle_workers_are_upgraded_for_ever() {
    let now = Instant::now();
    let mut takeover = serving(now);
    for _ in 0..100 {
        let events = [Event::Upgrade, Event::Prepared, DIED_BARREN, Event::Ready];
        let actions = play(&mut takeover, now, &events);
        let expected = [
            Action::StartSuccessor,
            Action::Relieve,
            Action::Go,
            Action::Announce,
        ];
        assert_eq!(actions, expected);
    }
    // None of them counts as one that cannot run.
    for _ in 0..FREE_RESTARTS {
        let actions = play(&mut takeover, now, &[DIED_BARREN, Event::Started]);
        assert_eq!(actions, [START, Action::Wait]);
    }
}

#[test]
fn a_successor_that_fails_leaves_the_worker_alone() {
    let now = Instant::now();
    let mut takeover = preparing(now);
    let actions = play(
        &mut takeover,
        now,
        &[Event::SuccessorFailed, Event::Abandoned],
    );
    assert_eq!(actions, [FAILED, Action::Wait]);
    assert_eq!(
        (takeover.state(), takeover.deadline()),
        (State::Serving, None)
    );
    assert_eq!(
        takeover.on(Event::Upgrade, now),
        Action::StartSuccessor,
        "another try"
    );
}

#[test]
fn a_successor_that_is_late_leaves_the_worker_alone() {
    let now = Instant::now();
    let mut takeover = preparing(now);
    assert_eq!(takeover.deadline(), Some(now + PREPARED_WITHIN));
    assert_eq!(takeover.on(Event::Deadline, now), Action::Wait, "too early");
    let late = now + PREPARED_WITHIN;
    let actions = play(&mut takeover, late, &[Event::Deadline, Event::Abandoned]);
    assert_eq!(actions, [Action::Abandon(Failure::Late), Action::Wait]);
    // Its word may come before its death.
    let actions = play(
        &mut takeover,
        late,
        &[Event::Prepared, Event::SuccessorFailed],
    );
    assert_eq!(actions, [Action::Wait; 2]);
    assert_eq!(takeover.state(), State::Serving);
}

#[test]
fn the_successor_of_a_worker_that_dies_is_waited_for() {
    let now = Instant::now();
    let mut takeover = preparing(now);
    let actions = play(&mut takeover, now, &[DIED, Event::Prepared, Event::Ready]);
    assert_eq!(actions, [Action::Wait, Action::Go, Action::Announce]);

    let mut takeover = preparing(now);
    let events = [DIED, Event::SuccessorFailed, Event::Abandoned];
    assert_eq!(
        play(&mut takeover, now, &events),
        [Action::Wait, FAILED, START]
    );

    // No longer than if the worker were alive.
    let mut takeover = preparing(now);
    assert_eq!(takeover.on(DIED, now), Action::Wait);
    assert_eq!(takeover.deadline(), Some(now + PREPARED_WITHIN));
    let events = [Event::Deadline, Event::Abandoned];
    let actions = play(&mut takeover, now + PREPARED_WITHIN, &events);
    assert_eq!(actions, [Action::Abandon(Failure::Late), START]);
}

#[test]
fn a_worker_that_does_not_end_is_killed() {
    let now = Instant::now();
    let mut takeover = relieving(now);
    let late = now + END_WITHIN;
    let actions = play(&mut takeover, late, &[Event::Deadline, DIED]);
    assert_eq!(actions, [Action::Kill, Action::Go]);

    let mut takeover = relieving(now);
    assert_eq!(takeover.on(Event::Deadline, late), Action::Kill);
    let events = [Event::Deadline, Event::Abandoned];
    let actions = play(&mut takeover, late + END_WITHIN, &events);
    assert_eq!(actions, [Action::Abandon(Failure::Stuck), Action::Wait]);
    // Nobody begins before it has ended after all.
    assert_eq!(takeover.state(), State::Overdue);
    assert_eq!(takeover.on(DIED, late), START);
}

#[test]
fn a_successor_that_dies_when_the_worker_is_ending_is_no_loss() {
    let now = Instant::now();
    let mut takeover = relieving(now);
    let events = [Event::SuccessorFailed, Event::Abandoned, DIED_BARREN];
    assert_eq!(
        play(&mut takeover, now, &events),
        [FAILED, Action::Wait, START]
    );

    // Nor if that one takes its time.
    let mut takeover = relieving(now);
    play(
        &mut takeover,
        now,
        &[Event::SuccessorFailed, Event::Abandoned],
    );
    let late = now + END_WITHIN;
    assert_eq!(takeover.on(Event::Deadline, late), Action::Kill);
    assert_eq!(
        takeover.on(Event::Deadline, late + END_WITHIN),
        Action::Wait
    );
    assert_eq!(takeover.on(DIED, late), START);
}

#[test]
fn a_successor_that_dies_after_it_has_begun_is_replaced() {
    let now = Instant::now();
    let mut takeover = relieving(now);
    let actions = play(&mut takeover, now, &[DIED, DIED_BARREN, Event::Started]);
    assert_eq!(actions, [Action::Go, START, Action::Wait]);

    let mut takeover = relieving(now);
    assert_eq!(takeover.on(DIED, now), Action::Go);
    assert_eq!(takeover.deadline(), Some(now + READY_WITHIN));
    assert_eq!(
        takeover.on(Event::Deadline, now + READY_WITHIN),
        Action::Kill
    );
}

#[test]
fn an_upgrade_begins_only_while_a_worker_serves() {
    let now = Instant::now();
    let (mut takeover, _) = Takeover::begin(false);
    assert_eq!(takeover.on(Event::Upgrade, now), Action::Wait);
    takeover.on(Event::Started, now);
    assert_eq!(takeover.on(Event::Upgrade, now), Action::Wait);
    for mut takeover in [preparing(now), relieving(now)] {
        let before = takeover.state();
        assert_eq!(takeover.on(Event::Upgrade, now), Action::Wait);
        assert_eq!(takeover.state(), before);
    }
}

#[test]
fn a_keeper_that_is_to_end_upgrades_no_more() {
    let now = Instant::now();
    let finish = Action::Finish(Outcome::Stopped);
    for mut takeover in [preparing(now), relieving(now)] {
        let actions = play(&mut takeover, now, &[Event::Stop, Event::Prepared, DIED]);
        assert_eq!(actions, [Action::Terminate, Action::Wait, finish]);
    }
    let mut takeover = preparing(now);
    assert_eq!(
        play(&mut takeover, now, &[DIED, Event::Stop]),
        [Action::Wait, finish]
    );
}

#[test]
fn a_dead_cache_ends_an_upgrade_too() {
    let now = Instant::now();
    for mut takeover in [preparing(now), relieving(now)] {
        let finish = Action::Finish(Outcome::CacheDead);
        assert_eq!(takeover.on(DIED_DEAD, now), finish);
    }
}

#[test]
fn a_keeper_that_was_another_program_has_a_worker() {
    let (mut takeover, first) = Takeover::resume();
    assert_eq!((first, takeover.state()), (Action::Wait, State::Serving));
    assert_eq!(takeover.on(DIED_BARREN, Instant::now()), START);
}
