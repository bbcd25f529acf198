// SPDX-License-Identifier: MIT OR Apache-2.0

//! The checks can fail: each broken rule of the surroundings is found by the same random orders of
//! events that find nothing when no rule is broken.

use crate::events::events;
use crate::events::play;
use ondemand_core::model::Fault;
use proptest::test_runner::Config;
use proptest::test_runner::RngAlgorithm;
use proptest::test_runner::TestError;
use proptest::test_runner::TestRng;
use proptest::test_runner::TestRunner;

/// Plays up to 400 orders, always the same ones, and tells what was found.
fn first_violation(fault: Fault) -> Option<String> {
    let config = Config {
        cases: 400,
        max_shrink_iters: 0,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let result = TestRunner::new_with_rng(config, rng).run(&events(120), |events| {
        play(fault, &events).map_err(proptest::test_runner::TestCaseError::fail)
    });
    match result {
        Ok(()) => None,
        Err(TestError::Fail(why, _)) => Some(why.to_string()),
        Err(TestError::Abort(why)) => panic!("nothing was tried: {why}"),
    }
}

fn is_found(fault: Fault, as_one_of: &[&str]) {
    let why = first_violation(fault).unwrap_or_else(|| panic!("{fault:?} went unnoticed"));
    assert!(
        as_one_of.iter().any(|text| why.contains(text)),
        "{fault:?} was found as: {why}"
    );
}

#[test]
fn no_fault_is_found_without_one() {
    assert_eq!(first_violation(Fault::None), None);
}

#[test]
fn a_forgotten_mark_is_found() {
    is_found(Fault::ForgetMark(5), &["the mark of"]);
}

#[test]
fn a_lost_wake_up_of_the_daemon_is_found() {
    is_found(Fault::DropWake, &["the daemon sleeps"]);
}

#[test]
fn a_lost_reopen_work_is_found() {
    is_found(Fault::DropReopen, &["Reopening(Queued)"]);
}

#[test]
fn an_unfinished_walk_is_found() {
    is_found(
        Fault::SkipResume,
        &["Failed", "Dropping", "a dead table holds"],
    );
}

#[test]
fn a_place_that_is_used_again_too_soon_is_found() {
    is_found(Fault::ReusePlace, &[""]);
}

#[test]
fn a_message_that_is_shown_against_the_tables_word_is_found() {
    is_found(
        Fault::ShowRefused,
        &["fd ", "READ under", "CLOSE of", "shown after its end"],
    );
}

#[test]
fn a_lost_wake_up_of_a_waiter_is_found() {
    is_found(Fault::DropObjectWake, &["would be told", "nobody opens"]);
}
