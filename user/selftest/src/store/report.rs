// SPDX-License-Identifier: MIT OR Apache-2.0

//! KTAP for steps that build on one another and run in this process.

use std::fmt::Display;
use std::process::ExitCode;

use anyhow::ensure;
use anyhow::Result;

use crate::harness::kmsg::KernelLog;

/// Prints a result a step.
#[derive(Debug, Default)]
pub struct Report {
    number: u32,
    failed: u32,
}

impl Report {
    /// The header, for so many steps.
    #[must_use]
    pub fn new(steps: usize) -> Self {
        println!("KTAP version 1\n1..{steps}");
        Report::default()
    }

    /// For a part of a report: no header, and so many results stand before.
    #[must_use]
    pub fn after(number: u32) -> Self {
        Report { number, failed: 0 }
    }

    /// Runs a step and prints its result; what it returned, if it passed. A step during which the
    /// kernel reports an error of its own has failed.
    pub fn step<T>(&mut self, name: &str, run: impl FnOnce() -> Result<T>) -> Option<T> {
        self.number += 1;
        let number = self.number;
        match watched(run) {
            Ok(value) => {
                println!("ok {number} - {name}");
                Some(value)
            }
            Err(error) => {
                self.failed += 1;
                comment(format!("{error:#}"));
                println!("not ok {number} - {name}");
                None
            }
        }
    }

    /// The program's exit status: 0 if every step passed, 1 if not.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        if self.failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

/// Prints lines that belong to the result that follows.
pub fn comment(text: impl Display) {
    for line in text.to_string().lines() {
        println!("# {line}");
    }
}

fn watched<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
    let log = KernelLog::end()?;
    let value = run();
    let reports: Vec<String> = log
        .lines()
        .into_iter()
        .filter(|line| line.report)
        .map(|line| line.text)
        .collect();
    let value = value?;
    ensure!(
        reports.is_empty(),
        "the kernel reported:\n{}",
        reports.join("\n")
    );
    Ok(value)
}
