// SPDX-License-Identifier: MIT OR Apache-2.0

//! What of a table and its reference has to be the same between events.

use super::play::Player;
use super::reference::Reference;
use super::reference::State;
use ondemand_core::model::Sim;
use ondemand_core::ondemand::delivery::Selected;
use ondemand_core::ondemand::queue::Effects;
use ondemand_core::ondemand::state;
use ondemand_core::ondemand::state::Opening;

/// Compares everything, and tells the reference who was told what.
pub(super) fn all(player: &mut Player) -> Result<(), String> {
    let Player { sim, reference, .. } = player;
    ends(sim, reference)?;
    deliverable(sim, reference)?;
    surroundings(sim, reference)?;
    if sim.pending.is_empty() {
        rest(sim, reference)
    } else {
        // The same must hold once everybody has done what is left to do.
        let mut later = sim.clone();
        later.resume_all();
        let mut reference = reference.clone();
        ends(&later, &mut reference)?;
        rest(&mut later, &reference)
    }
}

/// Who was told an end was told the right one.
fn ends(sim: &Sim, reference: &mut Reference) -> Result<(), String> {
    ensure!(
        sim.ledger.len() == reference.requests.len(),
        "{} requests, not {}",
        sim.ledger.len(),
        reference.requests.len()
    );
    for index in 0..reference.requests.len() {
        let account = &sim.ledger[&reference.requests[index].label];
        if let Some(outcome) = account.outcome {
            reference.tell(index, outcome)?;
        }
    }
    Ok(())
}

/// `poll` and `read` see the same messages.
fn deliverable(sim: &Sim, reference: &Reference) -> Result<(), String> {
    let expected = reference.deliverable();
    let mut copy = sim.table.clone();
    ensure!(
        copy.readable() != expected.is_empty(),
        "poll says {}, and deliverable is {expected:?}",
        copy.readable()
    );
    let mut found = Vec::new();
    while let Selected::Message(delivery) = copy.select(usize::MAX, &mut Effects::new()) {
        found.push(delivery.msg_id);
    }
    found.sort_unstable();
    ensure!(
        found == expected,
        "deliverable is {found:?}, not {expected:?}"
    );
    Ok(())
}

/// The same work is left to do, and the same readers sleep.
fn surroundings(sim: &Sim, reference: &Reference) -> Result<(), String> {
    let works: Vec<usize> = sim.works.iter().map(|label| *label as usize).collect();
    ensure!(
        works == reference.works,
        "OPENs to send: {works:?}, not {:?}",
        reference.works
    );
    let checks: Vec<(usize, u32)> = sim
        .checks
        .iter()
        .map(|opened| (opened.handle as usize, opened.object_id))
        .collect();
    ensure!(
        checks == reference.checks,
        "files to check: {checks:?}, not {:?}",
        reference.checks
    );
    // A walk that is not finished may still have to wake somebody.
    for (found, expected) in sim.waiters.iter().zip(&reference.waiters) {
        ensure!(
            found.told == expected.told,
            "{found:?} should be {expected:?}"
        );
    }
    let fds: Vec<u32> = sim.fds.keys().copied().collect();
    let mut expected: Vec<u32> = reference.fds.iter().map(|(id, _)| *id).collect();
    expected.sort_unstable();
    ensure!(fds == expected, "fds {fds:?}, not {expected:?}");
    Ok(())
}

/// All that has ended was told, and the objects are in the same states.
fn rest(sim: &mut Sim, reference: &Reference) -> Result<(), String> {
    for request in &reference.requests {
        ensure!(
            request.told == request.ended.is_some(),
            "nobody was told of {request:?}"
        );
    }
    let found = sim.table.view_objects();
    for (index, object) in reference.objects.iter().enumerate() {
        let entry = found.iter().find(|entry| entry.handle as usize == index);
        let gone = reference.is_gone(index);
        ensure!(
            entry.is_none() == gone,
            "object {index} is {entry:?}, gone: {gone}"
        );
        let Some(entry) = entry else { continue };
        let msg_id = |request: usize| reference.requests[request].msg_id;
        let same = match (object.state, entry.state) {
            (State::Close, state::State::Close) | (State::Dropping, state::State::Dropping) => true,
            (State::Open(expected), state::State::Open { object_id }) => expected == object_id,
            (State::Queued, state::State::Reopening(Opening::Queued))
            | (State::Checking, state::State::Reopening(Opening::Validating)) => true,
            (
                State::Opening(request),
                state::State::Reopening(Opening::Pending { msg_id: found }),
            ) => msg_id(request) == Some(found),
            _ => false,
        };
        ensure!(
            same,
            "object {index} is {:?}, not {:?}",
            entry.state,
            object.state
        );
    }
    Ok(())
}
