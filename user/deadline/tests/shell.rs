// SPDX-License-Identifier: MIT OR Apache-2.0

//! `scripts/deadline.sh`, which is the same for scripts of bash.

use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use ondemand_deadline::MAX_FACTOR;
use ondemand_deadline::VARIABLE;

/// Runs these commands after the file; returns their status and output.
fn bash(percent: &str, commands: &str) -> (Option<i32>, String) {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/deadline.sh");
    let output = Command::new("bash")
        .args(["-c", "set -euo pipefail; . \"$0\"; eval \"$1\"", file])
        .arg(commands)
        .env(VARIABLE, percent)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), said.trim().to_owned())
}

#[test]
fn seconds_have_the_same_limits() {
    for (percent, seconds) in [
        ("", "60"),
        ("fast", "60"),
        ("-5", "60"),
        ("0", "60"),
        ("99", "60"),
        ("100", "60"),
        ("101", "61"),
        ("250", "150"),
        ("2000", "1200"),
        ("2001", "1200"),
        ("99999999999", "1200"),
    ] {
        assert_eq!(
            bash(percent, "seconds 60"),
            (Some(0), seconds.to_owned()),
            "{percent:?}"
        );
    }
}

#[test]
fn what_happens_is_waited_for() {
    let appears = "i=0; looks() { ((++i > 3)); }; within_seconds 60 looks && echo $i";
    assert_eq!(bash("100", appears), (Some(0), "4".to_owned()));
}

#[test]
fn what_does_not_is_given_up() {
    let start = Instant::now();
    assert_eq!(bash("100", "within_seconds 1 false").0, Some(1));
    let took = start.elapsed();
    // A little less, for the clocks are two.
    assert!(took > Duration::from_millis(950), "{took:?}");
}

#[test]
fn a_busy_machine_has_more_and_not_without_end() {
    // A clock of microseconds that goes on by half a second whenever it is looked at, and a measurement
    // that needs none.
    let fake =
        "NOW=0; microseconds() { NOW=$((NOW + 500000)); }; slowness() { :; }; sleep() { :; }; \
                within_seconds 10 false || echo $((NOW / 1000000))";
    let waited = |slowness: u32| {
        let (status, said) = bash("100", &format!("SLOWNESS={slowness}; {fake}"));
        assert_eq!(status, Some(0));
        said.parse::<u32>().unwrap()
    };
    let quiet = waited(100);
    assert!((10..=12).contains(&quiet), "{quiet} s");
    let busy = waited(300);
    assert!((30..=34).contains(&busy), "{busy} s");
    let most = 10 * MAX_FACTOR;
    let stuck = waited(100_000);
    assert!((most..=most + 2).contains(&stuck), "{stuck} s");
}

#[test]
fn slowness_has_limits() {
    let (status, said) = bash("100", "slowness; echo $SLOWNESS");
    assert_eq!(status, Some(0));
    let slowness: u32 = said.parse().unwrap();
    assert!((100..=MAX_FACTOR * 100).contains(&slowness), "{slowness}");
}
