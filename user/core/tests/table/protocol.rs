// SPDX-License-Identifier: MIT OR Apache-2.0

//! Corners of the protocol: wrong answers, older fds, turns, and the end of the numbers.

use crate::story::Story;
use crate::story::ALL;
use ondemand_core::errno::Errno;
use ondemand_core::ondemand::state::State;

#[test]
fn an_fd_that_an_error_answer_left_behind_changes_nothing_when_it_closes() {
    let mut story = Story::new();
    let (object, stale) = story.opening();
    story.0.copen(stale.msg_id, Err(Errno::ENOENT)).unwrap();
    story.read(object);
    story.work();
    let open = story.next();
    story.0.copen_ok(open.msg_id).unwrap();
    let object_id = open.object_id;
    let read = story.next();
    // A READ is not answered on the other fd.
    let wrong = story.0.read_complete(stale.object_id, read.msg_id);
    assert_eq!(wrong, Err(Errno::EINVAL));
    story.close(stale.object_id);
    assert_eq!(story.state(object), State::Open { object_id });
    story.0.read_complete(object_id, read.msg_id).unwrap();
    story.ends();
}

#[test]
fn answers_to_what_is_not_asked_are_einval_and_change_nothing() {
    let (mut story, object, object_id) = Story::open();
    let (_, read) = story.read(object);
    let other = story.0.admit();
    let open = story.work();
    story.0.begin(0, ALL);
    story.0.begin(1, ALL);
    let before = story.0.table.clone();
    for msg_id in [0, read, open, open + 1, u32::MAX] {
        for answer in [Ok(()), Err(Errno::ENOENT)] {
            assert_eq!(story.0.copen(msg_id, answer), Err(Errno::EINVAL));
        }
        let answer = story.0.read_complete(object_id, msg_id);
        assert_eq!(answer, Err(Errno::EINVAL));
    }
    assert!(story.0.table.view_equals(&before));
    story.0.delivered(0);
    story.0.delivered(1);
    assert_eq!(story.0.copen(read, Ok(())), Err(Errno::EINVAL));
    assert_eq!(story.0.read_complete(object_id, open), Err(Errno::EINVAL));
    story.0.copen_ok(open).unwrap();
    assert!(matches!(story.state(other), State::Open { .. }));
    story.0.read_complete(object_id, read).unwrap();
    assert_eq!(story.0.read_complete(object_id, read), Err(Errno::EINVAL));
    story.ends();
}

#[test]
fn a_late_work_finds_its_object_open() {
    let (mut story, object, object_id) = Story::open();
    story.0.works.push(object);
    assert_eq!(story.0.work(0, Ok(())), Err(Errno::ECANCELED));
    assert_eq!(story.state(object), State::Open { object_id });
    story.ends();
}

#[test]
fn messages_are_delivered_in_turn_around_the_end_of_the_numbers() {
    let mut story = Story::new();
    story.0.next_msg = u32::MAX - 2;
    story.0.table.set_last_object_id(u32::MAX - 1);
    let (object, open) = story.opening();
    assert_eq!((open.msg_id, open.object_id), (u32::MAX - 2, u32::MAX));
    story.0.copen_ok(open.msg_id).unwrap();
    let sent: Vec<u32> = (0..6).map(|_| story.read(object).1).collect();
    assert_eq!(sent, [u32::MAX - 1, u32::MAX, 0, 1, 2, 3]);
    let got: Vec<u32> = sent.iter().map(|_| story.next().msg_id).collect();
    assert_eq!(got, sent);
    // An object_id is never 0, and a msg_id in use is passed over.
    story.0.next_msg = 1;
    let (_, open) = story.opening();
    assert_eq!((open.msg_id, open.object_id), (4, 1));
    story.ends();
}

#[test]
fn a_busy_object_does_not_starve_another() {
    let (mut story, busy, _) = Story::open();
    let (other, open) = story.opening();
    story.0.copen_ok(open.msg_id).unwrap();
    for _ in 0..3 {
        story.read(busy);
    }
    let (_, wanted) = story.read(other);
    let mut turns = 0;
    loop {
        // For each READ that is answered the busy object asks for another.
        let held = story.next();
        story.0.read_complete(held.object_id, held.msg_id).unwrap();
        turns += 1;
        if held.msg_id == wanted {
            break;
        }
        story.read(busy);
        assert!(turns < 8, "starved");
    }
    story.ends();
}

#[test]
fn messages_that_one_thread_leaves_wake_the_next() {
    let (mut story, object, _) = Story::open();
    story.read(object);
    story.read(object);
    story.0.begin(0, ALL);
    let wakes = story.0.wakes;
    story.0.delivered(0);
    assert_eq!(story.0.wakes, wakes + 1);
    story.0.begin(0, ALL);
    let wakes = story.0.wakes;
    story.0.delivered(0);
    assert_eq!(
        story.0.wakes, wakes,
        "there is nothing left to be woken for"
    );
    story.ends();
}
