// SPDX-License-Identifier: MIT OR Apache-2.0

//! The request table: whatever happens in whatever order, it does what the reference does, keeps its
//! invariants ([`Sim::check`]), and comes to an end.
//!
//! The table is played by the model of its surroundings, [`Sim`], and the same event is told to the
//! [reference](mod@reference); after each, both are compared (`compare`). Events are three bytes each, of
//! which the first has room for more kinds (`script`), so that a corpus keeps its meaning when a kind is
//! added.
//!
//! [`Sim`]: ondemand_core::model::Sim
//! [`Sim::check`]: ondemand_core::model::Sim::check

mod compare;
mod play;
pub mod reference;
mod reference_daemon;
mod reference_ends;
mod script;

use ondemand_core::model::Fault;
use ondemand_core::model::Policy;
use play::Player;

/// What judges a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judge {
    /// The reference alone.
    Reference,
    /// The reference, the invariants, and that everything can end.
    All,
}

/// The bytes are events.
///
/// # Errors
///
/// Says what does not hold, after which events.
pub fn holds(data: &[u8]) -> Result<(), String> {
    judge(data, Fault::None, Judge::All)
}

/// Plays the events in surroundings that break a rule.
///
/// # Errors
///
/// Says what does not hold, after which events.
pub fn judge(data: &[u8], fault: Fault, judge: Judge) -> Result<(), String> {
    let (start, events) = script::read(data);
    let mut player = Player::new(fault, start);
    for (step, event) in events.iter().enumerate() {
        let at = |why| format!("{:#?}\nevent {step}: {why}", &events[..=step]);
        if player.play(*event).map_err(at)?.is_none() {
            continue;
        }
        compare::all(&mut player).map_err(at)?;
        if judge == Judge::All {
            player.sim.check().map_err(at)?;
        }
    }
    if judge == Judge::All {
        let at = |why| format!("{events:#?}\nat the end: {why}");
        for policy in [Policy::Same, Policy::Successor, Policy::Stranger] {
            let served = player.sim.clone().serve(policy).map_err(at)?;
            served.tear_down(false).map_err(at)?;
        }
        player.sim.clone().tear_down(true).map_err(at)?;
    }
    Ok(())
}
