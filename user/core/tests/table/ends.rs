// SPDX-License-Identifier: MIT OR Apache-2.0

//! How openings, READs and objects end: by an answer, a drop, a flush or a signal, in each phase.

use crate::story::Story;
use crate::story::ALL;
use ondemand_core::errno::Errno;
use ondemand_core::model::daemon::Begun;
use ondemand_core::ondemand::queue::Kind;
use ondemand_core::ondemand::queue::Phase;
use ondemand_core::ondemand::state::Awaited;
use ondemand_core::ondemand::state::Opening;
use ondemand_core::ondemand::state::State;

#[test]
fn a_delivered_close_leaves_the_entry_until_its_fd_is_closed() {
    let (mut story, object, object_id) = Story::open();
    assert!(story.drop_object(object));
    assert_eq!(story.next().kind, Kind::Close { object_id });
    assert!(!story.is_empty());
    story.close(object_id);
    assert!(story.is_empty());
}

#[test]
fn a_drop_during_validation_is_final() {
    let mut story = Story::new();
    let (object, open) = story.opening();
    story.0.copen(open.msg_id, Ok(())).unwrap();
    let validating = State::Reopening(Opening::Validating);
    assert_eq!(story.state(object), validating);
    assert!(story.drop_object(object));
    story.0.finish(0, Ok(()));
    story.check();
    assert_eq!(story.state(object), State::Dropping);
    story.close(open.object_id);
    assert!(story.is_empty());
}

#[test]
fn an_fd_that_closes_during_validation_is_reopened_for_what_waits() {
    for waits in [false, true] {
        let mut story = Story::new();
        let (object, open) = story.opening();
        if waits {
            story.read(object);
        }
        story.0.copen(open.msg_id, Ok(())).unwrap();
        story.close(open.object_id);
        story.0.finish(0, Ok(()));
        story.check();
        let state = if waits {
            State::Reopening(Opening::Queued)
        } else {
            State::Close
        };
        assert_eq!(story.state(object), state);
        story.ends();
    }
}

#[test]
fn a_file_that_is_not_the_one_ends_what_waits() {
    let mut story = Story::new();
    let (object, open) = story.opening();
    let (label, _) = story.read(object);
    story.0.copen(open.msg_id, Ok(())).unwrap();
    story.0.finish(0, Err(Errno::EINVAL));
    story.check();
    story.0.resume_all();
    assert_eq!(story.outcome(label), Some(Err(Errno::EIO)));
    story.ends();
}

#[test]
fn await_open_tells_each_outcome() {
    // The opening succeeds.
    let mut story = Story::new();
    let (object, open) = story.opening();
    let early = story.0.wait(object);
    assert_eq!(story.0.waiters[early].told, Awaited::Pending);
    story.0.copen_ok(open.msg_id).unwrap();
    let late = story.0.wait(object);
    for waiter in [early, late] {
        assert_eq!(story.0.waiters[waiter].told, Awaited::Ready);
    }
    // It stays ready when the fd closes: the size is known.
    story.close(open.object_id);
    let later = story.0.wait(object);
    assert_eq!(story.0.waiters[later].told, Awaited::Ready);
    story.ends();

    // It is dropped; the cache dies.
    let mut story = Story::new();
    let (dropped, _) = story.opening();
    let (flushed, _) = story.opening();
    let waiters = [story.0.wait(dropped), story.0.wait(flushed)];
    story.drop_object(dropped);
    story.0.flush();
    story.0.resume_all();
    let told = Awaited::Failed(Errno::EIO);
    for waiter in waiters {
        assert_eq!(story.0.waiters[waiter].told, told);
    }
    story.ends();
}

#[test]
fn await_open_tells_a_failure_that_nobody_saw_once_and_then_tries_again() {
    let mut story = Story::new();
    let (object, open) = story.opening();
    story.0.copen(open.msg_id, Err(Errno::ENOENT)).unwrap();
    story.close(open.object_id);
    let first = story.0.wait(object);
    let told = Awaited::Failed(Errno::ENOENT);
    assert_eq!(story.0.waiters[first].told, told);
    assert!(story.0.works.is_empty());
    let second = story.0.wait(object);
    assert_eq!(story.0.waiters[second].told, Awaited::Pending);
    assert_eq!(story.0.works, [object]);
    story.work();
    let open = story.next();
    story.0.copen_ok(open.msg_id).unwrap();
    assert_eq!(story.0.waiters[second].told, Awaited::Ready);
    story.ends();
}

#[test]
fn an_open_for_which_there_is_no_memory_fails_like_an_answer() {
    let mut story = Story::new();
    let object = story.0.admit();
    let waiter = story.0.wait(object);
    let (label, _) = story.read(object);
    assert_eq!(story.0.work(0, Err(Errno::ENOMEM)), Err(Errno::ENOMEM));
    story.0.resume_all();
    story.check();
    let told = Awaited::Failed(Errno::ENOMEM);
    assert_eq!(story.0.waiters[waiter].told, told);
    assert_eq!(story.outcome(label), Some(Err(Errno::EIO)));
    story.ends();
}

#[test]
fn a_dropped_object_is_kept_until_its_older_fd_is_closed_too() {
    for newest_first in [true, false] {
        let mut story = Story::new();
        let (object, stale) = story.opening();
        story.0.copen(stale.msg_id, Err(Errno::ENOENT)).unwrap();
        story.read(object);
        story.work();
        let open = story.next();
        story.drop_object(object);
        let mut fds = [stale.object_id, open.object_id];
        if newest_first {
            fds.reverse();
        }
        story.close(fds[0]);
        assert!(!story.is_empty());
        // The CLOSE asks for the newest.
        assert_eq!(story.0.table.readable(), !newest_first);
        story.close(fds[1]);
        assert!(story.is_empty());
    }
}

/// Brings one READ into each phase.
fn read_in_each_phase() -> [(Story, u64, u32); 4] {
    let new = |deliver: fn(&mut Story, u32)| {
        let (mut story, object, object_id) = Story::open();
        let (label, msg_id) = story.read(object);
        deliver(&mut story, object_id);
        (story, label, msg_id)
    };
    let all = [
        new(|_, _| {}),
        new(|story, object_id| story.close(object_id)),
        new(|story, _| assert!(matches!(story.0.begin(0, ALL), Begun::Message(_)))),
        new(|story, _| assert!(matches!(story.next().kind, Kind::Read { .. }))),
    ];
    let expected: [fn(Phase) -> bool; 4] = [
        |phase| phase == Phase::New,
        |phase| phase == Phase::Parked,
        |phase| matches!(phase, Phase::InDelivery { .. }),
        |phase| matches!(phase, Phase::Delivered { .. }),
    ];
    let mut all = all;
    for ((story, _, msg_id), is_it) in all.iter_mut().zip(expected) {
        assert!(is_it(story.phase(*msg_id).unwrap()));
    }
    all
}

#[test]
fn a_read_ends_in_each_phase_by_a_flush() {
    for (mut story, label, msg_id) in read_in_each_phase() {
        story.0.flush();
        story.check();
        assert!(story.0.table.is_dead());
        assert_eq!(story.0.read(0), Err(Errno::EIO));
        story.0.resume_all();
        assert_eq!(story.outcome(label), Some(Err(Errno::EIO)));
        assert_eq!(story.phase(msg_id), None);
        assert_eq!(story.0.delivered(0), None);
        // What is looked up late is taken in, is not opened, and its readers are told.
        let late = story.0.admit();
        assert_eq!(story.0.work(0, Ok(())), Err(Errno::EIO));
        let waiter = story.0.wait(late);
        assert_eq!(story.0.waiters[waiter].told, Awaited::Failed(Errno::EIO));
        story.ends();
    }
}

#[test]
fn a_read_ends_in_each_phase_by_a_drop() {
    for (mut story, label, msg_id) in read_in_each_phase() {
        story.drop_object(0);
        assert_eq!(story.outcome(label), Some(Err(Errno::EIO)));
        assert_eq!(story.phase(msg_id), None);
        assert_eq!(story.0.read(0), Err(Errno::EIO));
        story.ends();
    }
}

#[test]
fn a_read_ends_in_each_phase_by_a_signal() {
    for (mut story, label, msg_id) in read_in_each_phase() {
        assert!(story.0.cancel(msg_id));
        story.check();
        assert_eq!(story.outcome(label), Some(Err(Errno::EINTR)));
        assert!(!story.0.cancel(msg_id));
        story.ends();
    }
}

#[test]
fn an_open_is_not_cancelled() {
    let mut story = Story::new();
    let (_, open) = story.opening();
    assert!(!story.0.cancel(open.msg_id));
    story.ends();
}

#[test]
fn a_flush_of_many_requests_ends_them_all() {
    let (mut story, object, _) = Story::open();
    let labels: Vec<u64> = (0..100).map(|_| story.read(object).0).collect();
    story.0.flush();
    story.0.resume_all();
    for label in labels {
        assert_eq!(story.outcome(label), Some(Err(Errno::EIO)));
    }
    story.ends();
}

#[test]
fn each_waiter_is_told_of_the_same_failure() {
    let mut story = Story::new();
    let (object, open) = story.opening();
    let waiters = [story.0.wait(object), story.0.wait(object)];
    story.0.copen(open.msg_id, Err(Errno::ENOENT)).unwrap();
    let told = Awaited::Failed(Errno::ENOENT);
    for waiter in waiters {
        assert_eq!(story.0.waiters[waiter].told, told);
    }
    assert!(story.0.works.is_empty());
    story.ends();
}

#[test]
fn a_drop_with_many_requests_ends_them_all() {
    let (mut story, object, object_id) = Story::open();
    let labels: Vec<u64> = (0..100).map(|_| story.read(object).0).collect();
    assert!(story.drop_object(object));
    for label in labels {
        assert_eq!(story.outcome(label), Some(Err(Errno::EIO)));
    }
    story.close(object_id);
    assert!(story.is_empty());
}

#[test]
fn a_flush_wakes_the_waiters_of_many_objects() {
    let mut story = Story::new();
    let waiters: Vec<usize> = (0..100)
        .map(|_| {
            let object = story.0.admit();
            story.0.wait(object)
        })
        .collect();
    story.0.flush();
    story.0.resume_all();
    story.check();
    let told = Awaited::Failed(Errno::EIO);
    for waiter in waiters {
        assert_eq!(story.0.waiters[waiter].told, told);
    }
}

#[test]
fn a_dead_table_takes_no_close() {
    let (mut story, object, object_id) = Story::open();
    story.0.flush();
    story.0.resume_all();
    assert!(!story.drop_object(object));
    story.is_quiet();
    story.close(object_id);
    assert!(story.is_empty());
}

#[test]
fn a_failed_delivery_of_an_ended_read_opens_nothing() {
    let (mut story, object, object_id) = Story::open();
    let (_, msg_id) = story.read(object);
    story.0.begin(0, ALL);
    assert!(story.0.cancel(msg_id));
    story.close(object_id);
    story.0.undeliver(0);
    story.check();
    assert_eq!(story.state(object), State::Close);
    assert!(story.0.works.is_empty());
    story.ends();
}
