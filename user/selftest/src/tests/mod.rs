// SPDX-License-Identifier: MIT OR Apache-2.0

//! The tests, one file a subject.

use crate::harness::Test;

mod device_commands;
mod failover;

/// All tests in the order in which they are run.
#[must_use]
pub fn all() -> Vec<Test> {
    [device_commands::TESTS, failover::TESTS].concat()
}
