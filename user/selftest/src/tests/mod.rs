// SPDX-License-Identifier: MIT OR Apache-2.0

//! The tests, one file a subject.

use crate::harness::Test;

mod bind;
mod closing;
mod compressed;
mod device_commands;
mod domains;
mod failover;
mod load;
mod messages;
mod module;
mod opening;
mod reading;
mod reopening;
mod store;
mod told_size;

/// All tests in the order in which they are run.
#[must_use]
pub fn all() -> Vec<Test> {
    [
        device_commands::TESTS,
        bind::TESTS,
        messages::TESTS,
        opening::TESTS,
        reading::TESTS,
        compressed::TESTS,
        closing::TESTS,
        reopening::TESTS,
        failover::TESTS,
        store::TESTS,
        told_size::TESTS,
        domains::TESTS,
        load::TESTS,
        module::TESTS,
    ]
    .concat()
}
