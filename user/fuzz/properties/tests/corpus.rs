// SPDX-License-Identifier: MIT OR Apache-2.0

//! The fuzzer's corpus, as a regression test: each input that it ever needed, without a fuzzer.

use ondemand_properties::command;
use ondemand_properties::key;
use ondemand_properties::table;
use ondemand_properties::xattr;
use std::path::Path;

/// Plays the inputs of one target and tells how many there are.
fn play(target: &str, holds: impl Fn(&[u8]) -> Result<(), String>) -> usize {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../corpus")
        .join(target);
    let entries = std::fs::read_dir(&directory).unwrap();
    let files = entries.map(|entry| entry.unwrap().path());
    files
        .map(|file| {
            let data = std::fs::read(&file).unwrap();
            if let Err(why) = holds(&data) {
                panic!("{}: {why}", file.display());
            }
        })
        .count()
}

#[test]
fn commands() {
    assert!(play("command", command::holds) >= 10);
}

#[test]
fn keys() {
    assert!(play("key", key::holds) >= 10);
}

#[test]
fn attributes() {
    assert!(play("xattr", xattr::holds) >= 10);
}

#[test]
fn orders_of_events() {
    assert!(play("table", table::holds) >= 10);
}
