// SPDX-License-Identifier: MIT OR Apache-2.0

//! The tests, one file a subject.

use crate::harness::Test;

mod batching;
mod bind;
mod buffered;
mod buffered_lost;
mod closing;
mod commit;
mod compressed;
mod containment;
mod contents;
mod culling;
mod cve_requests;
mod cve_teardown;
mod deadline;
mod device_commands;
mod disk_frozen;
mod disk_full;
mod domains;
mod failover;
mod fetching;
mod healing;
mod identity;
mod load;
mod lookups;
mod mapping;
mod memory;
mod messages;
mod mockd;
mod mockd_process;
mod module;
mod opening;
mod races;
mod races_answers;
mod races_ending;
mod races_opening;
mod races_reading;
mod reading;
mod reopening;
mod restoring;
mod security;
mod store;
mod suspend;
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
        lookups::TESTS,
        fetching::TESTS,
        batching::TESTS,
        buffered::TESTS,
        buffered_lost::TESTS,
        mapping::TESTS,
        memory::TESTS,
        closing::TESTS,
        reopening::TESTS,
        failover::TESTS,
        restoring::TESTS,
        deadline::TESTS,
        races::TESTS,
        races_answers::TESTS,
        races_opening::TESTS,
        races_reading::TESTS,
        races_ending::TESTS,
        store::TESTS,
        identity::TESTS,
        contents::TESTS,
        told_size::TESTS,
        healing::TESTS,
        commit::TESTS,
        culling::TESTS,
        containment::TESTS,
        disk_full::TESTS,
        disk_frozen::TESTS,
        suspend::TESTS,
        security::TESTS,
        domains::TESTS,
        load::TESTS,
        mockd::TESTS,
        mockd_process::TESTS,
        cve_requests::TESTS,
        cve_teardown::TESTS,
        module::TESTS,
    ]
    .concat()
}
