// SPDX-License-Identifier: MIT OR Apache-2.0

//! `restore`: what was delivered and is unanswered is delivered again.

use crate::story::Story;
use crate::story::ALL;
use ondemand_core::errno::Errno;
use ondemand_core::model::daemon::Begun;
use ondemand_core::ondemand::queue::Kind;
use ondemand_core::ondemand::queue::Phase;
use ondemand_core::ondemand::state::State;

#[test]
fn an_open_whose_fd_is_closed_is_delivered_again() {
    let mut story = Story::new();
    let (_, open) = story.opening();
    story.0.crash();
    story.is_quiet();
    story.0.restore();
    let again = story.next();
    assert_eq!(again.msg_id, open.msg_id);
    assert_ne!(again.object_id, open.object_id);
    story.ends();
}

#[test]
fn a_read_whose_fd_was_kept_is_delivered_again_under_the_same_numbers() {
    let (mut story, object, object_id) = Story::open();
    let (label, msg_id) = story.read(object);
    story.next();
    story.0.crash_but_keep_fds();
    // Until `restore` it belongs to whoever has read it.
    story.is_quiet();
    let wakes = story.0.wakes;
    story.0.restore();
    assert_eq!(story.0.wakes, wakes + 1);
    let again = story.next();
    assert_eq!((again.msg_id, again.object_id), (msg_id, object_id));
    story.is_quiet();
    story.0.read_complete(object_id, msg_id).unwrap();
    assert_eq!(story.outcome(label), Some(Ok(())));
    story.ends();
}

#[test]
fn the_first_answer_counts_and_the_second_is_einval() {
    for answered_again in [false, true] {
        let (mut story, object, object_id) = Story::open();
        let (label, msg_id) = story.read(object);
        story.next();
        story.0.restore();
        if answered_again {
            // By who was sent it second; else by who was sent it first, before that.
            story.next();
        }
        story.0.read_complete(object_id, msg_id).unwrap();
        assert_eq!(story.outcome(label), Some(Ok(())));
        let second = story.0.read_complete(object_id, msg_id);
        assert_eq!(second, Err(Errno::EINVAL));
        story.is_quiet();
        story.ends();
    }
}

#[test]
fn an_answer_during_the_second_delivery_ends_it() {
    let (mut story, object, object_id) = Story::open();
    let (label, msg_id) = story.read(object);
    story.next();
    story.0.restore();
    assert!(matches!(story.0.begin(0, ALL), Begun::Message(_)));
    story.0.read_complete(object_id, msg_id).unwrap();
    assert_eq!(story.outcome(label), Some(Ok(())));
    assert_eq!(story.0.delivered(0), None, "shown after its end");
    story.ends();
}

#[test]
fn a_read_in_delivery_is_delivered_again_when_that_ends() {
    for copied in [true, false] {
        let (mut story, object, object_id) = Story::open();
        let (_, msg_id) = story.read(object);
        assert!(matches!(story.0.begin(0, ALL), Begun::Message(_)));
        story.0.restore();
        story.is_quiet();
        if copied {
            story.0.delivered(0).unwrap();
        } else {
            story.0.undeliver(0);
            let early = story.0.read_complete(object_id, msg_id);
            assert_eq!(early, Err(Errno::EINVAL), "nobody has been sent it");
        }
        assert_eq!(story.next().msg_id, msg_id);
        // Once.
        story.is_quiet();
        story.ends();
    }
}

#[test]
fn a_second_delivery_that_fails_leaves_the_right_to_answer() {
    let (mut story, object, object_id) = Story::open();
    let (label, msg_id) = story.read(object);
    story.next();
    story.0.restore();
    assert!(matches!(story.0.begin(0, ALL), Begun::Message(_)));
    story.0.undeliver(0);
    story.0.read_complete(object_id, msg_id).unwrap();
    assert_eq!(story.outcome(label), Some(Ok(())));
    story.is_quiet();
    story.ends();
}

#[test]
fn a_read_that_is_deliverable_again_is_held_back_when_its_fd_closes() {
    for in_delivery in [false, true] {
        let (mut story, object, first) = Story::open();
        let (_, msg_id) = story.read(object);
        story.next();
        story.0.restore();
        if in_delivery {
            story.0.begin(0, ALL);
        }
        story.close(first);
        if in_delivery {
            assert_eq!(story.0.delivered(0), None);
        }
        assert_eq!(story.phase(msg_id), Some(Phase::Parked));
        story.work();
        let open = story.next();
        story.0.copen_ok(open.msg_id).unwrap();
        let again = story.next();
        assert_eq!((again.msg_id, again.object_id), (msg_id, open.object_id));
        story.is_quiet();
        story.ends();
    }
}

#[test]
fn five_reads_and_a_restore_before_each_delivery_are_all_delivered() {
    let (mut story, object, object_id) = Story::open();
    let sent: Vec<u32> = (0..5).map(|_| story.read(object).1).collect();
    let mut got = Vec::new();
    for _ in &sent {
        story.0.restore();
        got.push(story.next().msg_id);
    }
    assert_eq!(got, sent);
    for msg_id in sent {
        story.0.read_complete(object_id, msg_id).unwrap();
    }
    story.is_quiet();
    story.ends();
}

#[test]
fn restore_changes_nothing_for_what_nobody_has_been_sent() {
    let (mut story, object, first) = Story::open();
    story.read(object);
    let before = story.0.table.clone();
    story.0.restore();
    assert!(story.0.table.view_equals(&before));
    // Held back, and an OPEN that is queued.
    story.close(first);
    story.work();
    let before = story.0.table.clone();
    story.0.restore();
    assert!(story.0.table.view_equals(&before));
    story.ends();
}

#[test]
fn restore_brings_back_neither_what_has_ended_nor_a_close() {
    let (mut story, object, object_id) = Story::open();
    let (_, killed) = story.read(object);
    let (_, answered) = story.read(object);
    story.next();
    story.next();
    assert!(story.0.cancel(killed));
    story.0.read_complete(object_id, answered).unwrap();
    story.0.restore();
    story.is_quiet();
    story.drop_object(object);
    assert!(matches!(story.next().kind, Kind::Close { .. }));
    story.0.restore();
    story.is_quiet();
    story.ends();
}

#[test]
fn restore_reaches_every_one_of_many_requests() {
    let mut story = Story::new();
    for _ in 0..200 {
        story.opening();
    }
    story.0.crash();
    story.0.restore();
    assert_eq!(story.0.pending.len(), 1, "one hold of the lock did it all");
    story.0.resume_all();
    story.check();
    for _ in 0..200 {
        assert_eq!(story.0.read_next().unwrap().kind, Kind::Open);
    }
    story.is_quiet();

    let (mut story, object, _) = Story::open();
    for _ in 0..200 {
        story.read(object);
        story.next();
    }
    story.0.restore();
    assert_eq!(story.0.pending.len(), 1, "one hold of the lock did it all");
    story.0.resume_all();
    story.check();
    for _ in 0..200 {
        assert!(matches!(story.next().kind, Kind::Read { .. }));
    }
    story.is_quiet();
}

#[test]
fn restore_wakes_the_daemon_for_the_request_with_the_last_number() {
    let mut story = Story::new();
    story.0.next_msg = u32::MAX;
    story.0.next_place = u32::MAX;
    story.opening();
    story.0.crash();
    story.0.restore();
    story.0.resume_all();
    assert_eq!(story.next().msg_id, u32::MAX);
    story.ends();
}

#[test]
fn restore_leaves_the_state_of_an_object_alone() {
    let (mut story, object, object_id) = Story::open();
    story.read(object);
    story.next();
    story.0.restore();
    assert_eq!(story.state(object), State::Open { object_id });
    assert_eq!(story.0.opens_shown, 1);
    story.ends();
}
