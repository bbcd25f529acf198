// SPDX-License-Identifier: MIT OR Apache-2.0

//! Defects of the C module as stories with a known end. A name begins with the defect's number in
//! `docs/defects.md`.

use crate::story::Story;
use crate::story::ALL;
use ondemand_core::errno::Errno;
use ondemand_core::model::daemon::Begun;
use ondemand_core::model::sim::SMALL_ROOM;
use ondemand_core::ondemand::queue::Kind;
use ondemand_core::ondemand::queue::Phase;
use ondemand_core::ondemand::state::Awaited;
use ondemand_core::ondemand::state::State;

#[test]
fn d5_a_delivered_read_comes_again_when_its_fd_is_closed() {
    let (mut story, object, first) = Story::open();
    let (label, msg_id) = story.read(object);
    assert_eq!(story.next().object_id, first);
    let wakes = story.0.wakes;
    story.close(first);
    assert_eq!(story.phase(msg_id), Some(Phase::Parked));
    assert_eq!(story.0.works, [object]);

    story.work();
    assert!(story.0.wakes > wakes, "nobody told the daemon");
    let open = story.next();
    assert_eq!(open.kind, Kind::Open);
    assert_ne!(open.object_id, first);
    assert_eq!(story.outcome(label), None);
    story.0.copen_ok(open.msg_id).unwrap();
    let again = story.next();
    assert_eq!((again.msg_id, again.object_id), (msg_id, open.object_id));
    story.0.read_complete(again.object_id, msg_id).unwrap();
    assert_eq!(story.outcome(label), Some(Ok(())));
    story.is_quiet();
    story.ends();
}

#[test]
fn d5_an_undelivered_read_waits_for_the_reopening() {
    let (mut story, object, first) = Story::open();
    let (_, msg_id) = story.read(object);
    story.close(first);
    assert_eq!(story.phase(msg_id), Some(Phase::Parked));
    story.is_quiet();
    story.ends();
}

#[test]
fn d6_restore_leaves_an_open_whose_fd_is_open() {
    let mut story = Story::new();
    let (object, open) = story.opening();
    story.0.restore();
    story.is_quiet();
    story.0.copen_ok(open.msg_id).unwrap();
    let object_id = open.object_id;
    assert_eq!(story.state(object), State::Open { object_id });
    story.ends();
}

#[test]
fn d6_restore_before_the_old_process_dies_counts_when_its_fd_closes() {
    let mut story = Story::new();
    let (_, open) = story.opening();
    story.0.restore();
    story.is_quiet();
    story.close(open.object_id);
    let again = story.next();
    assert_eq!(again.msg_id, open.msg_id);
    assert_ne!(again.object_id, open.object_id);
    // Once only: the next close is that of a daemon that is about to answer -ENOENT.
    story.close(again.object_id);
    story.is_quiet();
    story.0.copen(open.msg_id, Err(Errno::ENOENT)).unwrap();
    story.check();
    story.ends();
}

#[test]
fn d6_restore_while_the_open_is_being_delivered_counts_when_its_fd_closes() {
    let mut story = Story::new();
    story.0.admit();
    story.work();
    assert!(matches!(story.0.begin(0, ALL), Begun::Message(_)));
    story.0.restore();
    story.is_quiet();
    let open = story.0.delivered(0).unwrap();
    story.is_quiet();
    story.close(open.object_id);
    assert_eq!(story.next().msg_id, open.msg_id);
    story.ends();
}

#[test]
fn d7_an_error_answer_to_a_reopening_ends_its_reads_in_both_orders() {
    for close_first in [true, false] {
        let (mut story, object, first) = Story::open();
        let labels: Vec<u64> = (0..40).map(|_| story.read(object).0).collect();
        story.close(first);
        story.work();
        let open = story.next();
        if close_first {
            story.close(open.object_id);
        }
        story.0.copen(open.msg_id, Err(Errno::ENOENT)).unwrap();
        story.check();
        if !close_first {
            story.close(open.object_id);
        }
        story.0.resume_all();
        for label in labels {
            assert_eq!(story.outcome(label), Some(Err(Errno::EIO)));
        }
        assert_eq!(story.state(object), State::Close);
        assert!(story.0.works.is_empty(), "it tries again by itself");
        assert_eq!(story.0.opens_shown, 2);
        story.is_quiet();
        // A later READ may try again.
        story.read(object);
        assert_eq!(story.0.works, [object]);
        story.ends();
    }
}

#[test]
fn d8_what_ends_a_reopening_wakes_those_who_wait() {
    let mut story = Story::new();
    let (object, open) = story.opening();
    let waiter = story.0.wait(object);
    story.0.copen(open.msg_id, Err(Errno::EACCES)).unwrap();
    let told = Awaited::Failed(Errno::EACCES);
    assert_eq!(story.0.waiters[waiter].told, told);
    story.ends();
}

#[test]
fn d10_a_close_that_was_not_delivered_is_withdrawn_with_its_fd() {
    let (mut story, object, object_id) = Story::open();
    assert!(story.drop_object(object));
    assert!(story.0.table.readable());
    story.close(object_id);
    assert!(!story.0.table.readable());
    assert!(story.is_empty());
    assert!(story.0.cookies[&object].forgotten);
}

#[test]
fn d10_a_close_in_delivery_is_withdrawn_with_its_fd() {
    let (mut story, object, object_id) = Story::open();
    assert!(story.drop_object(object));
    assert!(matches!(story.0.begin(0, ALL), Begun::Message(_)));
    story.close(object_id);
    assert!(story.is_empty());
    assert_eq!(story.0.delivered(0), None);
    story.check();
}

#[test]
fn d16_an_open_stays_when_its_delivery_fails() {
    let mut story = Story::new();
    story.0.admit();
    let msg_id = story.work();
    for _ in 0..3 {
        let wakes = story.0.wakes;
        assert!(matches!(story.0.begin(0, ALL), Begun::Message(_)));
        assert!(!story.0.table.readable());
        story.0.undeliver(0);
        story.check();
        assert!(story.0.wakes > wakes);
    }
    let open = story.next();
    // Each attempt had its own number.
    assert_eq!((open.msg_id, open.object_id), (msg_id, 4));
    story.0.copen_ok(msg_id).unwrap();
    story.ends();
}

#[test]
fn d16_a_read_and_a_close_stay_when_their_delivery_fails() {
    let (mut story, object, object_id) = Story::open();
    let (_, msg_id) = story.read(object);
    story.0.begin(0, ALL);
    story.0.undeliver(0);
    assert_eq!(story.phase(msg_id), Some(Phase::New));
    story.drop_object(object);
    story.0.begin(0, ALL);
    story.0.undeliver(0);
    assert_eq!(story.next().kind, Kind::Close { object_id });
    story.ends();
}

#[test]
fn d19_a_size_for_a_closed_fd_is_an_error_for_the_writer_and_the_open() {
    let mut story = Story::new();
    let (object, open) = story.opening();
    let waiter = story.0.wait(object);
    story.close(open.object_id);
    assert_eq!(story.0.copen(open.msg_id, Ok(())), Err(Errno::EBADFD));
    story.check();
    assert_eq!(story.state(object), State::Close);
    assert_eq!(story.outcome(0), Some(Err(Errno::EBADFD)));
    let told = Awaited::Failed(Errno::EBADFD);
    assert_eq!(story.0.waiters[waiter].told, told);
    story.ends();
}

#[test]
fn d31_a_message_that_does_not_fit_lets_the_others_pass() {
    let (mut story, object, _) = Story::open();
    story.0.admit();
    let open = story.work();
    let (_, read) = story.read(object);
    let mut got = Vec::new();
    for _ in 0..4 {
        match story.0.begin(0, SMALL_ROOM) {
            Begun::Message(held) => {
                got.push(held.msg_id);
                story.0.delivered(0);
            }
            Begun::TooSmall => assert_eq!(story.phase(open), Some(Phase::New)),
            Begun::Nothing => panic!("the OPEN is gone"),
        }
        story.check();
    }
    assert_eq!(got, [read]);
    assert_eq!(story.next().msg_id, open);
    story.ends();
}

#[test]
fn d32_a_read_whose_fd_closes_during_its_delivery_is_not_shown() {
    for reopened in [false, true] {
        let (mut story, object, first) = Story::open();
        let (label, msg_id) = story.read(object);
        story.0.begin(0, ALL);
        story.close(first);
        story.work();
        if reopened {
            let open = story.next();
            story.0.copen_ok(open.msg_id).unwrap();
        }
        assert_eq!(story.0.delivered(0), None);
        story.check();
        let phase = if reopened { Phase::New } else { Phase::Parked };
        assert_eq!(story.phase(msg_id), Some(phase));
        if !reopened {
            let open = story.next();
            story.0.copen_ok(open.msg_id).unwrap();
        }
        let again = story.next();
        assert_eq!(again.msg_id, msg_id);
        assert_ne!(again.object_id, first);
        story.0.read_complete(again.object_id, msg_id).unwrap();
        assert_eq!(story.outcome(label), Some(Ok(())));
        story.ends();
    }
}

#[test]
fn d32_a_read_whose_reopening_failed_during_its_delivery_opens_again() {
    let (mut story, object, first) = Story::open();
    let (_, msg_id) = story.read(object);
    story.0.begin(0, ALL);
    story.close(first);
    story.work();
    let open = story.next();
    story.0.copen(open.msg_id, Err(Errno::ENOENT)).unwrap();
    story.close(open.object_id);
    assert_eq!(story.0.delivered(0), None);
    assert_eq!(story.phase(msg_id), Some(Phase::Parked));
    assert_eq!(story.0.works, [object]);
    story.ends();
}

#[test]
fn d33_a_drop_during_the_opening_asks_for_the_fd_back() {
    let mut story = Story::new();
    let (object, open) = story.opening();
    assert!(story.drop_object(object));
    let object_id = open.object_id;
    assert_eq!(story.0.copen(open.msg_id, Ok(())), Err(Errno::EINVAL));
    assert_eq!(story.state(object), State::Dropping);
    assert_eq!(story.next().kind, Kind::Close { object_id });
    story.close(object_id);
    assert!(story.is_empty());
}

#[test]
fn d33_an_answer_between_the_parts_of_a_drop_revives_nothing() {
    for answer in [Ok(()), Err(Errno::ENOENT)] {
        let mut story = Story::new();
        let (object, open) = story.opening();
        story.0.drop_object(object);
        assert_eq!(story.0.copen(open.msg_id, answer), Err(Errno::EINVAL));
        assert_eq!(story.state(object), State::Dropping);
        story.0.resume_all();
        story.close(open.object_id);
        assert!(story.is_empty());
    }
}

#[test]
fn d33_an_open_in_delivery_gets_no_fd_once_its_object_is_dropped() {
    for rest_first in [true, false] {
        let mut story = Story::new();
        let object = story.0.admit();
        story.work();
        story.0.begin(0, ALL);
        assert!(!story.0.drop_object(object), "there is no fd to be closed");
        if rest_first {
            story.0.resume_all();
        }
        assert_eq!(story.0.delivered(0), None);
        story.0.resume_all();
        story.check();
        assert!(story.is_empty());
    }
}
