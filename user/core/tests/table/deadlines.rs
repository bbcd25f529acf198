// SPDX-License-Identifier: MIT OR Apache-2.0

//! Deadlines: what nobody answers in time ends, alone, and what comes late finds nothing (D12, D17, D18).

use crate::story::Story;
use crate::story::ALL;
use ondemand_core::errno::Errno;
use ondemand_core::model::daemon::Begun;
use ondemand_core::ondemand::queue::Effect;
use ondemand_core::ondemand::queue::Effects;
use ondemand_core::ondemand::queue::Kind;
use ondemand_core::ondemand::state::Awaited;
use ondemand_core::ondemand::state::State;

/// So much time passes that the oldest request is due.
fn expire(story: &mut Story) {
    assert!(story.0.expire());
    story.0.resume_all();
    story.check();
}

#[test]
fn d17_a_read_in_each_phase() {
    for steps in 0..3 {
        let (mut story, object, object_id) = Story::open();
        let (read, msg_id) = story.read(object);
        if steps > 0 {
            assert!(matches!(story.0.begin(0, ALL), Begun::Message(_)));
        }
        if steps > 1 {
            assert!(story.0.delivered(0).is_some());
        }
        expire(&mut story);
        assert_eq!(story.outcome(read), Some(Err(Errno::ETIMEDOUT)));
        if steps == 1 {
            assert_eq!(story.0.delivered(0), None, "it is not shown any more");
        }
        assert_eq!(story.0.read_complete(object_id, msg_id), Err(Errno::EINVAL));
        assert_eq!(story.state(object), State::Open { object_id });
        assert!(!story.0.expire(), "nothing is due any more");
        story.check();
    }
}

#[test]
fn d17_an_open_in_each_phase() {
    for steps in 0..4 {
        let mut story = Story::new();
        let object = story.0.admit();
        let msg_id = story.work();
        if steps > 0 {
            assert!(matches!(story.0.begin(0, ALL), Begun::Message(_)));
        }
        let held = (steps > 1).then(|| story.0.delivered(0).unwrap());
        if let (3, Some(held)) = (steps, held) {
            story.close(held.object_id);
        }
        expire(&mut story);
        assert_eq!(story.state(object), State::Close);
        if steps == 1 {
            assert_eq!(story.0.delivered(0), None, "its fd is not installed");
        }
        assert_eq!(story.0.copen(msg_id, Ok(())), Err(Errno::EINVAL));
        assert_eq!(
            story.0.copen(msg_id, Err(Errno::ENOENT)),
            Err(Errno::EINVAL)
        );
        story.check();

        // Whoever comes later is told nothing of it, and is served.
        let waiter = story.0.wait(object);
        assert_eq!(story.0.waiters[waiter].told, Awaited::Pending);
        story.work();
        let open = story.next();
        story.0.copen_ok(open.msg_id).unwrap();
        assert_eq!(story.0.waiters[waiter].told, Awaited::Ready);
        story.check();
    }
}

#[test]
fn an_opening_that_is_due_ends_those_who_wait_for_it() {
    let mut story = Story::new();
    let (object, _open) = story.opening();
    let waiter = story.0.wait(object);
    expire(&mut story);
    let told = story.0.waiters[waiter].told;
    assert_eq!(told, Awaited::Failed(Errno::ETIMEDOUT));
}

#[test]
fn what_is_held_back_ends_with_its_reopening() {
    let (mut story, object, object_id) = Story::open();
    story.close(object_id);
    let (first, _) = story.read(object);
    story.work();
    let (second, _) = story.read(object);
    // The READ that drove the reopening is older than the OPEN.
    expire(&mut story);
    assert_eq!(story.outcome(first), Some(Err(Errno::ETIMEDOUT)));
    assert_eq!(story.outcome(second), None);
    expire(&mut story);
    assert_eq!(story.outcome(second), Some(Err(Errno::EIO)));
    assert_eq!(story.state(object), State::Close);
}

#[test]
fn a_death_of_the_daemon_gives_no_new_time() {
    let (mut story, object, _) = Story::open();
    let (read, msg_id) = story.read(object);
    story.next();
    story.0.crash();
    story.0.restore();
    story.work();
    let open = story.next();
    story.0.copen_ok(open.msg_id).unwrap();
    assert_eq!(story.next().msg_id, msg_id, "delivered again");
    let (other, _) = story.read(object);
    expire(&mut story);
    assert_eq!(story.outcome(read), Some(Err(Errno::ETIMEDOUT)));
    assert_eq!(story.outcome(other), None);
}

#[test]
fn an_answered_request_is_not_due() {
    let (mut story, object, object_id) = Story::open();
    let reads: Vec<_> = (0..3).map(|_| story.read(object)).collect();
    for _ in 0..3 {
        story.next();
    }
    // From the middle of the list, from its front, from its end.
    for n in [1, 0, 2] {
        let (label, msg_id) = reads[n];
        story.0.read_complete(object_id, msg_id).unwrap();
        story.check();
        assert_eq!(story.outcome(label), Some(Ok(())));
    }
    assert!(!story.0.expire());
}

#[test]
fn many_that_are_due_at_once_end_batch_by_batch() {
    let (mut story, object, _) = Story::open();
    let labels: Vec<_> = (0..40).map(|_| story.read(object).0).collect();
    let table = &mut story.0.table;
    let (mut calls, mut ended) = (0, 0);
    loop {
        let mut fx = Effects::new();
        let next = table.expire(u64::MAX, &mut fx);
        calls += 1;
        for effect in fx.drain() {
            if let Effect::Expire(request, handle) = effect {
                assert_eq!(handle, object);
                assert_eq!(request.ticket, labels[ended], "the oldest first");
                ended += 1;
            }
        }
        if next.is_none() {
            break;
        }
    }
    assert_eq!(ended, 40);
    assert!(calls > 3, "one hold of the lock ends a few");
    assert!(!table.readable());
}

#[test]
fn times_that_come_in_disorder_are_kept_in_order() {
    let (mut story, object, _) = Story::open();
    for clock in [10, 30, 20, 5, 20] {
        story.0.clock = clock;
        story.read(object);
    }
    let table = &mut story.0.table;
    let mut dues = Vec::new();
    while let Some(due) = table.next_due() {
        dues.push(due);
        let mut fx = Effects::new();
        table.expire(due, &mut fx);
    }
    // Those of equal time end together.
    assert_eq!(dues, [6, 11, 21, 31]);
}

#[test]
fn a_drop_and_a_flush_leave_nothing_due() {
    for flush in [false, true] {
        let (mut story, object, _) = Story::open();
        for _ in 0..20 {
            story.read(object);
        }
        if flush {
            story.0.flush();
        } else {
            story.0.drop_object(object);
        }
        // While the walk goes on, what is due is taken by whoever comes first.
        assert!(story.0.expire());
        story.0.resume_all();
        story.check();
        assert!(!story.0.expire());
    }
}

#[test]
fn d18_openings_that_nobody_answers_stop_nobody() {
    let mut story = Story::new();
    for _ in 0..300 {
        story.0.admit();
        story.0.work(0, Ok(())).unwrap();
        assert_eq!(story.next().kind, Kind::Open);
    }
    let (object, open) = story.opening();
    story.0.copen_ok(open.msg_id).unwrap();
    story.close(open.object_id);
    let (read, msg_id) = story.read(object);
    story.work();
    let open = story.next();
    story.0.copen_ok(open.msg_id).unwrap();
    story.next();
    story.0.read_complete(open.object_id, msg_id).unwrap();
    assert_eq!(story.outcome(read), Some(Ok(())));
    for _ in 0..300 {
        assert!(story.0.expire());
    }
    assert!(!story.0.expire());
    story.check();
}
