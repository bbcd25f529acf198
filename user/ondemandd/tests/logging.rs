// SPDX-License-Identifier: MIT OR Apache-2.0

//! The log of whole processes.

use std::process::Command;
use std::process::Output;
use std::process::Stdio;

use serde_json::Value;

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ondemandd"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// The lines of a log in JSON, each held against what every line has.
fn lines(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stderr).unwrap();
    let line = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        for field in ["timestamp", "level", "target", "message"] {
            assert!(value[field].is_string(), "{field}: {line}");
        }
        value
    };
    text.lines().map(line).collect()
}

#[test]
fn the_configuration_chooses_json_for_the_keeper() {
    let root = tempfile::tempdir().unwrap();
    let config = root.path().join("c.toml");
    // There is no such source, so the keeper ends before it opens the device.
    let text = "cache = '/c'\nsource = '/nonexistent'\nlog-format = 'json'\n";
    let run_dir = format!("run-dir = '{}'\n", root.path().join("run").display());
    std::fs::write(&config, text.to_owned() + &run_dir).unwrap();
    let config = config.to_str().unwrap();

    let output = run(&["serve", "--config", config]);
    assert_eq!(output.status.code(), Some(1));
    let lines = lines(&output);
    let last = lines.last().unwrap();
    assert_eq!(last["level"], "ERROR");
    let error = last["error"].as_str().unwrap();
    assert!(error.contains("/nonexistent"), "{error}");

    let output = run(&["serve", "--config", config, "--log-format=human"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("ERROR") && !text.starts_with('{'), "{text}");
}

#[test]
fn a_worker_logs_json() {
    let args = ["--log-format=json", "worker", "--source=/", "--threads=1"];
    let output = run(&args);
    let lines = lines(&output);
    assert_eq!(lines.last().unwrap()["message"], "worker ends", "{lines:?}");
}

#[test]
fn a_configuration_that_cannot_be_read_is_told_in_the_format_of_the_flag() {
    let output = run(&["--log-format=json", "serve", "--config=/nonexistent.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(lines(&output).len(), 1);
}
