// SPDX-License-Identifier: MIT OR Apache-2.0

//! How each scenario is run.

mod cold;
mod domain;
mod kills;
mod lz4;
mod many;
mod parked;
mod restore;
mod warm;

use anyhow::Result;

use crate::scenario::Scenario;
use crate::session::Watch;
use crate::subject::Subject;
use crate::work::Work;

/// Runs the scenario of `work`, and prints what it measures.
///
/// # Errors
///
/// Something did not work.
pub(crate) fn run(work: &Work, watch: &Watch) -> Result<()> {
    match (work.scenario, work.subject) {
        (Scenario::S5, Subject::Limit) => warm::limit(work),
        (_, Subject::Limit) => cold::limit(work),
        (Scenario::S1, _) => cold::sequential(work, watch),
        (Scenario::S2, _) => cold::random(work, watch, 1, 1),
        (Scenario::S3, _) => cold::random(work, watch, 16, 4),
        (Scenario::S4, _) => cold::random(work, watch, 64, 1),
        (Scenario::S5, _) => warm::run(work, watch),
        (Scenario::S6, _) => many::run(work, watch),
        (Scenario::S7, _) => restore::run(work, watch),
        (Scenario::S8, _) => parked::run(work, watch),
        (Scenario::S9, _) => kills::run(work, watch),
        (Scenario::S10, _) => lz4::run(work, watch),
    }
}
