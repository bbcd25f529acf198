// SPDX-License-Identifier: MIT OR Apache-2.0

//! The reference alone can fail: it finds rules that the surroundings of a table break, in the
//! corpus, without the invariants of the model.

use ondemand_core::model::Fault;
use ondemand_properties::table::judge;
use ondemand_properties::table::Judge;
use std::path::Path;

/// What the reference says to the inputs of the corpus that show the fault.
fn found(fault: Fault) -> Vec<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus/table");
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
        .iter()
        .filter_map(|file| judge(&std::fs::read(file).unwrap(), fault, Judge::Reference).err())
        .collect()
}

/// One input shows the fault as what it is; others may show what follows from it first.
fn is_found(fault: Fault, text: &str) {
    let found = found(fault);
    assert!(!found.is_empty(), "{fault:?} went unnoticed");
    assert!(
        found.iter().any(|why| why.contains(text)),
        "{fault:?} was found as: {}",
        found[0]
    );
}

#[test]
fn nothing_is_found_without_a_fault() {
    assert_eq!(found(Fault::None), Vec::<String>::new());
}

#[test]
fn a_forgotten_mark_is_found() {
    is_found(Fault::ForgetMark(3), "deliverable is");
}

#[test]
fn a_lost_reopen_work_is_found() {
    is_found(Fault::DropReopen, "OPENs to send");
}

#[test]
fn an_unfinished_walk_is_found() {
    is_found(Fault::SkipResume, "nobody was told");
}

#[test]
fn a_message_that_is_shown_against_the_tables_word_is_found() {
    is_found(Fault::ShowRefused, "shown: true, not false");
}

#[test]
fn a_lost_wake_up_of_a_waiter_is_found() {
    is_found(Fault::DropObjectWake, "should be");
}

#[test]
fn a_restore_that_forgets_reads_or_the_right_to_answer_is_found() {
    is_found(Fault::RestoreNoRead, "deliverable is");
    is_found(Fault::RestoreForbidsAnswer, "READ_COMPLETE: ");
}

#[test]
fn a_read_that_is_delivered_twice_is_found() {
    is_found(Fault::DeliverTwice, "deliverable is");
}
