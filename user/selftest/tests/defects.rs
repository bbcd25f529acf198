// SPDX-License-Identifier: MIT OR Apache-2.0

//! docs/defects.md says of each defect which tests look at it: it must name tests that there are, and
//! every test that carries an id must be named in the row of that id.

use std::collections::BTreeMap;

use ondemand_selftest::tests;

const DOCUMENT: &str = include_str!("../../../docs/defects.md");

/// Tests that are no selftests: the pure core's, and those of the store over power cuts.
const ELSEWHERE: &str = concat!(
    include_str!("../../core/tests/pure/command.rs"),
    include_str!("../../core/tests/pure/ext4.rs"),
    include_str!("../../core/tests/pure/key.rs"),
    include_str!("../../core/tests/pure/present.rs"),
    include_str!("../../core/tests/table/deadlines.rs"),
    include_str!("../../core/tests/table/defects.rs"),
    include_str!("../../core/tests/table/ends.rs"),
    include_str!("../../core/tests/table/mutants.rs"),
    include_str!("../../core/tests/table/protocol.rs"),
    include_str!("../src/store/cut.rs"),
);

/// How a row may say what became of its defect.
const STATUS: [&str; 4] = ["built out", "tested", "done", "not ours"];

/// The cells of the table below a heading, without its head.
fn rows(heading: &str) -> Vec<Vec<&'static str>> {
    let section = DOCUMENT
        .split("\n## ")
        .find(|section| section.starts_with(heading))
        .expect("the heading");
    section
        .lines()
        .filter(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| {
            let cells = line.trim_start_matches('|').trim_end_matches('|');
            cells.split('|').map(str::trim).collect()
        })
        .collect()
}

/// What the heading of the defects begins with; the number of the last one follows.
const DEFECTS: &str = "D1 to D";

fn defects() -> Vec<Vec<&'static str>> {
    rows(DEFECTS)
}

fn cves() -> Vec<Vec<&'static str>> {
    rows("Published CVEs")
}

fn names() -> Vec<&'static str> {
    tests::all().iter().map(|test| test.name).collect()
}

/// The words in backticks that look like names of tests; a `*` at the end stands for several.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2).filter(|word| {
        word.contains('_')
            && word
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_*".contains(&byte))
    })
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(front) => name.starts_with(front),
        None => name == pattern,
    }
}

#[test]
fn each_defect_has_a_row_and_a_status() {
    let ids: Vec<String> = defects().iter().map(|row| row[0].to_owned()).collect();
    let (_, last) = DOCUMENT
        .split_once(&format!("\n## {DEFECTS}"))
        .expect("the heading");
    let last: u32 = last.lines().next().unwrap_or("").parse().expect("a number");
    let wanted: Vec<String> = (1..=last).map(|id| format!("D{id}")).collect();
    assert_eq!(ids, wanted);
    for row in defects() {
        assert_eq!(row.len(), 5, "{row:?}");
        let known = STATUS.iter().any(|status| row[2].starts_with(status));
        assert!(known, "{}: {}", row[0], row[2]);
        let needs_test = row[2].starts_with("tested");
        assert!(!needs_test || quoted(row[4]).next().is_some(), "{row:?}");
    }
}

#[test]
fn what_is_named_is_there() {
    let names = names();
    let cells = defects().into_iter().map(|row| row[4]);
    let cells = cells.chain(cves().into_iter().map(|row| row[2]));
    for pattern in cells.flat_map(quoted) {
        let found = names.iter().any(|name| matches(pattern, name));
        assert!(
            found || ELSEWHERE.contains(pattern.trim_end_matches('*')),
            "there is no test {pattern}"
        );
    }
}

#[test]
fn what_carries_an_id_is_in_its_row() {
    let mut named: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for row in defects() {
        let id: u32 = row[0][1..].parse().expect("D and a number");
        named.insert(format!("d{id:02}"), quoted(row[4]).collect());
    }
    for row in cves() {
        for cve in row[0].split(", ") {
            let id = format!("cve_{}", cve.replace('-', "_"));
            named.insert(id, quoted(row[2]).collect());
        }
    }
    for name in names() {
        let words: Vec<&str> = name.split('_').collect();
        let id = match words[..] {
            ["cve", year, number, ..] => format!("cve_{year}_{number}"),
            [id, ..] if id.len() == 3 && id.starts_with('d') => id.to_owned(),
            _ => continue,
        };
        let patterns = named.get(&id).unwrap_or_else(|| panic!("no row {id}"));
        assert!(
            patterns.iter().any(|pattern| matches(pattern, name)),
            "{name} is not named in the row of {id}"
        );
    }
}
