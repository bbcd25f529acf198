// SPDX-License-Identifier: MIT OR Apache-2.0

//! The table at the end.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde_json::Value;

/// The daemon's counters that the table shows: what it is called, and the names
/// under which it may stand in `stats.json`.
const COUNTERS: [(&str, &str); 5] = [
    ("OPENs", "opens"),
    ("reopens", "reopens"),
    ("READs", "reads"),
    ("bytes filled", "bytes"),
    ("objects culled", "culled_objects"),
];

/// A number with a space between each three digits.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

fn cell(value: &Value) -> String {
    match value {
        Value::Number(n) => n
            .as_u64()
            .map_or_else(|| format!("{:.1}", n.as_f64().unwrap_or(0.0)), grouped),
        Value::Null => "?".to_owned(),
        other => other.to_string(),
    }
}

/// What `scripts/testing` adds up over runs: events that were counted, in one line.
fn events(result: &Value) -> String {
    let mut line = "events:".to_owned();
    for name in ["kills", "early_kills", "keeper_kills", "files", "bytes"] {
        if let Some(count) = result[name].as_u64() {
            line += &format!(" {name}={count}");
        }
    }
    line
}

/// Prints what a storm came to, its errors first; true when there are none.
pub(crate) fn print(result: &Value, errors: &[String]) -> bool {
    println!("{}", events(result));
    for error in errors.iter().take(20) {
        println!("error: {error}");
    }
    if errors.len() > 20 {
        println!("and {} more errors", errors.len() - 20);
    }
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED);
    let mut row = |name: &str, value: String| {
        table.add_row(vec![name.to_owned(), value]);
    };
    row("files read and compared", cell(&result["files"]));
    row("bytes read and compared", cell(&result["bytes"]));
    row("daemon killed", cell(&result["kills"]));
    // What the storm that is measured in kills has besides.
    for (name, key) in [
        ("and before it served", "early_kills"),
        ("keeper killed", "keeper_kills"),
        ("rounds", "rounds"),
    ] {
        if !result[key].is_null() {
            row(name, cell(&result[key]));
        }
    }
    for (name, key) in COUNTERS {
        row(name, cell(&result["daemon"][key]));
    }
    row(
        "errors",
        grouped(u64::try_from(errors.len()).unwrap_or(u64::MAX)),
    );
    if !result["reading_seconds"].is_null() {
        row("seconds reading", cell(&result["reading_seconds"]));
    }
    row("seconds in all", cell(&result["seconds"]));
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
    println!("{}", if errors.is_empty() { "PASS" } else { "FAIL" });
    errors.is_empty()
}

/// Prints a row for each reader: what it got, and how long it was without.
pub(crate) fn print_gaps(result: &Value) {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED);
    table.set_header(["reader", "bytes", "gaps", "p50 ms", "p99 ms", "max ms"]);
    let mut row = |name: String, bytes: String, of: &Value, count: &str| {
        let number = |key: &str| cell(&of[key]);
        table.add_row([
            name,
            bytes,
            number(count),
            number("p50_ms"),
            number("p99_ms"),
            number("max_ms"),
        ]);
    };
    for reader in result["readers"].as_array().into_iter().flatten() {
        let name = reader["reader"].as_str().unwrap_or("?").to_owned();
        row(name, cell(&reader["bytes"]), reader, "gaps");
    }
    row(
        "mounting".to_owned(),
        String::new(),
        &result["mounts"],
        "count",
    );
    for column in 1..6 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    println!("{table}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_in_threes() {
        for (n, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1 000"),
            (1_234_567, "1 234 567"),
        ] {
            assert_eq!(grouped(n), text);
        }
    }

    #[test]
    fn events_are_those_that_were_counted() {
        let result = serde_json::json!({"kills": 50, "bytes": 7, "errors": []});
        assert_eq!(events(&result), "events: kills=50 bytes=7");
    }

    #[test]
    fn errors_fail() {
        assert!(print(&Value::Null, &[]));
        assert!(!print(&Value::Null, &["one".to_owned()]));
    }
}
