// SPDX-License-Identifier: MIT OR Apache-2.0

//! Each property can fail: a rule is broken on purpose, and the exploration finds it, as what it is.

use ondemand_core::model::Fault;
use ondemand_model::explore;
use ondemand_model::explore::Options;
use ondemand_model::explore::Violation;
use ondemand_model::scope::Budget;
use ondemand_model::scope::Threads;
use ondemand_model::Property;
use ondemand_model::Scope;

/// Two READs of one object, and what else the fault takes.
fn scope(threads: Threads, unplanned: Budget) -> Scope {
    Scope {
        name: "mutant",
        objects: 1,
        budget: Budget {
            readers: 2,
            ..unplanned
        },
        threads,
        refusals: true,
    }
}

fn found(scope: &Scope, options: Options) -> Option<Violation> {
    // Without a fault the same exploration finds nothing.
    let sound = Options {
        fault: Fault::None,
        ..options
    };
    let outcome = explore(scope, sound);
    assert!(outcome.complete, "{:?}", outcome.violation);
    explore(scope, options).violation
}

fn is_found_in(scope: &Scope, fault: Fault, property: Property, why: &str) {
    let options = Options {
        fault,
        ..Options::default()
    };
    let violation = found(scope, options).unwrap_or_else(|| panic!("{fault:?} went unnoticed"));
    assert_eq!(violation.property, property, "{violation:?}");
    assert!(violation.why.contains(why), "{violation:?}");
    assert!(!violation.path.is_empty());
}

fn is_found(unplanned: Budget, fault: Fault, property: Property, why: &str) {
    is_found_in(&scope(Threads::Eager, unplanned), fault, property, why);
}

const CALM: Budget = Budget {
    readers: 0,
    kills: 0,
    closes: 0,
    crashes: 0,
    restores: 0,
    failures: 0,
    wrongs: 0,
    expiries: 0,
    drops: 0,
    lookups: 0,
    flushes: 0,
};

#[test]
fn d07_an_endless_reopen_is_found_by_the_search_for_cycles_alone() {
    let budget = Budget { closes: 1, ..CALM };
    let scope = scope(Threads::Eager, budget);
    let fault = Fault::PutBackRefused;
    is_found_in(&scope, fault, Property::ServingEnds, "lead back");

    let safety_alone = Options {
        fault,
        liveness: false,
        ..Options::default()
    };
    assert!(found(&scope, safety_alone).is_none());
}

#[test]
fn d05_a_read_that_is_lost_with_its_fd_is_found() {
    let budget = Budget { closes: 1, ..CALM };
    let fault = Fault::LoseDelivered;
    is_found(budget, fault, Property::Invariants, "Delivered");

    let liveness_alone = Options {
        fault,
        safety: false,
        ..Options::default()
    };
    let scope = scope(Threads::Eager, budget);
    let violation = found(&scope, liveness_alone).expect("a READ that never ends");
    assert_eq!(violation.property, Property::NobodyWaits, "{violation:?}");
}

#[test]
fn d06_a_restore_that_reissues_an_open_with_a_living_fd_is_found() {
    let budget = Budget {
        restores: 1,
        ..CALM
    };
    is_found(
        budget,
        Fault::ReissueLiving,
        Property::Invariants,
        "is held already",
    );
}

#[test]
fn a_read_under_a_stale_object_id_is_found() {
    let budget = Budget { closes: 1, ..CALM };
    is_found(budget, Fault::StaleRead, Property::Invariants, "READ under");
    is_found(
        budget,
        Fault::ShowRefused,
        Property::Invariants,
        "READ under",
    );
}

#[test]
fn a_lost_wake_up_of_the_daemon_is_found() {
    is_found(
        CALM,
        Fault::DropWake,
        Property::Invariants,
        "lost wake-up: a message",
    );
    let budget = Budget { closes: 1, ..CALM };
    let sleeping = scope(Threads::Sleeping, budget);
    let why = "every thread sleeps";
    is_found_in(&sleeping, Fault::WakeNoNext, Property::Invariants, why);
}

#[test]
fn a_lost_wake_up_of_a_waiter_is_found() {
    let fault = Fault::DropObjectWake;
    is_found(CALM, fault, Property::Invariants, "lost wake-up: Waiter");
}

#[test]
fn a_fd_that_is_installed_for_a_refused_open_is_found() {
    let budget = Budget { drops: 1, ..CALM };
    is_found(budget, Fault::ShowRefused, Property::Invariants, "fd ");
}

#[test]
fn a_message_that_is_shown_after_its_end_is_found() {
    for budget in [
        Budget { kills: 1, ..CALM },
        Budget {
            expiries: 1,
            ..CALM
        },
    ] {
        is_found(
            budget,
            Fault::ShowEnded,
            Property::Invariants,
            "shown after its end",
        );
    }
}

#[test]
fn a_late_answer_that_is_accepted_is_found() {
    let budget = Budget {
        expiries: 1,
        ..CALM
    };
    is_found(
        budget,
        Fault::LateAnswer,
        Property::WrongAnswers,
        "legal false",
    );
}

#[test]
fn an_answer_that_counts_twice_or_gets_lost_is_found() {
    is_found(
        CALM,
        Fault::AnswerTwice,
        Property::Invariants,
        "though it has ended",
    );
    is_found(
        CALM,
        Fault::LoseAnswer,
        Property::Invariants,
        "is queued 0 times",
    );
}

#[test]
fn a_restore_that_restores_nothing_is_found() {
    let budget = Budget { crashes: 1, ..CALM };
    is_found(
        budget,
        Fault::RestoreNothing,
        Property::NobodyWaits,
        "is left",
    );
}

#[test]
fn a_read_that_restore_does_not_bring_back_is_found() {
    let budget = Budget { crashes: 1, ..CALM };
    for fault in [Fault::RestoreNoRead, Fault::RestoreForgetsDelivery] {
        is_found(budget, fault, Property::NobodyWaits, "is left");
    }
}

#[test]
fn a_restore_that_takes_the_right_to_answer_is_found() {
    let budget = Budget {
        restores: 1,
        ..CALM
    };
    let fault = Fault::RestoreForbidsAnswer;
    is_found(budget, fault, Property::Invariants, "cannot be answered");
}

#[test]
fn a_read_that_is_delivered_twice_without_restore_is_found() {
    is_found(
        CALM,
        Fault::DeliverTwice,
        Property::Invariants,
        "without a restore",
    );
}

#[test]
fn what_a_flush_leaves_is_found() {
    let budget = Budget { flushes: 1, ..CALM };
    is_found(
        budget,
        Fault::FlushLeaves,
        Property::Invariants,
        "a dead table holds",
    );
}

#[test]
fn an_entry_that_stays_is_found() {
    let budget = Budget { drops: 1, ..CALM };
    is_found(
        budget,
        Fault::KeepEntry,
        Property::NothingLeft,
        "forgotten: true",
    );
}

#[test]
fn a_poll_that_lies_is_found() {
    is_found(
        CALM,
        Fault::PollLies,
        Property::Invariants,
        "poll against marks",
    );
}

#[test]
fn a_lost_mark_a_lost_work_and_a_lost_walk_are_found() {
    let budget = Budget { closes: 1, ..CALM };
    let invariants = Property::Invariants;
    is_found(budget, Fault::ForgetMark(2), invariants, "the mark of");
    is_found(budget, Fault::DropReopen, invariants, "Reopening(Queued)");
    is_found(budget, Fault::SkipResume, Property::NothingLeft, "Dropping");
}
